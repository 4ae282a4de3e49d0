"""The queue of a context, and the ends of cells and contexts: timeouts, interrupts, restarts."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from procd.api.interpreter import CONTEXTS as APP_CONTEXTS
from procd.app import PROCESSES
from procd.http.websocket import WEBSOCKETS
from procd.services.interpreter.context import STATE_LOST, Cell, Context
from tests.aliases import Client, MakeClient
from tests.api.cells import CONTEXTS, EXECUTE, create, delete, listed, run, said, start
from tests.api.clients import TEXT, WAIT_S, Fifo, Gate, each, program, raw, refused
from tests.waiting import until


def context_of(client: Client, context_id: str = "default") -> Context:
    return client.app[APP_CONTEXTS].get(context_id)


async def current_cell(context: Context) -> Cell:
    """Wait until one runs."""
    await until(lambda: context.current is not None)
    assert context.current is not None
    return context.current


async def post(client: Client, context_id: str, what: str) -> None:
    async with client.post(f"{CONTEXTS}/{context_id}/{what}") as reply:
        assert reply.status == 200


WAITING = "print('in'); open({!r}).readline()"

# The queue


async def test_first_in_first_out(procd: MakeClient, gate: Gate) -> None:
    client = await procd()
    first = await start(client, f"done = []; {WAITING.format(str(gate))}")
    await first.until("in\n")
    cells = [await start(client, f"done.append({n}); print(done[-2:])") for n in range(20)]
    other = await create(client)
    assert await said(client, "print(1)", contextId=other) == "1\n"
    gate.open()
    for cell in (first, *cells):
        await cell.to_end()
        cell.check_completed()
    assert await said(client, "print(done == list(range(20)))") == "True\n"


async def test_pongs_while_queued(procd: MakeClient, gate: Gate) -> None:
    client = await procd()
    first = await start(client, WAITING.format(str(gate)))
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


async def test_queue_limit(procd: MakeClient, gate: Gate) -> None:
    client = await procd(interpreter={"max_queued": 3})
    memory = client.app[PROCESSES].memory
    first = await start(client, WAITING.format(str(gate)))
    await first.until("in\n")
    used_bytes = memory.used_bytes
    waiting = [await start(client, f"print({'x' * 10_000!r})") for _ in range(3)]
    await until(lambda: len(context_of(client).queue) == 3)
    assert memory.used_bytes > used_bytes + 30_000
    refusal = await run(client, "print(1)")
    assert refusal.close == (1013, "limit of 3 waiting executions is reached")
    # A client that goes leaves room, in the queue and in memory.
    await waiting.pop().ws.close()
    await until(lambda: memory.used_bytes < used_bytes + 30_000)
    waiting.append(await start(client, "print(2)"))
    gate.open()
    for cell in (first, *waiting):
        await cell.to_end()
        cell.check_completed()


# Timeouts


async def test_a_timeout_keeps_the_state(procd: MakeClient) -> None:
    client = await procd()
    assert not await said(client, "x = 5")
    code = "import time\nprint('in')\ntry:\n  time.sleep(60)\nfinally:\n  print('out')"
    cell = await run(client, code, timeout=3)
    assert (cell.close, cell.kinds) == ((4008, ""), ["stdout"])
    assert cell.stdout == "in\nout\n"
    for code in (
        "import asyncio\nprint('in'); await asyncio.sleep(60)",
        "import subprocess\nr = subprocess.run(['sleep', '60'])",
        "import os\nr = os.system('sleep 60; sleep 60')",
        "import os\nif os.fork():\n  w = os.wait()\nelse:\n  os.execvp('sleep', ['sleep', '60'])",
        # The user's code as well, and so it can be interrupted.
        "class E(Exception):\n  def __str__(self):\n    while True: pass\nraise E",
    ):
        assert (await run(client, code, timeout=1)).close == (4008, "")
        assert await said(client, "print(x)") == "5\n"


async def test_a_timeout_of_code_that_goes_on(procd: MakeClient, alive: Fifo) -> None:
    client = await procd(interpreter={"grace_s": 1.0})
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
    cell = await start(client, code, timeout=3)
    assert await alive.line() == "up"
    await cell.to_end()
    assert (cell.close, cell.stdout) == ((4008, STATE_LOST), "no\n")
    assert "control" not in cell.kinds
    await alive.ended()
    assert (await run(client, "x")).error["name"] == "NameError"


async def test_a_timeout_while_the_client_does_not_read(procd: MakeClient) -> None:
    # The client holds the code back; to be interrupted it must still get rid of its output.
    client = await procd()
    assert not await said(client, "x = 5")
    async with raw(client, receive_bytes=16 << 10) as connection:
        await connection.upgrade(EXECUTE)
        code = "try:\n  while True: print('y' * 1000)\nfinally: print('z' * 300_000); x = 6"
        await connection.send_frame(1, json.dumps({"code": code, "timeout": 3}).encode())
        waiting = await start(client, "print(x)")
        await waiting.to_end()
        assert waiting.stdout == "6\n"
        async with asyncio.timeout(WAIT_S):
            while (frame := await connection.frame())[0] != 8:
                pass
        assert frame[1] == (4008).to_bytes(2, "big")


async def test_a_client_that_does_not_read_delays_no_end(procd: MakeClient, tmp_path: Path) -> None:
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
    traffic = client.app[WEBSOCKETS].traffic

    async with raw(client, receive_bytes=16 << 10) as connection:
        await connection.upgrade(EXECUTE)
        message = {"code": code, "timeout": 15, "display": True}
        await connection.send_frame(1, json.dumps(message).encode())
        running = await current_cell(context_of(client))
        sent_bytes = -1
        while not running.log.paused or traffic.sent_bytes != sent_bytes:
            sent_bytes = traffic.sent_bytes
            for _ in range(20):
                await listed(client)
        mark.touch()
        assert await said(client, "print(x)") == "5\n"
        last = b""
        async with asyncio.timeout(WAIT_S):
            while (frame := await connection.frame())[0] == 1:
                last = frame[1]
    assert (json.loads(last)["text"], frame) == ("completed", (8, (1000).to_bytes(2, "big")))


# Interrupts


async def test_interrupt(procd: MakeClient) -> None:
    client = await procd()
    async with client.post(f"{CONTEXTS}/default/interrupt") as reply:
        await refused(reply, 409, "CONFLICT")
    cell = await start(client, "x = 5; import time; print('in'); time.sleep(60)")
    await cell.until("in\n")
    async with client.post(f"{CONTEXTS}/default/interrupt") as reply:
        assert (reply.status, await reply.json()) == (200, {"message": "Context interrupted"})
    assert (await cell.to_end()).error["name"] == "KeyboardInterrupt"
    assert await said(client, "print(x)") == "5\n"
    async with client.post(f"{CONTEXTS}/default/interrupt") as reply:
        await refused(reply, 409, "CONFLICT")


async def test_an_interrupt_is_for_its_own_cell(procd: MakeClient) -> None:
    """Not for children of earlier ones, nor for one that has left the process group."""
    client = await procd()
    code = "import os, subprocess, time; child = subprocess.Popen(['sleep', '3600'])"
    assert not await said(client, code)
    mine = (
        "mine, apart = (subprocess.Popen(['sleep', '3600'], start_new_session=new)"
        " for new in (False, True)); print('in'); time.sleep(60)"
    )
    assert (await run(client, mine, timeout=3)).close == (4008, "")
    assert await said(client, "print(mine.wait(), child.poll(), apart.poll())") == "-2 None None\n"
    cell = await start(client, "print('in'); time.sleep(60)")
    await cell.until("in\n")
    await post(client, "default", "interrupt")
    assert (await cell.to_end()).error["name"] == "KeyboardInterrupt"
    assert await said(client, "print(child.poll(), apart.poll())") == "None None\n"
    # A signal between two cells is for neither.
    pid = context_of(client).pid
    assert pid is not None
    os.kill(pid, signal.SIGINT)
    assert await said(client, "print(child.poll())") == "None\n"


@asynccontextmanager
async def stopped(client: Client) -> AsyncIterator[None]:
    """Stop the default context's interpreter."""
    pid = context_of(client).pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_an_interrupt_before_the_code_begins(procd: MakeClient) -> None:
    client = await procd()
    assert not await said(client, "import time; x = 5")
    async with stopped(client):
        cell = await start(client, "time.sleep(3600); x = 6")
        await current_cell(context_of(client))
        await post(client, "default", "interrupt")
    assert (await cell.to_end()).error["name"] == "KeyboardInterrupt"
    assert await said(client, "print(x)") == "5\n"


