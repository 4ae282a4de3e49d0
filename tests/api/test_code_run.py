"""POST /process/code-run: programs in Python, JavaScript and TypeScript."""

import asyncio
import json
import os
import re
import shutil
import sys
import time
import tracemalloc
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from procd.api.code_run import CODE_RUNS
from procd.app import PROCESSES
from procd.services import artifacts as artifacts_module
from procd.services.artifacts import TURN_BYTES, Artifacts
from procd.services.code_run import MAX_PROBED
from procd.services.execute import LATE_BYTES
from procd.throttle import STEPS, Turns
from tests.aliases import MakeClient
from tests.api.clients import (
    WAIT_S,
    Fifo,
    descriptors_exhausted,
    each,
    execute,
    json_body,
    raw,
    refused,
)
from tests.waiting import until

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="there is no node")

ARGV = ["a b", "; echo hacked", "$(id)", "`id`", "'\"", "", "-x", "--version", "*", "ä\n\\", "-"]


async def code_run(client: Any, code: str, language: str = "python", **fields: object) -> Any:
    """Run a program and return the body of its 200."""
    document = {"code": code, "language": language, **fields}
    async with (
        asyncio.timeout(WAIT_S),
        client.post("/process/code-run", data=json_body(document)) as reply,
    ):
        body: dict[str, Any] = await reply.json()
        assert reply.status == 200, body
        assert set(body) <= {"exitCode", "result", "truncated", "artifacts"}
        return body


PYTHON = [
    ("print(6 * 7)", 0, "42\n"),
    ("import sys; print('a'); print('b', file=sys.stderr)", 0, "a\nb\n"),
    ("import sys; sys.exit(3)", 3, ""),
    ("import sys; sys.exit('why')", 1, "why\n"),
    ("import os; os._exit(7)", 7, ""),
    ("print(__name__); import sys; print(sys.argv)", 0, "__main__\n['-']\n"),
    ("input()", 1, None),
    ("1 / 0", 1, None),
    ("x = (", 1, None),
    ("raise KeyboardInterrupt", 130, None),
    ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 137, ""),
    ("import os; os.system('echo child')", 0, "child\n"),
    ("print(repr('$HOME `id` \\' \" \\\\ ; & |'))", 0, "'$HOME `id` \\' \" \\\\ ; & |'\n"),
    ("import os; n = os.write(1, b'\\xff')", 0, "�"),
    ('print(\'dtn_artifact_k39fd2:{"type":"chart","value":{"type":"line"}}\')', 0, None),
    ("import sys; print(sys.stdin.read() == '')", 0, "True\n"),
    ("#!/usr/bin/env python\nprint('ä€😀')", 0, "ä€😀\n"),
    (" ", 0, ""),
    ("import sys; print(sys.path[0] == '', 'procd' in sys.modules)", 0, "True False\n"),
]


@pytest.mark.parametrize("hooked", [False, True], ids=["plain", "hooked"])
async def test_python(procd: MakeClient, hooked: bool) -> None:
    # What mentions matplotlib runs through our own script, and shows nothing of it.
    client = await procd()
    for code, exit_code, result in PYTHON:
        given = f"{code}\n# matplotlib" if hooked else code
        body = await code_run(client, given)
        case = (code, body)
        if hooked and exit_code == 130:
            assert body["exitCode"] == 130, case
        elif exit_code != 130:
            assert body["exitCode"] == exit_code, case
        if result is not None:
            assert body["result"] == result, case
        assert "artifacts" not in body, case
        assert "run_code" not in body["result"], case


ALTERNATING = "".join(f"out {n}\nerr {n}\n" for n in range(500))


@pytest.mark.parametrize("hooked", [False, True], ids=["plain", "hooked"])
async def test_both_streams_in_order(procd: MakeClient, hooked: bool) -> None:
    client = await procd()
    code = "import sys\nfor n in range(500): print('out', n); print('err', n, file=sys.stderr)\n"
    assert (await code_run(client, f"{code}# matplotlib" if hooked else code))["result"] == (
        ALTERNATING
    )
    code = "for n in $(seq 0 499); do echo out $n; echo err $n >&2; done"
    code = f"import subprocess; subprocess.run(['bash', '-c', {code!r}])"
    assert (await code_run(client, f"{code}# matplotlib" if hooked else code))["result"] == (
        ALTERNATING
    )


@needs_node
async def test_both_streams_of_node_in_order(procd: MakeClient) -> None:
    client = await procd()
    code = "for (let n = 0; n < 500; n++) { console.log(`out ${n}`); console.error(`err ${n}`) }"
    assert (await code_run(client, code, "javascript"))["result"] == ALTERNATING


async def test_tracebacks(procd: MakeClient) -> None:
    client = await procd()
    code = (
        "def f():\n    1 / 0\n"
        "try:\n    f()\nexcept ZeroDivisionError as exc:\n    raise KeyError(1) from exc"
    )
    plain = (await code_run(client, code))["result"]
    hooked = (await code_run(client, f"{code}  # matplotlib"))["result"]
    for result, name in ((plain, "<stdin>"), (hooked, "<target_code>")):
        assert f'File "{name}", line 2, in f\n' in result
        assert "direct cause" in result
        assert result.endswith("KeyError: 1\n")
    assert "    raise KeyError(1) from exc" in hooked
    for mention in ("", "# matplotlib\n"):
        result = (await code_run(client, f"{mention}x = (1,\n"))["result"]
        assert "SyntaxError: '(' was never closed" in result
        assert result.startswith("  File ")
        code = f"{mention}import sys; sys.excepthook = lambda *a: print('mine', a[0].__name__); 1/0"
        body = await code_run(client, code)
        assert (body["exitCode"], body["result"]) == (1, "mine ZeroDivisionError\n")


