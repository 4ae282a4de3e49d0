"""Ending things: terminate, signal, timeout, wait, delete."""

import asyncio
import os
import signal
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest

from procd.api.sessions import SESSIONS
from procd.process.trees import Trees
from procd.services.shell.command_store import TURN_COMMANDS
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
    logs,
    of_shell,
    path_of,
    post_exec,
    run,
    start,
    type_in,
)
from tests.daemon.daemon import children
from tests.waiting import until as until_so


async def post(client: Client, command_id: str, action: str, **fields: object) -> None:
    """Terminate or signal a command."""
    async with (
        asyncio.timeout(20),
        client.post(f"{path_of(command_id)}/{action}", json=fields, headers=MODERN) as reply,
    ):
        assert (reply.status, await reply.read()) == (204, b"")


async def test_terminate_keeps_the_shell_and_earlier_children(
    procd: MakeClient, alive: Fifo, gate: Gate
) -> None:
    client = await procd(sessions={"grace_s": 0.2})
    await create(client)
    await run(client, f"state=kept; (echo earlier; read x; echo over) <{gate} >{alive} & true")
    assert await alive.line() == "earlier"
    command_id = await start(client, "echo ready; sleep 1000; echo rest")
    listener = await follow(client, command_id)
    await listener.until(b"ready\n")
    await post(client, command_id, "terminate")
    shown = await ended(client, command_id)
    assert shown["exitCode"] == 143
    assert b"rest" not in await listener.to_end()
    assert (await run(client, "echo $state"))["output"] == "kept\n"
    gate.open()
    assert await alive.line() == "over"


@pytest.mark.parametrize(
    "command",
    [
        "trap '' TERM; echo ready; sleep 1000",
        "setsid sh -c 'trap \"\" TERM; echo ready; sleep 1000' & wait",
        "sh -c '(setsid sleep 1000 &) ; echo ready; sleep 1000'",
        "echo ready; sleep 1000; sleep 1000; sleep 1000",
        "while :; do echo ready; sleep 1000; done & wait",
        "echo ready; sleep 1000 | cat",
    ],
)
async def test_terminate_ends_all_that_a_command_started(
    procd: MakeClient, alive: Fifo, command: str
) -> None:
    client = await procd(sessions={"grace_s": 0.1})
    await create(client)
    command_id = await start(client, f"exec >{alive}; {command}")
    assert await alive.line() == "ready"
    await post(client, command_id, "terminate")
    assert "exitCode" in await get(client, path_of(command_id))
    assert (await run(client, "trap - TERM; echo on"))["output"] == "on\n"
    await alive.ended()


async def test_terminate_command_in_the_queue(procd: MakeClient, gate: Gate) -> None:
    client = await procd()
    await create(client)
    first = await start(client, f"read x <{gate}")
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(post_exec(client, "echo never"))

        async def registered() -> bool:
            return len((await get(client, "/process/session/s"))["commands"]) == 2

        await until(registered)
        queued = (await get(client, "/process/session/s"))["commands"][1]["id"]
        await post(client, queued, "terminate")
    body = await waiting.result().json()
    assert (waiting.result().status, body["exitCode"], body["output"]) == (200, -1, "")
    assert (await get(client, path_of(queued)))["exitCode"] == -1
    assert "exitCode" not in await get(client, path_of(first))
    gate.open()
    assert (await run(client, "echo on"))["output"] == "on\n"


async def test_ended_command_can_be_neither_terminated_nor_signalled(procd: MakeClient) -> None:
    client = await procd()
    await create(client)
    command_id = (await run(client, "true"))["cmdId"]
    for action in ("terminate", "signal"):
        url = f"{path_of(command_id)}/{action}"
        async with client.post(url, json={"signal": "SIGINT"}) as reply:
            await refused(reply, 410, "COMMAND_ALREADY_COMPLETED")


@pytest.mark.parametrize(("code", "told"), [(0, 143), (1, 1), (157, 157)])
async def test_terminated_as_it_ends_by_itself(
    procd: MakeClient, gate: Gate, code: int, told: int
) -> None:
    """Where terminate found it running, its code isn't that of a success; another is its own."""
    client = await procd()
    await create(client)
    session = client.app[SESSIONS].get("s")
    command = session.history.get(await start(client, f"read x <{gate}; (exit {code})"))
    async with asyncio.timeout(20):
        terminating = asyncio.create_task(session.terminate(command))

        def end_by_itself() -> None:
            gate.open()
            while command.record.ended_at is None:
                session._dialogue.hear()

        asyncio.get_running_loop().call_soon(end_by_itself)  # before anything is signalled
        assert await terminating
    assert (await ended(client, command.record.id))["exitCode"] == told