def gated_python(tmp_path: Path, gate: Gate) -> str:
    """An interpreter that starts when the gate is open."""
    return program(tmp_path, f'read x < {gate}\nexec python3 "$@"')


async def test_an_interrupt_while_the_interpreter_starts(
    procd: MakeClient, tmp_path: Path, gate: Gate
) -> None:
    client = await procd(interpreter={"python": gated_python(tmp_path, gate)})
    # Python misses a signal that comes just before the system call of a sleep.
    cell = await start(client, "import time\nwhile True: time.sleep(0.01)")
    await until(lambda: context_of(client).process is not None)
    await post(client, "default", "interrupt")
    gate.open()
    assert (await cell.to_end()).error["name"] == "KeyboardInterrupt"
    assert await said(client, "print(1)") == "1\n"


# Clients that go


@pytest.mark.parametrize("how", ["close", "leave", "reset", "nonsense"])
async def test_a_client_that_goes_ends_its_cell(procd: MakeClient, how: str) -> None:
    client = await procd()
    async with raw(client) as connection:
        await connection.upgrade(EXECUTE)
        code = "import time\nx = 5\ntry: print('in'); time.sleep(60)\nfinally: y = 6"
        await connection.send_frame(TEXT, json.dumps({"code": code}).encode())
        assert b"in" in await connection.next(TEXT)
        if how == "close":
            await connection.send_frame(8, b"")
        elif how == "leave":
            await connection.leave()
        elif how == "reset":
            connection.reset()
        else:
            await connection.send(b"\x83\x80\0\0\0\0")  # an unknown opcode
        assert await said(client, "print(x, y)") == "5 6\n"