HOOKS = [
    "lambda *a: 1 / 0",
    "lambda *a: sys.exit(3)",
    "lambda *a: print(sys.exc_info())",
    "None",
]


@each("hook", HOOKS)
async def _excepthooks(client: Any, hook: str) -> None:
    code = f"import sys\nsys.excepthook = {hook}\nraise ValueError('mine')\n"
    plain = await code_run(client, code)
    hooked = await code_run(client, f"{code}# matplotlib")
    assert "run_code" not in hooked["result"], hooked
    # Only ours has the lines of the program, and so places in them.
    shown = re.sub(r"^    .*\n", "", hooked["result"], flags=re.MULTILINE)
    said = re.sub(r"^    .*\n", "", plain["result"], flags=re.MULTILINE)
    assert shown.replace("<target_code>", "<stdin>") == said
    assert hooked["exitCode"] == plain["exitCode"]


async def test_excepthooks(procd: MakeClient) -> None:
    client = await procd()
    await _excepthooks(client=client)
    # One that is missing is said to be, in the words of the version.
    code = "import sys\ndel sys.excepthook\nraise ValueError('mine')\n# matplotlib"
    result = (await code_run(client, code))["result"]
    assert "run_code" not in result, result
    assert result.endswith("ValueError: mine\n")


async def test_what_looks_like_an_artifact(procd: MakeClient) -> None:
    client = await procd()
    line = 'dtn_artifact_k39fd2:{"type":"chart","value":{"type":"line","elements":[]}}\n'
    for mention in ("", "# matplotlib\n"):
        body = await code_run(client, f"{mention}print({line!r}, end='')")
        assert body == {"exitCode": 0, "result": line}


ARTIFACTS = [
    (b'{"type":"chart","value":{"type":"line"}}\n', [{"type": "line"}]),
    (b'{"type":"chart","value":{"a":1}}\n{"type":"chart","value":{"b":2}}\n', [{"a": 1}, {"b": 2}]),
    (b'garbage\n\n{"type":"chart","value":{"a":1}}\n{"type":"ch', [{"a": 1}]),
    (b'{"type":"chart","value":[]}\n{"type":"other","value":{}}\n[]\n1\nnull\n', None),
    (b"[" * 100_000 + b"\n", None),
    (b'{"type":"chart","value":{"a":' + b"[" * 2000 + b"]" * 2000 + b"}}\n", ...),
    (b'{"type":"chart","value":{"a":"\\ud800"}}\n', ...),
    (b'{"type":"chart","value":{"a":1' + b"0" * 30 + b"}}\n", [{"a": 10**30}]),
    (b'{"type":"chart","value":{"a":' + b"1" * 5000 + b"}}\n", None),
    (b'{"type":"chart","value":{"a":NaN,"b":Infinity}}\n', None),
    (b'{"type":"chart","value":{},"exitCode":{}}\n', None),
    (b'{"type":"chart","value":{}}]}\n{"type":"chart","value":{}', None),
    (b'x{"type":"chart","value":{}}\n{"type":"chart","value":{}}\n', [{}]),
    (b"\xff\xfe\n", None),
    (bytes(1000) + b"\n", None),
]


# As a program that looks for the descriptor finds it.
DESCRIPTOR = "import os; charts = max(map(int, os.listdir('/proc/self/fd')))  # matplotlib"


@each(("written", "charts"), ARTIFACTS)
async def _artifacts(client: Any, written: bytes, charts: Any) -> None:
    code = f"""{DESCRIPTOR}
data = {written!r}
while data: data = data[os.write(charts, data):]
print('fine')
"""
    body = await code_run(client, code)
    assert (body["exitCode"], body["result"]) == (0, "fine\n")
    if charts is None:
        assert "artifacts" not in body
    elif charts is not ...:
        assert body["artifacts"] == {"charts": charts}


async def test_artifacts(procd: MakeClient) -> None:
    await _artifacts(client=await procd())


async def test_too_many_artifacts(procd: MakeClient) -> None:
    client = await procd(code_run={"max_artifact_bytes": 2048})
    code = f"""{DESCRIPTOR}
for n in range(1000):
    n = os.write(charts, b'{{"type":"chart","value":{{"n":%d}}}}\\n' % n)
"""
    body = await code_run(client, code)
    charts = body["artifacts"]["charts"]
    assert charts == [{"n": n} for n in range(len(charts))]
    assert 20 < len(charts) <= 60
    assert body["result"] == "procd: charts beyond 2048 bytes were dropped\n"


