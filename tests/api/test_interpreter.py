"""Interpreter contexts: output, errors and state of cells, and what is refused."""

import asyncio
import json
import os
import re
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import pytest
from aiohttp import WSMsgType

from tests.aliases import Client, MakeClient
from tests.api.cells import CONTEXTS, EXECUTE, Cell, create, delete, listed, run, said, start
from tests.api.clients import Fifo, Gate, each, execute, raw, refused

# Output


async def test_frames_on_the_wire(procd: MakeClient) -> None:
    client = await procd()
    async with client.ws_connect(EXECUTE) as ws:
        await ws.send_bytes(b'{"code": "print(6 * 7)"}')
        assert await ws.receive_str() == (
            '{"type":"stdout","text":"42\\n","name":"","value":"","traceback":""}'
        )
        assert await ws.receive_str() == (
            '{"type":"control","text":"completed","name":"","value":"","traceback":""}'
        )
        message = await ws.receive()
        assert (message.type, message.data, message.extra) == (WSMsgType.CLOSE, 1000, "")


OUTPUTS = [
    ("import sys; print('a'); print('b', file=sys.stderr)", "a\n", "b\n"),
    ("import os; n = os.write(1, b'one'); n = os.write(2, b'two')", "one", "two"),
    ("import subprocess; r = subprocess.run(['sh', '-c', 'echo a; echo b >&2'])", "a\n", "b\n"),
    ("print('a', end=''); import os; r = os.system('printf b'); print('c')", "bac\n", ""),
    (
        "import ctypes; c = ctypes.CDLL(None)\n"
        "print('a'); c.printf(b'from C\\n'); print('b'); c.printf(b'c')",
        "a\nfrom C\nb\nc",
        "",
    ),
    (
        "import os\nprint('a', end='')\nif os.fork(): w = os.wait(); print('c')\nelse: print('b')",
        "ab\nc\n",
        "",
    ),
    ("import sys; n = sys.stdout.buffer.write(b'raw \\xc3\\xa4\\n')", "raw ä\n", ""),
    ("import os; n = os.write(1, b'\\xff\\xc3'); n = os.write(2, b'\\xc3')", "��", "�"),
    ("import os\nfor byte in '€😀'.encode(): n = os.write(1, bytes([byte]))", "€😀", ""),
    ("print('\\ud800|\\U0001f600')", "\\ud800|\U0001f600\n", ""),
    ("print('\\0\\x1b[1m')", "\0\x1b[1m\n", ""),
    ("import sys; print(sys.stdout.encoding, sys.stdout.isatty())", "utf-8 False\n", ""),
    ("1 + 1", "", ""),
    ("   ", "", ""),
    ("# nothing", "", ""),
    ("print(__name__); import sys; print(sys.argv, '__file__' in globals())", None, ""),
    ("import sys; sys.exit(3)", "", ""),
    ("import sys; sys.exit('why')", "", "why\n"),
    ("raise SystemExit", "", ""),
    ("import asyncio; await asyncio.sleep(0); print('awaited')", "awaited\n", ""),
    ("import asyncio, sys; await asyncio.sleep(0); sys.exit(3)", "", ""),
    ("print(__builtins__.__name__)", "builtins\n", ""),
    ("class P: pass\nimport pickle; p = pickle.loads(pickle.dumps(P())); print('ok')", "ok\n", ""),
]


@each(("code", "stdout", "stderr"), OUTPUTS)
async def _outputs(client: Any, code: str, stdout: str | None, stderr: str) -> None:
    cell = await run(client, code)
    assert not cell.errors, cell.errors
    cell.check_completed()
    assert cell.stdout == ("__main__\n[''] False\n" if stdout is None else stdout)
    assert cell.stderr == stderr


