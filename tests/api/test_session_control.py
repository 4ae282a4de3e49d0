"""Ending things: terminate, signal, timeout, wait, delete."""

import asyncio
import os
import shlex
import signal
import sys
from pathlib import Path

import pytest

from procd.api.sessions import SESSIONS
from procd.services.shell.command import State
from tests.aliases import Client, MakeClient
from tests.api.clients import Fifo, Gate, refused, until
from tests.api.sessions import (
    MODERN,
    SHELLS,
    create,
    delete,
    ended,
    follow,
    get,
    keeps_session,
    kind,
    logs,
    of_shell,
    path_of,
    post_exec,
    run,
    start,
    terminate,
    type_in,
)
from tests.waiting import until as until_so

LEAVING_SHELLS = [SHELLS["bash"], SHELLS["zsh"]]


async def send_signal(client: Client, command_id: str, name: str) -> None:
    url = f"{path_of(command_id)}/signal"
    async with client.post(url, json={"signal": name}, headers=MODERN) as reply:
        assert (reply.status, await reply.read()) == (204, b"")


async def test_terminate_keeps_the_shell_and_earlier_children(
    procd: MakeClient, alive: Fifo, gate: Gate
) -> None:
    client = await procd(sessions={"grace_s": 5.0})
    await create(client)
    await run(client, f"state=kept; (echo earlier; read x; echo over) <{gate} >{alive} & true")
    assert await alive.line() == "earlier"
    command_id = await start(client, "echo ready; sleep 1000; echo rest")
    listener = await follow(client, command_id)
    await listener.until(b"ready\n")
    await terminate(client, command_id)
    assert (await ended(client, command_id))["exitCode"] == 143
    assert b"rest" not in await listener.to_end()
    assert (await run(client, "echo $? $state"))["output"] == "143 kept\n"
    for action in ("terminate", "signal"):
        url = f"{path_of(command_id)}/{action}"
        async with client.post(url, json={"signal": "SIGINT"}) as reply:
            await refused(reply, 410, "COMMAND_ALREADY_COMPLETED")
    gate.open()
    assert await alive.line() == "over"


@pytest.mark.parametrize(
    "command",
    [
        "trap '' TERM; echo ready; sleep 1000",
        "setsid sh -c 'trap \"\" TERM; echo ready; sleep 1000' & wait",
        "sh -c '(setsid sleep 1000 &) ; echo ready; sleep 1000'",
        "while :; do echo ready; sleep 1000; done & wait",
        "echo ready; sleep 1000 | cat",
    ],
)
async def test_terminate_ends_all_that_a_command_started(
    procd: MakeClient, shell: str, alive: Fifo, command: str
) -> None:
    client = await of_shell(procd, shell, sessions={"grace_s": 0.5})
    command_id = await start(client, f"exec >{alive}; {command}")
    assert await alive.line() == "ready"
    await terminate(client, command_id, kept=keeps_session(shell))
    assert "exitCode" in await get(client, path_of(command_id))
    if keeps_session(shell):
        assert (await run(client, "trap - TERM; echo on"))["output"] == "on\n"
    await alive.ended()


async def test_what_runs_in_the_background_has_the_time_of_grace(
    procd: MakeClient, shell: str, alive: Fifo, gate: Gate
) -> None:
    client = await of_shell(procd, shell, sessions={"grace_s": 1000.0})
    steps = f"say('handles'), open('{gate}').readline(), say('bye'), os._exit(0)"
    code = f"""
import functools, os, signal, time
say = functools.partial(print, flush=True)
signal.signal(signal.SIGTERM, lambda *_: ({steps}))
say("ready")
while True:
    time.sleep(0.05)
"""
    child = shlex.join([sys.executable, "-c", code])
    command_id = await start(client, f"{child} >{alive} & sleep 1000")
    assert await alive.line() == "ready"
    async with asyncio.TaskGroup() as group:
        kept = keeps_session(shell)
        terminating = group.create_task(terminate(client, command_id, kept=kept))
        assert await alive.line() == "handles"
        await ended(client, command_id)
        gate.open()
        assert await alive.line() == "bye"
    terminating.result()
    await alive.ended()


