"""Code that breaks the interpreter it runs in: the next cell works all the same."""

import hashlib
import json
import os
import resource
import signal
from pathlib import Path
from typing import Any

import pytest

from procd.api.interpreter import CONTEXTS as APP_CONTEXTS
from procd.services.interpreter.context import INTERNAL, STATE_LOST
from procd.services.interpreter.process import InterpreterProcess
from tests.aliases import MakeClient
from tests.api.cells import CONTEXTS, EXECUTE, create, listed, run, said, start
from tests.api.clients import descriptors_exhausted, each, execute, raw, refused
from tests.waiting import until

SURVIVED = [
    # Streams and descriptors.
    "import os; os.close(1)",
    "import os; os.close(2); os.close(0)",
    "import os; os.dup2(os.open('/dev/null', os.O_RDWR), 1)",
    "import sys; sys.stdout = None",
    "import sys; del sys.stdout, sys.stderr, sys.stdin",
    "import sys; sys.stdout.close(); sys.stderr.close()",
    "import sys; b = sys.stdout.detach()",
    "import sys; sys.stdout.reconfigure(encoding='utf-16', line_buffering=False)",
    "import sys; sys.stdout = sys.stderr = open('/dev/full', 'w'); print('x' * 100_000)",
    "class S:\n  def write(self, t): raise SystemExit\n  def flush(self): raise SystemExit\n"
    "import sys; sys.stdout = sys.stderr = S()",
    "class S:\n  def write(self, t): 1 / 0\n  def flush(self): 1 / 0\n"
    "import sys; sys.stdout = sys.stderr = S(); sys.exit('text')",
    "import sys; sys.stderr = None; sys.exit('text')",
    "import os\nfor fd in map(int, os.listdir('/proc/self/fd')):\n"
    "  try: os.write(fd, b'garbage' * 10)\n  except OSError: pass",
    "held = []\nwhile True: held.append(open('/dev/null'))",
    "import os; os.set_blocking(1, False); print('x' * 2_000_000)",
    "import sys; sys.stdout.write('half a line'); sys.stdout.buffer.write(b'\\xc3')",
    # Signals, threads and tracers.
    "import signal\nfor n in (2, 15, 17, 20): signal.signal(n, signal.SIG_IGN)",
    "import threading, time\n"
    "for _ in range(1000): threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()",
    "import sys; sys.settrace(lambda *a: None); sys.setprofile(lambda *a: None)",
    # Processes.
    "import os\nif os.fork() == 0: os._exit(0)",
    "import os\nif os.fork() == 0: 1 / 0",
    "import os, sys\nif os.fork() == 0: sys.exit(3)",
    "import os\nfor _ in range(3): os.fork()",
    "import os; os.chdir('/proc/self'); os.umask(0o777)",
    # Modules.
    "import builtins; del builtins.print, builtins.open, builtins.input",
    "import builtins as b\nnames, change = dir(b), setattr\n"
    "for name in names:\n  if 'a' <= name[0] <= 'z': change(b, name, None)",
    "__builtins__ = {}",
    "globals().clear()",
    "import json; json.dumps = json.loads = None",
    "import os\nfor name in list(vars(os)):\n  if name[0] != '_': setattr(os, name, None)",
    "import traceback; traceback.TracebackException.__init__ = None",
    "import linecache; linecache.clearcache()",
    "import os; os.environ.clear(); os.environ = {}",
    "import sys; sys.excepthook = sys.displayhook = sys.argv = sys.path = None",
    "import sys; sys.setrecursionlimit(60)",
]

DIED = [
    "import os; os.closerange(0, 65536)",
    "import os; os._exit(7)",
    "import os; os.abort()",
    "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "import ctypes; ctypes.string_at(0)",
    "import os; os.execv('/bin/sleep', ['sleep', '60'])",
    "import os; os.dup2(1, 2); os.closerange(3, 65536); import time; time.sleep(60)",
    "import resource as r; r.setrlimit(r.RLIMIT_CPU, (1, 1))\nwhile True: pass",
]


async def test_survived(procd: MakeClient) -> None:
    client = await procd(interpreter={"warm": 1, "grace_s": 1.0})
    for code in SURVIVED:
        context_id = await create(client)
        try:
            cell = await run(client, code, contextId=context_id, timeout=15)
            assert cell.close == (1000, ""), (cell.close, cell.stderr)
            await _usable(client, context_id)
            assert (await listed(client))[context_id]["active"]
        except BaseException as exc:
            exc.add_note(f"code: {code}")
            raise
        async with client.delete(f"{CONTEXTS}/{context_id}") as reply:
            assert reply.status == 200