async def test_terminated_in_an_exit_trap(procd: MakeClient, shell: str, alive: Fifo) -> None:
    client = await of_shell(procd, shell)
    script = f"trap 'echo ready >{alive}; sleep 1000' EXIT; exit 0"
    command_id = await start(client, script)
    assert await alive.line() == "ready"
    async with client.post(path_of(command_id) + "/terminate"):
        pass  # the shell may have to be ended for it
    assert (await ended(client, command_id))["exitCode"] in (137, 143)


async def test_terminate_keeps_a_shell_that_set_e(procd: MakeClient) -> None:
    """In bash, which comes to the trap before it looks at the status of what was ended."""
    client = await of_shell(procd, "/usr/bin/bash")
    await run(client, "set -e; state=kept")
    command_id = await start(client, "echo ready; sleep 1000; echo rest")
    listener = await follow(client, command_id)
    await listener.until(b"ready\n")
    await post(client, command_id, "terminate")
    assert (await ended(client, command_id))["exitCode"] == 143
    assert (await run(client, "echo $state"))["output"] == "kept\n"


LOOPS = [
    "while :; do :; done; echo rest",
    "while :; do sleep 0.01; done; echo rest",
    "f() { while :; do sleep 1000; done; }; f",
    "sleep 1000 || echo rest",
    "if sleep 1000; then echo rest; else echo rest; fi",
    "eval 'sleep 1000; echo rest'; echo rest",
    "x=$(sleep 1000); echo rest",
    "sleep 1000 & wait; echo rest",
    "(while :; do :; done); echo rest",
]


@pytest.mark.parametrize("script", LOOPS)
async def test_terminated_script_is_left(procd: MakeClient, shell: str, script: str) -> None:
    """Nothing of it runs after its end, whatever shell it is, and the shell goes on."""
    client = await of_shell(procd, shell)
    await run(client, "state=kept")
    command_id = await start(client, f"echo ready; {script}")
    listener = await follow(client, command_id)
    await listener.until(b"ready\n")
    await post(client, command_id, "terminate")
    assert b"rest" not in await listener.to_end()
    code = (await ended(client, command_id))["exitCode"]
    assert code in (137, 143)
    assert (await run(client, "echo $? $state"))["output"] == f"{code} kept\n"