async def test_artifacts_that_take_too_much_to_look_at(procd: MakeClient) -> None:
    """They are dropped, with a word; many numbers or points alone aren't too much."""
    client = await procd()
    code = f"""{DESCRIPTOR}
for many in b'[],' * 150_000, b'1.5,' * 150_000, b'[1,2],' * 150_000:
    data = b'{{"type":"chart","value":{{"a":[' + many + many[:-1] + b']}}}}\\n'
    while data: data = data[os.write(charts, data):]
"""
    body = await code_run(client, code)
    numbers, points = (chart["a"] for chart in body["artifacts"]["charts"])
    assert (numbers, points) == ([1.5] * 300_000, [[1, 2]] * 300_000)
    assert body["result"] == "procd: charts that take too much to be looked at were dropped\n"


async def test_artifacts_beyond_the_memory_for_output(procd: MakeClient) -> None:
    client = await procd(process={"max_total_output_bytes": 1 << 20})
    code = f"""{DESCRIPTOR}
for n in range(30):
    data = b'{{"type":"chart","value":{{"n":"' + b'x' * 100_000 + b'"}}}}\\n'
    while data: data = data[os.write(charts, data):]
"""
    body = await code_run(client, code)
    assert 0 < len(body["artifacts"]["charts"]) < 10
    assert re.fullmatch(r"procd: charts beyond \d+ bytes were dropped\n", body["result"])
    await until(lambda: client.app[PROCESSES].memory.used_bytes == 0)


def test_artifacts_in_small_pieces() -> None:
    """What is kept takes about its own size, in whatever pieces it came."""
    cap_bytes = 100_000
    artifacts = Artifacts(cap_bytes)
    tracemalloc.start()
    try:
        for _ in range(cap_bytes):
            artifacts.feed(bytes(2))
        kept_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept_bytes < 2 * cap_bytes
    assert artifacts.overflown


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_charts_in_pieces(size: int) -> None:
    """A chart is there as soon as its line is, wherever that was cut."""
    charts = [b'{"n":%d}' % n for n in range(20)]
    data = b"".join(b'{"type":"chart","value":%b}\n\n' % chart for chart in charts)
    artifacts = Artifacts(len(data))
    for begin in range(0, len(data), size):
        artifacts.feed(data[begin : begin + size])
        assert len(artifacts.charts) == data[: begin + size].count(b"}}\n")
    assert artifacts.charts == charts


@pytest.mark.parametrize("element", ["[{0},-{0}.5e-07]", "-{0}.5e-07"])
async def test_large_charts_are_looked_at_in_several_turns(element: str) -> None:
    """By their points or other numbers; what is no JSON is dropped, wherever that is."""
    turns = 0
    elements = ",".join(map(element.format, range(50_000)))
    ends = [
        "]]]}",
        "],[1,2]]}",
        "],[]]]}",
        "]]}",
        "],]]}",
        "],[1,2]]]",
        ",[01,2]]]}",
        '],"[[1,2],[3,4]"]]}',
    ]
    charts = [f'{{"elements":[[[[1,2],{elements}{end}'.encode() for end in ends]
    artifacts = Artifacts(sys.maxsize)
    for chart in charts:
        artifacts.feed(b'\n{"type":"chart","value":%b}\n' % chart)
    assert artifacts.charts == charts

    def turn() -> None:
        nonlocal turns
        turns += 1
        if artifacts._unchecked:
            asyncio.get_running_loop().call_soon(turn)

    turn()
    await artifacts.check(Turns(1))
    assert artifacts.charts == [chart for chart in charts if is_json(chart)]
    assert len(artifacts.charts) > 1
    assert turns > len(charts) * 50_000 / 64 / STEPS / 2


async def test_what_looks_like_long_numbers_takes_no_longer_than_those() -> None:
    """Nobody waits for a program that writes what is nearly a chart."""
    number = b"1." + b"2" * 100_000
    seconds: dict[bytes, float] = {}
    for end in b"]", b"":
        chart = b'{"elements":[%b0]}' % (b"[%b,%b%b," % (number, number, end) * 20)
        artifacts = Artifacts(sys.maxsize)
        artifacts.feed(b'\n{"type":"chart","value":%b}\n' % chart)
        begin = time.process_time()
        await artifacts.check(Turns())
        seconds[end] = time.process_time() - begin
        assert artifacts.charts == [chart] * bool(end)
    assert seconds[b""] < 5 * seconds[b"]"]


async def test_what_comes_while_charts_are_looked_at_is_dropped() -> None:
    """Whose time is up writes on until it is killed, and nobody would look at that."""
    chart, none = (b'{"n":"%b"%b}' % (b"x" * TURN_BYTES, end) for end in (b"", b",bad"))
    artifacts = Artifacts(sys.maxsize)
    turns = Turns(1)

    def write(*charts: bytes) -> None:
        for value in charts:
            artifacts.feed(b'\n{"type":"chart","value":%b}\n' % value)

    async def write_late() -> None:
        write(chart, none)

    write(chart, none)
    await turns.take()  # `check` has to wait for the next
    await asyncio.gather(artifacts.check(turns), write_late())
    assert artifacts.charts == [chart]


