"""Programs in each language as users of the official Python SDK run them.

TypeScript is run by the real ts-node and by the real tsx, each on the PATH of a daemon.

Source: Process API contract, sections 7 and 19 (item 3).
"""

import base64
import gc
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from daytona.common.charts import (
    BarChart,
    BoxAndWhiskerChart,
    Chart,
    CompositeChart,
    LineChart,
    PieChart,
    ScatterChart,
)
from daytona.common.process import CodeRunParams, ExecuteResponse

from tests.compat.python.sdk import AsyncSdk, SyncSdk, value
from tests.daemon.daemon import PATH, Daemon

Run = Callable[..., Awaitable[ExecuteResponse]]

# An installation of Node's packages may have to fetch them.
pytestmark = pytest.mark.timeout(300)

ARGUMENTS: Final = ["two  words", "it's", '"', "$HOME", "; echo no", "*", "", "-v", "é€😀\n"]
TYPESCRIPT: Final = ("ts-node", "tsx")


@pytest.fixture(scope="module")
def daemons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Daemon]]:
    """Daemons by what is on their PATH beside this Python; nothing may be left in them."""
    running: dict[str, Daemon] = {}
    idle: dict[str, int] = {}

    def daemon(also: str) -> Daemon:
        if also not in running:
            running[also] = Daemon.start(
                env={"PATH": f"{PATH}:{also}"}, cwd=str(tmp_path_factory.mktemp("work"))
            )
            idle[also] = running[also].idle_descriptors()
        return running[also]

    yield daemon
    gc.collect()  # exceptions of the sync SDK hold its connections
    try:
        for also, each in running.items():
            assert each.leaks(idle[also]) == []
            assert each.stop() == 0, each.stderr()
            assert "Traceback" not in each.stderr(), each.stderr()
    finally:
        for each in running.values():
            each.discard()


@pytest.fixture(params=["sync", "async"])
async def run_with(
    request: pytest.FixtureRequest, daemons: Callable[[str], Daemon]
) -> AsyncIterator[Callable[..., Run]]:
    """`code_run` of an SDK object for a language, with a folder on the daemon's PATH."""
    made: list[SyncSdk | AsyncSdk] = []

    def run_with(language: str, folder: str = "/") -> Run:
        flavour = SyncSdk if request.param == "sync" else AsyncSdk
        sdk = flavour.at(daemons(folder).url, language)
        made.append(sdk)

        async def run(
            code: str,
            argv: list[str] | None = None,
            env: dict[str, str] | None = None,
            timeout: int | None = None,
        ) -> ExecuteResponse:
            params = None if argv is None and env is None else CodeRunParams(argv=argv, env=env)
            reply = await value(sdk.process.code_run(code, params, timeout))
            assert isinstance(reply, ExecuteResponse)
            return reply

        return run

    yield run_with
    for each in made:
        await each.aclose()


@pytest.fixture
async def python(run_with: Callable[..., Run]) -> Run:
    return run_with("python")


@pytest.fixture
async def javascript(run_with: Callable[..., Run], node: str) -> Run:
    return run_with("javascript")