NESTED = [
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


@pytest.mark.parametrize("script", NESTED)
async def test_all_that_a_script_has_called_is_left(
    procd: MakeClient, shell: str, tmp_path: Path, script: str
) -> None:
    """Functions and what it sources: nothing that stands behind the call follows."""
    client = await of_shell(procd, shell)
    await run(client, "state=kept")
    file = tmp_path / "sourced"
    file.write_text("sleep 1000\necho rest\n")
    for _ in range(3):
        command_id = await start(client, f"echo ready\n{script.replace('{file}', str(file))}")
        listener = await follow(client, command_id)
        await listener.until(b"ready\n")
        await post(client, command_id, "terminate")
        # What bash 5.3 has ended it names.
        assert b"rest" not in (await listener.to_end()).splitlines()
        assert (await ended(client, command_id))["exitCode"] == 143
        assert (await run(client, "echo $? $state"))["output"] == "143 kept\n"


async def test_an_emulation_of_sh_is_left(procd: MakeClient) -> None:
    client = await of_shell(procd, SHELLS["zsh"])
    await run(client, "emulate sh; state=kept")
    for _ in range(3):
        command_id = await start(client, "echo ready; sleep 1000; echo rest")
        listener = await follow(client, command_id)
        await listener.until(b"ready\n")
        await post(client, command_id, "terminate")
        assert b"rest" not in await listener.to_end()
        assert (await run(client, "echo $? $state"))["output"] == "143 kept\n"


@pytest.mark.parametrize("shell", [SHELLS["bash"]])
async def test_a_wait_that_was_broken_off_breaks_off_no_other(
    procd: MakeClient, shell: str, alive: Fifo
) -> None:
    """bash keeps in mind for the next one a signal that came as one had ended."""
    client = await of_shell(procd, shell)
    for _ in range(10):
        command_id = await start(client, f"f() {{ echo ready >{alive}; sleep 1000 & wait; }}; f")
        assert await alive.line() == "ready"
        await post(client, command_id, "terminate")
        body = await run(client, "sh -c 'sleep 0.01; echo child' & wait; echo end")
        # So says a `wait` of bash 5.3 after one that was broken off, by whatever trap.
        complaint = "is not a child of this shell"
        lines = [line for line in body["output"].splitlines() if not line.endswith(complaint)]
        assert lines == ["child", "end"]


REDIRECTED = [
    ("terminate", "exec >{log} 2>&1; {steps}"),
    ("terminate", "{{ {steps}; }} >{log} 2>&1"),
    ("terminate", "exec >&- 2>&-; {steps}"),
    ("timeout", "{{ {steps}; }} >{log} 2>&1"),
]


@pytest.mark.parametrize(("way", "form"), REDIRECTED)
async def test_script_that_says_nothing_to_us_is_left(
    procd: MakeClient, shell: str, alive: Fifo, tmp_path: Path, way: str, form: str
) -> None:
    """As one whose output we have: no further step of it is done."""
    client = await of_shell(procd, shell)
    await run(client, "state=kept")
    rest = tmp_path / "rest"
    further = f"echo next >>{rest}; sh -c 'echo one >>{rest}'; sh -c 'echo two >>{rest}'"
    steps = f"echo ready >{alive}; sleep 1000; {further}"
    script = form.format(log=tmp_path / "log", steps=steps)
    command_id = await start(client, script, timeout=1 if way == "timeout" else 0)
    if way == "terminate":
        assert await alive.line() == "ready"
        await post(client, command_id, "terminate")
    assert (await ended(client, command_id))["exitCode"] == 143
    assert (await run(client, "echo $state"))["output"] == "kept\n"
    assert not rest.exists()


async def test_what_is_started_after_the_signal_is_sent_it_too(
    procd: MakeClient, shell: str, alive: Fifo
) -> None:
    """A shell that isn't to be had out of a script goes on with the next step of it."""
    client = await of_shell(procd, shell, sessions={"grace_s": 1000.0})
    first = f"sh -c 'echo ready >{alive}; exec sleep 1000'"
    command_id = await start(client, f"trap '' URG; {first}; sleep 1000; echo $? >{alive}")
    assert await alive.line() == "ready"
    await post(client, command_id, "terminate")
    assert await alive.line() == "143"
    assert (await ended(client, command_id))["exitCode"] == 143
    assert (await run(client, "echo on"))["output"] == "on\n"


async def test_each_process_is_told_once(procd: MakeClient, gate: Gate, alive: Fifo) -> None:
    """Whatever it does about it, and however often the shell is told to leave."""
    client = await procd(sessions={"grace_s": 0.5})
    await create(client)
    script = f"trap 'echo told' TERM; echo up >{alive}; while :; do read x <>{gate}; done"
    command_id = await start(client, f'sh -c "{script}"')
    assert await alive.line() == "up"
    await post(client, command_id, "terminate")
    assert (await ended(client, command_id))["exitCode"] == 143
    assert (await logs(client, command_id))["stdout"] == "told\n"


async def test_a_function_is_left_though_somebody_ignores_the_signal(
    procd: MakeClient, shell: str, alive: Fifo, tmp_path: Path
) -> None:
    """One `return` leaves the function alone: the next follows, without waiting for the other."""
    client = await of_shell(procd, shell, sessions={"grace_s": 1000.0})
    deaf = f"sh -c 'trap \"\" TERM; echo ready >{alive}; exec sleep 1000'"
    command_id = await start(
        client, f"f() {{ sleep 1000; }}; {deaf} & f; sleep 1000; sleep 1000; >{tmp_path}/after"
    )
    assert await alive.line() == "ready"
    await post(client, command_id, "terminate")
    assert (await ended(client, command_id))["exitCode"] == 143
    assert not (tmp_path / "after").exists()
    assert (await run(client, "echo on"))["output"] == "on\n"


async def test_terminated_in_the_middle_of_a_test(procd: MakeClient, shell: str) -> None:
    """What has the shell leave is no test of its own, which zsh can't have within one."""
    client = await of_shell(procd, shell)
    await run(client, "state=kept")
    for _ in range(20):
        command_id = await start(client, "echo ready; while [ ! -e /nope ]; do :; done")
        listener = await follow(client, command_id)
        await listener.until(b"ready\n")
        await post(client, command_id, "terminate")
        # zsh writes twice what it is writing when a trap comes.
        assert set((await listener.to_end()).splitlines()) == {b"ready"}
        assert (await ended(client, command_id))["exitCode"] in (137, 143)
    assert (await run(client, "echo $state"))["output"] == "kept\n"


@pytest.mark.parametrize("loop", ["until false; do :; done", "while :; do [ 1 = 2 ]; done"])
async def test_terminated_in_what_is_false(procd: MakeClient, shell: str, loop: str) -> None:
    """The status of the builtin in which the trap came isn't that of the command."""
    client = await of_shell(procd, shell)
    for _ in range(20):
        command_id = await start(client, f"echo ready; {loop}")
        listener = await follow(client, command_id)
        await listener.until(b"ready\n")
        await post(client, command_id, "terminate")
        assert (await ended(client, command_id))["exitCode"] == 143


async def test_a_tight_loop_of_zsh_is_left_time_after_time(procd: MakeClient, alive: Fifo) -> None:
    """One in some 100 ends in a moment in which zsh forgets that it has left it."""
    client = await of_shell(procd, SHELLS["zsh"])
    for _ in range(300):
        command_id = await start(client, f"echo ready >{alive}; while :; do :; done")
        assert await alive.line() == "ready"
        await post(client, command_id, "terminate")
        assert (await ended(client, command_id))["exitCode"] == 143


async def test_shell_that_will_not_leave_is_ended_with_the_command(procd: MakeClient) -> None:
    client = await procd(sessions={"grace_s": 0.0})
    await create(client)
    command_id = await start(client, "trap '' URG; echo ready; while :; do :; done")
    listener = await follow(client, command_id)
    await listener.until(b"ready\n")
    async with client.post(path_of(command_id) + "/terminate") as reply:
        await refused(reply, 410, "SESSION_ENDED")
    assert await listener.to_end() == b"ready\n"
    assert (await ended(client, command_id))["exitCode"] == 137
    await refused(await post_exec(client, "true"), 410, "SESSION_ENDED")


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
    await post(client, command_id, "signal", signal=name)
    codes = {"INT": 2, "USR1": 10, "TERM": 15}
    shown = await ended(client, command_id)
    assert shown["exitCode"] == codes[name.upper().removeprefix("SIG")]
    assert await listener.to_end() == b"ready\n"
    assert (await run(client, "echo $state"))["output"] == "kept\n"


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b'{"signal": ""}', b'{"signal": 9}', b'{"signal": "NOPE"}', b'{"signal": "9"}'],
)
async def test_bad_signal(procd: MakeClient, body: bytes) -> None:
    client = await procd(sessions={"grace_s": 0.1})
    await create(client)
    command_id = await start(client, "sleep 1000")
    async with client.post(path_of(command_id) + "/signal", data=body) as reply:
        await refused(reply, 400, "INVALID_REQUEST_BODY")
    assert "exitCode" not in await get(client, path_of(command_id))


