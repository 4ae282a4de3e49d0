"""Code that turns on the interpreter it runs in: the next execution works all the same."""

import asyncio
import hashlib
import json
import marshal
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from procd.api.interpreter import CONTEXTS as APP_CONTEXTS
from procd.app import PROCESSES
from procd.services.interpreter import worker_protocol as replies
from procd.services.interpreter.channel import MAX_UNSENT_BYTES
from procd.services.interpreter.context import INTERNAL, STATE_LOST
from procd.unix.fd import RESERVED
from tests import waiting
from tests.aliases import MakeClient
from tests.api.cells import CONTEXTS, EXECUTE, create, delete, listed, run, said, start
from tests.api.clients import (
    WAIT_S,
    Fifo,
    descriptors_exhausted,
    each,
    execute,
    program,
    raw,
    refused,
    until,
)
from tests.process.test_process import Filling

EVERY_FD = (
    "import os\nfor fd in map(int, os.listdir('/proc/self/fd')):\n  try: {}\n  except OSError: pass"
)
SURVIVED = [
    # Streams and descriptors.
    "import os; os.closerange(0, 100)",
    "import os; os.close(1)",
    "import os; os.close(2); os.close(0)",
    "import os; os.dup2(os.open('/dev/null', os.O_RDWR), 1)",
    "import sys; sys.stdout = None",
    "import sys; del sys.stdout, sys.stderr, sys.stdin",
    "import sys; sys.stdout.close(); sys.stderr.close()",
    "import sys; b = sys.stdout.detach()",
    "import sys; b = sys.stdout.buffer.detach()",
    "import sys; sys.stdout.reconfigure(encoding='utf-16', line_buffering=False)",
    "import sys; sys.stdout = sys.stderr = open('/dev/full', 'w'); print('x' * 100_000)",
    "class S:\n  def write(self, t): raise SystemExit\n  def flush(self): raise SystemExit\n"
    "import sys; sys.stdout = sys.stderr = S()",
    "class S:\n  def write(self, t): 1 / 0\n  def flush(self): 1 / 0\n"
    "import sys; sys.stdout = sys.stderr = S(); sys.exit('text')",
    "import sys; sys.stderr = None; sys.exit('text')",
    EVERY_FD.format("os.write(fd, b'garbage' * 10)"),
    EVERY_FD.format("os.set_blocking(fd, False)"),
    EVERY_FD.format("os.set_inheritable(fd, True)"),
    "held = []\nwhile True: held.append(open('/dev/null'))",
    "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (3, 1000))",
    "import os; os.set_blocking(1, False); print('x' * 2_000_000)",
    "import sys; sys.stdout.write('half a line'); sys.stdout.buffer.write(b'\\xc3')",
    "import sys; sys.stdout.flush = sys.stdout.buffer.flush = lambda: 1 / 0",
    "import os; os.close(max(map(int, os.listdir('/proc/self/fd'))))",
    # Signals and threads.
    "import signal\nfor n in (2, 15, 17, 20): signal.signal(n, signal.SIG_IGN)",
    "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))",
    "import threading, time\n"
    "for _ in range(1000): threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()",
    "import sys; sys.settrace(lambda *a: None); sys.setprofile(lambda *a: None)",
    "import sys; sys.settrace(lambda *a: 1 / 0)",
    "import sys; sys.setprofile(lambda *a: 1 / 0)",
    "import sys; sys.setswitchinterval(100)",
    # Supervisor.
    "import os\nif os.fork() == 0: os._exit(0)",
    "import os\nif os.fork() == 0: 1 / 0",
    "import os, sys\nif os.fork() == 0: sys.exit(3)",
    "import os\nif os.fork() == 0: raise KeyboardInterrupt",
    "import os\nfor _ in range(3): os.fork()",
    "import os; os.setpgid(0, 0) if os.getpid() != os.getsid(0) else None",
    "import os; os.chdir('/proc/self'); os.umask(0o777)",
    # Modules.
    "import builtins; del builtins.print, builtins.open, builtins.input",
    "import builtins as b\nnames, change = dir(b), setattr\n"
    "for name in names:\n  if 'a' <= name[0] <= 'z': change(b, name, None)",
    "import builtins as b\nnames, change = dir(b), setattr\n"
    "for name in names:\n  if 'a' <= name[0] <= 'z': change(b, name, lambda *a, **k: 0)",
    "import builtins; builtins.__build_class__ = None",
    "__builtins__ = {}",
    "globals().clear()",
    "import sys; sys.modules.clear()",
    "import sys; sys.modules['__main__'] = None; sys.path.clear(); sys.meta_path.clear()",
    "import json; json.dumps = json.loads = None",
    "import json; json.dumps = lambda *a, **k: b'bytes'; json.JSONEncoder.default = None",
    "import json.encoder as e, json.decoder as d, json\n"
    "json._default_encoder = json._default_decoder = e.c_make_encoder = e.INFINITY = None\n"
    "e.JSONEncoder.encode = e.JSONEncoder.iterencode = d.JSONDecoder.decode = None",
    "import os\nfor name in list(vars(os)):\n  if name[0] != '_': setattr(os, name, None)",
    "import signal, io, linecache, socket, asyncio\n"
    "for m in (signal, io, linecache, socket, asyncio):\n"
    "  for name in list(vars(m)):\n"
    "    if name[0] != '_' and name != 'cache': setattr(m, name, None)",
    "import traceback as t, linecache as l; t.TracebackException.format = None; l.clearcache()",
    "import linecache; linecache.cache = None",
    "import traceback; traceback.TracebackException.__init__ = None",
    "import os; os.environ.clear(); os.environ = {}",
    "import os; c = type(os.environ); c.get = c.update = c.pop = c.__setitem__ = None",
    "import sys; sys.excepthook = sys.displayhook = sys.argv = sys.path = None",
    "import asyncio\nawait asyncio.sleep(0)\nasyncio.get_running_loop().stop()",
    "import asyncio\nloop = asyncio.get_running_loop() if False else None\n"
    "async def forever():\n  while True: await asyncio.sleep(0.01)\n"
    "task = asyncio.get_event_loop_policy().new_event_loop()",
    "import sys; sys.setrecursionlimit(60)",
    "import gc; gc.disable(); gc.set_threshold(1)",
    "class M(type):\n  def __getattribute__(c, n): raise SystemExit\n"
    "class E(Exception, metaclass=M): pass\nraise E",
]