async def test_terminate_command_in_the_queue(procd: MakeClient, shell: str, gate: Gate) -> None:
    client = await of_shell(procd, shell)
    first = await start(client, f"read x <{gate}")
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(post_exec(client, "echo never"))

        async def registered() -> bool:
            return len((await get(client, "/process/session/s"))["commands"]) == 2

        await until(registered)
        queued = (await get(client, "/process/session/s"))["commands"][1]["id"]
        await terminate(client, queued)
    body = await waiting.result().json()
    assert (waiting.result().status, body["exitCode"], body["output"]) == (200, -1, "")
    assert "exitCode" not in await get(client, path_of(first))
    gate.open()
    assert (await run(client, "echo on"))["output"] == "on\n"


async def test_a_success_of_a_terminated_command_is_none(procd: MakeClient, alive: Fifo) -> None:
    client = await procd()
    await create(client)
    script = f"trap 'exit 0' TERM; echo ready >{alive}; while :; do sleep 0.01; done"
    command_id = await start(client, f'exec sh -c "{script}"')
    assert await alive.line() == "ready"
    await terminate(client, command_id)
    assert (await ended(client, command_id))["exitCode"] == 143


# What stands behind a call, a loop or a part of a list must not follow.
SCRIPTS = [
    "while :; do :; done; echo rest",
    "while :; do sleep 0.01; done; echo rest",
    "until false; do :; done",
    "while :; do [ 1 = 2 ]; done",
    "while [ ! -e /nope ]; do :; done",
    "sleep 1000 || echo rest",
    "if sleep 1000; then echo rest; else echo rest; fi",
    "eval 'sleep 1000; echo rest'; echo rest",
    "x=$(sleep 1000); echo rest",
    "sleep 1000 & wait; echo rest",
    "(while :; do :; done); echo rest",
    "f() { sleep 1000; echo rest; }; f; echo rest",
    "f() { sleep 1000; }; g() { f; echo rest; }; h() { g; echo rest; }; h || echo rest; echo rest",
    "f() { sleep 1000; }; if f; then echo rest; else echo rest; fi; echo rest",
    "f() { sleep 1000; }; while f || :; do echo rest; done",
    "f() { sleep 1000; }; for i in 1 2; do f; echo rest; done; echo rest",
    "f() { eval 'sleep 1000; echo rest'; }; ! f || echo rest",
    "f() { sleep 1000; }; x=$(f; echo rest >&2); echo rest",
    "f() { x=$(sleep 1000); }; f; echo rest",
    "f() { sleep 1000 | cat; }; f; echo rest",
    "f() { sleep 1000 & wait; }; f; echo rest",
    "f() { while :; do :; done; }; f; echo rest",
    "f() { if [ $1 = 0 ]; then sleep 1000; else f $(($1 - 1)); fi; echo rest; }; f 50; echo rest",
    "f() { . {file}; echo rest; }; f; echo rest",
    ". {file}; echo rest",
    ". {file}\necho rest",
    "f() { sleep 1000; }; trap 'f; echo rest' USR1; kill -USR1 $$; echo rest",
    "f() { (sleep 1000; echo rest); }; f >/dev/null; echo rest",
]


@pytest.mark.parametrize("shell", LEAVING_SHELLS)
async def test_a_terminated_script_is_left(procd: MakeClient, shell: str, tmp_path: Path) -> None:
    """Nothing of it runs after its end, and the shell goes on, time after time."""
    client = await of_shell(procd, shell)
    await run(client, "state=kept")
    file = tmp_path / "sourced"
    file.write_text("sleep 1000\necho rest\n")
    for script in SCRIPTS * 2:
        command_id = await start(client, f"echo ready\n{script.replace('{file}', str(file))}")
        listener = await follow(client, command_id)
        await listener.until(b"ready\n")
        await terminate(client, command_id)
        # bash 5.3 names what it has ended, and zsh writes twice what it is writing as a trap comes.
        assert b"rest" not in (await listener.to_end()).splitlines(), script
        assert (await ended(client, command_id))["exitCode"] == 143, script
        assert (await run(client, "echo $? $state"))["output"] == "143 kept\n", script