async def test_a_client_that_goes_before_its_code_begins(
    procd: MakeClient, tmp_path: Path, gate: Gate
) -> None:
    client = await procd(interpreter={"grace_s": 3600.0})
    assert not await said(client, "x = 5; import time")
    async with stopped(client):
        cell = await start(client, "time.sleep(3600); x = 6")
        running = await current_cell(context_of(client))
        await cell.ws.close()
        await until(running.abandoned.done)
    assert await said(client, "print(x)") == "5\n"
    # In the queue.
    first = await start(client, WAITING.format(str(gate)))
    await first.until("in\n")
    second = await start(client, "x = 1")
    third = await start(client, "print(x)")
    await second.ws.close()
    gate.open()
    assert (await third.to_end()).stdout == "5\n"
    await first.to_end()
    # While the interpreter starts.
    client = await procd(interpreter={"python": gated_python(tmp_path, gate), "grace_s": 3600.0})
    cell = await start(client, f"open({str(tmp_path / 'mark')!r}, 'w')")
    running = await current_cell(context_of(client))
    await cell.ws.close()
    await until(running.abandoned.done)
    gate.open()
    assert await said(client, "print(1)") == "1\n"
    assert not (tmp_path / "mark").exists()


# Deaths


async def test_death(procd: MakeClient) -> None:
    client = await procd()
    context_id = await create(client)
    for code in (
        "print('last', end=''); import os, sys; sys.stdout.flush(); os._exit(7)",
        "import os, signal; os.write(1, b'last'); os.kill(os.getpid(), signal.SIGKILL)",
        "import os; os.write(1, b'last'); os.execv('/bin/true', ['true'])",
    ):
        cell = await start(client, code, contextId=context_id)
        waiting = await start(client, "print('next')", contextId=context_id)
        await cell.to_end()
        assert (cell.close, cell.kinds) == ((1011, "worker process ended"), ["stdout"])
        assert cell.stdout == "last"
        assert (await waiting.to_end()).stdout == "next\n"
    await run(client, "import os; os._exit(0)", contextId=context_id)
    assert (await listed(client))[context_id]["active"] is False
    assert await said(client, "print(1)", contextId=context_id) == "1\n"
    assert (await listed(client))[context_id]["active"] is True


async def test_death_before_the_code_begins(procd: MakeClient) -> None:
    """Nothing of it has run, so it runs in another process."""
    client = await procd()
    assert not await said(client, "x = 5")
    pid = context_of(client).pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    cell = await start(client, "print('x' in globals())")
    await current_cell(context_of(client))
    os.kill(pid, signal.SIGKILL)
    assert (await cell.to_end()).stdout == "False\n"
    cell.check_completed()


# Deletion, restart, stop


async def test_delete_while_running(procd: MakeClient, alive: Fifo) -> None:
    client = await procd(interpreter={"grace_s": 0.2, "max_queued": 8})
    context_id = await create(client)
    code = f"""
import signal, os, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
held = os.open({str(alive)!r}, os.O_WRONLY)
os.write(held, b'up\\n')
while True: time.sleep(60)
"""
    first = await start(client, code, contextId=context_id)
    assert await alive.line() == "up"
    waiting = [await start(client, "print(1)", contextId=context_id) for _ in range(8)]
    await until(lambda: len(context_of(client, context_id).queue) == 8)
    await delete(client, context_id)
    for cell in (first, *waiting):
        assert (await cell.to_end()).close == (1011, "context deleted")
    await alive.ended()
    assert await said(client, "print(1)") == "1\n"