DIED = [
    "import os; os.closerange(0, 65536)",
    "import os; os._exit(7)",
    "import os; os.abort()",
    "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "import ctypes; ctypes.string_at(0)",
    "import socket, os\nfor fd in map(int, os.listdir('/proc/self/fd')):\n"
    "  try: socket.socket(fileno=os.dup(fd)).shutdown(socket.SHUT_RDWR)\n  except OSError: pass\n"
    "import time; time.sleep(60)",
    "import os; os.execv('/bin/true', ['true'])",
    "import os; os.execv('/bin/sleep', ['sleep', '60'])",
    "import os; os.dup2(1, 2); os.closerange(3, 65536); import time; time.sleep(60)",
    "import resource as r; r.setrlimit(r.RLIMIT_CPU, (1, 1))\nwhile True: pass",
    # Its end of the channel lives on in copies, and a thread would keep Python from ending.
    "import os, threading, time\nthreading.Thread(target=time.sleep, args=(3600,)).start()\n"
    "for fd in map(int, os.listdir('/proc/self/fd')):\n"
    "  try: held = os.dup(fd)\n  except OSError: pass\nos.closerange(900, 65536)",
]


async def test_survived(procd: MakeClient) -> None:
    client = await procd(interpreter={"warm": 1, "grace_s": 0.3})
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
    client = await procd(interpreter={"warm": 1, "grace_s": 0.3})
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
tell, number = frame.f_locals['self']._channel.send, frame.f_locals['message']['id']
print('said')
tell({})
time.sleep(60)
"""
NONSENSE = [
    "'not JSON'",
    "'[]'",
    "'[' * 100_000",
    "'{}'",
    "json.dumps({'op': 'begun', 'id': None})",
    "json.dumps({'op': 'begun', 'id': number, 'more': []})",
    "json.dumps({'op': 'begun', 'id': number + 1})",
    "json.dumps({'op': 'begun', 'id': number}) + ' ' * (2 << 20)",
    "json.dumps({'op': 'done', 'id': number})",
    "json.dumps({'op': 'done', 'id': number + 1, 'error': None})",
    "json.dumps({'op': 'done', 'id': number, 'error': None, 'more': []})",
    "json.dumps({'op': 'done', 'id': str(number), 'error': None})",
    "json.dumps({'op': 'done', 'id': [number], 'error': None})",
    "json.dumps({'op': 'other', 'id': number, 'error': None})",
    *[
        f"json.dumps({{'op': 'done', 'id': number, 'error': {error}}})"
        for error in (
            "5",
            "'text'",
            "[]",
            "{}",
            "{'name': 5, 'value': None, 'traceback': [1]}",
            "{'name': '', 'value': '', 'traceback': '', 'more': ''}",
            "{'name': '\\ud800', 'value': '', 'traceback': ''}",
        )
    ],
    "json.dumps({'op': 'done', 'id': number, 'error': None, 'variables': 5})",
    "json.dumps({'op': 'done', 'id': number, 'error': None, 'variables': [{'name': 'x'}]})",
    "json.dumps({'op': 'result', 'id': 1, 'data': 5})",
    "json.dumps({'op': 'result', 'id': None, 'data': {}})",
    "json.dumps({'op': 'result', 'id': 1, 'data': {'a': float('nan')}})",
    "json.dumps({'op': 'result', 'id': 1, 'data': {'a': 'x' * 3_000_000}})",
    "'x' * (9 << 20)",
]


@each("message", NONSENSE)
async def _nonsense(client: Any, message: str) -> None:
    cell = await run(client, FORGE.format(message))
    assert (cell.close, cell.stdout) == ((1011, "worker process ended"), "said\n")
    assert "control" not in cell.kinds


async def test_nonsense_ends_the_process(
    procd: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    client = await procd()
    await _nonsense(client=client)
    warnings = [line for line in caplog.messages if line.startswith("interpreter ")]
    assert len(warnings) == len(NONSENSE)
    assert any("sends more than" in line for line in warnings)
    assert await said(client, "print(1)") == "1\n"


EXHAUST = """
import resource
with open('/proc/self/statm') as file: size = int(file.read().split()[0]) * resource.getpagesize()
limits = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (size + (64 << 20), limits[1]))
kept = []
while True: kept.append(str(len(kept)) * 50)
"""
CAUGHT = "try:{}\nexcept MemoryError: print('caught')".format(EXHAUST.replace("\n", "\n  "))


@each("code", [EXHAUST, CAUGHT])
async def _exhausted(client: Any, code: str) -> None:
    context_id = await create(client)
    fields: dict[str, Any] = {"contextId": context_id}
    assert not await said(client, "x = 5", **fields)
    for _ in range(2):
        cell = await run(client, code, **fields)
        cell.check_completed()
        if code is EXHAUST:
            assert cell.error["name"] == "MemoryError"
        else:
            assert cell.stdout == "caught\n"
        # There is a little left, so that the user can go on.
        assert await said(client, "print(x, len(kept) > 1000)", **fields) == "5 True\n"
        await said(client, "resource.setrlimit(resource.RLIMIT_AS, limits)", **fields)
        await said(client, "kept = None", **fields)
    assert await said(client, "print(x)", **fields) == "5\n"
    await delete(client, context_id)


async def test_memory_used_up(procd: MakeClient) -> None:
    await _exhausted(client=await procd())


async def test_a_loop_that_is_broken(procd: MakeClient) -> None:
    client = await procd()
    code = "import asyncio\nawait asyncio.sleep(0)\nasyncio.get_running_loop().run_forever = None"
    assert not await said(client, code)
    cell = await run(client, "await asyncio.sleep(0)")
    assert cell.error["name"] == "TypeError"
    cell = await run(client, "import gc; r = gc.collect()")
    assert "procd" not in cell.stderr


async def test_displays_that_wait_for_nothing(procd: MakeClient) -> None:
    # Who finds the channel sends what it likes, and reads no answer: it is read no more.
    client = await procd(interpreter={"grace_s": 0.3})
    code = """