@pytest.mark.parametrize("name", ["dash", "busybox"])
async def test_other_shells_end_with_a_terminated_command(
    procd: MakeClient, tmp_path: Path, name: str
) -> None:
    """Nothing of it runs after its end, and those who wait are told why the session ended."""
    (tmp_path / "sh").symlink_to(SHELLS[name])
    client = await of_shell(procd, str(tmp_path / "sh"))
    reason = f"{name} can't leave a command that is terminated"
    file = tmp_path / "sourced"
    file.write_text("sleep 1000\necho rest\n")
    for script in SCRIPTS:
        command_id = await start(client, f"echo ready\n{script.replace('{file}', str(file))}")
        queued = await start(client, "echo never")
        listener = await follow(client, command_id)
        await listener.until(b"ready\n")
        await terminate(client, command_id, kept=False)
        assert b"rest" not in await listener.to_end(), script
        assert (await ended(client, command_id))["exitCode"] == 143, script
        async with client.get(path_of(queued)) as reply:
            assert reason in (await refused(reply, 410, "SESSION_ENDED"))["message"]
        assert reason in (await logs(client, queued))["stderr"]
        body = await refused(await post_exec(client, "true"), 410, "SESSION_ENDED")
        assert body["message"] == f"session has ended: {reason}"
        assert (await get(client, "/process/session/s"))["ended"] is True
        await delete(client)
        await create(client)


async def test_terminate_keeps_shells_in_unusual_modes(procd: MakeClient, alive: Fifo) -> None:
    for shell, mode in (("bash", "set -e"), ("zsh", "emulate sh"), ("bash", "set -o posix")):
        client = await of_shell(procd, SHELLS[shell])
        await run(client, f"{mode}; state=kept")
        for _ in range(3):
            command_id = await start(client, f"echo ready >{alive}; sleep 1000; echo rest")
            assert await alive.line() == "ready"
            await terminate(client, command_id)
            assert (await logs(client, command_id))["stdout"] == ""
            assert (await run(client, "echo $? $state"))["output"] == "143 kept\n"


async def test_a_wait_that_was_broken_off_breaks_off_no_other(
    procd: MakeClient, alive: Fifo
) -> None:
    """bash remembers for the next one a signal that came as one had ended."""
    client = await of_shell(procd, SHELLS["bash"])
    for _ in range(10):
        command_id = await start(client, f"f() {{ echo ready >{alive}; sleep 1000 & wait; }}; f")
        assert await alive.line() == "ready"
        await terminate(client, command_id)
        body = await run(client, "sh -c 'sleep 0.01; echo child' & wait; echo end")
        # So says a `wait` of bash 5.3 after one that was broken off, by whatever trap.
        complaint = "is not a child of this shell"
        lines = [line for line in body["output"].splitlines() if not line.endswith(complaint)]
        assert lines == ["child", "end"]


@pytest.mark.parametrize(
    "form", ["exec >{log} 2>&1; {steps}", "{{ {steps}; }} >{log} 2>&1", "exec >&- 2>&-; {steps}"]
)
@pytest.mark.parametrize("way", ["terminate", "timeout"])
async def test_a_script_that_redirects_its_output_is_left(
    procd: MakeClient, shell: str, alive: Fifo, tmp_path: Path, way: str, form: str
) -> None:
    client = await of_shell(procd, shell)
    rest = tmp_path / "rest"
    steps = f"echo ready >{alive}; sleep 1000; echo next >>{rest}; sh -c 'echo one >>{rest}'"
    script = form.format(log=tmp_path / "log", steps=steps)
    command_id = await start(client, script, timeout=1 if way == "timeout" else 0)
    if way == "terminate":
        assert await alive.line() == "ready"
        await terminate(client, command_id, kept=keeps_session(shell))
    killed = way == "timeout" and not keeps_session(shell)
    assert (await ended(client, command_id))["exitCode"] == (137 if killed else 143)
    assert not rest.exists()
    await delete(client)
    assert not rest.exists()