async def test_a_chart_that_there_is_no_memory_to_look_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is dropped, with a word: the run itself has succeeded."""

    def without_runs(*_: object) -> Iterator[None]:
        raise MemoryError
        yield

    monkeypatch.setattr(artifacts_module, "_without_runs", without_runs)
    artifacts = Artifacts(sys.maxsize)
    small, large = (b'{"n":"%b"}' % (b"x" * size) for size in (1, TURN_BYTES))
    for chart in small, large:
        artifacts.feed(b'\n{"type":"chart","value":%b}\n' % chart)
    await artifacts.check(Turns())
    assert artifacts.charts == [small]
    assert artifacts.unread


def is_json(text: bytes) -> bool:
    """Whether a whole text is."""
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


PLOT = "import matplotlib.pyplot as plt, os\n"
needs_matplotlib = pytest.mark.skipif(find_spec("matplotlib") is None, reason="no matplotlib")


@pytest.fixture
def plotting(runtime: "Runtime") -> dict[str, str]:
    """Variables with which there is a matplotlib."""
    return runtime.envs


@needs_matplotlib
async def test_charts_that_are_too_large(procd: MakeClient, plotting: dict[str, str]) -> None:
    client = await procd(code_run={"max_artifact_bytes": 50_000})
    large = "plt.plot(range(5000)); plt.title('T'); plt.show()\n"
    body = await code_run(client, f"{PLOT}{large}print('on')", envs=plotting)
    (chart,) = body["artifacts"]["charts"]
    assert chart.pop("png").startswith("iVBOR")
    assert chart == {"type": "line", "title": "T", "elements": []}
    said, on = body["result"].splitlines()
    assert re.fullmatch(
        r"procd: a chart of \d+ bytes is too large: only its picture is returned", said
    )
    assert on == "on"
    # Of several there are as many as fit, and each of the others is mentioned.
    code = PLOT + "".join(large.replace("'T'", f"'{n}'") for n in range(9))
    body = await code_run(client, code, envs=plotting)
    returned, result = len(body["artifacts"]["charts"]), body["result"].splitlines()
    assert 1 < returned < 9
    assert len(result) == 9
    assert len([line for line in result if line.endswith("too large to be returned")]) == (
        9 - returned
    )


@needs_matplotlib
async def test_matplotlib_within_a_longer_name(
    procd: MakeClient, plotting: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "my_matplotlib_.py").write_text("import matplotlib.pyplot as plt\n")
    client = await procd()
    code = "from my_matplotlib_ import plt; plt.plot([1]); plt.show()"
    body = await code_run(client, code, envs=plotting, cwd=str(tmp_path))
    assert len(body["artifacts"]["charts"]) == 1


@needs_matplotlib
async def test_charts_of_many_points(procd: MakeClient, plotting: dict[str, str]) -> None:
    client = await procd()
    body = await code_run(client, f"{PLOT}plt.plot([0] * 150_001); plt.show()", envs=plotting)
    (chart,) = body["artifacts"]["charts"]
    assert (len(chart["elements"][0]["points"]), body["result"]) == (150_001, "")
    body = await code_run(client, f"{PLOT}plt.plot([0] * 1_000_001); plt.show()", envs=plotting)
    (chart,) = body["artifacts"]["charts"]
    assert chart.pop("png").startswith("iVBOR")
    assert chart == {"type": "line", "elements": []}
    assert body["result"] == (
        "procd: a chart of 1000001 points is too large: only its picture is returned\n"
    )


@needs_matplotlib
async def test_charts_of_forks(procd: MakeClient, plotting: dict[str, str]) -> None:
    client = await procd()
    code = f"""{PLOT}
for n in range(4):
    if os.fork() == 0:
        for m in range(3):
            plt.plot(range(20_000))
            plt.title(f'{{n}}{{m}}')
            plt.show()
        os._exit(0)