async def _usable(client: Any, context_id: str) -> None:
    """It runs code, tells of errors, and can be interrupted."""
    text = "import sys\nsys.stdout.write('out|')\nsys.stderr.write('err|')\n"
    cell = await run(client, text, contextId=context_id)
    cell.check_completed()
    assert "out|" in cell.stdout, cell.frames
    assert "err|" in cell.stderr, cell.frames
    error = (await run(client, "\nraise KeyError", contextId=context_id)).error
    assert error["name"] == "KeyError", error
    cell = await start(client, "sys.stdout.write('in\\n')\nwhile True: pass", contextId=context_id)
    await cell.until("in\n")
    async with client.post(f"{CONTEXTS}/{context_id}/interrupt") as reply:
        assert reply.status == 200
    assert (await cell.to_end()).error["name"] == "KeyboardInterrupt"


async def test_died(procd: MakeClient) -> None:
    client = await procd(interpreter={"warm": 1, "grace_s": 1.0})
    context_id = await create(client)
    for code in DIED:
        try:
            cell = await run(client, code, contextId=context_id, timeout=15)
            assert cell.close == (1011, "worker process ended")
            assert "control" not in cell.kinds
            assert await said(client, "print(1)", contextId=context_id) == "1\n"
        except BaseException as exc:
            exc.add_note(f"code: {code}")
            raise


FORGE = """
import json, sys, time
frame = sys._getframe()
while type(frame.f_locals.get('self')).__name__ != 'Interpreter' or 'message' not in frame.f_locals:
    frame = frame.f_back
send, number = frame.f_locals['self']._channel.send, frame.f_locals['message']['id']
print('said')
{}
time.sleep(60)
"""
NONSENSE = [
    *[
        f"send({message})"
        for message in (
            "'not JSON'",
            "'[' * 100_000",
            "'{}'",
            "json.dumps({'op': 'begun', 'id': number + 1})",
            "json.dumps({'op': 'done', 'id': number})",
            "json.dumps({'op': 'done', 'id': str(number), 'error': None})",
            "json.dumps({'op': 'other', 'id': number, 'error': None})",
            "json.dumps({'op': 'done', 'id': number, 'error': 'text'})",
            "json.dumps({'op': 'done', 'id': number, 'error': "
            "{'name': '\\ud800', 'value': '', 'traceback': ''}})",
            "json.dumps({'op': 'done', 'id': number, 'error': None, 'variables': [{'name': 'x'}]})",
            "json.dumps({'op': 'result', 'id': 1, 'data': {'a': float('nan')}})",
            "json.dumps({'op': 'result', 'id': 1, 'data': {'a': 'x' * 3_000_000}})",
            "'x' * (9 << 20)",
        )
    ],
    # It doesn't read the confirmations.
    "while True: send(json.dumps({'op': 'result', 'id': 1, 'data': {}}))",
]


@each("sends", NONSENSE)
async def _nonsense(client: Any, sends: str) -> None:
    cell = await run(client, FORGE.format(sends))
    assert (cell.close, cell.stdout) == ((1011, "worker process ended"), "said\n")
    assert "control" not in cell.kinds