async def test_output(procd: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # the streams are to be ours
    await _outputs(client=await procd())


FLOOD = "import os, sys, ctypes, subprocess\nfor n in range(20_000): print(n)\n"


@each(
    ("then", "last"),
    [
        ("ctypes.CDLL(None).puts(b'last')", "last\n"),
        ("r = subprocess.run(['echo', 'last'])", "last\n"),
        ("ctypes.string_at(0)", ""),
        ("os._exit(0)", ""),
    ],
)
async def _floods(client: Any, then: str, last: str) -> None:
    cell = await run(client, FLOOD + then)
    assert not cell.errors
    assert cell.stdout == "".join(f"{n}\n" for n in range(20_000)) + last


async def test_a_flood_is_complete_and_in_order(procd: MakeClient) -> None:
    await _floods(client=await procd())


async def test_each_stream_is_in_order(procd: MakeClient) -> None:
    client = await procd()
    code = "import sys\nfor n in range(500): print(n); print(-n, file=sys.stderr)"
    cell = await run(client, code)
    assert cell.stdout == "".join(f"{n}\n" for n in range(500))
    assert cell.stderr == "".join(f"{-n}\n" for n in range(500))


async def test_a_segfault_is_shown(procd: MakeClient) -> None:
    client = await procd()
    code = "import faulthandler, ctypes; faulthandler.enable(); print('a'); ctypes.string_at(0)"
    cell = await run(client, code)
    assert cell.close == (1011, "worker process ended")
    assert cell.stdout == "a\n"
    assert "Segmentation fault" in cell.stderr
    assert "control" not in cell.kinds
    assert await said(client, "print('again')") == "again\n"


async def test_large_output_in_small_frames(procd: MakeClient) -> None:
    client = await procd()
    cell = await run(client, "print('ä😀' * 500_000)")
    cell.check_completed()
    assert cell.stdout == "ä😀" * 500_000 + "\n"
    assert max(len(frame["text"].encode("utf-16-le")) for frame in cell.frames) <= 2 * 65536


async def test_large_code(procd: MakeClient) -> None:
    client = await procd()
    assert await said(client, f"text = {'a' * (50 << 20)!r}\nprint(len(text))") == f"{50 << 20}\n"
    assert await said(client, "x = 1\n" * 100_000 + "print(x)") == "1\n"


async def test_output_is_live(procd: MakeClient, gate: Gate) -> None:
    client = await procd()
    wait = f"open({str(gate)!r}).readline()"
    cell = await start(client, f"print('first'); {wait}; print('then')")
    await cell.until("first\n")
    gate.open()
    assert (await cell.to_end()).stdout == "first\nthen\n"
    # A long line as well, before its end.
    for stream in ("stdout", "stderr"):
        code = f"import sys\nfor n in range(1500): print('.', end='', file=sys.{stream})\n{wait}"
        cell = await start(client, code)
        await cell.until(lambda cell: len(cell.stdout + cell.stderr) >= 1024)
        gate.open()
        assert len(getattr(await cell.to_end(), stream)) == 1500
    code = "import os; print('.' * 4000, end=''); os.kill(os.getpid(), 9)"
    assert (await run(client, code)).stdout == "." * 4000


async def test_output_after_the_end_of_a_cell_belongs_to_the_next_or_nobody(
    procd: MakeClient,
) -> None:
    client = await procd()
    code = """
import threading, subprocess, os
stop = threading.Event()
def work():
    while not stop.is_set():
        print('late')
        os.write(1, b'{"op": "done", "id": 1}\\n')
thread = threading.Thread(target=work)
thread.start()
child = subprocess.Popen(['sh', '-c', 'while echo child; do :; done'])
"""
    assert (await run(client, code)).close == (1000, "")
    for number in range(10):
        cell = await run(client, f"print('mine', {number})")
        cell.check_completed()
        assert f"mine {number}" in cell.stdout
        assert not cell.errors
    cell = await run(client, "child.kill(); r = child.wait(); stop.set(); thread.join()")
    cell.check_completed()
    assert await said(client, "print('quiet')") == "quiet\n"


# Errors


DIRECT_CAUSE = """Traceback (most recent call last):
  File "<stdin>", line 2, in <module>
    1 / 0
ZeroDivisionError: division by zero

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "<stdin>", line 4, in <module>
    raise KeyError('k') from exc
KeyError: 'k'
"""
TRACEBACKS = [
    (
        "earlier(5)",
        "ValueError",
        "no 5",
        """Traceback (most recent call last):
  File "<stdin>", line 1, in <module>
    earlier(5)
  File "<stdin>", line 3, in earlier
    raise ValueError(f"no {n}")
ValueError: no 5
""",
    ),
    (
        "try:\n    1 / 0\nexcept ZeroDivisionError as exc:\n    raise KeyError('k') from exc",
        "KeyError",
        "'k'",
        DIRECT_CAUSE,
    ),
    (
        "import asyncio\nasync def f():\n    await asyncio.sleep(0)\n    {}['a']\nawait f()",
        "KeyError",
        "'a'",
        """Traceback (most recent call last):
  File "<stdin>", line 5, in <module>
    await f()
  File "<stdin>", line 4, in f
    {}['a']
KeyError: 'a'
""",
    ),
    ("x = (1,\n", "SyntaxError", "'(' was never closed (<stdin>, line 1)", None),
    ("raise KeyboardInterrupt", "KeyboardInterrupt", "", None),
    ("raise GeneratorExit('g')", "GeneratorExit", "g", None),
    ("import os, signal; os.kill(os.getpid(), signal.SIGINT)", "KeyboardInterrupt", "", None),
    ("class E(BaseException): pass\nraise E('b')", "E", "b", None),
    ("raise ValueError('\\ud800')", "ValueError", "\\ud800", None),
    ("exec('1 +')", "SyntaxError", "invalid syntax (<string>, line 1)", None),
    ("a\0b", "SyntaxError|ValueError", "source code .*null bytes", None),
    ("def f(): return f()\nf()", "RecursionError", "maximum recursion depth.*", None),
    ("class E(Exception):\n  def __str__(self): 1/0\nraise E", "E", "<exception .*failed>", None),
    (
        "class E(Exception):\n  def __str__(self): raise SystemExit\nraise E",
        "E",
        "<exception .*failed>",
        None,
    ),
    ("raise ExceptionGroup('g', [ValueError(1), OSError(2)])", "ExceptionGroup", "g .*", None),
    ("raise ValueError('x' * 1_000_000)", "ValueError", "(?s)x+\n.*dropped.*\nx+", None),
    ("input('q? ')", "EOFError", "input\\(\\) has nobody to ask.*", None),
    ("import sys; sys.stdin.read() + 1", "TypeError", ".*", None),
]


@each(("code", "name", "value", "traceback"), TRACEBACKS)
async def _tracebacks(client: Any, code: str, name: str, value: str, traceback: str | None) -> None:
    error = (await run(client, code)).error
    assert re.fullmatch(name, error["name"]), error
    assert error["value"] == value or re.fullmatch(value, error["value"]), error
    # Some versions point at parts of lines.
    shown = re.sub(r"^ +[~^]+\n", "", error["traceback"], flags=re.MULTILINE)
    assert "interpreter.py" not in shown
    assert "_procd" not in shown
    if traceback is None:
        assert re.search(error["name"], shown)
    else:
        assert shown == traceback


async def test_tracebacks(procd: MakeClient) -> None:
    client = await procd()
    assert not await said(client, '\ndef earlier(n):\n    raise ValueError(f"no {n}")')
    await _tracebacks(client=client)
    cell = await run(client, "import sys; sys.stdout.write('no newline'); 1 / 0")
    assert cell.kinds == ["stdout", "error", "control"]


async def test_a_traceback_of_a_deep_recursion_has_its_last_frames(procd: MakeClient) -> None:
    client = await procd()
    code = "import sys\nsys.setrecursionlimit(20_000)\ndef f(): f()\nf()"
    error = (await run(client, code)).error
    assert "  [Previous line repeated 997 more times]\n" in error["traceback"]
    assert error["traceback"].count("\n") < 20


@each(
    "code",
    [
        "x = 0\n1 / x",
        "x = 0\nprint('é' + str(1 / x))\n",
        "return 5",
        "x = 1\nif x:\n    return x\n",
        "nonlocal x",
        "class C:\n    yield 'a'",
        "from __future__ import nothing",
        "f(**{}, *[])",
        "  x = 1",
        "x = 'unterminated",
    ],
)
async def _carets(client: Any, directory: Path, code: str) -> None:
    file = directory / "code.py"
    file.write_text(code)
    plain = await asyncio.create_subprocess_exec(sys.executable, file, stderr=PIPE)
    _, said = await plain.communicate()
    error = (await run(client, code)).error
    assert error["traceback"] == said.decode().replace(str(file), "<stdin>")


async def test_carets_are_those_of_python(procd: MakeClient, tmp_path: Path) -> None:
    await _carets(client=await procd(interpreter={"python": sys.executable}), directory=tmp_path)


async def test_lines_of_cells(procd: MakeClient, tmp_path: Path) -> None:
    """In warnings, tracebacks and `inspect`; they end where Python has them end."""
    client = await procd(process={"work_dir": str(tmp_path)})
    outcome = await run(client, "x = 5 is 5")
    assert outcome.stderr.splitlines()[1:] == ["  x = 5 is 5"]
    error = (await run(client, "a = 'x\x0by\u2028z'\r\nb = 2\rraise ValueError(b)")).error
    assert '  File "<stdin>", line 3, in <module>\n    raise ValueError(b)\n' in error["traceback"]
    code = "def f():\n    return 5\nimport inspect; print(inspect.getsource(f), end='')"
    assert await said(client, code) == "def f():\n    return 5\n"
    (tmp_path / "mine.py").write_text("def f():\n    return missing\n")
    error = (await run(client, "import mine\nmine.f()")).error
    assert 'mine.py", line 2, in f\n    return missing\n' in error["traceback"]


@pytest.mark.parametrize("display", [False, True])
async def test_what_was_in_the_frames_of_an_error_goes_at_once(
    procd: MakeClient, display: bool
) -> None:
    client = await procd()
    code = """
import gc, weakref
gc.disable()
class Big: pass
def held(end):
    global kept
    big = Big()
    kept = weakref.ref(big)
    end()
def fail(): raise ValueError
"""
    assert not await said(client, code)
    for end in ("held(fail)", "import sys; held(sys.exit)"):
        await run(client, end, display=display)
        assert await said(client, "print(kept())") == "None\n"


# State


async def test_state_persists(procd: MakeClient) -> None:
    client = await procd()
    assert not await said(client, "import math as m\ndef f(): return x + 1\nx = 1")
    assert await said(client, "x = 5; print(f(), m.floor(1.5))") == "6 1\n"
    assert (await run(client, "y = 7; 1 / 0")).error
    assert await said(client, "print(y)", contextId="default") == "7\n"
    assert await said(client, "print(y)", contextId="") == "7\n"


async def test_contexts_are_separate(procd: MakeClient, tmp_path: Path) -> None:
    client = await procd()
    (tmp_path / "mine.py").write_text("x = 5")
    one, two = await create(client), await create(client, cwd=str(tmp_path), language="python")
    assert not await said(client, "x = 1; import os", contextId=one)
    assert (await run(client, "x", contextId=two)).error["name"] == "NameError"
    assert (await run(client, "x")).error["name"] == "NameError"
    where = "import os; print(os.getcwd(), os.environ['PWD'])"
    assert await said(client, where, contextId=two) == f"{tmp_path} {tmp_path}\n"
    contexts = await listed(client)
    assert list(contexts) == [one, two]
    assert (contexts[two]["cwd"], contexts[two]["active"]) == (str(tmp_path), True)
    await delete(client, one)
    assert list(await listed(client)) == [two]
    code = "import os, mine; os.chdir('/'); print(mine.x)"
    assert await said(client, code, contextId=two) == "5\n"
    assert await said(client, "print(os.getcwd())", contextId=two) == "/\n"
    relative = await create(client, cwd=os.path.relpath(tmp_path))
    assert await said(client, where, contextId=relative) == f"{tmp_path} {tmp_path}\n"


async def test_envs(procd: MakeClient) -> None:
    client = await procd()
    async with client.post("/env", json={"set": {"SOME": "value"}}) as reply:
        assert reply.status == 200
    shown = "import os; print(os.environ.get('A'), os.environ.get('B')); r = os.system('echo $A')"
    assert not await said(client, "import os; os.environ['B'] = 'mine'")
    got = await said(client, shown, envs={"A": "1 €", "B": "theirs"})
    assert sorted(got.split("\n")) == ["", "1 €", "1 € theirs"]
    assert sorted((await said(client, shown, envs={})).split("\n")) == ["", "", "None mine"]
    cell = await run(client, "del os.environ['A']; os.environ['B'] = 'x'; 1 / 0", envs={"A": "1"})
    assert cell.error
    assert "None x\n" in await said(client, shown)
    assert await said(client, "print(os.environ['SOME'])") == "value\n"


async def test_top_level_await(procd: MakeClient) -> None:
    client = await procd()
    code = """
import asyncio, gc, sys
async def work():
    for n in range(3):
        await asyncio.sleep(0)
        yield n
task = asyncio.get_running_loop().create_task(asyncio.sleep(0, 'late'))
print([n async for n in work()])
"""
    assert await said(client, code) == "[0, 1, 2]\n"
    assert await said(client, "print(await task)") == "late\n"
    assert await said(client, "print(asyncio.run(asyncio.sleep(0, 1)))") == "1\n"
    (await run(client, "await asyncio.sleep(0); sys.exit(3)")).check_completed()
    assert await said(client, "r = gc.collect()") == ""  # asyncio doesn't complain of the exit
    assert await said(client, "await asyncio.sleep(0)\nasyncio.get_running_loop().stop()") == ""
    assert await said(client, "print(await asyncio.sleep(0.01, 'fine'))") == "fine\n"


@pytest.mark.parametrize("display", [False, True])
async def test_imports_from_the_future_hold(procd: MakeClient, display: bool) -> None:
    client = await procd()
    context_id = await create(client)
    code = "def f(a: Missing): pass\nprint(f.__annotations__)"
    future = "from __future__ import annotations\n"
    (await run(client, future, contextId=context_id, display=display)).check_completed()
    for shows in (display, not display):
        cell = await run(client, code, contextId=context_id, display=shows)
        assert (cell.stdout, cell.errors) == ("{'a': 'Missing'}\n", [])
    assert (await run(client, code)).error["name"] == "NameError"


# Modules that our code uses, and that Python does not load at its start.
OUR_MODULES = ("displays", "fcntl", "interpreter", "json", "procd", "resource", "select")
LATE_MODULES = ("linecache", "reprlib", "traceback")


async def test_modules_of_the_user_with_names_of_ours(procd: MakeClient, tmp_path: Path) -> None:
    for name in OUR_MODULES + LATE_MODULES:
        (tmp_path / f"{name}.py").write_text(f"name = {name!r}")
    client = await procd(process={"work_dir": str(tmp_path)})
    error = (await run(client, "print(1)\n1 / 0")).error
    assert '  File "<stdin>", line 2, in <module>\n    1 / 0\n' in error["traceback"]
    built_in = (await said(client, "import sys; print(*sys.builtin_module_names)")).split()
    for name in OUR_MODULES:
        if name not in built_in:
            code = f"import {name}; print({name}.name)"
            assert await said(client, code) == f"{name}\n"
    assert (await run(client, "5", display=True)).results == [{"text/plain": "5"}]
    async with client.get(f"{CONTEXTS}/default/variables") as reply:
        assert reply.status == 200
    assert (await execute(client, "echo fine"))["result"] == "fine\n"


async def test_a_safe_path(procd: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    client = await procd(interpreter={"python": sys.executable})  # 3.11 or later, as procd's own
    cell = await run(client, "import sys\nprint('' in sys.path)\n1", display=True)
    assert (cell.stdout, cell.results) == ("False\n", [{"text/plain": "1"}])


# Variables


async def variables(client: Client) -> dict[str, tuple[str, str]]:
    async with client.get(f"{CONTEXTS}/default/variables") as reply:
        body = await reply.json()
        assert reply.status == 200, body
    return {entry["name"]: (entry["type"], entry["repr"]) for entry in body["variables"]}


async def test_variables(procd: MakeClient) -> None:
    client = await procd()
    code = """
class Bad:
    def __repr__(self): raise ValueError
class Worse:
    def __repr__(self): raise SystemExit
class Loud:
    def __repr__(self): print('loud'); return '\\ud800'
_hidden, number, text, bad, worse, loud, many = 1, 2, 'x' * 1000, Bad(), Worse(), Loud(), [0] * 9999
globals()[1] = 'no name'
globals()['\\ud800'] = 1
for n in range(900): globals()[f'v{n}' + 'y' * 10_000] = n
globals()['n' * 9_000_000] = type('T' * 9_000_000, (), {})()
"""
    assert not await said(client, code)
    found = await variables(client)
    assert all(len(name) <= 256 and len(shown) <= 160 for name, (_, shown) in found.items())
    assert found["number"] == ("int", "2")
    assert found["text"][1].startswith("'xxx")
    assert found["bad"][1].startswith("<Bad instance at ")
    assert found["worse"] == ("Worse", "<repr failed: SystemExit>")
    assert found["loud"][0] == "Loud"
    assert found["Bad"][0] == "type"
    assert "_hidden" not in found
    assert found["v899".ljust(256, "y")] == ("int", "899")
    assert found["n" * 256][0] == "T" * 256
    assert await said(client, "print(number)") == "2\n"
    async with client.get(f"{CONTEXTS}/none/variables") as reply:
        await refused(reply, 404, "PROCESS_NOT_FOUND")


def unwilling(alive: Fifo, gate: Gate) -> str:
    """Code that leaves what can be listed when the gate is open, and tells of each interrupt."""
    return f"""
import time
x = 5
def say(word):
    if word == 'no': time.sleep(0.5)  # longer than any grace
    with open({str(alive)!r}, 'w') as file: file.write(word + '\\n')
class R:
    def __repr__(self):
        words = ['up']
        while True:
            try:
                while words: say(words.pop())
                with open({str(gate)!r}) as file: return file.readline()
            except KeyboardInterrupt:
                words.append('no')
r = R()
"""


@pytest.mark.parametrize("how", ["its time is up", "its client goes"])
async def test_a_listing_costs_no_state(
    procd: MakeClient, alive: Fifo, gate: Gate, how: str
) -> None:
    time_is_up = how == "its time is up"
    variables_s = 2.0 if time_is_up else 3600.0
    client = await procd(interpreter={"variables_s": variables_s, "grace_s": 0.01})
    assert not await said(client, unwilling(alive, gate))
    asking = asyncio.ensure_future(client.get(f"{CONTEXTS}/default/variables"))
    assert await alive.line() == "up"
    if time_is_up:
        async with await asking as reply:
            body = await refused(reply, 408, "PROCESS_EXECUTION_TIMEOUT")
            assert "the state is kept" in body["message"]
    else:
        asking.cancel()
        await asyncio.wait([asking])
    assert await alive.line() == "no"
    cell = await start(client, "print(x)")
    async with client.post(f"{CONTEXTS}/default/interrupt") as reply:
        assert reply.status == 200, "it can be interrupted once more"
    assert await alive.line() == "no"
    gate.open()
    await cell.to_end()
    cell.check_completed()
    assert cell.stdout == "5\n"


ENDS_OF_LISTINGS = {
    "delete": (404, "PROCESS_NOT_FOUND", None),
    "interrupt": (409, "CONFLICT", "the context was interrupted"),
    "restart": (409, "CONFLICT", "context restarted"),
    "stop": (500, "INTERNAL_SERVER_ERROR", "server shutdown"),
}


@pytest.mark.parametrize("how", ENDS_OF_LISTINGS)
async def test_a_listing_that_is_broken_off(procd: MakeClient, alive: Fifo, how: str) -> None:
    client = await procd()
    context_id = await create(client)
    code = f"""
import time
class R:
    def __repr__(self):
        with open({str(alive)!r}, 'w') as file: file.write('up\\n')
        time.sleep(3600)
r = R()
"""
    assert not await said(client, code, contextId=context_id)
    path = f"{CONTEXTS}/{context_id}"
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(client.get(f"{path}/variables"))
        assert await alive.line() == "up"
        if how == "delete":
            await delete(client, context_id)
        elif how == "stop":
            await client.server.close()
        else:
            async with client.post(f"{path}/{how}") as reply:
                assert reply.status == 200
    status, kind, message = ENDS_OF_LISTINGS[how]
    async with asking.result() as reply:
        body = await refused(reply, status, kind)
        assert message in (None, body["message"])


# Refusals


REFUSALS = [
    (b"", 1002, "invalid JSON payload"),
    (b"x", 1002, "invalid JSON payload"),
    (b"[" * 100_000, 1002, "invalid JSON payload"),
    (b"[]", 1002, "invalid JSON payload"),
    (b'{"code": 5}', 1002, "invalid JSON payload"),
    (b'{"code": "x", "timeout": "1"}', 1002, "invalid JSON payload"),
    (b'{"code": "x", "timeout": 1.5}', 1002, "invalid JSON payload"),
    (b'{"code": "x", "envs": {"A": 1}}', 1002, "invalid JSON payload"),
    (b'{"code": "x", "display": 1}', 1002, "invalid JSON payload"),
    (
        b'{"code": "\\ud800"}',
        1008,
        "invalid request body: code: must not contain lone surrogates",
    ),
    (
        b'{"code": "x", "contextId": "\\u0000"}',
        1008,
        "invalid request body: contextId: must not contain a NUL character",
    ),
    (b"{}", 1008, "code is required"),
    (b'{"code": ""}', 1008, "code is required"),
    (b'{"code": null}', 1008, "code is required"),
    (b'{"code": "x", "timeout": -1}', 1008, "timeout must be greater than or equal to 0"),
    (b'{"code": "x", "contextId": "none"}', 1008, "context not found: none"),
    (b'{"code": "x", "envs": {"1": "x"}}', 1008, "invalid environment variable name: '1'"),
]


@each(("message", "code", "reason"), REFUSALS)
async def _refusals(client: Any, message: bytes, code: int, reason: str) -> None:
    async with client.ws_connect(EXECUTE) as ws:
        await ws.send_bytes(message)
        cell = await Cell(ws).to_end()
        assert (cell.frames, cell.close) == ([], (code, reason))


async def test_refusals(procd: MakeClient) -> None:
    client = await procd()
    await _refusals(client=client)
    for fields in ({"timeout": 0}, {"timeout": None}, {"envs": None}, {"CODE": None}):
        assert await said(client, "print(1)", **fields) == "1\n"
    for timeout in (2**31, 10**400):
        assert await said(client, "print(1)", timeout=timeout) == "1\n"
    async with client.get(EXECUTE) as reply:
        await refused(reply, 400, "BAD_REQUEST")


async def test_no_first_message(procd: MakeClient) -> None:
    client = await procd(interpreter={"first_message_s": 0.1})
    async with client.ws_connect(EXECUTE) as ws:
        cell = await Cell(ws).to_end()
        assert cell.close == (1002, "failed to read first message")
    client = await procd()
    for how in ("close", "leave", "reset"):
        async with raw(client) as connection:
            await connection.upgrade(EXECUTE)
            if how == "close":
                await connection.send_frame(8, b"")
                assert await connection.rest()
            elif how == "reset":
                connection.reset()
    assert await said(client, "print(1)") == "1\n"


async def test_too_large_a_message(procd: MakeClient) -> None:
    client = await procd(interpreter={"max_message_bytes": 2048})
    async with client.ws_connect(EXECUTE) as ws:
        await ws.send_str(json.dumps({"code": "#" * 5000}))
        assert (await Cell(ws).to_end()).close == (1009, "the message was too long")


async def test_bodies(procd: MakeClient) -> None:
    client = await procd()
    ruby = "unsupported language: ruby \\(only 'python' is supported currently\\)"
    for body, status, code, message in (
        (b"", 400, "INVALID_REQUEST_BODY", "empty"),
        (b"[]", 400, "INVALID_REQUEST_BODY", "object"),
        (b'{"cwd": 1}', 400, "INVALID_REQUEST_BODY", "cwd"),
        (b'{"language": "ruby"}', 400, "BAD_REQUEST", ruby),
        (b'{"cwd": "/none"}', 500, "INTERNAL_SERVER_ERROR", "failed to start context: .*/none"),
    ):
        async with client.post(CONTEXTS, data=body) as reply:
            assert re.search(message, (await refused(reply, status, code))["message"])
    assert not await listed(client)
    for body in (b"{}", b'{"cwd": null, "language": null}', b'{"cwd": "", "language": ""}'):
        async with client.post(CONTEXTS, data=body) as reply:
            assert reply.status == 200
            context = await reply.json()
            assert (context["language"], context["active"]) == ("python", True)
            assert context["cwd"]
    assert len(await listed(client)) == 3


async def test_unknown_contexts(procd: MakeClient) -> None:
    client = await procd()
    async with client.delete(f"{CONTEXTS}/none") as reply:
        body = await refused(reply, 404, "PROCESS_NOT_FOUND")
        assert body["message"] == "context with ID 'none' not found"
    async with client.delete(f"{CONTEXTS}/default") as reply:
        body = await refused(reply, 400, "BAD_REQUEST")
        assert body["message"] == "cannot delete default context"
    for what in ("interrupt", "restart"):
        async with client.post(f"{CONTEXTS}/none/{what}") as reply:
            await refused(reply, 404, "PROCESS_NOT_FOUND")
    context_id = await create(client)
    await delete(client, context_id)
    async with client.delete(f"{CONTEXTS}/{context_id}") as reply:
        await refused(reply, 404, "PROCESS_NOT_FOUND")
    cell = await run(client, "1", contextId=context_id)
    assert cell.close == (1008, f"context not found: {context_id}")


async def test_max_contexts(procd: MakeClient) -> None:
    client = await procd(interpreter={"max_contexts": 2})
    replies = await asyncio.gather(*[client.post(CONTEXTS, json={}) for _ in range(3)])
    assert sorted(reply.status for reply in replies) == [200, 200, 429]
    await delete(client, next(iter(await listed(client))))
    await create(client)