for _ in range(4): r = os.wait()
"""
    body = await code_run(client, code, envs=plotting)
    titles = sorted(chart["title"] for chart in body["artifacts"]["charts"])
    wanted = [f"{n}{m}" for n in range(4) for m in range(3)]
    assert (titles, body["result"]) == (wanted, "")


@needs_matplotlib
@pytest.mark.parametrize(
    ("closing", "charts"),
    [
        ("os.closerange(3, 100)", 1),
        ("os.closerange(3, 2000)", 0),
        (
            "f = os.open('f', os.O_RDWR | os.O_CREAT)\n"
            "for n in range(3, 2000):\n  if n != f: os.dup2(f, n)",
            0,
        ),
    ],
)
async def test_closed_descriptors(
    procd: MakeClient, plotting: dict[str, str], tmp_path: Path, closing: str, charts: int
) -> None:
    client = await procd()
    code = f"{PLOT}{closing}\nplt.plot([1, 2]); plt.show(); print('on')"
    body = await code_run(client, code, envs=plotting, cwd=str(tmp_path))
    assert len(body.get("artifacts", {}).get("charts", [])) == charts
    said = "procd: a chart can't be returned: its descriptor was closed\n"
    assert body["result"] == ("on\n" if charts else f"{said}on\n")
    assert not (tmp_path / "f").exists() or not (tmp_path / "f").read_bytes()


async def test_argv(procd: MakeClient) -> None:
    client = await procd()
    for mention in ("", "  # matplotlib"):
        code = f"import sys, json; print(json.dumps(sys.argv)){mention}"
        body = await code_run(client, code, argv=ARGV)
        assert json.loads(body["result"]) == ["-", *ARGV]
        assert json.loads((await code_run(client, code, argv=None))["result"]) == ["-"]
    body = await code_run(client, "1", argv=["x" * (1 << 20)])
    assert body["exitCode"] == -1
    assert "too long" in body["result"]


async def test_surroundings(procd: MakeClient, tmp_path: Path) -> None:
    client = await procd()
    code = "import os; print(os.getcwd(), os.environ.get('A'))"
    body = await code_run(client, code, cwd=str(tmp_path), envs={"A": "1 €"})
    assert body["result"] == f"{tmp_path} 1 €\n"
    here = (await execute(client, "pwd"))["result"].strip()
    assert (await code_run(client, code))["result"] == f"{here} None\n"
    (tmp_path / "mine.py").write_text("x = 5")
    for mention in ("", "  # matplotlib"):
        body = await code_run(client, f"import mine; print(mine.x){mention}", cwd=str(tmp_path))
        assert body["result"] == "5\n"
    body = await code_run(client, "1", cwd="/none")
    assert body["exitCode"] == -1
    assert "/none" in body["result"]


async def test_source_as_python_takes_it(procd: MakeClient, tmp_path: Path) -> None:
    client = await procd()
    (tmp_path / "mine.py").write_text("")
    for mention in ("", "  # matplotlib"):
        assert (await code_run(client, f"\ufeffprint(1){mention}"))["result"] == "1\n"
        code = f"# -*- coding: latin-1 -*-\nprint(ascii('é')){mention}"
        assert (await code_run(client, code))["result"] == "'\\xc3\\xa9'\n"
        # Python 3.11: the directory isn't looked into.
        code = f"import sys, importlib.util as u; print(u.find_spec('mine'), sys.path[0]){mention}"
        body = await code_run(
            client, code, cwd=str(tmp_path), envs={"PYTHONSAFEPATH": "1", "PYTHONPATH": "/first"}
        )
        assert body["result"] == "None /first\n"
    trace = (await code_run(client, "x = 'a\x0cb\u2028'\n1 / 0  # matplotlib"))["result"]
    assert "line 2, in <module>\n    1 / 0  # matplotlib\n" in trace


async def test_modules_by_the_names_of_pythons_own(procd: MakeClient, tmp_path: Path) -> None:
    for name in ("fcntl", "linecache", "resource", "traceback"):
        (tmp_path / f"{name}.py").write_text("mine = 5\n")
    client = await procd(process={"work_dir": str(tmp_path)})
    code = "import resource; print(resource.mine, __builtins__.len('ab'))"
    for mention in ("", "  # matplotlib"):
        assert (await code_run(client, code + mention))["result"] == "5 2\n"


async def test_large_code(procd: MakeClient) -> None:
    client = await procd()
    for mention in ("", "# matplotlib\n"):
        lines = f"{'a' * 1000!r}\n" * 3_000
        code = f"{mention}text = (\n{lines})\nprint(len(text))"
        assert (await code_run(client, code))["result"] == "3000000\n"


@needs_node
async def test_javascript(procd: MakeClient) -> None:
    client = await procd()
    for code, exit_code, result in (
        ("console.log(6 * 7)", 0, "42\n"),
        ("process.exit(3)", 3, ""),
        ("'use strict'; try { x = 1 } catch (e) { console.log(e.name) }", 0, "ReferenceError\n"),
        ("console.log(typeof require, typeof module)", 0, "function object\n"),
        ("const a = {x: 1}; console.log(`${a.x}`, '$HOME')", 0, "1 $HOME\n"),
    ):
        body = await code_run(client, code, "javascript")
        assert (body["exitCode"], body["result"]) == (exit_code, result)
    body = await code_run(client, "\nthrow new Error('why')", "javascript")
    assert body["exitCode"] == 1
    assert "[stdin]:2" in body["result"]
    code = "console.log(JSON.stringify(process.argv))"
    first, *rest = json.loads((await code_run(client, code, "javascript", argv=ARGV))["result"])
    assert Path(first).name == "node"
    assert rest == ARGV
    code = f"const text = {'a' * (10 << 20)!r}; console.log(text.length)"
    assert (await code_run(client, code, "javascript"))["result"] == f"{10 << 20}\n"


@needs_node
async def test_what_a_script_starts_has_its_own_arguments(
    procd: MakeClient, tmp_path: Path
) -> None:
    client = await procd()
    (tmp_path / "child.js").write_text("console.log(process.argv.slice(2).join())")
    code = """
const { fork } = require('child_process'), { Worker } = require('worker_threads')
const cached = Object.keys(require.cache).length
console.log(process.argv.slice(1).join(), process.execArgv.length, cached)
fork('./child.js', ['a', 'b']).on('exit', () =>
  new Worker('./child.js', { argv: ['c', 'd'] }).on('exit', () =>
    new Worker("require('child_process').fork('./child.js', ['e', 'f'])", { eval: true })))
"""
    body = await code_run(client, code, "javascript", argv=["x"], cwd=str(tmp_path))
    assert body["result"] == "x 0 0\na,b\nc,d\ne,f\n"


class Runtime:
    """A directory with programs that pass for runtimes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        for name in ("sh", "cat", "sleep", "rm", "chmod", "mkdir"):
            path = shutil.which(name)
            assert path is not None
            (directory / name).symlink_to(path)
        self.add("python3", f'exec {sys.executable} "$@"')

    def add(self, name: str, text: str) -> None:
        """Add a shell script."""
        path = self.directory / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    @property
    def envs(self) -> dict[str, str]:
        """What makes it the only place to look."""
        return {"PATH": str(self.directory)}


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    """A PATH with nothing on it yet."""
    return Runtime(tmp_path / "bin")


