"""POST /process/code-run: programs in Python, JavaScript and TypeScript."""

import asyncio
import json
import os
import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from procd.app import PROCESSES
from procd.services.code_run import Artifacts
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
    "lambda *a: sys.exit(3)",
    "lambda *a: print(sys.exc_info())",
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
    await _excepthooks(client=await procd())


# As a program finds the descriptor and the key that it isn't to know.
WRITE = """
import os  # matplotlib
charts = max(map(int, os.listdir('/proc/self/fd')))
key = open('/proc/self/cmdline', 'rb').read().split(b'\\0')[4]
def write(data):
    while data: data = data[os.write(charts, data):]
"""


async def test_what_a_program_writes_to_the_charts_is_dropped(procd: MakeClient) -> None:
    client = await procd()
    code = f"{WRITE}write(b'{{}}\\n[]\\n' + key + b'{{\"a\": 1}}\\n\\n' + key)\nprint('fine')"
    body = await code_run(client, code)
    assert body == {"exitCode": 0, "result": "fine\n", "artifacts": {"charts": [{"a": 1}]}}


async def test_too_many_artifacts(procd: MakeClient) -> None:
    client = await procd(code_run={"max_artifact_bytes": 2048})
    code = f"{WRITE}for n in range(1000): write(key + b'{{\"n\":%d}}\\n' % n)"
    body = await code_run(client, code)
    charts = body["artifacts"]["charts"]
    assert charts == [{"n": n} for n in range(len(charts))]
    assert 20 < len(charts) <= 60
    assert body["result"] == "procd: charts beyond 2048 bytes were dropped\n"


async def test_artifacts_beyond_the_memory_for_output(procd: MakeClient) -> None:
    client = await procd(process={"max_total_output_bytes": 1 << 20})
    code = f"{WRITE}for n in range(30): write(key + b'\"' + b'x' * 100_000 + b'\"\\n')"
    body = await code_run(client, code)
    assert 0 < len(body["artifacts"]["charts"]) < 10
    assert re.fullmatch(r"procd: charts beyond \d+ bytes were dropped\n", body["result"])
    await until(lambda: client.app[PROCESSES].memory.used_bytes == 0)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_charts_in_pieces(size: int) -> None:
    """A chart is there as soon as its line is, wherever that was cut."""
    charts = [b'{"n":%d}' % n for n in range(20)]
    artifacts = Artifacts(100_000)
    data = b"".join(b"%b%b\n\n" % (artifacts.key.encode(), chart) for chart in charts)
    for begin in range(0, len(data), size):
        artifacts.feed(data[begin : begin + size])
        assert len(artifacts.charts) == data[: begin + size].count(b"}\n")
    assert artifacts.charts == charts


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
    [("os.closerange(3, 100)", 1), ("os.closerange(3, 2000)", 0)],
)
async def test_closed_descriptors(
    procd: MakeClient, plotting: dict[str, str], closing: str, charts: int
) -> None:
    client = await procd()
    code = f"{PLOT}{closing}\nplt.plot([1, 2]); plt.show(); print('on')"
    body = await code_run(client, code, envs=plotting)
    assert len(body.get("artifacts", {}).get("charts", [])) == charts
    said = "procd: a chart can't be returned: its descriptor was closed\n"
    assert body["result"] == ("on\n" if charts else f"{said}on\n")


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


async def test_modules_of_the_user_with_names_of_ours(procd: MakeClient, tmp_path: Path) -> None:
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

    # A runner in the directory's own packages comes first; nothing is left of the code.
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


async def test_missing_runtimes(procd: MakeClient, runtime: Runtime) -> None:
    client = await procd()
    os.unlink(runtime.directory / "python3")
    for language, name in (("python", "python3"), ("javascript", "node"), ("typescript", "node")):
        for envs in (runtime.envs, {"PATH": ""}, {"PATH": "/none"}):
            body = await code_run(client, "1", language, envs=envs)
            assert body["exitCode"] == 127
            assert f"{name}: not found" in body["result"]
            assert ("set code_run.python" in body["result"]) == (language == "python")
    runtime.add("node", "echo false")
    body = await code_run(client, "1", "typescript", envs=runtime.envs)
    assert body["exitCode"] == 127
    assert "ts-node: not found" in body["result"]


async def test_a_node_that_strips_types(procd: MakeClient, runtime: Runtime) -> None:
    client = await procd()
    # A bad moment of one request is not what all others are told.
    runtime.add("node", "exit 9")
    body = await code_run(client, "1", "typescript", envs=runtime.envs)
    assert body["exitCode"] == 127
    runtime.add("node", f'if [ "$1" = -p ]; then echo true; else shift 4; {SHOW}\nfi')
    body = await code_run(client, "let x", "typescript", argv=ARGV, envs=runtime.envs)
    (_, *argv), text = json.loads(body["result"])
    assert (argv, text) == (ARGV, "let x")


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
    document = {"code": code, "language": "python", "timeout": 3}
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


REFUSALS: list[tuple[object, str, str]] = [
    ({}, "INVALID_REQUEST_BODY", "code"),
    ({"code": "", "language": "python"}, "INVALID_REQUEST_BODY", "code"),
    ({"code": "1"}, "INVALID_REQUEST_BODY", "language"),
    ({"code": "1", "language": "ruby"}, "BAD_REQUEST", "unsupported language: ruby"),
    ({"code": "1", "language": "python", "argv": "x"}, "INVALID_REQUEST_BODY", "argv"),
    ({"code": "1", "language": "python", "argv": ["\0"]}, "INVALID_REQUEST_BODY", "argv"),
    ({"code": "1", "language": "python", "timeout": -1}, "INVALID_REQUEST_BODY", "timeout"),
    ({"code": "1", "language": "python", "timeout": 2**32}, "INVALID_REQUEST_BODY", "timeout"),
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


async def test_charts_of_a_program_out_of_time(procd: MakeClient) -> None:
    client = await procd()
    code = f"{WRITE}import time\nwrite(key + b'{{}}\\n')\nprint('shown')\ntime.sleep(60)"
    document = {"code": code, "language": "python", "timeout": 3}
    async with client.post("/process/code-run", json=document) as reply:
        body = await refused(reply, 408, "PROCESS_EXECUTION_TIMEOUT")
    assert body["result"] == "shown\n"
    assert body["artifacts"] == {"charts": [{}]}


async def test_a_python_of_its_own(procd: MakeClient, runtime: Runtime) -> None:
    runtime.add("mine", f'MINE=yes exec {sys.executable} "$@"')
    client = await procd(code_run={"python": str(runtime.directory / "mine")})
    code = "import os, sys; print(os.environ['MINE'], sys.argv[1:])"
    for mention in ("", "  # matplotlib"):
        for envs in ({}, {"PATH": "/none"}):
            body = await code_run(client, code + mention, argv=ARGV, envs=envs)
            assert body == {"exitCode": 0, "result": f"yes {ARGV}\n"}