@pytest.fixture(params=TYPESCRIPT)
async def typescript(
    request: pytest.FixtureRequest,
    run_with: Callable[..., Run],
    node_modules: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Run:
    """With one of the runners on the PATH, and not the other."""
    folder = tmp_path_factory.getbasetemp() / request.param
    folder.mkdir(exist_ok=True)
    if not (folder / request.param).exists():
        (folder / request.param).symlink_to(node_modules / ".bin" / request.param)
    return run_with("typescript", str(folder))


async def test_python(python: Run) -> None:
    reply = await python("import sys\nprint('out')\nprint('err', file=sys.stderr)\nprint('end')")
    assert reply.exit_code == 0
    assert sorted(reply.result.splitlines()) == ["end", "err", "out"]
    assert reply.artifacts is not None
    assert reply.artifacts.stdout == reply.result
    assert reply.artifacts.charts == []


async def test_python_arguments(python: Run) -> None:
    reply = await python("import json, sys; print(json.dumps(sys.argv))", argv=ARGUMENTS)
    assert json.loads(reply.result) == ["-", *ARGUMENTS]


@pytest.mark.parametrize(
    ("first_line", "file"),
    [("pass", "<stdin>"), ("import matplotlib", "<target_code>")],
    ids=["plain", "charting"],
)
async def test_python_exception(python: Run, first_line: str, file: str) -> None:
    reply = await python(f"{first_line}\ndef f():\n    raise ValueError('é')\n\nf()")
    assert reply.exit_code == 1
    assert reply.result.startswith(f'Traceback (most recent call last):\n  File "{file}", line 5')
    assert f'File "{file}", line 3, in f' in reply.result
    assert reply.result.endswith("ValueError: é\n")
    assert "procd" not in reply.result


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        ("raise SystemExit(3)", 3), ("exit()", 0), ("import os; os._exit(255)", 255),
        ("import sys; sys.exit('why')", 1), ("import os; os.kill(os.getpid(), 9)", 137),
        ("import matplotlib; raise SystemExit(3)", 3), ("if", 1),
    ],
)  # fmt: skip
async def test_python_exit_codes(python: Run, code: str, exit_code: int) -> None:
    assert (await python(code)).exit_code == exit_code


async def test_four_megabytes(python: Run) -> None:
    reply = await python("print('\\n'.join(map(str, range(600000))))")
    assert reply.result == "".join(f"{number}\n" for number in range(600_000))


@pytest.mark.parametrize("language", ["python", "javascript"])
async def test_timeout(run_with: Callable[..., Run], node: str, language: str) -> None:
    """This SDK lets the errors of its generated client through."""
    code = {"python": "print('up')\nwhile True: pass", "javascript": "setInterval(() => {}, 9e5)"}
    with pytest.raises(Exception, match="timeout") as late:
        await run_with(language)(code[language], timeout=1)
    assert late.value.status == 408  # type: ignore[attr-defined]  # of the client's own class
    body: dict[str, Any] = json.loads(late.value.body)  # type: ignore[attr-defined]  # as above
    assert (body["source"], body["code"]) == ("DAYTONA_DAEMON", "PROCESS_EXECUTION_TIMEOUT")
    assert body["message"] == "command execution timeout"


async def test_unknown_language(run_with: Callable[..., Run]) -> None:
    with pytest.raises(Exception, match="unsupported language: ruby") as refused:
        await run_with("ruby")("puts 1")
    assert refused.value.status == 400  # type: ignore[attr-defined]  # of the client's own class


async def test_javascript(javascript: Run) -> None:
    reply = await javascript("const os = require('os')\nconsole.log(typeof os.EOL, 6 * 7)")
    assert (reply.result, reply.exit_code) == ("string 42\n", 0)


async def test_javascript_arguments(javascript: Run) -> None:
    code = "console.log(JSON.stringify(process.argv.slice(1)))"
    assert json.loads((await javascript(code, argv=ARGUMENTS)).result) == ARGUMENTS


async def test_javascript_exception(javascript: Run) -> None:
    reply = await javascript("console.log('é')\n\nthrow new TypeError('why')", env={"A": "b"})
    assert reply.exit_code == 1
    assert "TypeError: why\n" in reply.result
    assert ":3" in reply.result
    assert "é\n" in reply.result
    assert (await javascript("process.exit(7)")).exit_code == 7
    assert (await javascript("console.log(process.env.A)", env={"A": "b c"})).result == "b c\n"


PROGRAM: Final = """\
import { sep } from 'path'
enum Colour { Red = 'r', Green = 'g' }
interface Point { x: number; y: number }
class Box<T> { constructor(private readonly content: T) {} get = (): T => this.content }
const point: Point = { x: 6, y: 7 }
const wrong: number = 'types are not checked'
console.log(new Box(point.x * point.y).get(), Colour.Green, sep, wrong.length)
console.log(JSON.stringify(process.argv.slice(1)))
"""