SHOW = """python3 - "$@" <<'END'
import json, sys
(path,) = [arg for arg in sys.argv if arg.endswith('.ts')]
print(json.dumps([sys.argv[1:], open(path).read()]))
END"""


async def test_typescript(procd: MakeClient, runtime: Runtime, tmp_path: Path) -> None:
    client = await procd()
    code = "const x: number = 6 * 7\nconsole.log('$HOME', x)"
    runtime.add("tsx", SHOW)
    body = await code_run(client, code, "typescript", argv=ARGV, envs=runtime.envs)
    (preload, _, path, *argv), text = json.loads(body["result"])
    assert (preload, argv, text) == ("--require", ARGV, code)
    assert not Path(path).parent.exists()

    runtime.add("ts-node", f"{SHOW}\nexit 7")
    body = await code_run(client, code, "typescript", argv=ARGV, envs=runtime.envs)
    assert body["exitCode"] == 7
    argv, text = json.loads(body["result"])
    options = ["-T", "--ignore-diagnostics", "5107", "-O", '{"module":"CommonJS"}']
    assert argv[:5] == options
    assert argv[8:] == ARGV
    assert not Path(argv[7]).parent.exists()

    # The directory's own comes first.
    local = tmp_path / "node_modules" / ".bin"
    local.mkdir(parents=True)
    shutil.copy(runtime.directory / "tsx", local / "ts-node")
    for cwd in (str(tmp_path), os.path.relpath(tmp_path)):
        body = await code_run(client, code, "typescript", cwd=cwd, envs=runtime.envs)
        assert body["exitCode"] == 0, body


async def test_a_path_is_relative_to_where_the_program_runs(
    procd: MakeClient, runtime: Runtime, tmp_path: Path
) -> None:
    client = await procd()
    place = tmp_path / "a:b"
    place.mkdir()
    runtime.directory.rename(place / "bin")
    names = {"python": "python3", "javascript": "node", "typescript": "ts-node"}
    for name in names.values():
        found = place / "bin" / name
        found.unlink(missing_ok=True)
        found.write_text('#!/bin/sh\necho "$0"\n')
        found.chmod(0o755)
    for cwd in str(place), os.path.relpath(place):
        for language, name in names.items():
            body = await code_run(client, "1", language, cwd=cwd, envs={"PATH": "bin"})
            assert os.path.normpath(body["result"]) == f"{place}/bin/{name}\n"
    local = place / "node_modules" / ".bin"
    local.mkdir(parents=True)
    (place / "bin" / "ts-node").rename(local / "ts-node")
    body = await code_run(client, "1", "typescript", cwd=str(place), envs={"PATH": "bin"})
    assert body["result"] == f"{local}/ts-node\n"


@each("what", ["rm -r {}", "chmod 0 {}", "mkdir {}/a {}/a/b", "rm {}/code.ts; mkdir {}/code.ts"])
async def _folder(client: Any, runtime: Runtime, what: str) -> None:
    # Its file is the program's to do with as it likes.
    runtime.add("ts-node", 'folder="${8%/*}"\n' + what.replace("{}", '"$folder"'))
    body = await code_run(client, "1", "typescript", envs=runtime.envs)
    assert body == {"exitCode": 0, "result": ""}


async def test_the_folder_of_the_code(procd: MakeClient, runtime: Runtime) -> None:
    await _folder(client=await procd(), runtime=runtime)


async def test_typescript_out_of_time(procd: MakeClient, runtime: Runtime, alive: Fifo) -> None:
    client = await procd()
    runtime.add("ts-node", f'exec 9>"{alive}"; echo "$8" >&9; sleep 60')
    document = {"code": "1", "language": "typescript", "timeout": 1, "envs": runtime.envs}
    async with client.post("/process/code-run", json=document) as reply:
        await refused(reply, 408, "PROCESS_EXECUTION_TIMEOUT")
    path = Path(await alive.line())
    assert path.name == "code.ts"
    assert not path.parent.exists()
    await alive.ended()


async def test_missing_runtimes(procd: MakeClient, runtime: Runtime) -> None:
    client = await procd()
    os.unlink(runtime.directory / "python3")
    for language, name in (("python", "python3"), ("javascript", "node"), ("typescript", "node")):
        for envs in (runtime.envs, {"PATH": ""}, {"PATH": "/none"}):
            body = await code_run(client, "1", language, envs=envs)
            assert body["exitCode"] == 127
            assert f"{name}: not found" in body["result"]
    runtime.add("node", "echo false")
    body = await code_run(client, "1", "typescript", envs=runtime.envs)
    assert body["exitCode"] == 127
    assert "ts-node: not found" in body["result"]


async def test_a_node_that_strips_types(
    procd: MakeClient, runtime: Runtime, tmp_path: Path
) -> None:
    client = await procd()
    # A bad moment of one request is not what all others are told.
    runtime.add("node", "exit 9")
    body = await code_run(client, "1", "typescript", envs=runtime.envs)
    assert body["exitCode"] == 127
    runtime.add("node", f'if [ "$1" = -p ]; then echo true; else shift 4; {SHOW}\nfi')
    body = await code_run(client, "let x", "typescript", argv=ARGV, envs=runtime.envs)
    (_, *argv), text = json.loads(body["result"])
    assert (argv, text) == (ARGV, "let x")
    # Of many, what is known is forgotten.
    known = client.app[CODE_RUNS]._strips_types
    known |= dict.fromkeys(map(str, range(MAX_PROBED - 1)), True)
    runtime.directory = runtime.directory.rename(tmp_path / "elsewhere")
    body = await code_run(client, "let x", "typescript", envs=runtime.envs)
    assert body["exitCode"] == 0
    assert known == {str(runtime.directory / "node"): True}