@pytest.mark.parametrize("how", ["delete", "restart", "stop"])
async def test_all_that_a_context_has_started_has_a_time_of_grace(
    procd: MakeClient, gate: Gate, alive: Fifo, how: str
) -> None:
    """Though the interpreter has ended by then."""
    client = await procd(interpreter={"grace_s": float(WAIT_S)})
    context_id = await create(client)
    leave = f"read x <{gate}; echo told >{alive}; exit"
    script = f"trap '{leave}' TERM; echo up >{alive}; read x <>{gate}"
    code = f"import os, subprocess; child = subprocess.Popen(['sh', '-c', {script!r}])"
    assert await said(client, f"{code}\nprint(os.getpid())", contextId=context_id)
    assert await alive.line() == "up"
    process = context_of(client, context_id).process
    assert process is not None
    async with asyncio.TaskGroup() as group:
        if how == "delete":
            group.create_task(delete(client, context_id))
        elif how == "restart":
            group.create_task(post(client, context_id, "restart"))
        else:
            group.create_task(client.close())
        await until(lambda: not process.running)
        gate.open(2)  # if the first passes before it has the signal
        assert await alive.line() == "told"


async def test_a_handler_of_sigterm_that_exits(procd: MakeClient) -> None:
    client = await procd(interpreter={"grace_s": 3600.0})
    context_id = await create(client)
    code = "import signal, sys; signal.signal(signal.SIGTERM, lambda *a: sys.exit(0))"
    assert not await said(client, code, contextId=context_id)
    await delete(client, context_id)


async def test_restart(procd: MakeClient) -> None:
    client = await procd()
    context_id = await create(client)
    code = "x = 5; import time; print('in'); time.sleep(60)"
    cell = await start(client, code, contextId=context_id)
    await cell.until("in\n")
    waiting = await start(client, "print('x' in globals())", contextId=context_id)
    async with client.post(f"{CONTEXTS}/{context_id}/restart") as reply:
        body = await reply.json()
        assert (reply.status, body["id"], body["active"]) == (200, context_id, True)
    assert (await cell.to_end()).close == (1011, "context restarted")
    assert (await waiting.to_end()).stdout == "False\n"
    await post(client, "default", "restart")


async def test_restarts_and_a_deletion_at_once(procd: MakeClient) -> None:
    client = await procd()
    context_id = await create(client)
    assert not await said(client, "x = 5", contextId=context_id)
    await asyncio.gather(*[post(client, context_id, "restart") for _ in range(3)])
    assert await said(client, "print('x' in globals())", contextId=context_id) == "False\n"
    restarting = asyncio.ensure_future(client.post(f"{CONTEXTS}/{context_id}/restart"))
    await asyncio.sleep(0)
    await delete(client, context_id)
    async with await restarting as reply:
        assert reply.status in (200, 404)


@pytest.mark.parametrize("how", ["restart", "delete"])
async def test_a_context_that_is_still_starting(
    procd: MakeClient, tmp_path: Path, how: str
) -> None:
    client = await procd(interpreter={"python": program(tmp_path, 'exec python3 "$@"')})
    context_id = await create(client)
    await run(client, "import os; os._exit(0)", contextId=context_id)
    begun = tmp_path / "begun"
    program(tmp_path, f": >{begun}\nexec sleep 60")
    cell = await start(client, "1", contextId=context_id)
    waiting = await start(client, "print(2)", contextId=context_id)
    await until(begun.exists)
    program(tmp_path, 'exec python3 "$@"')
    if how == "delete":
        await delete(client, context_id)
        assert (await cell.to_end()).close == (1011, "context deleted")
        assert (await waiting.to_end()).close == (1011, "context deleted")
    else:
        await post(client, context_id, "restart")
        assert (await cell.to_end()).close == (1011, "context restarted")
        assert (await waiting.to_end()).stdout == "2\n"


async def test_a_server_that_stops(procd: MakeClient, tmp_path: Path) -> None:
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
    # While a context is created.
    client = await procd(interpreter={"python": program(tmp_path, "exec sleep 3600")})
    async with asyncio.TaskGroup() as group, raw(client) as asking:
        await asking.request(f"POST {CONTEXTS} HTTP/1.1\nContent-Length: 2", b"{}")
        await until(lambda: client.app[PROCESSES].supervised == 1)
        group.create_task(client.close())
        assert (await asking.head())[0] == 500
        body = json.loads(await asking.rest())
        assert body["message"] == "failed to start context: procd is stopping"