@pytest.mark.parametrize("shell", LEAVING_SHELLS)
async def test_what_is_started_after_the_signal_is_sent_it_too(
    procd: MakeClient, shell: str, alive: Fifo
) -> None:
    """A shell that can't be told to leave its script goes on with the next step of it."""
    client = await of_shell(procd, shell, sessions={"grace_s": 1000.0})
    first = f"sh -c 'echo ready >{alive}; exec sleep 1000'"
    command_id = await start(client, f"trap '' URG; {first}; sleep 1000; echo $? >{alive}")
    assert await alive.line() == "ready"
    await terminate(client, command_id)
    assert await alive.line() == "143"
    assert (await ended(client, command_id))["exitCode"] == 143
    assert (await run(client, "echo on"))["output"] == "on\n"


async def test_each_process_is_signalled_once(
    procd: MakeClient, shell: str, gate: Gate, alive: Fifo
) -> None:
    """Whatever it does about it, and however often the shell is told to leave."""
    client = await of_shell(procd, shell, sessions={"grace_s": 2.0})
    script = f"trap 'echo told' TERM; echo up >{alive}; while :; do read x <>{gate}; done"
    command_id = await start(client, f'sh -c "{script}"')
    assert await alive.line() == "up"
    await terminate(client, command_id, kept=keeps_session(shell))
    assert (await ended(client, command_id))["exitCode"] == 143
    assert (await logs(client, command_id))["stdout"] == "told\n"


@pytest.mark.parametrize("shell", LEAVING_SHELLS)
async def test_a_function_is_left_though_a_process_ignores_the_signal(
    procd: MakeClient, shell: str, alive: Fifo, tmp_path: Path
) -> None:
    """The shell leaves without waiting for that process."""
    client = await of_shell(procd, shell, sessions={"grace_s": 1000.0})
    deaf = f"sh -c 'trap \"\" TERM; echo $$ >{alive}; exec sleep 1000'"
    command_id = await start(
        client, f"f() {{ sleep 1000; }}; {deaf} & f; sleep 1000; sleep 1000; >{tmp_path}/after"
    )
    pid = int(await alive.line())
    async with asyncio.TaskGroup() as group:
        terminating = group.create_task(terminate(client, command_id))
        assert (await ended(client, command_id))["exitCode"] == 143
        assert not terminating.done()
        os.kill(pid, signal.SIGKILL)
    assert not (tmp_path / "after").exists()
    assert (await run(client, "echo on"))["stdout"] == "on\n"


async def test_a_tight_loop_of_zsh_is_left_time_after_time(procd: MakeClient, alive: Fifo) -> None:
    """One in some 100 ends in a moment in which zsh forgets that it has left it."""
    client = await of_shell(procd, SHELLS["zsh"])
    for _ in range(200):
        command_id = await start(client, f"echo ready >{alive}; while :; do :; done")
        assert await alive.line() == "ready"
        await terminate(client, command_id)
        assert (await ended(client, command_id))["exitCode"] == 143


async def test_a_shell_that_does_not_leave_is_ended_with_the_command(procd: MakeClient) -> None:
    client = await procd(sessions={"grace_s": 0.0})
    await create(client)
    command_id = await start(client, "trap '' URG; echo ready; while :; do :; done")
    listener = await follow(client, command_id)
    await listener.until(b"ready\n")
    async with client.post(path_of(command_id) + "/terminate") as reply:
        body = await refused(reply, 410, "SESSION_ENDED")
    assert body["message"].endswith("its shell did not leave a command that was terminated")
    assert await listener.to_end() == b"ready\n"
    assert (await ended(client, command_id))["exitCode"] == 137
    await refused(await post_exec(client, "true"), 410, "SESSION_ENDED")


async def test_terminated_in_an_exit_trap(procd: MakeClient, shell: str, alive: Fifo) -> None:
    client = await of_shell(procd, shell)
    script = f"trap 'echo ready >{alive}; sleep 1000' EXIT; exit 0"
    command_id = await start(client, script)
    assert await alive.line() == "ready"
    async with client.post(path_of(command_id) + "/terminate"):
        pass  # the shell may have to be ended for it
    assert (await ended(client, command_id))["exitCode"] in (137, 143)