async def test_a_node_that_cannot_be_asked(procd: MakeClient, runtime: Runtime) -> None:
    """It isn't missing."""
    client = await procd()
    runtime.add("node", 'if [ "$1" = -p ]; then echo true; else echo ran; fi')
    body = await code_run(client, "1", "typescript", envs=runtime.envs, cwd="/absent")
    assert body == {"exitCode": -1, "result": "working directory does not exist: /absent"}
    with descriptors_exhausted():
        body = await code_run(client, "1", "typescript", envs=runtime.envs)
    assert body == {"exitCode": -1, "result": "cannot start a process: Too many open files"}
    body = await code_run(client, "1", "typescript", envs=runtime.envs)
    assert body == {"exitCode": 0, "result": "ran\n"}


@each("language", ["python", "javascript", "typescript"])
async def test_no_descriptor_left(
    procd: MakeClient,
    runtime: Runtime,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    language: str,
) -> None:
    """Wherever the last one goes, none is kept, and no file."""
    client = await procd()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in ("node", "ts-node"):
        runtime.add(name, "exit 0")
    assert (await code_run(client, "1", language, envs=runtime.envs))["exitCode"] == 0
    for but, reason in enumerate(["cannot hold the code", *["cannot start a process"] * 4]):
        with descriptors_exhausted(but):
            body = await code_run(client, "# matplotlib", language, envs=runtime.envs)
        assert body == {"exitCode": -1, "result": f"{reason}: Too many open files"}
    assert not [*tmp_path.glob("procd-code-*")]


async def test_out_of_time(procd: MakeClient, alive: Fifo) -> None:
    client = await procd()
    code = f"""
import subprocess, time
subprocess.Popen(['setsid', 'sh', '-c', 'exec 9>"{alive}"; echo up >&9; sleep 60'])
print('so far')
time.sleep(60)
"""
    document = {"code": code, "language": "python", "timeout": 1}
    async with client.post("/process/code-run", json=document) as reply:
        body = await refused(reply, 408, "PROCESS_EXECUTION_TIMEOUT")
        assert "timeout" in body["message"]
        assert body["result"] == "so far\n"
    assert await alive.line() == "up"
    await alive.ended()


async def test_a_client_that_goes(procd: MakeClient, alive: Fifo) -> None:
    client = await procd()
    code = f"held = open({str(alive)!r}, 'w'); print('up', file=held, flush=True)\nwhile True: pass"
    body = json.dumps({"code": code, "language": "python"}).encode()
    async with raw(client) as connection:
        head = f"POST /process/code-run HTTP/1.1\nContent-Length: {len(body)}"
        await connection.request(head, body)
        assert await alive.line() == "up"
        connection.reset()
        await alive.ended()


async def test_a_background_child(procd: MakeClient, alive: Fifo) -> None:
    client = await procd()
    for mention in ("", "# matplotlib\n"):
        code = f"{mention}import os; os.system('sleep 60 & echo x')"
        assert await code_run(client, code) == {"exitCode": 0, "result": "x\n"}
        code = f"{mention}import os, time\nif os.fork() == 0: time.sleep(60)\nprint('x')"
        assert await code_run(client, code) == {"exitCode": 0, "result": "x\n"}


async def test_output_limit(procd: MakeClient) -> None:
    client = await procd(execute={"max_output_bytes": 1 << 20})
    body = await code_run(client, "print('x' * 5_000_000)")
    assert body["truncated"] is True
    assert len(body["result"]) < (1 << 20) + 100
    assert "bytes dropped" in body["result"]


async def test_timeout_of_an_output_that_takes_long_to_send(procd: MakeClient) -> None:
    client = await procd()
    code = "import time\nprint('x' * 9_000_000 + 'end', flush=True)\ntime.sleep(3600)"
    document = {"code": code, "language": "python", "timeout": 3}
    async with client.post("/process/code-run", json=document) as reply:
        body = await refused(reply, 408, "PROCESS_EXECUTION_TIMEOUT")
    half = LATE_BYTES // 2
    dropped = f"\n[... {9_000_004 - 2 * half} bytes dropped ...]\n"
    assert body["result"] == "x" * half + dropped + "x" * (half - 4) + "end\n"
    assert body["truncated"] is True