import gc
channel, = [o for o in gc.get_objects() if type(o).__name__ == 'Channel' and hasattr(o, '_key')]
while True: channel.send('{"op":"result","id":1,"data":{}}')
"""
    assert not await said(client, "x = 5")
    repl = client.app[APP_CONTEXTS].get("default")._repl
    assert repl is not None
    channel = repl._channel
    cell = await start(client, code)
    async with asyncio.timeout(WAIT_S):
        while channel._reading:
            assert await cell.step()
            assert sum(map(len, channel._unsent)) < 2 * MAX_UNSENT_BYTES
    await cell.ws.close()
    assert await said(client, "print(1)") == "1\n"


@pytest.mark.parametrize("end", ["", "import os; os._exit(0)"], ids=["done", "died"])
async def test_displays_that_wait_for_nothing_and_that_nobody_reads(
    procd: MakeClient, end: str
) -> None:
    """They are left where they are until somebody does; all come."""
    client = await procd(interpreter={"buffer_bytes": 64 << 10})
    assert not await said(client, "x = 5")
    repl = client.app[APP_CONTEXTS].get("default")._repl
    assert repl is not None
    code = f"""
import gc
channel, = [o for o in gc.get_objects() if type(o).__name__ == 'Channel' and hasattr(o, '_key')]
for _ in range(40): channel.send('{{"op":"result","id":1,"data":{{"x":"' + 'x' * 500_000 + '"}}}}')
{end}
"""
    async with raw(client, receive_bytes=16 << 10) as connection:
        await connection.upgrade(EXECUTE)
        message = {"code": code, "timeout": 30, "display": True}
        await connection.send_frame(1, json.dumps(message).encode())
        await waiting.until(lambda: repl._channel._paused)
        kinds = []
        async with asyncio.timeout(WAIT_S):
            while (frame := await connection.frame())[0] == 1:
                kinds.append(json.loads(frame[1])["type"])
    assert kinds == ["result"] * 40 + ([] if end else ["control"])


async def test_signal_handlers_that_raise(procd: MakeClient) -> None:
    # While it does nothing that is nobody's business, and in a cell it is the cell's.
    client = await procd()
    code = "import signal; x = 5; signal.signal(signal.SIGALRM, lambda *a: 1 / 0)"
    assert not await said(client, code)
    pid = client.app[APP_CONTEXTS].get("default").pid
    assert pid is not None
    os.kill(pid, signal.SIGALRM)
    assert await said(client, "print(x)") == "5\n"
    for _ in range(200):
        cell = await start(client, "y = 1")
        os.kill(pid, signal.SIGALRM)
        await cell.to_end()
        assert {error["name"] for error in cell.errors} <= {"ZeroDivisionError"}
        cell.check_completed()
        os.kill(pid, signal.SIGALRM)
    code = "import os; print(x); os.kill(os.getpid(), signal.SIGALRM)"
    cell = await run(client, code)
    assert (cell.stdout, cell.error["name"]) == ("5\n", "ZeroDivisionError")
    cell = await run(client, "for n in range(100): display(n)\n" + code[11:], display=True)
    assert (len(cell.results), cell.error["name"]) == (100, "ZeroDivisionError")


async def test_a_signal_handler_that_exits(procd: MakeClient) -> None:
    client = await procd(interpreter={"grace_s": 3600.0})
    context_id = await create(client)
    code = "import signal, sys; signal.signal(signal.SIGTERM, lambda *a: sys.exit(0))"
    assert not await said(client, code, contextId=context_id)
    await delete(client, context_id)


async def test_what_never_gets_done_with_words(procd: MakeClient, alive: Fifo) -> None:
    # What tells of the user's objects is the user's code as well, and can be interrupted.
    client = await procd(interpreter={"grace_s": 3600.0})
    code = "x = 5\nclass E(Exception):\n  def __str__(self):\n    while True: pass\nraise E"
    assert (await run(client, code, timeout=1)).close == (4008, "")
    code = "class E(SystemExit):\n  @property\n  def code(self):\n    while True: pass\nraise E"
    assert (await run(client, code, timeout=1)).close == (4008, "")
    code = f"""