async def test_a_shell_that_comes_to_its_script_late(procd: MakeClient, shell: str) -> None:
    """It leaves the script, though it was told to before it had opened it."""
    client = await of_shell(procd, shell, sessions={"grace_s": 20.0})
    session = client.app[SESSIONS].get("s")
    os.kill(session.driver.pid, signal.SIGSTOP)
    command_id = await start(client, "sleep 1000; echo rest")
    command = session.commands.get(command_id)
    async with asyncio.TaskGroup() as group:
        group.create_task(terminate(client, command_id, kept=keeps_session(shell)))
        for _ in range(3):
            await get(client, path_of(command_id))
        assert command.state is State.OPENING
        os.kill(session.driver.pid, signal.SIGCONT)
    assert (await logs(client, command_id))["stdout"] == ""
    assert (await ended(client, command_id))["exitCode"] == 143


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


STOPPED = [
    # One that stops itself, and hears that it is to end as it goes on.
    ("sh -c 'trap \"echo heard; exit\" TERM; echo $$; kill -STOP $$; sleep 1000'", "heard\n"),
    ("echo $$; kill -STOP $$; echo rest", ""),  # the shell itself
]


@pytest.mark.parametrize(("script", "heard"), STOPPED)
async def test_what_is_stopped_is_terminated(
    procd: MakeClient, shell: str, script: str, heard: str
) -> None:
    """Without the time of grace."""
    client = await of_shell(procd, shell, sessions={"grace_s": 1000.0})
    command_id = await start(client, script)
    listener = await follow(client, command_id)
    await listener.until(b"\n")
    pid = int(listener.joined)
    await until_so(lambda: _state(pid) == "T")
    await terminate(client, command_id, kept=keeps_session(shell))
    assert await listener.to_end() == f"{pid}\n{heard}".encode()
    assert (await ended(client, command_id))["exitCode"] == 143


@pytest.mark.parametrize("name", ["SIGINT", "int", "INT", "SIGUSR1", "SIGTERM"])
async def test_signal(procd: MakeClient, name: str) -> None:
    client = await procd()
    await create(client)
    await run(client, "state=kept; trap 'echo never' INT USR1 TERM")
    waiting = "from signal import *\nsignals = {SIGINT, SIGUSR1, SIGTERM}\n"
    waiting += "pthread_sigmask(SIG_BLOCK, signals)\nprint('ready', flush=True)\n"
    waiting += "raise SystemExit(sigwait(signals))"
    command_id = await start(client, f'python3 -S -c "{waiting}"')
    listener = await follow(client, command_id)
    await listener.until(b"ready\n")
    await send_signal(client, command_id, name)
    codes = {"INT": 2, "USR1": 10, "TERM": 15}
    shown = await ended(client, command_id)
    assert shown["exitCode"] == codes[name.upper().removeprefix("SIG")]
    assert await listener.to_end() == b"ready\n"
    assert (await run(client, "echo $state"))["output"] == "kept\n"


async def test_bad_signal(procd: MakeClient, gate: Gate) -> None:
    client = await procd(sessions={"grace_s": 0.1})
    await create(client)
    running = await start(client, f"read x <{gate}")
    for body in ("", "{}", '{"signal": ""}', '{"signal": 9}', '{"signal": "NOPE"}'):
        async with client.post(path_of(running) + "/signal", data=body) as reply:
            await refused(reply, 400, "INVALID_REQUEST_BODY")
    queued = await start(client, "echo runs")
    async with client.post(path_of(queued) + "/signal", json={"signal": "KILL"}) as reply:
        await refused(reply, 409, "CONFLICT")
    gate.open()
    await ended(client, queued)
    assert (await logs(client, queued))["output"] == "runs\n"


@pytest.mark.parametrize("script", ["sleep 1000", "kill -STOP $$; echo rest"])
async def test_timeout(procd: MakeClient, shell: str, script: str) -> None:
    client = await of_shell(procd, shell)
    await run(client, "state=kept")
    reply = await post_exec(client, f"printf partial; printf err >&2; {script}", timeout=3)
    body = await refused(reply, 408, "PROCESS_EXECUTION_TIMEOUT")
    kept = keeps_session(shell)
    ending = "" if kept else "; the session had to be ended"
    assert body["message"] == f"command execution timeout{ending}"
    assert (body["stdout"], body["stderr"][:3]) == ("partial", "err")
    shown = await get(client, path_of(body["cmdId"]))
    assert shown["exitCode"] == (143 if kept else 137)
    if kept:
        assert (await run(client, "echo $state"))["output"] == "kept\n"
    else:
        body = await refused(await post_exec(client, "true"), 410, "SESSION_ENDED")
        assert kind(shell) in body["message"]