async def test_queued_command_cannot_be_signalled(procd: MakeClient, gate: Gate) -> None:
    client = await procd()
    await create(client)
    await start(client, f"read x <{gate}")
    queued = await start(client, "echo runs")
    async with client.post(path_of(queued) + "/signal", json={"signal": "KILL"}) as reply:
        await refused(reply, 409, "CONFLICT")
    gate.open()
    await ended(client, queued)
    assert (await logs(client, queued))["output"] == "runs\n"


async def test_timeout_keeps_the_shell(procd: MakeClient, alive: Fifo) -> None:
    client = await procd()
    await create(client)
    await run(client, "state=kept")
    reply = await post_exec(
        client, f"printf partial; printf err >&2; sleep 1000 >{alive}", timeout=1
    )
    body = await refused(reply, 408, "PROCESS_EXECUTION_TIMEOUT")
    assert body["message"] == "command execution timeout"
    assert body["stdout"] == "partial"
    assert body["stderr"].startswith("err")
    shown = await get(client, path_of(body["cmdId"]))
    assert shown["exitCode"] == 143
    assert (await run(client, "echo $state"))["output"] == "kept\n"


async def test_timeout_in_the_queue(procd: MakeClient, gate: Gate) -> None:
    client = await procd()
    await create(client)
    running = await start(client, f"read x <{gate}")
    reply = await post_exec(client, "echo never", timeout=1)
    assert (await refused(reply, 408, "PROCESS_EXECUTION_TIMEOUT"))["output"] == ""
    gate.open()
    await ended(client, running)
    assert (await run(client, "echo on"))["output"] == "on\n"