async def test_typescript(typescript: Run) -> None:
    reply = await typescript(PROGRAM, argv=ARGUMENTS)
    first, second = reply.result.splitlines()
    assert (first, reply.exit_code) == ("42 g / 21", 0)
    assert json.loads(second) == ARGUMENTS


TOUCHY: Final = (
    "#!/usr/bin/env node\nconsole.log(process.argv[1])",
    "'use strict'; console.log((function (this: any) { return this ?? process.argv[1] })())",
    "import process from 'node:process'; console.log(process.argv[1])",
    "const process = require('process'); console.log(process.argv[1])",
    "if (require.main === module) console.log(process.argv[1])",
)


async def test_typescript_as_it_stands(typescript: Run) -> None:
    for program in TOUCHY:
        reply = await typescript(program, argv=["a b"])
        assert (reply.exit_code, reply.result) == (0, "a b\n"), program


async def test_what_typescript_starts_has_its_own_arguments(
    typescript: Run, tmp_path: Path
) -> None:
    child = tmp_path / "child.js"
    child.write_text("console.log(process.argv.slice(2).join())")
    reply = await typescript(f"""
import {{ fork }} from 'child_process'
import {{ Worker }} from 'worker_threads'
const child: string = '{child}'
fork(child, ['a', 'b']).on('exit', () => new Worker(child, {{ argv: ['c', 'd'] }}))
""")
    assert (reply.exit_code, reply.result) == (0, "a,b\nc,d\n")


CHARTS: Final = """\
import matplotlib.pyplot as plt
import numpy as np
print('before')
plt.plot([1, 2, 3], [4.5, 5, 6], label='rise')
plt.title('Lines'); plt.xlabel('across'); plt.ylabel('up'); plt.legend()
plt.show()
plt.scatter(np.array([1, 2]), np.array([3, 4]), label='dots'); plt.show()
plt.bar(['a', 'b'], [3, 2.5], label='sold'); plt.title('Bars'); plt.show()
plt.pie([1, 3], labels=['small', 'large']); plt.show()
plt.boxplot([[1, 2, 3, 4, 5, 30]]); plt.show()
figure, (left, right) = plt.subplots(1, 2)
left.plot([1, 2], [3, 4]); right.bar(['x'], [1]); plt.show()
print('after')
"""


async def test_charts(python: Run) -> None:
    pytest.importorskip("matplotlib")
    reply = await python(CHARTS)
    assert (reply.result, reply.exit_code) == ("before\nafter\n", 0)
    assert reply.artifacts is not None
    assert reply.artifacts.charts is not None
    line, scatter, bar, pie, box, composite = reply.artifacts.charts
    for each in reply.artifacts.charts:
        assert isinstance(each, Chart)
        assert base64.b64decode(each.png or "").startswith(b"\x89PNG")

    assert isinstance(line, LineChart)
    assert (line.title, line.x_label, line.y_label) == ("Lines", "across", "up")
    assert (line.x_scale, line.y_scale) == ("linear", "linear")
    assert line.elements[0].label == "rise"
    assert line.elements[0].points == [[1, 4.5], [2, 5], [3, 6]]
    assert line.x_ticks

    assert isinstance(scatter, ScatterChart)
    assert scatter.elements[0].label == "dots"
    assert scatter.elements[0].points == [[1, 3], [2, 4]]

    assert isinstance(bar, BarChart)
    assert bar.title == "Bars"
    shown = [(each.label, each.group, each.value) for each in bar.elements]
    assert shown == [("a", "sold", "3"), ("b", "sold", "2.5")]

    assert isinstance(pie, PieChart)
    assert [(each.label, each.angle) for each in pie.elements] == [("small", 90), ("large", 270)]

    assert isinstance(box, BoxAndWhiskerChart)
    (only,) = box.elements
    assert (only.min, only.first_quartile, only.median) == (1, 2.25, 3.5)
    assert (only.third_quartile, only.max, only.outliers) == (4.75, 5, [30])

    assert isinstance(composite, CompositeChart)
    assert [each.type for each in composite.elements] == ["line", "bar"]