async def test_timeout_in_the_queue(procd: MakeClient, gate: Gate) -> None:
    client = await procd()
    await create(client)
    running = await start(client, f"read x <{gate}")
    reply = await post_exec(client, "echo never", timeout=1)
    assert (await refused(reply, 408, "PROCESS_EXECUTION_TIMEOUT"))["output"] == ""
    gate.open()
    await ended(client, running)
    reply = await post_exec(client, "echo done", timeout=60)
    assert (reply.status, (await reply.json())["output"]) == (200, "done\n")


async def test_wait(procd: MakeClient, gate: Gate) -> None:
    client = await procd(sessions={"max_wait_s": 0.01})
    await create(client)
    command_id = await start(client, f"read x <{gate}; exit 6")
    for query in ("", "?wait=0", "?wait=100000000000000000"):
        assert "exitCode" not in await get(client, path_of(command_id) + query)
    for wait in ("-1", "x", "1.5", "", "9" * 30):
        async with client.get(path_of(command_id) + f"?wait={wait}") as reply:
            await refused(reply, 400, "BAD_REQUEST")
    gate.open()

    async def over() -> bool:
        return "exitCode" in await get(client, path_of(command_id) + "?wait=1")

    await until(over)
    assert (await get(client, path_of(command_id)))["exitCode"] == 6


async def test_delete(procd: MakeClient, tmp_path: Path, alive: Fifo) -> None:
    (tmp_path / "state").mkdir()
    client = await procd(sessions={"state_dir": str(tmp_path / "state"), "grace_s": 0.1})
    await create(client)
    command_id = await start(client, f"echo ready >{alive}; sleep 1000 >{alive}")
    assert await alive.line() == "ready"
    async with asyncio.TaskGroup() as group:
        sync = group.create_task(post_exec(client, "echo waits"))
        waiting = group.create_task(client.get(path_of(command_id) + "?wait=20"))

        async def registered() -> bool:
            return len((await get(client, "/process/session/s"))["commands"]) == 2

        await until(registered)
        await delete(client)
    await refused(sync.result(), 410, "SESSION_ENDED")
    assert waiting.result().status in (404, 410)
    waiting.result().release()
    for path in ("/process/session/s", path_of(command_id), path_of(command_id) + "/logs"):
        async with client.get(path) as reply:
            await refused(reply, 404, "PROCESS_NOT_FOUND")
    async with client.delete("/process/session/s") as reply:
        await refused(reply, 404, "PROCESS_NOT_FOUND")
    (root,) = (tmp_path / "state").iterdir()
    assert list(root.glob("[0-9]*")) == []
    await alive.ended()
    await create(client)
    assert (await run(client, "echo new"))["output"] == "new\n"
    assert len((await get(client, "/process/session/s"))["commands"]) == 1


async def test_running_sync_command_ends_with_410_at_deletion(
    procd: MakeClient, alive: Fifo
) -> None:
    client = await procd(sessions={"grace_s": 0.1})
    await create(client)
    async with asyncio.TaskGroup() as group:
        sync = group.create_task(post_exec(client, f"echo ready >{alive}; sleep 1000 >{alive}"))
        assert await alive.line() == "ready"
        await delete(client)
    await refused(sync.result(), 410, "SESSION_ENDED")
    await alive.ended()