async def test_timeout_that_is_not_reached(procd: MakeClient) -> None:
    client = await procd()
    await create(client)
    reply = await post_exec(client, "echo done", timeout=60)
    assert (reply.status, (await reply.json())["output"]) == (200, "done\n")
    # Nor is anything kept for the rest of it.
    (command,) = client.app[SESSIONS].get("s").history.commands.values()
    kept = weakref.ref(command)
    del command
    await delete(client)
    await until_so(lambda: kept() is None)


async def test_wait(procd: MakeClient, gate: Gate) -> None:
    client = await procd(sessions={"max_wait_s": 0.01})
    await create(client)
    command_id = await start(client, f"read x <{gate}; exit 6")
    for query in ("", "?wait=0", "?wait=100000000000000000"):
        assert "exitCode" not in await get(client, path_of(command_id) + query)
    gate.open()

    async def over() -> bool:
        return "exitCode" in await get(client, path_of(command_id) + "?wait=1")

    await until(over)
    assert (await get(client, path_of(command_id)))["exitCode"] == 6


@pytest.mark.parametrize("wait", ["-1", "x", "1.5", "", "9" * 30])
async def test_bad_wait(procd: MakeClient, wait: str) -> None:
    client = await procd()
    await create(client)
    command_id = (await run(client, "true"))["cmdId"]
    async with client.get(path_of(command_id) + f"?wait={wait}") as reply:
        await refused(reply, 400, "BAD_REQUEST")


async def test_delete(procd: MakeClient, tmp_path: Path, gate: Gate) -> None:
    (tmp_path / "state").mkdir()
    client = await procd(sessions={"state_dir": str(tmp_path / "state"), "grace_s": 0.1})
    await create(client)
    command_id = await start(client, f"echo some; read x <{gate}")
    await start(client, "echo queued")
    async with asyncio.TaskGroup() as group:
        sync = group.create_task(post_exec(client, "echo waits"))
        waiting = group.create_task(client.get(path_of(command_id) + "?wait=20"))

        async def registered() -> bool:
            return len((await get(client, "/process/session/s"))["commands"]) == 3

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
    await create(client)
    assert (await run(client, "echo new"))["output"] == "new\n"
    assert len((await get(client, "/process/session/s"))["commands"]) == 1


async def test_a_session_of_many_commands_is_deleted_in_many_turns(
    procd: MakeClient, tmp_path: Path
) -> None:
    client = await procd(sessions={"state_dir": str(tmp_path)})
    await create(client)
    for _ in range(3 * TURN_COMMANDS):
        await run(client, "echo x")
    commands = client.app[SESSIONS].get("s").history.commands
    left = [len(commands)]

    def look() -> None:
        if len(commands) < left[-1]:
            left.append(len(commands))
        if commands:
            loop.call_soon(look)

    loop = asyncio.get_running_loop()
    loop.call_soon(look)
    await delete(client)
    assert left == [number * TURN_COMMANDS for number in (3, 2, 1, 0)]
    assert [path.name for path in tmp_path.glob("procd-*/*")] == ["lock"]


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


@pytest.mark.parametrize("trap", ["echo bye >{alive}; exit", "echo bye >{alive}"])
async def test_an_idle_shell_hears_of_its_deletion(
    procd: MakeClient, shell: str, alive: Fifo, trap: str
) -> None:
    """Its trap runs, though it was about to read, and it ends without being killed for it."""
    client = await of_shell(procd, shell, sessions={"grace_s": 1000.0})
    await run(client, f"trap '{trap.format(alive=alive)}' TERM")
    await delete(client)
    while await alive.line() != "bye":  # zsh writes twice what it is writing when a trap comes
        pass


async def test_a_shell_that_goes_on_ends_with_its_command(
    procd: MakeClient, shell: str, alive: Fifo
) -> None:
    """A trap that doesn't end it leaves it nothing to read."""
    client = await of_shell(procd, shell, sessions={"grace_s": 1000.0})
    script = f"sh -c 'echo ready >{alive}; exec sleep 1000'; echo rest >{alive}"
    await start(client, f"trap : TERM; {script}")
    assert await alive.line() == "ready"
    await delete(client)
    while await alive.line() != "rest":  # zsh writes twice what it is writing when a trap comes
        pass