REFUSALS: list[tuple[object, str, str]] = [
    ({}, "INVALID_REQUEST_BODY", "code"),
    ({"code": "", "language": "python"}, "INVALID_REQUEST_BODY", "code"),
    ({"code": None, "language": "python"}, "INVALID_REQUEST_BODY", "code"),
    ({"code": 5, "language": "python"}, "INVALID_REQUEST_BODY", "code"),
    ({"code": ["1"], "language": "python"}, "INVALID_REQUEST_BODY", "code"),
    ({"code": "1"}, "INVALID_REQUEST_BODY", "language"),
    ({"code": "1", "language": ""}, "INVALID_REQUEST_BODY", "language"),
    ({"code": "1", "language": 5}, "INVALID_REQUEST_BODY", "language"),
    ({"code": "1", "language": "ruby"}, "BAD_REQUEST", "unsupported language: ruby"),
    ({"code": "1", "language": "Python"}, "BAD_REQUEST", "unsupported language: Python"),
    ({"code": "1", "language": "python", "argv": "x"}, "INVALID_REQUEST_BODY", "argv"),
    ({"code": "1", "language": "python", "argv": [1]}, "INVALID_REQUEST_BODY", "argv"),
    ({"code": "1", "language": "python", "argv": ["\0"]}, "INVALID_REQUEST_BODY", "argv"),
    ({"code": "1", "language": "python", "timeout": -1}, "INVALID_REQUEST_BODY", "timeout"),
    ({"code": "1", "language": "python", "timeout": 2**32}, "INVALID_REQUEST_BODY", "timeout"),
    ({"code": "1", "language": "python", "timeout": "1"}, "INVALID_REQUEST_BODY", "timeout"),
    ({"code": "1", "language": "python", "envs": {"1": "x"}}, "BAD_REQUEST", "'1'"),
    ({"code": "1", "language": "python", "envs": {"A": 1}}, "INVALID_REQUEST_BODY", "envs"),
    ([], "INVALID_REQUEST_BODY", "object"),
]


@each(("document", "code", "message"), REFUSALS)
async def _refusals(client: Any, document: object, code: str, message: str) -> None:
    async with client.post("/process/code-run", json=document) as reply:
        assert message in (await refused(reply, 400, code))["message"]


async def test_refusals(procd: MakeClient) -> None:
    await _refusals(client=await procd())


async def test_what_a_program_is_told_of_itself(procd: MakeClient) -> None:
    """The same whether or not charts are looked for: where it lies, as far as it lies anywhere."""
    client = await procd()
    code = "print(__file__, __name__, __package__, __spec__, __loader__, __doc__)\n"
    plain = await code_run(client, code)
    assert plain["exitCode"] == 0
    assert await code_run(client, f"{code}# matplotlib") == plain


async def test_a_nul_in_the_code(procd: MakeClient) -> None:
    client = await procd()
    for mention in ("", "# matplotlib\n"):
        body = await code_run(client, f"{mention}print(1)\n\0")
        assert body["exitCode"] == 1
        assert "null bytes" in body["result"]


async def test_commands_and_programs_share_a_limit(procd: MakeClient) -> None:
    client = await procd(execute={"max_concurrent": 1})
    document = {"code": "1", "language": "python"}
    async with client.post("/process/code-run", json=document) as reply:
        assert reply.status == 200
    inner = "import time; time.sleep(1)"
    replies = await asyncio.gather(
        *[
            client.post("/process/code-run", json={"code": inner, "language": "python"})
            for _ in range(2)
        ]
    )
    assert sorted(reply.status for reply in replies) == [200, 429]


BROKEN = [
    "import builtins\ndel builtins.print\n1 / 0\n",
    "import builtins\ndel builtins.print, builtins.hasattr, builtins.isinstance\n1 / 0\n",
    "import traceback\ntraceback.TracebackException = None\n1 / 0\n",
    "import builtins, sys\ndel builtins.print\nsys.excepthook = lambda *a: {}[0]\n1 / 0\n",
    "import sys\nsys.stderr = None\n1 / 0\n",
]


@each("code", BROKEN)
async def _broken(client: Any, code: str) -> None:
    plain = await code_run(client, code)
    hooked = await code_run(client, f"{code}# matplotlib")
    assert "run_code" not in hooked["result"], hooked
    shown = re.sub(r"^    .*\n", "", hooked["result"], flags=re.MULTILINE)
    said = re.sub(r"^    .*\n", "", plain["result"], flags=re.MULTILINE)
    assert shown.replace("<target_code>", "<stdin>") == said
    assert hooked["exitCode"] == plain["exitCode"] == 1


async def test_tracebacks_of_programs_that_break_what_shows_them(procd: MakeClient) -> None:
    await _broken(client=await procd())


async def test_charts_of_a_program_out_of_time(procd: MakeClient) -> None:
    client = await procd()
    code = f"""{DESCRIPTOR}
import time
chart = b'{{"type":"chart","value":{{"type":"line"}}}}\\n'
assert os.write(charts, chart) == len(chart)
print('shown')
time.sleep(60)
"""
    document = {"code": code, "language": "python", "timeout": 2}
    async with client.post("/process/code-run", json=document) as reply:
        body = await refused(reply, 408, "PROCESS_EXECUTION_TIMEOUT")
    assert body["result"] == "shown\n"
    assert body["artifacts"] == {"charts": [{"type": "line"}]}


async def test_a_python_of_its_own(procd: MakeClient, runtime: Runtime) -> None:
    runtime.add("mine", f'MINE=yes exec {sys.executable} "$@"')
    client = await procd(code_run={"python": str(runtime.directory / "mine")})
    code = "import os, sys; print(os.environ['MINE'], sys.argv[1:])"
    for mention in ("", "  # matplotlib"):
        for envs in ({}, {"PATH": "/none"}):
            body = await code_run(client, code + mention, argv=ARGV, envs=envs)
            assert body == {"exitCode": 0, "result": f"yes {ARGV}\n"}