@pytest.mark.parametrize(
    "command",
    [
        "setsid sh -c 'echo ready; sleep 1000' &",
        "sh -c '(setsid sh -c \"echo ready; sleep 1000\" &)'",
        "(trap '' TERM HUP INT; echo ready; sleep 1000) &",
        "env -i setsid setsid /bin/sh -c 'trap \"\" TERM; echo ready; sleep 1000' & exec true",
        "nohup sh -c 'echo ready; sleep 1000' & exit 3",
        "trap '' TERM; echo ready; sleep 1000",
        "echo ready; kill -STOP $$",
    ],
)
async def test_delete_kills_everybody(procd: MakeClient, alive: Fifo, command: str) -> None:
    client = await procd(sessions={"grace_s": 0.1})
    await create(client)
    await start(client, f"exec 8>{alive} >&8 2>&8; {command}")
    assert await alive.line() == "ready"
    await delete(client)
    await alive.ended()
    await create(client)


BUSY = "trap : TERM; sh -c 'echo ready >{alive}; exec sleep 1000'; echo bye >{alive}"


@pytest.mark.parametrize("trap", ["echo bye >{alive}; exit", "echo bye >{alive}", ""])
async def test_a_shell_hears_of_its_deletion(
    procd: MakeClient, shell: str, alive: Fifo, trap: str
) -> None:
    """Its trap runs, and it ends without being killed for it: it has nothing more to read."""
    client = await of_shell(procd, shell, sessions={"grace_s": 1000.0})
    if trap:
        await run(client, f"trap '{trap.format(alive=alive)}' TERM")
    else:
        await start(client, BUSY.format(alive=alive))
        assert await alive.line() == "ready"
    await delete(client)
    while await alive.line() != "bye":  # zsh writes twice what it is writing when a trap comes
        pass


async def test_id_is_free_at_once(procd: MakeClient, alive: Fifo) -> None:
    client = await procd(sessions={"grace_s": 3.0})
    await create(client)
    await start(client, f"trap '' TERM; echo ready >{alive}; sleep 1000 >{alive}")
    assert await alive.line() == "ready"
    async with asyncio.TaskGroup() as group:
        deleting = group.create_task(delete(client))

        async def gone() -> bool:
            async with client.get("/process/session/s") as reply:
                return reply.status == 404

        await until(gone)
        await create(client)
        assert not deleting.done()
        assert (await run(client, "echo new"))["output"] == "new\n"
    assert (await run(client, "echo still"))["output"] == "still\n"
    await alive.ended()


ATTENTIVE = """
import os, signal, sys
def ended(*_):
    os.write(1, b"signal\\n")
    os._exit(0)
signal.signal(signal.SIGTERM, ended)
os.write(1, b"ready\\n")
sys.stdin.read()
os.write(1, b"all of it\\n")
"""


@pytest.mark.parametrize("way", ["terminate", "delete"])
async def test_a_command_is_signalled_before_its_input_ends(
    procd: MakeClient, tmp_path: Path, way: str
) -> None:
    """What has come isn't to be taken for all: `cat >part && mv part whole`."""
    client = await procd()
    (tmp_path / "attentive").write_text(ATTENTIVE)
    logged = {f"s{number}": tmp_path / f"log{number}" for number in range(12)}
    commands = {}
    for session_id, log in logged.items():
        await create(client, session_id)
        command = f"{sys.executable} {tmp_path}/attentive >{log}; cat >>{log}"
        commands[session_id] = await start(client, command, session_id)
        await type_in(client, commands[session_id], "half of it", session_id)
    await until_so(
        lambda: all(log.exists() and log.read_text() == "ready\n" for log in logged.values())
    )
    if way == "delete":
        ends = [delete(client, session_id) for session_id in logged]
    else:
        ends = [terminate(client, commands[session_id], session_id) for session_id in logged]
    await asyncio.gather(*ends)
    assert {log.read_text() for log in logged.values()} == {"ready\nsignal\n"}


async def test_a_shell_that_reads_leaves_its_script_as_the_input_ends(
    procd: MakeClient, shell: str
) -> None:
    """Even if it comes to the script when it is to leave already."""
    client = await of_shell(procd, shell)
    for _ in range(10):
        command_id = await start(client, "read -r x; echo rest")
        await terminate(client, command_id, kept=keeps_session(shell))
        assert (await logs(client, command_id))["stdout"] == ""
        assert (await ended(client, command_id))["exitCode"] == 143
        if not keeps_session(shell):
            await delete(client)
            await create(client)
