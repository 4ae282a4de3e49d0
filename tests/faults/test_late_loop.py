"""A loop that comes late: what had ended in time has, whichever it is told of first."""

import asyncio
import os
import select
import signal
import time
from pathlib import Path

import pytest

from procd.api.interpreter import CONTEXTS
from procd.api.pty import PTYS
from procd.api.sessions import SESSIONS
from procd.app import PROCESSES
from procd.errors import CommandCompleted, ProcessNotFound, SessionEnded
from procd.services.shell.command import InputRequest
from procd.services.shell.session import ExecRequest, ShellSession
from tests.aliases import MakeClient
from tests.api import cells
from tests.api.clients import WAIT_S, Fifo, Gate, attach, execute, program
from tests.api.sessions import create, post_exec, run
from tests.api.test_code_run import code_run
from tests.waiting import until

TIMEOUT_S = 1
# A child that outlives who has started it, and holds its output.
CHILD = "(read x <{gate}; echo over >{alive}) & "


def exited(pid: int) -> None:
    """Keep the loop until this child has ended; its status stays unread."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def spoken(session: ShellSession) -> None:
    """Keep the loop until the shell has said how a command has ended; that stays unread."""
    assert select.select([session._driver._control.fd.number], [], [], WAIT_S)[0]


@pytest.mark.parametrize("child", ["", CHILD], ids=["alone", "child"])
async def test_execute(procd: MakeClient, gate: Gate, alive: Fifo, child: str) -> None:
    client = await procd()
    pids = client.app[PROCESSES].children
    command = f"read x <{gate}; echo fine; {child}exit 3".format(gate=gate, alive=alive)
    async with asyncio.TaskGroup() as group:
        answer = group.create_task(execute(client, command, timeout=TIMEOUT_S))
        await until(lambda: len(pids) == 1)
        gate.open()
        exited(next(iter(pids)))
        time.sleep(TIMEOUT_S)
    body = answer.result()
    assert (body["exitCode"], body["result"]) == (3, "fine\n")
    if child:
        gate.open()
        assert await alive.line() == "over"


@pytest.mark.parametrize("mention", ["", "# matplotlib\n"], ids=["plain", "hooked"])
async def test_code_run(procd: MakeClient, gate: Gate, mention: str) -> None:
    client = await procd()
    pids = client.app[PROCESSES].children
    code = f"{mention}open({str(gate)!r}).readline(); print('fine'); raise SystemExit(3)"
    async with asyncio.TaskGroup() as group:
        answer = group.create_task(code_run(client, code, timeout=TIMEOUT_S))
        await until(lambda: len(pids) == 1)
        gate.open()
        exited(next(iter(pids)))
        time.sleep(TIMEOUT_S)
    assert answer.result() == {"exitCode": 3, "result": "fine\n"}


@pytest.mark.parametrize("end", [":", "exit 0"])
async def test_command_of_a_session(procd: MakeClient, gate: Gate, alive: Fifo, end: str) -> None:
    client = await procd()
    await create(client)
    await run(client, "state=kept")
    session = client.app[SESSIONS].get("s")
    script = f"read x <{gate}; echo fine; {CHILD}{end}".format(gate=gate, alive=alive)
    async with asyncio.TaskGroup() as group:
        answer = group.create_task(post_exec(client, script, timeout=TIMEOUT_S))
        await until(lambda: len(session.commands.commands) == 2)
        gate.open()
        if end == ":":
            spoken(session)
        else:
            exited(session.pid)
        time.sleep(TIMEOUT_S)
    body = await answer.result().json()
    assert (answer.result().status, body.get("exitCode"), body["stdout"]) == (200, 0, "fine\n")
    gate.open()
    assert await alive.line() == "over"
    if end == ":":
        assert (await run(client, "echo $state"))["output"] == "kept\n"


@pytest.mark.parametrize("end", [":", "exit 0"])
async def test_terminate(procd: MakeClient, gate: Gate, alive: Fifo, end: str) -> None:
    client = await procd()
    await create(client)
    session = client.app[SESSIONS].get("s")
    script = f"read x <{gate}; echo fine; {CHILD}{end}".format(gate=gate, alive=alive)
    command = session.exec(ExecRequest(command=script))
    gate.open()
    if end == ":":
        spoken(session)
    else:
        exited(session.pid)
    with pytest.raises(CommandCompleted, match=r"exit code 0$"):
        await command.terminate(1.0)
    assert command.log.store.read(0, 100) == b"fine\n"
    gate.open()
    assert await alive.line() == "over"


async def test_input_of_a_command_whose_shell_has_ended(procd: MakeClient) -> None:
    """It is refused, though nobody has been told of that end yet."""
    client = await procd()
    await create(client)
    session = client.app[SESSIONS].get("s")
    command = session.exec(ExecRequest(command="cat", run_async=True))
    os.kill(session.pid, signal.SIGKILL)
    exited(session.pid)
    session._driver.process.poll()
    assert not command.done.done()
    with pytest.raises(SessionEnded, match="session process has exited"):
        await command.send_input(InputRequest(data=b"lost\n"), 1024)
    await until(command.done.done)


@pytest.mark.parametrize("end", ["print('fine')", "os._exit(3)"], ids=["done", "died"])
async def test_cell(procd: MakeClient, gate: Gate, alive: Fifo, end: str) -> None:
    client = await procd()
    assert not await cells.said(client, "import os; state = 'kept'")
    context = client.app[CONTEXTS].get("default")
    process = context.process
    assert process is not None
    child = CHILD.format(gate=gate, alive=alive)
    code = f"print('in'); r = open({str(gate)!r}).readline(); r = os.system({child!r}); {end}"
    cell = await cells.start(client, code, timeout=TIMEOUT_S)
    await cell.until("in\n")
    gate.open()
    if "exit" in end:
        exited(process.pid)
    else:
        assert select.select([process._channel._fd.number], [], [], WAIT_S)[0]
    time.sleep(TIMEOUT_S)
    # As whoever comes upon the end of the time does; some loops look at what has come before that.
    assert process._reply is not None
    assert await context.has_replied(process, process._reply)
    await cell.to_end()
    if "exit" in end:
        assert cell.close == (1011, "worker process ended")
        return
    assert cell.stdout == "in\nfine\n"
    cell.check_completed()
    gate.open()
    assert await alive.line() == "over"
    assert await cells.said(client, "print(state)") == "kept\n"


async def test_a_terminal_that_is_deleted_as_its_shell_ends(
    procd: MakeClient, tmp_path: Path, gate: Gate
) -> None:
    """It is deleted: all who were attached hear 137, and nobody can come back to it."""
    client = await procd(process={"shell": program(tmp_path, f"echo up; read x <{gate}; exit 7")})
    terminal = await attach(client, "/process/pty/create-connect?id=t1")
    await terminal.until(b"up")
    ptys = client.app[PTYS]
    process = ptys.get("t1")._process
    assert process is not None
    gate.open()
    exited(process.record.pid)
    deleting = asyncio.ensure_future(ptys.delete("t1"))
    process.poll()
    assert not process.running, "in the turn in which it is deleted"
    await deleting
    assert await terminal.to_end() == (1011, '{"exitCode":137,"exitReason":"SIGKILL"}')
    with pytest.raises(ProcessNotFound):
        await ptys.to_attach("t1", resume=True)
