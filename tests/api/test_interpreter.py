"""Interpreter contexts: what code may do, what its client sees, and what is refused."""

import asyncio
import base64
import gc
import json
import os
import re
import signal
import sys
import tracemalloc
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from aiohttp import WSMsgType

from procd.api.interpreter import CONTEXTS as APP_CONTEXTS
from procd.app import PROCESSES
from procd.http.request_metrics import HEAP
from procd.http.websocket import CONNECTIONS
from procd.output.buffer import Buffer
from procd.services.interpreter.context import STATE_LOST
from procd.throttle import PIECES
from tests.aliases import Client, MakeClient
from tests.api.cells import CONTEXTS, EXECUTE, Cell, create, delete, listed, run, said, start
from tests.api.clients import (
    CLOSE,
    TEXT,
    WAIT_S,
    Fifo,
    Gate,
    each,
    execute,
    program,
    raw,
    refused,
    until,
)
from tests.http.test_websocket import closed_with, masked

# What is said


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
    ("print('a'); print('b', end='')", "a\nb", ""),
    ("import sys; print('a'); print('b', file=sys.stderr)", "a\n", "b\n"),
    ("import os; n = os.write(1, b'one'); n = os.write(2, b'two')", "one", "two"),
    ("import subprocess; r = subprocess.run(['sh', '-c', 'echo a; echo b >&2'])", "a\n", "b\n"),
    ("import os; r = os.system('printf x')", "x", ""),
    ("print('a', end=''); import os; r = os.system('printf b'); print('c')", "bac\n", ""),
    (
        "import ctypes; c = ctypes.CDLL(None)\n"
        "print('a'); c.printf(b'from C\\n'); print('b'); c.printf(b'c')",
        "a\nfrom C\nb\nc",
        "",
    ),
    ("import sys; n = sys.stdout.buffer.write(b'raw \\xc3\\xa4\\n')", "raw ä\n", ""),
    ("import os; n = os.write(1, b'\\xff\\xc3'); n = os.write(2, b'\\xc3')", "��", "�"),
    ("print('\\ud800|\\U0001f600')", "\\ud800|\U0001f600\n", ""),
    ("print('\\0\\x1b[1m')", "\0\x1b[1m\n", ""),
    ("import sys; print(sys.stdout.encoding, sys.stdout.isatty())", "utf-8 False\n", ""),
    ("1 + 1", "", ""),
    ("   ", "", ""),
    ("# nothing", "", ""),
    ("print(__name__); import sys; print(sys.argv, __name__ in sys.modules)", None, ""),
    ("import sys; sys.exit(3)", "", ""),
    ("import sys; sys.exit('why')", "", "why\n"),
    ("raise SystemExit", "", ""),
    ("import asyncio; await asyncio.sleep(0); print('awaited')", "awaited\n", ""),
    ("import asyncio, sys; await asyncio.sleep(0); sys.exit(3)", "", ""),
    ("print(__builtins__.__name__)", "builtins\n", ""),
    ("import os; os.chdir('/'); print(os.getcwd())", "/\n", ""),
]


@each(("code", "stdout", "stderr"), OUTPUTS)
async def _outputs(client: Any, code: str, stdout: str | None, stderr: str) -> None:
    cell = await run(client, code)
    assert not cell.errors, cell.errors
    cell.check_completed()
    if stdout is not None:
        assert cell.stdout == stdout
    assert cell.stderr == stderr