async def test_nonsense_ends_the_process(
    procd: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    client = await procd()
    await _nonsense(client=client)
    warnings = [line for line in caplog.messages if line.startswith("interpreter ")]
    assert len(warnings) >= len(NONSENSE)
    assert any("sends a message of more than" in line for line in warnings)
    assert await said(client, "print(1)") == "1\n"


async def test_signal_handlers_that_raise(procd: MakeClient) -> None:
    """Their exception is a cell's, if one runs, and nobody's otherwise."""
    client = await procd()
    code = "import signal; x = 5; signal.signal(signal.SIGALRM, lambda *a: 1 / 0)"
    assert not await said(client, code)
    pid = client.app[APP_CONTEXTS].get("default").pid
    assert pid is not None
    os.kill(pid, signal.SIGALRM)
    assert await said(client, "print(x)") == "5\n"
    for _ in range(100):
        cell = await start(client, "y = 1")
        os.kill(pid, signal.SIGALRM)
        await cell.to_end()
        assert {error["name"] for error in cell.errors} <= {"ZeroDivisionError"}
        cell.check_completed()
        os.kill(pid, signal.SIGALRM)
    code = "import os; print(x); os.kill(os.getpid(), signal.SIGALRM)"
    cell = await run(client, code)
    assert (cell.stdout, cell.error["name"]) == ("5\n", "ZeroDivisionError")


@each(
    ("leaving", "said"),
    [("sys.exit(4)", "4"), ("sys.exit('why')", "1"), ("sys.exit()", "0"), ("1 / 0", "1")],
)
async def _forks(client: Any, leaving: str, said: str) -> None:
    code = f"import os, sys\nif os.fork() == 0: {leaving}\nprint(os.WEXITSTATUS(os.wait()[1]))"
    cell = await run(client, code)
    cell.check_completed()
    assert cell.stdout == f"{said}\n"
    assert ("why" in leaving) == (cell.stderr == "why\n")


async def test_the_status_of_a_forked_child(procd: MakeClient) -> None:
    await _forks(client=await procd())


async def test_a_stopped_interpreter(procd: MakeClient) -> None:
    client = await procd(interpreter={"grace_s": 0.3})
    context_id = await create(client)
    code = "import os, signal; print('in'); os.kill(os.getpid(), signal.SIGSTOP)"
    cell = await run(client, code, contextId=context_id, timeout=3)
    assert cell.close == (4008, STATE_LOST)
    assert await said(client, "print(1)", contextId=context_id) == "1\n"
    cell = await start(client, code, contextId=context_id)
    await cell.until("in\n")
    async with client.delete(f"{CONTEXTS}/{context_id}") as reply:
        assert reply.status == 200
    assert (await cell.to_end()).close == (1011, "context deleted")


async def test_killed_while_idle(procd: MakeClient) -> None:
    client = await procd()
    assert not await said(client, "x = 1")
    context = client.app[APP_CONTEXTS].get("default")
    assert context.pid is not None
    os.kill(context.pid, signal.SIGKILL)
    assert await said(client, "print('x' in globals())") == "False\n"


async def test_output_before_a_death_though_the_client_is_slow(procd: MakeClient) -> None:
    client = await procd()
    async with raw(client, receive_bytes=16 << 10) as connection:
        await connection.upgrade(EXECUTE)
        code = "import os, sys\nfor n in range(40_000): print(n, 'x' * 100)\n"
        code += "sys.stdout.flush(); os._exit(1)"
        await connection.send_frame(1, json.dumps({"code": code}).encode())
        text = ""
        while (frame := await connection.frame())[0] == 1:
            text += json.loads(frame[1])["text"]
        assert text == "".join(f"{n} {'x' * 100}\n" for n in range(40_000))
        assert frame == (8, b"\x03\xf3worker process ended")


async def test_half_a_gigabyte_to_a_slow_reader(procd: MakeClient) -> None:
    client = await procd()
    block = bytes(range(32, 127)) * 1000 + b"\n"
    blocks = (500 << 20) // len(block)
    code = f"""
import os
block = bytes(range(32, 127)) * 1000 + b'\\n'
for _ in range({blocks}):
    view = memoryview(block)
    while view: view = view[os.write(1, view):]
"""
    before = _resident_bytes()
    most = 0
    digest = hashlib.sha256()
    async with raw(client, receive_bytes=256 << 10) as connection:
        await connection.upgrade(EXECUTE)
        await connection.send_frame(1, json.dumps({"code": code}).encode())
        # The client takes nothing until its code has to wait.
        context = client.app[APP_CONTEXTS].get("default")
        await until(lambda: context.current is not None and context.current.log.paused)
        count = 0
        while (frame := await connection.frame())[0] != 8:
            document = json.loads(frame[1]) if frame[0] == 1 else {}
            if document.get("type") == "stdout":
                digest.update(document["text"].encode())
                count += 1
                if count % 500 == 0:
                    most = max(most, _resident_bytes())
        assert frame[1] == b"\x03\xe8"
    whole = hashlib.sha256()
    for _ in range(blocks):
        whole.update(block)
    assert digest.digest() == whole.digest()
    assert most - before < 64 << 20


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def test_no_descriptors(procd: MakeClient) -> None:
    client = await procd()
    assert not await said(client, "x = 5")
    assert not await listed(client)  # over a connection that is kept
    with descriptors_exhausted():
        async with client.post(CONTEXTS, json={}) as reply:
            body = await refused(reply, 429, "LIMIT_REACHED")
            assert "limit of open files is reached" in body["message"]
        async with client.post(f"{CONTEXTS}/default/restart") as reply:
            await refused(reply, 429, "LIMIT_REACHED")
    assert await said(client, "print(x)") == "5\n"


async def test_an_internal_error_fails_one_cell(
    procd: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await procd()
    assert not await said(client, "x = 5")

    def fail(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as failing:
        failing.setattr(InterpreterProcess, "run", fail)
        assert (await run(client, "x")).close == (1011, INTERNAL)
    assert await said(client, "print('x' in globals())") == "False\n"


async def test_interrupts_at_any_moment(procd: MakeClient) -> None:
    """The context is of use afterwards and keeps its state."""
    client = await procd()
    assert not await said(client, "x = 5")
    code = "for n in range({}):\n  print(n); display('y' * 300_000)"
    for count in range(0, 40, 2):
        cell = await start(client, code.format(count), display=True)
        for _ in range(count % 7):
            await cell.step()
        async with client.post(f"{CONTEXTS}/default/interrupt") as reply:
            assert reply.status in (200, 409)
        await cell.to_end()
        cell.check_completed()
        assert await said(client, "print(x)") == "5\n"


async def test_clients_that_come_and_go(procd: MakeClient) -> None:
    client = await procd()
    assert not await said(client, "x = 0")
    for number in range(30):
        async with raw(client) as connection:
            await connection.upgrade(EXECUTE)
            code = f"x += 1\nprint('in')\nfor _ in range({number} * 1000): print('y')"
            await connection.send_frame(1, json.dumps({"code": code}).encode())
            if number % 3:
                await connection.next(1)
            if number % 2:
                connection.reset()
    count = int(await said(client, "print(x)"))
    assert 20 <= count <= 30
    assert (await execute(client, "echo fine"))["result"] == "fine\n"