async def test_idle_time(procd: MakeClient) -> None:
    client = await procd(interpreter={"idle_ttl_s": 0.2})
    unused, used = await create(client), await create(client)
    assert not await said(client, "x = 5", contextId=used)
    for context_id in unused, used:
        await until(lambda: context_of(client, context_id).pid is None)  # noqa: B023 - awaited
    # A context with a cell isn't idle.
    code = "import time; time.sleep(0.6); print('x' in globals())"
    assert await said(client, code, contextId=used) == "False\n"


# Processes that don't start, and spare ones


STARTS = [
    ("exit 1", WAIT_S, "the interpreter ended as it started: without a word"),
    ("echo first; echo last >&2", WAIT_S, "the interpreter ended as it started: last"),
    ("exec sleep 1000", 0.1, "the interpreter doesn't start"),
]


@each(("script", "start_s", "reason"), STARTS)
async def _starts(
    procd: MakeClient, tmp_path: Path, script: str, start_s: float, reason: str
) -> None:
    python = program(tmp_path, script)
    client = await procd(interpreter={"python": python, "start_s": float(start_s)})
    cell = await run(client, "1")
    assert cell.close == (1011, f"failed to get default context: {reason}")
    await until(lambda: not client.app[PROCESSES].supervised)


async def test_an_interpreter_that_does_not_start(procd: MakeClient, tmp_path: Path) -> None:
    await _starts(procd=procd, tmp_path=tmp_path)


async def test_no_interpreter(procd: MakeClient) -> None:
    client = await procd(interpreter={"python": "/none/python"})
    reason = "failed to get default context: program does not exist: /none/python"
    assert (await run(client, "1")).close == (1011, reason)
    async with client.post(CONTEXTS, json={}) as reply:
        body = await refused(reply, 500, "INTERNAL_SERVER_ERROR")
        assert body["message"].startswith("failed to start context: ")
    client = await procd()
    async with client.post("/env", json={"set": {"PATH": "/none"}}) as reply:
        assert reply.status == 200
    missing = "python3: not found: install it, or set interpreter.python"
    reason = f"failed to get default context: {missing}"
    assert (await run(client, "1")).close == (1011, reason)


async def pid_of(client: Client, context_id: str = "default") -> int:
    return int(await said(client, "import os; print(os.getpid())", contextId=context_id))


async def test_spares(procd: MakeClient, tmp_path: Path) -> None:
    client = await procd(interpreter={"warm": 1, "python": sys.executable})
    processes = client.app[PROCESSES]
    await until(lambda: processes.supervised == 2)
    started = set(processes.children)
    default_pid = context_of(client).pid
    assert await pid_of(client) == default_pid
    assert not await listed(client)
    context_id = await create(client, cwd=str(tmp_path))
    spare = await pid_of(client, context_id)
    assert {default_pid, spare} == started
    where = "import os; print(os.getcwd(), os.environ['PWD'])"
    assert await said(client, where, contextId=context_id) == f"{tmp_path} {tmp_path}\n"
    # Its place is filled; a directory that can't be entered costs one spare.
    await until(lambda: processes.supervised == 3)
    async with client.post(CONTEXTS, json={"cwd": str(tmp_path / "none")}) as reply:
        await refused(reply, 500, "INTERNAL_SERVER_ERROR")
    await until(lambda: processes.supervised == 3)
    (spare,) = (
        set(processes.children)
        - {context.pid for context in client.app[APP_CONTEXTS].all()}
        - {default_pid}
    )
    # A spare that has died is passed over.
    os.kill(spare, signal.SIGKILL)
    os.waitid(os.P_PID, spare, os.WEXITED | os.WNOWAIT)
    assert await pid_of(client, await create(client)) != spare


async def test_spares_have_the_environment_of_now(procd: MakeClient, tmp_path: Path) -> None:
    client = await procd(interpreter={"warm": 1, "python": sys.executable})
    await until(lambda: client.app[PROCESSES].supervised == 2)
    (tmp_path / "mine.py").write_text("")
    changes = {"PYTHONPATH": str(tmp_path), "TZ": "Etc/GMT-7"}
    async with client.post("/env", json={"set": changes}) as reply:
        assert reply.status == 200
    code = "import mine, os, time; print(os.environ['TZ'], time.timezone)"
    assert await said(client, code, contextId=await create(client)) == "Etc/GMT-7 -25200\n"


async def test_preload(procd: MakeClient, caplog: pytest.LogCaptureFixture) -> None:
    client = await procd(interpreter={"preload": ["no_such_module", "colorsys"]})
    await asyncio.gather(create(client), create(client))
    assert await said(client, "import sys; print('colorsys' in sys.modules)") == "True\n"
    assert [line for line in caplog.messages if "preload" in line] == [
        "interpreter.preload: no_such_module: No module named 'no_such_module'"
    ]