class R:
    def __repr__(self):
        with open({str(alive)!r}, 'w') as file: file.write('up\\n')
        while True: pass
r = R()
"""
    assert not await said(client, code)
    asking = asyncio.ensure_future(client.get(f"{CONTEXTS}/default/variables"))
    assert await alive.line() == "up"
    async with client.post(f"{CONTEXTS}/default/interrupt") as reply:
        assert reply.status == 200
    async with await asking as reply:
        body = await refused(reply, 409, "CONFLICT")
        assert "interrupted" in body["message"]
    assert await said(client, "print(x)") == "5\n"


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


async def test_the_status_of_a_fork(procd: MakeClient) -> None:
    await _forks(client=await procd())


@each("how", ["SHUT_RD", "SHUT_WR"])
async def _half_shut(client: Any, how: str) -> None:
    code = f"""
import socket, os
for fd in map(int, os.listdir('/proc/self/fd')):
    try: socket.socket(fileno=os.dup(fd)).shutdown(socket.{how})
    except OSError: pass
"""
    cell = await run(client, code)
    assert cell.close in ((1000, ""), (1011, "worker process ended"))
    cell = await run(client, "x = 1")  # by now it is known that nobody is there
    assert cell.close in ((1000, ""), (1011, "worker process ended"))
    assert await said(client, "print(1)") == "1\n"


async def test_half_shut(procd: MakeClient) -> None:
    await _half_shut(client=await procd())


async def test_stopped(procd: MakeClient) -> None:
    client = await procd(interpreter={"grace_s": 0.3})
    context_id = await create(client)
    cell = await run(
        client,
        "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
        contextId=context_id,
        timeout=1,
    )
    assert cell.close == (4008, STATE_LOST)
    assert await said(client, "print(1)", contextId=context_id) == "1\n"
    cell = await start(
        client,
        "import os, signal; print('in'); os.kill(os.getpid(), signal.SIGSTOP)",
        contextId=context_id,
    )
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
    # Whoever is quicker than the news of it gets a fresh one, as whoever isn't.
    assert await said(client, "print('x' in globals())") == "False\n"


async def test_killed_while_frozen_with_output(procd: MakeClient) -> None:
    # All that was said before the end is there, though the client was behind.
    client = await procd()
    async with raw(client, receive_bytes=16 << 10) as connection:
        await connection.upgrade(EXECUTE)
        code = "import os, sys\nfor n in range(40_000): print(n, 'x' * 100)\n"
        code += "sys.stdout.flush(); os._exit(1)"
        await connection.send_frame(1, json.dumps({"code": code}).encode())
        text = ""
        async with asyncio.timeout(WAIT_S):
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
        log = client.app[APP_CONTEXTS].get("default")
        await until(lambda: _is(log._current is not None and log._current.log.paused))
        count = 0
        async with asyncio.timeout(55):
            while True:
                opcode, payload = await connection.frame()
                if opcode == 8:
                    break
                if opcode != 1:
                    continue
                frame = json.loads(payload)
                if frame["type"] == "stdout":
                    digest.update(frame["text"].encode())
                    count += 1
                    if count % 500 == 0:
                        most = max(most, _resident_bytes())
        assert payload == b"\x03\xe8"
    whole = hashlib.sha256()
    for _ in range(blocks):
        whole.update(block)
    assert digest.digest() == whole.digest()
    assert most - before < 64 << 20


def _resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


async def _is(fact: bool) -> bool:
    await asyncio.sleep(0)
    return fact


async def test_no_descriptors(procd: MakeClient) -> None:
    client = await procd()
    assert not await said(client, "x = 5")
    assert not await listed(client)
    with descriptors_exhausted():
        async with client.post(CONTEXTS, json={}) as reply:
            body = await refused(reply, 429, "LIMIT_REACHED")
            assert "limit of open files is reached" in body["message"]
    # One that is there may take the last ones for another interpreter.
    context_id = await create(client)
    context = client.app[APP_CONTEXTS].get(context_id)
    statuses = []
    for spare in range(2, 16):
        if context.pid is not None:
            os.kill(context.pid, signal.SIGKILL)
        await waiting.until(lambda: context.pid is None)
        with descriptors_exhausted(but=RESERVED + spare):
            async with client.post(f"{CONTEXTS}/{context_id}/restart") as reply:
                statuses.append(reply.status)
    assert (statuses[0], statuses[-1]) == (500, 200)
    assert await said(client, "print(x)") == "5\n"
    assert await said(client, "print(1)", contextId=context_id) == "1\n"


@each("room", range(4))
async def _no_room(client: Any, room: int) -> None:
    # Neither an interpreter nor a program is left that nobody hears of, whichever of the
    # descriptors was too many.
    processes = client.app[PROCESSES]
    poller = processes.loop
    processes.loop = Filling(poller, room)
    try:
        async with client.post(CONTEXTS, json={}) as reply:
            body = await refused(reply, 500, "INTERNAL_SERVER_ERROR")
            assert "No space left" in body["message"]
        processes.loop = Filling(poller, min(room, 2))  # the charts' pipe is the third
        code = {"language": "python", "code": "import matplotlib, time; time.sleep(1000)"}
        async with client.post("/process/code-run", json=code) as reply:
            body = await reply.json()
            assert (body["exitCode"], "No space left" in body["result"]) == (-1, True)
    finally:
        processes.loop = poller
    await until(lambda: _is(not processes.supervised))


async def test_no_room(procd: MakeClient) -> None:
    await _no_room(client=await procd())


async def test_too_many_processes(procd: MakeClient) -> None:
    client = await procd(process={"max_processes": 1})
    assert not await said(client, "x = 5")
    async with client.post(CONTEXTS, json={}) as reply:
        await refused(reply, 429, "LIMIT_REACHED")
    assert await said(client, "print(x)") == "5\n"


async def test_no_memory_to_ask_with(
    procd: MakeClient, alive: Fifo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One execution fails by it, and says so; those that wait behind it have their turn."""
    client = await procd()
    said_up = f"with open({str(alive)!r}, 'w') as file: file.write('up\\n')"
    running = await start(client, f"x = 5\n{said_up}\nimport time; time.sleep(3600)")
    assert await alive.line() == "up"
    waiting = [await start(client, code) for code in ("'fails'", "print('x' in globals())")]
    context = client.app[APP_CONTEXTS].get("default")
    await until(lambda: _is(len(context._queue) == 2))

    def short(
        value: dict[str, object], version: int, dumps: Callable[..., bytes] = marshal.dumps
    ) -> bytes:
        if value.get("code") == "'fails'":
            raise MemoryError
        return dumps(value, version)

    monkeypatch.setattr("marshal.dumps", short)
    async with client.post(f"{CONTEXTS}/default/interrupt") as reply:
        assert reply.status == 200
    failed, behind = [await cell.to_end() for cell in waiting]
    await running.to_end()
    assert failed.close == (1011, INTERNAL)
    behind.check_completed()
    assert behind.stdout == "False\n"