async def test_delete_twice_at_once(procd: MakeClient, alive: Fifo) -> None:
    client = await procd(sessions={"grace_s": 0.2})
    await create(client)
    await start(client, f"trap '' TERM; echo ready >{alive}; sleep 1000 >{alive}")
    assert await alive.line() == "ready"
    replies = await asyncio.gather(*(client.delete("/process/session/s") for _ in range(3)))
    assert sorted(reply.status for reply in replies) == [204, 404, 404]
    for reply in replies:
        reply.release()
    await alive.ended()


async def test_id_is_free_at_once(procd: MakeClient, alive: Fifo) -> None:
    client = await procd(sessions={"grace_s": 0.5})
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


def _sleeps(pid: int) -> bool:
    return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sleep")


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
    """It takes no grace, and not the shell."""
    client = await of_shell(procd, shell, sessions={"grace_s": 1000.0})
    await run(client, "state=kept")
    command_id = await start(client, script)
    listener = await follow(client, command_id)
    await listener.until(b"\n")
    pid = int(listener.joined)

    async def stopped() -> bool:
        return _state(pid) == "T"

    await until(stopped)
    await post(client, command_id, "terminate")
    assert await listener.to_end() == f"{pid}\n{heard}".encode()
    assert (await ended(client, command_id))["exitCode"] == 143
    assert (await run(client, "echo $state"))["output"] == "kept\n"


async def test_what_is_stopped_has_a_timeout(procd: MakeClient, shell: str) -> None:
    client = await of_shell(procd, shell)
    await run(client, "state=kept")
    reply = await post_exec(client, "kill -STOP $$; echo rest", timeout=1)
    assert (await refused(reply, 408, "PROCESS_EXECUTION_TIMEOUT"))["stdout"] == ""
    assert (await run(client, "echo $state"))["output"] == "kept\n"


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


async def test_a_command_is_deleted_before_its_input_ends(
    procd: MakeClient, tmp_path: Path
) -> None:
    """What has come isn't to be taken for all: `cat >part && mv part whole`."""
    client = await procd()
    (tmp_path / "attentive").write_text(ATTENTIVE)
    log = tmp_path / "log"
    for _ in range(5):
        await create(client)
        command = f"{sys.executable} {tmp_path}/attentive >>{log}"
        command_id = await start(client, f"{command}; cat >>{log}")
        await type_in(client, command_id, "half of it")
        await until_so(lambda: log.exists() and log.read_text().endswith("ready\n"))
        await delete(client)
        assert log.read_text() == "ready\nsignal\n"
        log.unlink()


async def test_many_are_terminated_before_their_input_ends(
    procd: MakeClient, tmp_path: Path
) -> None:
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

    async def terminate(session_id: str) -> None:
        path = path_of(commands[session_id], session_id)
        async with client.post(f"{path}/terminate", json={}, headers=MODERN) as reply:
            assert reply.status == 204

    await asyncio.gather(*map(terminate, logged))
    assert {log.read_text() for log in logged.values()} == {"ready\nsignal\n"}


async def test_a_shell_that_reads_leaves_its_script_as_the_input_ends(
    procd: MakeClient, shell: str
) -> None:
    """Even if it comes to the script when it is to leave already."""
    client = await of_shell(procd, shell)
    for _ in range(10):
        command_id = await start(client, "read -r x; echo rest")
        await post(client, command_id, "terminate")
        assert (await logs(client, command_id))["stdout"] == ""
        assert (await ended(client, command_id))["exitCode"] == 143


async def test_a_shell_that_comes_to_its_script_late_leaves_it(
    procd: MakeClient, shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It hears of it before the end of what it has started by the time that this is found."""
    client = await of_shell(procd, shell)
    pid = client.app[SESSIONS].get("s").pid
    os.kill(pid, signal.SIGSTOP)
    command_id = await start(client, "sleep 1000; echo rest")
    tell, looks = Trees.tell, list[object]()

    async def tell_later(*arguments: Any, **named: Any) -> dict[int, int]:
        if not looks:
            os.kill(pid, signal.SIGCONT)
            await until_so(lambda: any(map(_sleeps, children(pid))))
        looks.append(arguments)
        return await tell(*arguments, **named)

    monkeypatch.setattr(Trees, "tell", tell_later)
    await post(client, command_id, "terminate")
    assert looks
    assert (await logs(client, command_id))["stdout"] == ""
    assert (await ended(client, command_id))["exitCode"] == 143