async def test_output(procd: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # the streams are to be ours
    await _outputs(client=await procd())


async def test_main(procd: MakeClient) -> None:
    client = await procd()
    code = """
import sys, pickle
class Point:
    pass
print(__name__, sys.argv, sys.modules['__main__'].Point is Point)
pickle.loads(pickle.dumps(Point()))
print('__file__' in globals(), sys.path[0] == '')
"""
    assert await said(client, code) == "__main__ [''] True\nFalse True\n"


async def test_what_c_code_says(procd: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    client = await procd()
    code = "import ctypes; c = ctypes.CDLL(None); c.printf(b'last words'); ctypes.string_at(0)"
    cell = await run(client, code)
    assert (cell.stdout, cell.close) == ("last words", (1011, "worker process ended"))
    code = "import ctypes, os; c = ctypes.CDLL(None); c.printf(b'a')\n"
    code += "if os.fork() == 0: c.exit(0)\nos.wait(); c.printf(b'b'); r = os.system('printf c')"
    assert await said(client, code) == "abc"
    assert await said(client, "c.puts(b'd'); print('e')") == "d\ne\n"


FLOOD = "import os, sys, ctypes, subprocess\nfor n in range(20_000): print(n)\n"


@each(
    ("then", "last"),
    [
        ("n = os.write(1, b'last')", "last"),
        ("ctypes.CDLL(None).puts(b'last')", "last\n"),
        ("ctypes.CDLL(None).system(b'echo last')", "last\n"),
        ("r = subprocess.run(['echo', 'last'])", "last\n"),
        ("if os.fork() == 0: print('last'); os._exit(0)\nr = os.wait()", "last\n"),
        ("ctypes.string_at(0)", ""),
        ("os._exit(0)", ""),
        ("os.kill(os.getpid(), 9)", ""),
    ],
)
async def _floods(client: Any, then: str, last: str) -> None:
    cell = await run(client, FLOOD + then)
    assert not cell.errors
    assert cell.stdout == "".join(f"{n}\n" for n in range(20_000)) + last


async def test_a_flood_is_whole_and_in_order(procd: MakeClient) -> None:
    await _floods(client=await procd())


async def test_a_loop_that_prints_to_both(procd: MakeClient) -> None:
    """In the order of its lines, in most runs; faster than they are sent."""
    client = await procd()
    code = "import sys\nfor n in range(500): print(n); print(-n, file=sys.stderr)"
    cells = [await run(client, code) for _ in range(4)]
    lines = "".join(f"{n}\n{-n}\n" for n in range(500))
    said = ["".join(frame["text"] for frame in cell.frames[:-1]) for cell in cells]
    assert said.count(lines) > len(said) / 2


async def test_a_fork_in_a_line(procd: MakeClient) -> None:
    # What waits for the end of its line is said once, and before what a child says.
    client = await procd()
    code = (
        "import os\nprint('a', end='')\nif os.fork(): w = os.wait(); print('c')\nelse: print('b')"
    )
    assert await said(client, code) == "ab\nc\n"


async def test_a_safe_path(procd: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    client = await procd(interpreter={"python": sys.executable})  # 3.11 or later, as procd's own
    cell = await run(client, "import sys\nprint('' in sys.path)\n1", display=True)
    assert (cell.stdout, cell.results) == ("False\n", [{"text/plain": "1"}])


# Modules that the interpreter needs for itself.
OWN_MODULES = ("fcntl", "linecache", "mmap", "resource", "token", "traceback")


@pytest.mark.parametrize("name", OWN_MODULES)
async def test_a_module_of_the_users_by_the_name_of_pythons_own(
    procd: MakeClient, tmp_path: Path, name: str
) -> None:
    (tmp_path / f"{name}.py").write_text("mine = 5\n")
    client = await procd(process={"work_dir": str(tmp_path)})
    cell = await run(client, "print(1)\n1 / 0")
    assert cell.stdout == "1\n"
    assert [error["name"] for error in cell.errors] == ["ZeroDivisionError"]
    code = f"import sys; print({name!r} in sys.builtin_module_names)"
    if name in ("fcntl", "mmap", "resource") and await said(client, code) == "False\n":
        # Those that Python itself doesn't load.
        assert await said(client, f"import {name}; print({name}.mine)") == "5\n"


async def test_nothing_stays_of_an_execution(procd: MakeClient) -> None:
    client = await procd()
    await run(client, "pass")
    gc.collect()
    gc.disable()  # it must take no collection
    try:
        before = _backlogs()
        for _ in range(3):
            assert len(await said(client, "print('x' * 1_000_000)")) == 1_000_001
        assert _backlogs() <= before + 1  # the last one's handler may not have returned yet
    finally:
        gc.enable()


async def test_nothing_stays_of_an_execution_whose_client_vanishes(procd: MakeClient) -> None:
    client = await procd()
    connections = client.app[CONNECTIONS]
    await run(client, "pass")

    async def full() -> bool:
        sent_bytes = connections.traffic.sent_bytes
        for _ in range(20):
            await listed(client)
        return connections.traffic.sent_bytes == sent_bytes

    async def gone() -> bool:
        await listed(client)
        return not len(connections)

    gc.collect()
    gc.disable()
    try:
        before = _backlogs()
        for _ in range(3):
            async with raw(client, receive_bytes=4096) as rude:
                await rude.upgrade(EXECUTE)
                await rude.send_frame(TEXT, b'{"code": "while True: print(\'x\' * 65536)"}')
                await rude.frame()
                await until(full)  # its handler waits for it to read
                rude.reset()
            await until(gone)
        assert await said(client, "print('next')") == "next\n"  # the last one has been interrupted
        assert _backlogs() <= before + 1
    finally:
        gc.enable()


@each("asked", [b'{"code": "print(\'x\' * 2_000_000) #%b"}', b"no JSON %b"])
async def test_nothing_is_kept_for_who_does_not_answer_the_close(
    procd: MakeClient, asked: bytes
) -> None:
    client = await procd()
    await run(client, "pass")
    async with raw(client) as rude, AsyncExitStack() as stack:
        await rude.upgrade(EXECUTE)
        tracemalloc.start()
        stack.callback(tracemalloc.stop)
        message = asked % bytes(4 << 20).replace(b"\0", b"y")
        size = len(message)
        await rude.send(masked(0x80 | TEXT, size, message))
        del message
        while (await rude.frame())[0] != CLOSE:
            pass
        kept_bytes, _ = tracemalloc.get_traced_memory()
        assert kept_bytes < size / 2
        if b"print" not in asked:
            return
        (store,) = (
            found
            for found in gc.get_objects()
            if isinstance(found, Buffer) and found.end == 2_000_001
        )
        assert store.kept_bytes == 0
        assert client.app[HEAP]._timer is not None, "the memory goes back to the system"


def _backlogs() -> int:
    return sum(isinstance(kept, Buffer) for kept in gc.get_objects())


async def test_a_segfault_is_heard(procd: MakeClient) -> None:
    client = await procd()
    code = "import faulthandler, ctypes; faulthandler.enable(); print('a'); ctypes.string_at(0)"
    cell = await run(client, code)
    assert cell.close == (1011, "worker process ended")
    assert cell.stdout == "a\n"
    assert "Segmentation fault" in cell.stderr
    assert "control" not in cell.kinds
    assert await said(client, "print('again')") == "again\n"


async def test_characters_in_parts(procd: MakeClient) -> None:
    client = await procd()
    code = """
import os, time
for byte in '€😀'.encode():
    os.write(1, bytes([byte]))
    time.sleep(0.01)
"""
    assert await said(client, code) == "€😀"


async def test_large_output_in_small_frames(procd: MakeClient) -> None:
    client = await procd()
    cell = await run(client, "print('ä😀' * 500_000)")
    cell.check_completed()
    assert cell.stdout == "ä😀" * 500_000 + "\n"
    assert max(len(frame["text"].encode("utf-16-le")) for frame in cell.frames) <= 2 * 65536
    cell = await run(client, "print('x' * (2 << 20)); print('y' * (2 << 20))")
    assert cell.stdout == "x" * (2 << 20) + "\n" + "y" * (2 << 20) + "\n"
    cell.check_completed()


async def test_large_code(procd: MakeClient) -> None:
    client = await procd()
    body = "x = 1\n" * 1_000_000  # 6 MB of statements, 50 MB of text
    code = f"text = {'a' * (50 << 20)!r}\nprint(len(text))"
    assert await said(client, code) == f"{50 << 20}\n"
    assert await said(client, f"{body[:600_000]}print(x)") == "1\n"


async def test_output_is_live(procd: MakeClient, gate: Gate) -> None:
    client = await procd()
    cell = await start(client, f"print('first'); open({str(gate)!r}).readline(); print('then')")
    await cell.until("first\n")
    assert cell.stdout == "first\n"
    gate.open()
    await cell.to_end()
    assert cell.stdout == "first\nthen\n"


async def test_output_without_newlines_is_live(procd: MakeClient, gate: Gate) -> None:
    client = await procd()
    wait = f"open({str(gate)!r}).readline()"
    for stream in ("stdout", "stderr"):
        code = f"import sys\nfor n in range(1500): print('.', end='', file=sys.{stream})\n{wait}"
        cell = await start(client, code)
        await cell.until(lambda cell: len(cell.stdout + cell.stderr) >= 1024)
        gate.open()
        assert len(getattr(await cell.to_end(), stream)) == 1500
    code = "import os; print('.' * 4000, end=''); os.kill(os.getpid(), 9)"
    assert (await run(client, code)).stdout == "." * 4000


# Errors


TRACEBACKS = [
    (
        "x = 1\n1 / 0\n",
        "ZeroDivisionError",
        "division by zero",
        """Traceback (most recent call last):
  File "<stdin>", line 2, in <module>
    1 / 0
ZeroDivisionError: division by zero
""",
    ),
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
        """Traceback (most recent call last):
  File "<stdin>", line 2, in <module>
    1 / 0
ZeroDivisionError: division by zero

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "<stdin>", line 4, in <module>
    raise KeyError('k') from exc
KeyError: 'k'
""",
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
    (
        "x = (1,\n",
        "SyntaxError",
        "'(' was never closed (<stdin>, line 1)",
        """  File "<stdin>", line 1
    x = (1,
        ^
SyntaxError: '(' was never closed
""",
    ),
    (
        "try:\n    compile('a b', 'x.py', 'exec')\nexcept SyntaxError:\n    raise OSError(2)",
        "OSError",
        "2",
        None,
    ),
    ("raise KeyboardInterrupt", "KeyboardInterrupt", "", None),
    ("raise GeneratorExit('g')", "GeneratorExit", "g", None),
    ("import os, signal; os.kill(os.getpid(), signal.SIGINT)", "KeyboardInterrupt", "", None),
    ("class E(BaseException): pass\nraise E('b')", "E", "b", None),
    ("'a\x0cb'; 'c\u2028d'\n1 / 0", "ZeroDivisionError", "division by zero", None),
    ("raise ValueError('\\ud800')", "ValueError", "\\ud800", None),
    ("exec('1 +')", "SyntaxError", "invalid syntax (<string>, line 1)", None),
    ("a\0b", "SyntaxError|ValueError", "source code .*null bytes", None),
    ("yield 1", "SyntaxError", "'yield' outside function .*", None),
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
    ("input()", "EOFError", "input\\(\\) has nobody to ask.*", None),
    ("import sys; sys.stdin.read() + 1", "TypeError", ".*", None),
]


@each(("code", "name", "value", "traceback"), TRACEBACKS)
async def _tracebacks(client: Any, code: str, name: str, value: str, traceback: str | None) -> None:
    error = (await run(client, code)).error
    assert re.fullmatch(name, error["name"]), error
    assert error["value"] == value or re.fullmatch(value, error["value"]), error
    # Some versions point at parts of lines.
    shown = re.sub(r"^ +[~^]+\n", "", error["traceback"], flags=re.MULTILINE)
    if traceback is None:
        assert "interpreter.py" not in shown
        assert re.search(error["name"], shown)
    elif name == "SyntaxError":
        assert error["traceback"] == traceback
    else:
        assert shown == traceback


async def test_traceback_of_a_deep_recursion_has_its_last_frames(procd: MakeClient) -> None:
    client = await procd()
    code = "import sys\nsys.setrecursionlimit(20_000)\ndef f(): f()\nf()"
    error = (await run(client, code)).error
    frame = '  File "<stdin>", line 3, in f\n    def f(): f()\n'
    head, times, end = error["traceback"].partition("  [Previous line repeated 997 more times]\n")
    shown = re.sub(r"^ +[~^]+\n", "", head, flags=re.MULTILINE)
    assert (shown, bool(times)) == (f"Traceback (most recent call last):\n{3 * frame}", True)
    assert end.startswith("RecursionError: maximum recursion depth exceeded")
    error = (await run(client, "sys.tracebacklimit = 1\nf()")).error
    assert '  File "<stdin>", line 2, in <module>\n' in error["traceback"]
    assert "in f\n" not in error["traceback"]


async def test_tracebacks(procd: MakeClient) -> None:
    client = await procd()
    assert not await said(client, '\ndef earlier(n):\n    raise ValueError(f"no {n}")')
    await _tracebacks(client=client)


@each(
    "code",
    [
        "x = 0\n1 / x",
        "x = 0\nprint('é' + str(1 / x))\n",
        "return 5",
        "x = 1\nif x:\n    return x\n",
        "nonlocal x",
        "await = 5\n",
        "def f():\n    global a\n    b = a; nonlocal a",
        "class C:\n    yield 'a'",
        "x = 5\nbreak\n",
        "def f(a, a): pass",
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


async def test_a_caret_beyond_ascii(procd: MakeClient) -> None:
    # Where Python's own is off in files, too.
    client = await procd(interpreter={"python": sys.executable})
    error = (await run(client, "'é€'; return 'ä'\n")).error
    lines = ['  File "<stdin>", line 1', "    'é€'; return 'ä'", "          ^^^^^^^^^^"]
    assert error["traceback"].splitlines() == [*lines, "SyntaxError: 'return' outside function"]


async def test_a_warning_of_the_compiler_shows_its_line(procd: MakeClient) -> None:
    outcome = await run(await procd(), "x = 5 is 5")
    assert outcome.stderr.splitlines()[1:] == ["  x = 5 is 5"]


async def test_source_lines_are_those_of_python(procd: MakeClient) -> None:
    # str.splitlines knows more ends of lines than Python does.
    client = await procd()
    error = (await run(client, "a = 'x\x0by\u2028z'\r\nb = 2\rraise ValueError(b)")).error
    assert '  File "<stdin>", line 3, in <module>\n    raise ValueError(b)\n' in error["traceback"]


async def test_frames_of_modules(procd: MakeClient, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def f():\n    return missing\n")
    client = await procd()
    context_id = await create(client, cwd=str(tmp_path))
    error = (await run(client, "import mine\nmine.f()", contextId=context_id)).error
    assert 'mine.py", line 2, in f\n    return missing\n' in error["traceback"]
    await delete(client, context_id)


async def test_error_after_output(procd: MakeClient) -> None:
    client = await procd()
    cell = await run(client, "import sys; sys.stdout.write('no newline'); 1 / 0")
    assert cell.kinds == ["stdout", "error", "control"]
    assert cell.stdout == "no newline"
    assert cell.error["name"] == "ZeroDivisionError"


ENDS = [
    "held()",
    "raise_from(held)",
    "import sys; held(sys.exit)",
    "held(loud)",
    "held(quitting)",
]


@each(("code", "display"), [(code, display) for code in ENDS for display in (False, True)])
async def _forgotten(client: Any, code: str, display: bool) -> None:
    await run(client, code, display=display)
    assert await said(client, "print(kept())") == "None\n"


async def test_errors_keep_nothing(procd: MakeClient) -> None:
    # What was in the frames of a cell that failed is gone at once, as from any function.
    client = await procd()
    code = """
import gc, weakref
gc.disable()
class Loud(Exception):
    def __init__(self, end): self.end = end
    def __str__(self): raise self.end
class Big: pass
def fail(): raise ValueError
def loud(): raise Loud(ValueError)
def quitting(): raise Loud(SystemExit)
def held(end=fail):
    global kept
    big = Big()
    kept = weakref.ref(big)
    end()
def raise_from(call):
    try: call()
    except ValueError as exc: raise KeyError from exc
"""
    assert not await said(client, code)
    await _forgotten(client=client)


# State


async def test_state_persists(procd: MakeClient) -> None:
    client = await procd()
    assert not await said(client, "import math as m\ndef f(): return x + 1\nx = 1")
    assert await said(client, "x = 5; print(f(), m.floor(1.5))") == "6 1\n"
    assert (await run(client, "y = 7; 1 / 0")).error
    assert await said(client, "print(y)", contextId="default") == "7\n"
    assert await said(client, "print(y)", contextId="") == "7\n"


async def test_contexts_are_apart(procd: MakeClient, tmp_path: Path) -> None:
    client = await procd()
    one, two = await create(client), await create(client, cwd=str(tmp_path), language="python")
    assert not await said(client, "x = 1; import os", contextId=one)
    assert (await run(client, "x", contextId=two)).error["name"] == "NameError"
    assert (await run(client, "x")).error["name"] == "NameError"
    code = "import os; print(os.getcwd(), os.environ['PWD'])"
    assert await said(client, code, contextId=two) == f"{tmp_path} {tmp_path}\n"
    contexts = await listed(client)
    assert list(contexts) == [one, two]
    assert contexts[two]["cwd"] == str(tmp_path)
    assert contexts[two]["active"] is True
    await delete(client, one)
    assert list(await listed(client)) == [two]
    assert await said(client, "import os; print(os.getcwd())", contextId=two) == f"{tmp_path}\n"


async def test_a_relative_directory(procd: MakeClient, tmp_path: Path) -> None:
    client = await procd()
    context_id = await create(client, cwd=os.path.relpath(tmp_path))
    code = "import os; print(os.getcwd(), os.environ['PWD'])"
    assert await said(client, code, contextId=context_id) == f"{tmp_path} {tmp_path}\n"


async def test_modules_of_the_directory(procd: MakeClient, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("x = 5")
    client = await procd()
    context_id = await create(client, cwd=str(tmp_path))
    code = "import os, mine; os.chdir('/'); print(mine.x)"
    assert await said(client, code, contextId=context_id) == "5\n"
    assert await said(client, "print(os.getcwd())", contextId=context_id) == "/\n"


async def test_envs(procd: MakeClient) -> None:
    client = await procd()
    shown = "import os; print(os.environ.get('A'), os.environ.get('B')); r = os.system('echo $A')"
    assert not await said(client, "import os; os.environ['B'] = 'mine'")
    got = await said(client, shown.replace("print", "print", 1), envs={"A": "1 €", "B": "theirs"})
    assert sorted(got.split("\n")) == ["", "1 €", "1 € theirs"]
    got = await said(client, shown, envs={})
    assert sorted(got.split("\n")) == ["", "", "None mine"]
    cell = await run(client, "del os.environ['A']; os.environ['B'] = 'x'; 1 / 0", envs={"A": "1"})
    assert cell.error
    assert "None x\n" in await said(client, shown)


async def test_environment_of_the_server(procd: MakeClient) -> None:
    client = await procd()
    async with client.post("/env", json={"set": {"SOME": "value"}}) as reply:
        assert reply.status == 200
    assert await said(client, "import os; print(os.environ['SOME'])") == "value\n"


async def test_top_level_await(procd: MakeClient) -> None:
    client = await procd()
    code = """
import asyncio
import base64
import gc
async def work():
    for n in range(3):
        await asyncio.sleep(0)
        yield n
task = asyncio.get_running_loop().create_task(asyncio.sleep(0, 'late'))
print([n async for n in work()])
async with asyncio.Lock() as lock:
    pass
"""
    assert await said(client, code) == "[0, 1, 2]\n"
    assert await said(client, "print(await task)") == "late\n"
    assert await said(client, "print(asyncio.run(asyncio.sleep(0, 1)))") == "1\n"
    assert await said(client, "print(await asyncio.sleep(0, 2))") == "2\n"
    cell = await run(client, "import gc, sys; await asyncio.sleep(0); sys.exit(3)")
    cell.check_completed()
    assert await said(client, "r = gc.collect()") == ""  # nobody complains of the exit


async def test_variables(procd: MakeClient) -> None:
    client = await procd()
    path = f"{CONTEXTS}/default/variables"
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
"""
    assert not await said(client, code)
    async with client.get(path) as reply:
        body = await reply.json()
        assert reply.status == 200, body
    found = {entry["name"]: (entry["type"], entry["repr"]) for entry in body["variables"]}
    assert all(len(entry["repr"]) <= 160 for entry in body["variables"])
    assert found["number"] == ("int", "2")
    assert found["text"][1].startswith("'xxx")
    assert found["bad"][1].startswith("<Bad instance at ")
    assert found["worse"] == ("Worse", "<repr failed: SystemExit>")
    assert found["loud"][0] == "Loud"
    assert found["Bad"][0] == "type"
    assert "_hidden" not in found
    assert await said(client, "print(number)") == "2\n"
    # However long names are, and names of types.
    code = """
for n in range(900): globals()[f'v{n}' + 'y' * 10_000] = n
globals()['n' * 9_000_000] = type('T' * 9_000_000, (), {})()
"""
    assert not await said(client, code)
    async with client.get(path) as reply:
        body = await reply.json()
        assert reply.status == 200, body
    found = {entry["name"]: (entry["type"], entry["repr"]) for entry in body["variables"]}
    assert all(len(name) <= 256 for name in found)
    assert found["v899".ljust(256, "y")] == ("int", "899")
    assert found["n" * 256][0] == "T" * 256
    assert await said(client, "print(number)") == "2\n"
    async with client.get(f"{CONTEXTS}/none/variables") as reply:
        await refused(reply, 404, "PROCESS_NOT_FOUND")


def unwilling(alive: Fifo, gate: Gate) -> str:
    """Code that leaves what can be listed when the gate is open, and tells of each interrupt."""
    return f"""
import reprlib, time
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
async def test_who_looks_costs_no_state(
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
        assert reply.status == 200, "it can be asked once more"
    assert await alive.line() == "no"
    gate.open()
    await cell.to_end()
    cell.check_completed()
    assert cell.stdout == "5\n"


async def test_a_look_that_never_ends(procd: MakeClient, alive: Fifo, gate: Gate) -> None:
    client = await procd(interpreter={"variables_s": 2.0, "grace_s": 0.01})
    assert not await said(client, unwilling(alive, gate))
    path = f"{CONTEXTS}/default/variables"
    async with client.get(path) as reply:
        await refused(reply, 408, "PROCESS_EXECUTION_TIMEOUT")
    assert [await alive.line(), await alive.line()] == ["up", "no"]
    cell = await start(client, "print('x' in globals())")
    async with client.post(f"{CONTEXTS}/default/restart") as reply:
        assert reply.status == 200
    assert (await cell.to_end()).stdout == "False\n"
    assert not await said(client, unwilling(alive, gate))
    async with client.get(path) as reply:  # and the server stops with it
        await refused(reply, 408, "PROCESS_EXECUTION_TIMEOUT")
    assert await alive.line() == "up"


LOOKS = {
    "delete": (404, "PROCESS_NOT_FOUND", None),
    "interrupt": (409, "CONFLICT", "the context was interrupted"),
    "restart": (409, "CONFLICT", "context restarted"),
    "stop": (500, "INTERNAL_SERVER_ERROR", "server shutdown"),
}


@pytest.mark.parametrize("how", LOOKS)
async def test_what_comes_between_while_somebody_looks(
    procd: MakeClient, alive: Fifo, how: str
) -> None:
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
    context = client.app[APP_CONTEXTS].get(context_id)
    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(client.get(f"{path}/variables"))]
        assert await alive.line() == "up"
        if how in ("delete", "stop"):  # who waits is told the same
            asking.append(group.create_task(client.get(f"{path}/variables")))
            await until(lambda: _is(len(context._queue) == 1))
        if how == "delete":
            await delete(client, context_id)
        elif how == "stop":
            await client.server.close()
        else:
            async with client.post(f"{path}/{how}") as reply:
                assert reply.status == 200
    status, kind, message = LOOKS[how]
    for one in asking:
        async with await one as reply:
            body = await refused(reply, status, kind)
            assert message in (None, body["message"])


# Displays


DISPLAYS = [
    ("1 + 1", [{"text/plain": "2"}]),
    ("'a'; 'b'", [{"text/plain": "'b'"}]),
    ("x = 1", []),
    ("None", []),
    ("raise SystemExit", [{"application/vnd.procd.exit+json": 0, "text/plain": "exit(0)"}]),
    ("exit('why')", [{"application/vnd.procd.exit+json": 1, "text/plain": "exit(1)"}]),
    (
        "import sys; sys.exit(259)",
        [{"application/vnd.procd.exit+json": 3, "text/plain": "exit(3)"}],
    ),
    *(
        (
            f"import sys; sys.exit({code})",
            [{"application/vnd.procd.exit+json": 255, "text/plain": "exit(255)"}],
        )
        for code in ("-1", "(1 << 63) - 1", "1 << 63", "-(1 << 64)")
    ),
    ("display(1, 'two')", [{"text/plain": "1"}, {"text/plain": "'two'"}]),
    ("import asyncio\nawait asyncio.sleep(0, 3)", [{"text/plain": "3"}]),
    ("del __builtins__.display", []),
    ("lambda: None", None),
    (
        """
class Rich:
    def __repr__(self): return 'rich'
    def _repr_html_(self): return '<b>'
    def _repr_markdown_(self): return '*b*'
    def _repr_svg_(self): return '<svg/>'
    def _repr_png_(self): return b'png', {'width': 1}
    def _repr_jpeg_(self): return b'jpeg'
    def _repr_latex_(self): return '$x$'
    def _repr_javascript_(self): return 'alert(1)'
    def _repr_json_(self): return {'a': [1, None]}
Rich()
""",
        [
            {
                "text/plain": "rich",
                "text/html": "<b>",
                "text/markdown": "*b*",
                "image/svg+xml": "<svg/>",
                "image/png": "cG5n",
                "image/jpeg": "anBlZw==",
                "text/latex": "$x$",
                "application/javascript": "alert(1)",
                "application/json": {"a": [1, None]},
            }
        ],
    ),
    (
        """
class Bundle:
    def __repr__(self): return 'b'
    def _repr_mimebundle_(self, include=None, exclude=None): return {'x/y': 1}, {}
Bundle()
""",
        [{"text/plain": "b", "x/y": 1}],
    ),
    (
        """
class Bad:
    def __repr__(self): raise ValueError
    def _repr_html_(self): raise ValueError
    def _repr_json_(self): return object()
    def __getattr__(self, name): raise RuntimeError(name)
Bad()
""",
        [{"text/plain": "<repr failed: ValueError>"}],
    ),
    (
        """
class Wrong:
    def __repr__(self): return 'wrong'
    def _repr_mimebundle_(self, **_): return ()
    def _repr_html_(self): return 5
    def _repr_markdown_(self): return ()
    def _repr_svg_(self): return b'<svg/>'
    def _repr_png_(self): return 5.0
    def _repr_jpeg_(self): return 'anBlZw=='
    def _repr_latex_(self): return ['$x$'], {}
    def _repr_javascript_(self): return {}
    def _repr_json_(self): return b'{}'
Wrong()
""",
        [{"text/plain": "wrong", "image/jpeg": "anBlZw=="}],
    ),
    (
        """
class Halves:
    def __repr__(self): return 'a\\ud800'
    def _repr_html_(self): return '\\udfff€😀'
    def _repr_mimebundle_(self, **_): return {'\\ud800': {'\\ud801': ['\\ud802', '\\ud83d']}}
Halves()
""",
        [
            {
                "\\ud800": {"\\ud801": ["\\ud802", "\\ud83d"]},
                "text/html": "\\udfff€😀",
                "text/plain": "a\\ud800",
            }
        ],
    ),
    (
        """
class Obliging:
    def __repr__(self): return 'anything'
    def __getattr__(self, name): return lambda **_: {name: name}
Obliging()
""",
        [{"text/plain": "anything"}],
    ),
    (
        "class N:\n  def __repr__(self): return 'n'\n"
        "  def _repr_json_(self): return float('nan')\nN()",
        [{"text/plain": "n"}],
    ),
    (
        "class Big:\n  def __repr__(self): return 'x' * (5 << 20)\nBig()",
        [{"text/plain": f"[{(5 << 20) + 2} bytes are too large to be shown]"}],
    ),
]


@each(("code", "results"), DISPLAYS)
async def _displays(client: Any, code: str, results: list[dict[str, Any]] | None) -> None:
    cell = await run(client, code, display=True)
    assert not cell.errors, cell.errors
    cell.check_completed()
    if results is not None:
        assert cell.results == results


async def test_displays(procd: MakeClient) -> None:
    client = await procd()
    await _displays(client=client)
    cell = await run(client, "1 + 1")
    assert not cell.results
    assert (await run(client, "display(1)")).error["name"] == "NameError"
    error = (await run(client, "x =", display=True)).error
    assert error["traceback"].startswith('  File "<stdin>", line 1\n    x =\n'), error
    assert (await run(client, "1 / 0", display=True)).error["name"] == "ZeroDivisionError"


async def test_displays_in_order(procd: MakeClient) -> None:
    client = await procd()
    code = "for n in range(200):\n  print(f'before {n}'); display(n); print(f'after {n}')"
    cell = await run(client, code, display=True)
    cell.check_completed()
    shown = "".join(
        frame["data"]["text/plain"] + "\n" if frame["type"] == "result" else frame["text"]
        for frame in cell.frames[:-1]
    )
    assert shown == "".join(f"before {n}\n{n}\nafter {n}\n" for n in range(200))


async def test_displays_in_threads(procd: MakeClient) -> None:
    client = await procd()
    code = """
import threading
shown = display
def work(letter):
    for _ in range(20):
        shown(letter * 100_000)
threads = [threading.Thread(target=work, args=(letter,)) for letter in 'abc']
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    cell = await run(client, code, display=True)
    cell.check_completed()
    got = [bundle["text/plain"] for bundle in cell.results]
    assert sorted(got) == sorted(repr(letter * 100_000) for letter in "abc" * 20)
    late = "t = threading.Timer(0.05, lambda: shown('late')); t.start()"
    assert not (await run(client, late, display=True)).results
    assert await said(client, "t.join(); print('fine')") == "fine\n"


async def test_displays_wait_for_the_client(procd: MakeClient) -> None:
    client = await procd()
    code = "for n in range(60):\n  display(str(n) + 'x' * 800_000)"
    async with raw(client, receive_bytes=64 << 10) as connection:
        await connection.upgrade(EXECUTE)
        await connection.send_frame(1, json.dumps({"code": code, "display": True}).encode())
        for number in range(60):
            frame = json.loads(await connection.next(1))
            assert frame["data"]["text/plain"].startswith(f"'{number}x")
        assert json.loads(await connection.next(1))["text"] == "completed"


# Refusals


REFUSALS = [
    (b"", 1002, "invalid JSON payload"),
    (b"x", 1002, "invalid JSON payload"),
    (b"[" * 100_000, 1002, "invalid JSON payload"),
    (b"[]", 1002, "invalid JSON payload"),
    (b'"code"', 1002, "invalid JSON payload"),
    (b'{"code": 5}', 1002, "invalid JSON payload"),
    (
        b'{"code": "x", "timeout": "1"}',
        1002,
        "invalid JSON payload",
    ),
    (
        b'{"code": "x", "timeout": 1.5}',
        1002,
        "invalid JSON payload",
    ),
    (
        b'{"code": "x", "envs": {"A": 1}}',
        1002,
        "invalid JSON payload",
    ),
    (
        b'{"code": "x", "display": 1}',
        1002,
        "invalid JSON payload",
    ),
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
    (
        b'{"code": "x", "envs": {"\\ud800": ""}}',
        1008,
        "invalid request body: envs.\\ud800: must not contain lone surrogates",
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
    # None of them has started an interpreter, and what was left out has its default.
    assert not client.app[APP_CONTEXTS].get("default").active
    for fields in ({"timeout": 0}, {"timeout": None}, {"envs": None}, {"CODE": None}):
        assert await said(client, "print(1)", **fields) == "1\n"
    for timeout in (2**31, 2**63, 10**18, 10**400):
        assert await said(client, "print(1)", timeout=timeout) == "1\n"


async def test_no_upgrade(procd: MakeClient) -> None:
    client = await procd()
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


async def test_bodies(procd: MakeClient, tmp_path: Path) -> None:
    client = await procd()
    ruby = "unsupported language: ruby (only 'python' is supported currently)"
    for body, status, code, message in (
        (b"", 400, "INVALID_REQUEST_BODY", "empty"),
        (b"[]", 400, "INVALID_REQUEST_BODY", "object"),
        (b'{"cwd": 1}', 400, "INVALID_REQUEST_BODY", "cwd"),
        (b'{"language": "ruby"}', 400, "BAD_REQUEST", ruby),
        (b'{"cwd": "/none"}', 500, "INTERNAL_SERVER_ERROR", "failed to start context: .*/none"),
    ):
        async with client.post(CONTEXTS, data=body) as reply:
            assert re.search(message, (await refused(reply, status, code))["message"]) or (
                message == ruby
            )
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
    context_id = next(iter(await listed(client)))
    await delete(client, context_id)
    await create(client)


async def test_no_interpreter(procd: MakeClient, tmp_path: Path) -> None:
    client = await procd(interpreter={"python": "/none/python"})
    cell = await run(client, "1")
    assert cell.close == (
        1011,
        "failed to get default context: program does not exist: /none/python",
    )
    async with client.post(CONTEXTS, json={}) as reply:
        body = await refused(reply, 500, "INTERNAL_SERVER_ERROR")
        assert body["message"].startswith("failed to start context: ")
    for script, start_s, reason in (
        ("exit 1", WAIT_S, "the interpreter ended as it started: without a word"),
        ("echo first; echo last >&2", WAIT_S, "the interpreter ended as it started: last"),
        ("exec sleep 1000", 0.1, "the interpreter doesn't start"),
    ):
        python = program(tmp_path, script)
        client = await procd(interpreter={"python": python, "start_s": float(start_s)})
        cell = await run(client, "1")
        assert cell.close == (1011, f"failed to get default context: {reason}")
        assert not client.app[PROCESSES].supervised
    client = await procd()
    async with client.post("/env", json={"set": {"PATH": "/none"}}) as reply:
        assert reply.status == 200
    reason = "failed to get default context: python3: not found"
    assert (await run(client, "1")).close == (1011, reason)


async def test_an_interpreter_that_ends_as_it_takes_up_a_directory(
    procd: MakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "leaves.py").write_text(
        "import os; type(os.environ).__setitem__ = lambda *_: os._exit(0)"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    client = await procd(interpreter={"preload": ["leaves"]})
    reason = "failed to get default context: the interpreter ended as it started"
    assert (await run(client, "1")).close == (1011, reason)


async def test_a_context_that_is_created_as_procd_stops(procd: MakeClient, tmp_path: Path) -> None:
    """It isn't the interpreter's fault."""
    python = program(tmp_path, "exec sleep 3600")
    client = await procd(interpreter={"python": python})
    async with asyncio.TaskGroup() as group, raw(client) as asking:
        await asking.request(f"POST {CONTEXTS} HTTP/1.1\nContent-Length: 2", b"{}")
        await until(lambda: _is(client.app[PROCESSES].supervised == 1))
        group.create_task(client.close())
        assert (await asking.head())[0] == 500
        body = json.loads(await asking.rest())
        assert body["message"] == "failed to start context: procd is stopping"


# In turn


async def test_first_in_first_out(procd: MakeClient, gate: Gate) -> None:
    client = await procd()
    first = await start(client, f"done = []; print('in'); open({str(gate)!r}).readline()")
    await first.until("in\n")
    cells = [await start(client, f"done.append({n}); print(done[-2:])") for n in range(20)]
    gate.open()
    for cell in (first, *cells):
        await cell.to_end()
        cell.check_completed()
    assert await said(client, "print(done == list(range(20)))") == "True\n"


async def test_pongs_while_queued(procd: MakeClient, gate: Gate) -> None:
    client = await procd()
    first = await start(client, f"print('in'); open({str(gate)!r}).readline()")
    await first.until("in\n")
    async with raw(client) as connection:
        await connection.upgrade(EXECUTE)
        await connection.send_frame(1, b'{"code": "print(1)"}')
        await connection.send_frame(1, b"ignored")
        await connection.send_frame(9, b"are you there")
        assert await connection.next(10) == b"are you there"
        gate.open()
        assert b'"1\\n"' in await connection.next(1)
    await first.to_end()


async def test_who_leaves_the_queue_takes_no_memory(procd: MakeClient, gate: Gate) -> None:
    client = await procd()
    first = await start(client, f"print('in'); open({str(gate)!r}).readline()")
    await first.until("in\n")
    memory = client.app[PROCESSES].memory
    used_bytes = memory.used_bytes
    waiting = await start(client, f"print({'x' * 10_000!r})")
    await until(lambda: _is(memory.used_bytes > used_bytes + 10_000))
    await waiting.ws.close()
    await until(lambda: _is(memory.used_bytes == used_bytes))
    gate.open()
    await first.to_end()


async def test_queue_limit(procd: MakeClient, gate: Gate) -> None:
    client = await procd(interpreter={"max_queued": 3})
    first = await start(client, f"print('in'); open({str(gate)!r}).readline()")
    await first.until("in\n")
    waiting = [await start(client, "print(1)") for _ in range(3)]
    await asyncio.sleep(0)
    refusal = await run(client, "print(1)")
    assert refusal.close == (1013, "limit of 3 waiting executions is reached")
    # Who leaves the queue leaves room.
    await waiting.pop().ws.close()

    async def room() -> bool:
        waiting.append(await start(client, "print(2)"))
        step = asyncio.ensure_future(waiting[-1].step())
        done, _ = await asyncio.wait([step], timeout=0.2)
        if done:
            assert waiting.pop().close is not None
            return False
        step.cancel()
        await asyncio.wait([step])
        return True

    await until(room)
    gate.open()
    for cell in (first, *waiting):
        await cell.to_end()
        cell.check_completed()


async def test_other_contexts_go_on(procd: MakeClient, gate: Gate) -> None:
    client = await procd()
    first = await start(client, f"print('in'); open({str(gate)!r}).readline()")
    await first.until("in\n")
    context_id = await create(client)
    assert await said(client, "print(1)", contextId=context_id) == "1\n"
    gate.open()
    await first.to_end()


# Ends


async def test_timeout_keeps_the_state(procd: MakeClient) -> None:
    client = await procd()
    assert not await said(client, "x = 5")
    code = "import time\nprint('in')\ntry:\n  time.sleep(60)\nfinally:\n  print('out')"
    cell = await run(client, code, timeout=1)
    assert (cell.close, cell.kinds) == ((4008, ""), ["stdout"])
    assert cell.stdout == "in\nout\n"
    assert await said(client, "print(x)") == "5\n"
    code = "import asyncio\nprint('in'); await asyncio.sleep(60)"
    assert (await run(client, code, timeout=1)).close == (4008, "")
    assert await said(client, "print(x)") == "5\n"
    for code in (
        "import subprocess\nr = subprocess.run(['sleep', '60'])",
        "import os\nr = os.system('sleep 60; sleep 60')",
        "import os\nif os.fork():\n  w = os.wait()\nelse:\n  os.execvp('sleep', ['sleep', '60'])",
    ):
        assert (await run(client, code, timeout=1)).close == (4008, "")
        assert await said(client, "print(x)") == "5\n"


async def test_an_interrupt_is_not_for_earlier_cells(procd: MakeClient) -> None:
    """Nor for who has left the process group, as with Ctrl-C."""
    client = await procd()
    code = "import os, subprocess, time; child = subprocess.Popen(['sleep', '3600'])"
    assert not await said(client, code)
    mine = (
        "mine, apart = (subprocess.Popen(['sleep', '3600'], start_new_session=new)"
        " for new in (False, True)); print('in'); time.sleep(60)"
    )
    assert (await run(client, mine, timeout=1)).close == (4008, "")
    assert await said(client, "print(mine.wait(), child.poll(), apart.poll())") == "-2 None None\n"
    cell = await start(client, "print('in'); time.sleep(60)")
    await cell.until("in\n")
    await cell.ws.close()
    assert await said(client, "print(child.poll())") == "None\n"
    cell = await start(client, "print('in'); time.sleep(60)")
    await cell.until("in\n")
    async with client.post(f"{CONTEXTS}/default/interrupt") as reply:
        assert reply.status == 200
    assert (await cell.to_end()).error["name"] == "KeyboardInterrupt"
    assert await said(client, "print(child.poll(), apart.poll())") == "None None\n"


async def test_timeout_of_the_unwilling(procd: MakeClient, alive: Fifo) -> None:
    client = await procd(interpreter={"grace_s": 0.2})
    assert not await said(client, "x = 5")
    code = f"""
import os, subprocess, time
held = os.open({str(alive)!r}, os.O_WRONLY)
os.set_inheritable(held, True)
subprocess.Popen(['setsid', 'sh', '-c', 'trap "" INT TERM HUP; echo up >&{{held}}; sleep 60'
    .replace('{{held}}', str(held))], close_fds=False)
while True:
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        print('no')
"""
    cell = await start(client, code, timeout=1)
    assert await alive.line() == "up"
    await cell.to_end()
    assert (cell.close, cell.stdout) == ((4008, STATE_LOST), "no\n")
    assert "control" not in cell.kinds
    await alive.ended()
    assert (await run(client, "x")).error["name"] == "NameError"


async def test_timeout_while_nobody_reads(procd: MakeClient) -> None:
    # The client holds the code back; to be interrupted it must still get rid of its output.
    client = await procd()
    assert not await said(client, "x = 5")
    async with raw(client, receive_bytes=16 << 10) as connection:
        await connection.upgrade(EXECUTE)
        code = "try:\n  while True: print('y' * 1000)\nfinally: print('z' * 300_000); x = 6"
        await connection.send_frame(1, json.dumps({"code": code, "timeout": 1}).encode())
        waiting = await start(client, "print(x)")
        await waiting.to_end()
        assert waiting.stdout == "6\n"
        async with asyncio.timeout(WAIT_S):
            while (frame := await connection.frame())[0] != 8:
                pass
        assert frame[1] == (4008).to_bytes(2, "big")


@each(("nonsense", "code"), ((b"\x82\x02hi", 1002), (masked(0x82, 5000, b"x" * 5000), 1009)))
async def test_who_sends_nonsense_amid_a_cell(
    procd: MakeClient, monkeypatch: pytest.MonkeyPatch, nonsense: bytes, code: int
) -> None:
    """The cell is interrupted at once, though the client is silent and may still read why."""
    monkeypatch.setattr("procd.http.websocket.REST_S", 600.0)
    client = await procd(interpreter={"max_message_bytes": 4096})
    async with raw(client) as rude:
        await rude.upgrade(EXECUTE)
        await rude.send_frame(TEXT, b'{"code": "print(1, flush=True)\\nwhile True: pass"}')
        await rude.frame()
        await rude.send(nonsense)
        assert await said(client, "print('next')") == "next\n"
        assert await closed_with(rude) == code
        await rude.send_frame(CLOSE, code.to_bytes(2, "big"))
        assert await rude.rest() == b""


async def test_a_client_that_stalls_holds_up_no_end(procd: MakeClient, tmp_path: Path) -> None:
    # It holds the code back, and then the code needs it no more: that isn't for the client to say.
    client = await procd(interpreter={"buffer_bytes": 64 << 10})
    assert not await said(client, "x = 5")
    mark = tmp_path / "mark"
    code = f"""
import os, time
os.set_blocking(1, False)
while not os.path.exists({str(mark)!r}):
    try:
        os.write(1, b'y' * 1000)
    except BlockingIOError:
        time.sleep(0.01)
"""
    context = client.app[APP_CONTEXTS].get("default")
    traffic = client.app[CONNECTIONS].traffic

    async def held_back() -> bool:
        sent_bytes = traffic.sent_bytes
        for _ in range(20):
            await listed(client)
        running = context._current
        return running is not None and running.log.paused and traffic.sent_bytes == sent_bytes

    async with raw(client, receive_bytes=16 << 10) as connection:
        await connection.upgrade(EXECUTE)
        message = {"code": code, "timeout": 15, "display": True}
        await connection.send_frame(1, json.dumps(message).encode())
        await until(held_back)
        mark.touch()
        assert await said(client, "print(x)") == "5\n"
        last = b""
        async with asyncio.timeout(WAIT_S):
            while (frame := await connection.frame())[0] == 1:
                last = frame[1]
    assert (json.loads(last)["text"], frame) == ("completed", (8, (1000).to_bytes(2, "big")))


@pytest.mark.parametrize("how", ["close", "leave", "reset"])
async def test_a_client_that_goes_ends_its_execution(procd: MakeClient, how: str) -> None:
    client = await procd()
    async with raw(client) as connection:
        await connection.upgrade(EXECUTE)
        code = "import time\nx = 5\ntry: print('in'); time.sleep(60)\nfinally: y = 6"
        await connection.send_frame(1, json.dumps({"code": code}).encode())
        assert b"in" in await connection.next(1)
        if how == "close":
            await connection.send_frame(8, b"")
        elif how == "leave":
            await connection.leave()
        else:
            connection.reset()
        assert await said(client, "print(x, y)") == "5 6\n"


async def test_a_client_that_goes_before_its_turn(procd: MakeClient, gate: Gate) -> None:
    client = await procd()
    first = await start(client, f"x = 0; print('in'); open({str(gate)!r}).readline()")
    await first.until("in\n")
    second = await start(client, "x = 1")
    third = await start(client, "print(x)")
    await second.ws.close()
    gate.open()
    await third.to_end()
    assert third.stdout == "0\n"
    await first.to_end()


@asynccontextmanager
async def stopped(client: Client) -> AsyncIterator[None]:
    """Have the default context's interpreter stand still, whatever it is sent."""
    pid = client.app[APP_CONTEXTS].get("default").pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_a_client_that_goes_before_its_code_has_begun(procd: MakeClient) -> None:
    client = await procd(interpreter={"grace_s": 3600.0})
    assert not await said(client, "x = 5; import time")
    context = client.app[APP_CONTEXTS].get("default")
    async with stopped(client):
        cell = await start(client, "time.sleep(3600); x = 6")
        await until(lambda: _is(context._current is not None))
        execution = context._current
        assert execution is not None
        await cell.ws.close()
        await until(lambda: _is(execution.abandoned.done()))
    assert await said(client, "print(x)") == "5\n"
    for _ in range(20):
        async with raw(client) as connection:
            await connection.upgrade(EXECUTE)
            await connection.send_frame(1, b'{"code": "time.sleep(3600)"}')
            await connection.send_frame(8, b"")
            assert await said(client, "print(x)") == "5\n"


def gated_python(tmp_path: Path, gate: Gate) -> str:
    """An interpreter that starts when the gate is open."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nread x < {gate}\nexec python3 "$@"\n')
    python.chmod(0o755)
    return str(python)


async def test_a_client_that_goes_while_the_interpreter_starts(
    procd: MakeClient, tmp_path: Path, gate: Gate
) -> None:
    python = gated_python(tmp_path, gate)
    client = await procd(interpreter={"python": python, "grace_s": 3600.0})
    context = client.app[APP_CONTEXTS].get("default")
    cell = await start(client, f"open({str(tmp_path / 'mark')!r}, 'w')")
    await until(lambda: _is(context._current is not None))
    execution = context._current
    assert execution is not None
    await cell.ws.close()
    await until(lambda: _is(execution.abandoned.done()))
    gate.open()
    assert await said(client, "print(1)") == "1\n"
    assert not (tmp_path / "mark").exists()


async def test_a_server_that_stops_is_no_success(procd: MakeClient) -> None:
    client = await procd()
    running = await start(client, "import time; print('in'); time.sleep(60)")
    await running.until("in\n")
    waiting = await start(client, "print(1)")
    async with asyncio.TaskGroup() as group:
        group.create_task(client.server.close())
        for cell in (running, waiting):
            await cell.to_end()
            assert cell.close == (1011, "server shutdown")
            assert "control" not in cell.kinds


async def test_death(procd: MakeClient) -> None:
    client = await procd()
    context_id = await create(client)
    for code in (
        "print('last', end=''); import os, sys; sys.stdout.flush(); os._exit(7)",
        "import os, signal; os.write(1, b'last'); os.kill(os.getpid(), signal.SIGKILL)",
        "import os, signal; os.write(1, b'last'); os.killpg(0, signal.SIGTERM)",
        "import os; os.write(1, b'last'); os.execv('/bin/true', ['true'])",
    ):
        cell = await start(client, code, contextId=context_id)
        waiting = await start(client, "print('next')", contextId=context_id)
        await cell.to_end()
        assert (cell.close, cell.kinds) == ((1011, "worker process ended"), ["stdout"])
        assert cell.stdout == "last"
        await waiting.to_end()
        assert waiting.stdout == "next\n"
    await run(client, "import os; os._exit(0)", contextId=context_id)
    assert (await listed(client))[context_id]["active"] is False
    assert await said(client, "print(1)", contextId=context_id) == "1\n"
    assert (await listed(client))[context_id]["active"] is True


async def test_death_before_the_code_has_begun(procd: MakeClient) -> None:
    # Nothing of it has run, so it runs in another process.
    client = await procd(interpreter={"grace_s": 0.2})
    context = client.app[APP_CONTEXTS].get("default")
    for number in (signal.SIGKILL, None):
        assert not await said(client, "x = 5")
        pid = context.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        cell = await start(client, "print('x' in globals())")
        await until(lambda: _is(context._current is not None))
        if number is not None:
            os.kill(pid, number)
            await cell.to_end()
            cell.check_completed()
            assert cell.stdout == "False\n"
        else:  # on purpose
            async with client.post(f"{CONTEXTS}/default/restart") as reply:
                assert reply.status == 200
            assert (await cell.to_end()).close == (1011, "context restarted")


async def test_each_process_dies_before_the_code_has_begun(
    procd: MakeClient, tmp_path: Path
) -> None:
    (tmp_path / "deadly.py").write_text(
        "import os, sys\n"
        "def die(*_):\n"
        "  open('deaths', 'a').write('died\\n')\n"
        "  os._exit(1)\n"
        "sys.modules['_procd.cells'].Interpreter._begin = die\n"
    )
    client = await procd(interpreter={"preload": ["deadly"]}, process={"work_dir": str(tmp_path)})
    cell = await run(client, "print(1)")
    assert (cell.close, cell.frames) == ((1011, "worker process ended"), [])
    assert (tmp_path / "deaths").read_text() == "died\n" * 2


async def test_death_after_displays(procd: MakeClient) -> None:
    client = await procd()
    code = "import os\nfor n in range(5): display(n)\nos._exit(1)"
    cell = await run(client, code, display=True)
    assert cell.close == (1011, "worker process ended")
    assert [bundle["text/plain"] for bundle in cell.results] == ["0", "1", "2", "3", "4"]


async def test_delete_while_running(procd: MakeClient, alive: Fifo) -> None:
    client = await procd(interpreter={"grace_s": 0.2})
    context_id = await create(client)
    code = f"""
import signal, os, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
held = os.open({str(alive)!r}, os.O_WRONLY)
os.write(held, b'up\\n')
print('in')
while True: time.sleep(60)
"""
    first = await start(client, code, contextId=context_id)
    await first.until("in\n")
    assert await alive.line() == "up"
    async with AsyncExitStack() as stack:
        waiting = []
        for _ in range(129):
            connection = await stack.enter_async_context(raw(client))
            await connection.upgrade(EXECUTE)
            message = {"code": "print(1)", "contextId": context_id}
            await connection.send_frame(1, json.dumps(message).encode())
            waiting.append(connection)
        context = client.app[APP_CONTEXTS].get(context_id)
        await until(lambda: _is(len(context._queue) == 128))
        await delete(client, context_id)
        await first.to_end()
        assert first.close == (1011, "context deleted")
        closes = [await connection.frame() for connection in waiting]
        assert closes.count((8, b"\x03\xf3context deleted")) == 128
        assert closes.count((8, b"\x03\xf5limit of 128 waiting executions is reached")) == 1
    await alive.ended()
    assert await said(client, "print(1)") == "1\n"


@pytest.mark.parametrize("how", ["delete", "restart", "stop"])
async def test_who_is_ended_may_take_leave(
    procd: MakeClient, gate: Gate, alive: Fifo, how: str
) -> None:
    """All that a context has started, though the interpreter has ended by then."""
    client = await procd(interpreter={"grace_s": float(WAIT_S)})
    context_id = await create(client)
    repl = client.app[APP_CONTEXTS].get(context_id)._repl
    leave = f"read x <{gate}; echo told >{alive}; exit"
    script = f"trap '{leave}' TERM; echo up >{alive}; read x <>{gate}"
    code = f"import subprocess; child = subprocess.Popen(['sh', '-c', {script!r}])"
    assert not await said(client, code, contextId=context_id)
    assert await alive.line() == "up"
    assert repl is not None
    async with asyncio.TaskGroup() as group:
        if how == "delete":
            group.create_task(delete(client, context_id))
        elif how == "restart":
            group.create_task(client.post(f"{CONTEXTS}/{context_id}/restart"))
        else:
            group.create_task(client.close())
        await until(lambda: _is(repl._process.done.done()))
        gate.open(2)  # if the first passes before it has heard
        assert await alive.line() == "told"


async def test_delete_while_it_starts(procd: MakeClient, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nexec python3 "$@"\n')
    python.chmod(0o755)
    client = await procd(interpreter={"python": str(python)})
    context_id = await create(client)
    await run(client, "import os; os._exit(0)", contextId=context_id)
    python.write_text("#!/bin/sh\nsleep 60\n")
    cell = await start(client, "1", contextId=context_id)
    context = client.app[APP_CONTEXTS].get(context_id)
    await until(lambda: _is(context._current is not None))
    await delete(client, context_id)
    assert (await cell.to_end()).close == (1011, "context deleted")


async def _is(fact: bool) -> bool:
    await asyncio.sleep(0)
    return fact


async def test_restart_and_delete_together(procd: MakeClient) -> None:
    client = await procd()
    for _ in range(5):
        context_id = await create(client)
        restarting = asyncio.ensure_future(client.post(f"{CONTEXTS}/{context_id}/restart"))
        await asyncio.sleep(0)
        await delete(client, context_id)
        async with await restarting as reply:
            assert reply.status in (200, 404)
    # Nothing is left of them: the check for leaks looks at our children at the end.
    processes = list(client.app[APP_CONTEXTS]._processes.pids)
    assert not processes


async def test_restarts_together(procd: MakeClient) -> None:
    client = await procd()
    context_id = await create(client)
    context = client.app[APP_CONTEXTS].get(context_id)
    path = f"{CONTEXTS}/{context_id}/restart"
    for _ in range(5):
        assert not await said(client, "x = 5", contextId=context_id)
        first = asyncio.ensure_future(client.post(path))
        await until(lambda: _is(context._candidate is not None))
        for reply in await asyncio.gather(first, client.post(path), client.post(path)):
            async with reply:
                body = await reply.json()
                assert (reply.status, body["active"]) == (200, True), body
        assert await said(client, "print('x' in globals())", contextId=context_id) == "False\n"


async def test_restart_while_it_starts(procd: MakeClient, tmp_path: Path) -> None:
    python, begun = tmp_path / "python", tmp_path / "begun"
    python.write_text(f"#!/bin/sh\n: >{begun}\nexec sleep 60\n")
    python.chmod(0o755)
    client = await procd(interpreter={"python": str(python)})
    context = client.app[APP_CONTEXTS].get("default")
    cell = await start(client, "1")
    await until(lambda: _is(context._candidate is not None and begun.exists()))
    waiting = await start(client, "print(2)")
    python.write_text('#!/bin/sh\nexec python3 "$@"\n')
    async with client.post(f"{CONTEXTS}/default/restart") as reply:
        assert reply.status == 200
    assert (await cell.to_end()).close == (1011, "context restarted")
    assert (await waiting.to_end()).stdout == "2\n"


async def test_interrupt(procd: MakeClient) -> None:
    client = await procd()
    async with client.post(f"{CONTEXTS}/default/interrupt") as reply:
        await refused(reply, 409, "CONFLICT")
    cell = await start(client, "x = 5; import time; print('in'); time.sleep(60)")
    await cell.until("in\n")
    async with client.post(f"{CONTEXTS}/default/interrupt") as reply:
        assert (reply.status, await reply.json()) == (200, {"message": "Context interrupted"})
    await cell.to_end()
    assert cell.error["name"] == "KeyboardInterrupt"
    assert await said(client, "print(x)") == "5\n"
    async with client.post(f"{CONTEXTS}/default/interrupt") as reply:
        await refused(reply, 409, "CONFLICT")


async def test_interrupt_before_the_code_has_begun(procd: MakeClient) -> None:
    client = await procd()
    assert not await said(client, "import time; x = 5")
    context = client.app[APP_CONTEXTS].get("default")
    async with stopped(client):
        cell = await start(client, "time.sleep(3600); x = 6")
        await until(lambda: _is(context._current is not None))
        async with client.post(f"{CONTEXTS}/default/interrupt") as reply:
            assert reply.status == 200
    assert (await cell.to_end()).error["name"] == "KeyboardInterrupt"
    assert await said(client, "print(x)") == "5\n"


async def test_interrupt_while_the_interpreter_starts(
    procd: MakeClient, tmp_path: Path, gate: Gate
) -> None:
    client = await procd(interpreter={"python": gated_python(tmp_path, gate)})
    context = client.app[APP_CONTEXTS].get("default")
    cell = await start(client, "import time; time.sleep(3600)")
    await until(lambda: _is(context._candidate is not None))
    async with client.post(f"{CONTEXTS}/default/interrupt") as reply:
        assert (reply.status, await reply.json()) == (200, {"message": "Context interrupted"})
    gate.open()
    assert (await cell.to_end()).error["name"] == "KeyboardInterrupt"
    assert await said(client, "print(1)") == "1\n"


async def test_interrupts_of_nobody(procd: MakeClient) -> None:
    # What comes between two cells is for neither.
    client = await procd()
    assert not await said(client, "import os, signal, time; x = 5")
    context = client.app[APP_CONTEXTS].get("default")
    assert context.pid is not None
    os.kill(context.pid, signal.SIGINT)
    assert await said(client, "print(x)") == "5\n"
    async with stopped(client):
        os.kill(context.pid, signal.SIGINT)
        cell = await start(client, "print(x)")
        await until(lambda: _is(context._current is not None))
    assert (await cell.to_end()).stdout == "5\n"
    code = "s = signal.pthread_sigmask(signal.SIG_BLOCK, [2]); os.kill(os.getpid(), 2)"
    assert not await said(client, code)
    assert await said(client, "print(x)") == "5\n"


async def test_restart(procd: MakeClient) -> None:
    client = await procd()
    context_id = await create(client)
    cell = await start(
        client, "x = 5; import time; print('in'); time.sleep(60)", contextId=context_id
    )
    await cell.until("in\n")
    waiting = await start(client, "print('x' in globals())", contextId=context_id)
    async with client.post(f"{CONTEXTS}/{context_id}/restart") as reply:
        body = await reply.json()
        assert (reply.status, body["id"], body["active"]) == (200, context_id, True)
    await cell.to_end()
    assert cell.close == (1011, "context restarted")
    await waiting.to_end()
    assert waiting.stdout == "False\n"
    async with client.post(f"{CONTEXTS}/default/restart") as reply:
        assert reply.status == 200


async def test_a_client_that_goes_before_a_restart_is_over(procd: MakeClient, alive: Fifo) -> None:
    client = await procd(interpreter={"grace_s": 1.0})
    context_id = await create(client)
    code = f"import signal as s; s.signal(s.SIGTERM, s.SIG_IGN); f = open({str(alive)!r}, 'w')"
    assert not await said(client, f"{code}; print('up', file=f, flush=True)", contextId=context_id)
    assert await alive.line() == "up"
    context = client.app[APP_CONTEXTS].get(context_id)
    async with raw(client) as connection:
        await connection.request(f"POST {CONTEXTS}/{context_id}/restart HTTP/1.1")
        await until(lambda: _is(not context.active))
        connection.reset()
    await alive.ended()
    assert await said(client, "print('f' in globals())", contextId=context_id) == "False\n"


async def test_idle_time(procd: MakeClient) -> None:
    client = await procd(interpreter={"idle_ttl_s": 0.2})
    unused, used = await create(client), await create(client)
    assert not await said(client, "x = 5", contextId=used)
    contexts = client.app[APP_CONTEXTS]
    await until(lambda: _is(not contexts.get(used).active))
    await until(lambda: _is(not contexts.get(unused).active))
    # One that works isn't idle, however long it takes, though it has just been started.
    code = "import time; time.sleep(0.6); print('x' in globals())"
    assert await said(client, code, contextId=used) == "False\n"
    assert not await said(client, "x = 5; import time; time.sleep(0.6)", contextId=used)
    assert await said(client, "print(x)", contextId=used) == "5\n"


async def test_what_is_said_after_the_end(procd: MakeClient) -> None:
    client = await procd()
    code = """
import threading, subprocess, time, os
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
    for number in range(20):
        cell = await run(client, f"print('mine', {number})")
        cell.check_completed()
        assert f"mine {number}" in cell.stdout
        assert not cell.errors
    cell = await run(client, "child.kill(); r = child.wait(); stop.set(); thread.join()")
    cell.check_completed()
    assert await said(client, "print('quiet')") == "quiet\n"


# Warm


async def test_warm(procd: MakeClient) -> None:
    client = await procd(interpreter={"warm": 1})
    contexts = client.app[APP_CONTEXTS]
    await until(lambda: _is(contexts.get("default").active and len(contexts._spares) == 1))
    default_pid = contexts.get("default").pid
    (spare,) = contexts._spares
    async with asyncio.timeout(WAIT_S):
        await asyncio.shield(spare.ready)
    assert await said(client, "import os; print(os.getpid())") == f"{default_pid}\n"
    assert not await listed(client)
    context_id = await create(client)
    assert await said(client, "import os; print(os.getpid())", contextId=context_id) == (
        f"{spare.pid}\n"
    )
    await until(lambda: _is(len(contexts._spares) == 1))
    assert contexts._spares[0] is not spare
    # A spare that has died is passed over.
    os.kill(contexts._spares[0].pid, signal.SIGKILL)
    os.waitid(os.P_PID, contexts._spares[0].pid, os.WEXITED | os.WNOWAIT)
    context = await contexts.create(cwd="", language="python")  # before the loop has heard of it
    assert await said(client, "print(1)", contextId=context.record.id) == "1\n"


async def test_no_more_spares_than_are_wanted(procd: MakeClient) -> None:
    """Though spares are seen to twice at once, where both wait for their turn."""
    client = await procd(interpreter={"warm": 1})
    contexts = client.app[APP_CONTEXTS]
    await until(lambda: _is(len(contexts._spares) == 1))
    taken = contexts.take()
    turns = [contexts.turn(new=False) for _ in range(PIECES)]
    await asyncio.gather(*turns, contexts._refill(), contexts._refill())
    assert len(contexts._spares) == 1
    await taken.kill()


async def test_a_spare_takes_up_a_directory(procd: MakeClient, tmp_path: Path) -> None:
    client = await procd(interpreter={"warm": 1})
    contexts = client.app[APP_CONTEXTS]
    await until(lambda: _is(len(contexts._spares) == 1))
    (spare,) = contexts._spares
    context_id = await create(client, cwd=str(tmp_path))
    assert contexts.get(context_id).pid == spare.pid
    code = "import os; print(os.getcwd(), os.environ['PWD'])"
    assert await said(client, code, contextId=context_id) == f"{tmp_path} {tmp_path}\n"
    # A directory that can't be entered costs a spare and nothing more.
    async with client.post(CONTEXTS, json={"cwd": str(tmp_path / "none")}) as reply:
        await refused(reply, 500, "INTERNAL_SERVER_ERROR")
    await create(client)


async def test_spares_follow_the_environment(procd: MakeClient, tmp_path: Path) -> None:
    # What Python takes up as it starts is no less that of now.
    client = await procd(interpreter={"warm": 1, "python": sys.executable})
    contexts = client.app[APP_CONTEXTS]
    await until(lambda: _is(len(contexts._spares) == 1))
    (spare,) = contexts._spares
    (tmp_path / "mine.py").write_text("")
    changes = {"PYTHONPATH": str(tmp_path), "TZ": "Etc/GMT-7"}
    async with client.post("/env", json={"set": changes}) as reply:
        assert reply.status == 200
    assert not contexts._spares
    context_id = await create(client)
    code = "import mine, os, time; print(os.environ['TZ'], time.timezone)"
    assert await said(client, code, contextId=context_id) == "Etc/GMT-7 -25200\n"
    await until(lambda: _is(len(contexts._spares) == 1))
    assert not spare.running
    (spare,) = contexts._spares
    async with client.post("/env", json={"set": changes}) as reply:  # which changes nothing
        assert reply.status == 200
    assert list(contexts._spares) == [spare]


async def test_preload(procd: MakeClient, caplog: pytest.LogCaptureFixture) -> None:
    client = await procd(interpreter={"preload": ["no_such_module", "colorsys", "nor_this"]})
    # The second is started before the first has told anything.
    await asyncio.gather(create(client), create(client))
    assert await said(client, "import sys; print('colorsys' in sys.modules)") == "True\n"
    await create(client)  # another process, which has no news
    assert [line for line in caplog.messages if "preload" in line] == [
        "interpreter.preload: no_such_module: No module named 'no_such_module'",
        "interpreter.preload: nor_this: No module named 'nor_this'",
    ]


async def test_nothing_of_ours_is_in_the_way(procd: MakeClient, tmp_path: Path) -> None:
    # The user's modules may have the names of ours and of the standard library's that we use.
    names = ("interpreter", "displays", "charts", "json", "traceback", "procd", "argv")
    for name in names:
        (tmp_path / f"{name}.py").write_text(f"x = {name!r}; raise_it = 1 / 0 if 0 else 1")
    client = await procd()
    context_id = await create(client, cwd=str(tmp_path))
    code = "import interpreter, displays, charts; print(displays.x, charts.x)\n1"
    cell = await run(client, code, contextId=context_id, display=True)
    cell.check_completed()
    assert cell.stdout == "displays charts\n"
    assert cell.results == [{"text/plain": "1"}]
    assert (await run(client, "1 / 0", contextId=context_id)).error
    assert (await execute(client, "echo fine"))["result"] == "fine\n"


# Figures


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="there is no matplotlib")
async def test_figures(procd: MakeClient) -> None:
    client = await procd(interpreter={"python": sys.executable})
    code = "import matplotlib.pyplot as plt\nfigure = plt.figure()\nplt.plot([1, 2])"
    cell = await run(client, f"print('a')\n{code}\nplt.show()\nprint('b')", display=True)
    assert not cell.errors, cell.errors
    assert cell.kinds == ["stdout", "result", "stdout", "control"]
    assert base64.b64decode(cell.results[0]["image/png"]).startswith(b"\x89PNG")
    # What is open at the end is shown, too, and a figure that is the value is a picture as well.
    cell = await run(client, f"{code} and None", display=True)
    assert [bundle.keys() for bundle in cell.results] == [{"text/plain", "image/png"}]
    # A figure that was shown before is shown anew in another execution.
    cell = await run(client, f"{code}\nplt.show()\nplt.show()", display=True)
    assert len(cell.results) == 1
    cell = await run(client, f"{code}\nplt.close()\nfigure", display=True)
    assert [bundle.keys() for bundle in cell.results] == [{"text/plain", "image/png"}]
    # Nobody has asked for it here.
    cell = await run(client, f"{code}\nplt.show()")
    assert cell.kinds == ["control"]