async def test_no_memory_to_hear_with(procd: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an interpreter says is heard later, and in its order."""
    client = await procd()
    heard: list[bytes] = []

    def short(
        data: bytes, request: int, parse: Callable[[bytes, int], object] = replies.parse
    ) -> object:
        heard.append(data)
        if heard.count(data) < 3:
            raise MemoryError
        return parse(data, request)

    monkeypatch.setattr("procd.services.interpreter.process.parse", short)
    code = "print('one')\ndisplay(2)\nprint('three')\n1 / 0"
    cell = await run(client, code, display=True)
    assert cell.stdout == "one\nthree\n"
    assert cell.kinds == ["stdout", "result", "stdout", "error", "control"]
    assert cell.error["name"] == "ZeroDivisionError"
    assert len(heard) >= 3 * 3


async def test_interrupts_at_any_moment(procd: MakeClient) -> None:
    # However an interrupt falls, the context is of use afterwards and keeps its state.
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


async def test_who_leaves_while_an_interpreter_is_ended(
    procd: MakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It doesn't live on, known to nobody, where it had to wait for its turn to be killed."""
    python = program(tmp_path, "exec sleep 1000")
    client = await procd(interpreter={"python": python, "start_s": 0.3, "warm": 0})
    assert client.app is not None
    processes = client.app[PROCESSES]
    crowded = asyncio.Event()

    async def take() -> None:
        crowded.set()
        await asyncio.get_running_loop().create_future()

    with monkeypatch.context() as crowd:
        crowd.setattr(processes.trees.turns, "take", take)
        asking = asyncio.ensure_future(client.post(CONTEXTS, json={}))
        async with asyncio.timeout(WAIT_S):
            await crowded.wait()
    assert processes.supervised == 1
    asking.cancel()
    await waiting.until(lambda: processes.supervised == 0)
