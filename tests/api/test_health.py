"""The probes: alive, and ready with the reasons if not."""

import asyncio
import os
import shutil
from pathlib import Path

from procd.api.health import READINESS
from procd.config import HealthConfig
from procd.services.shell.command import LEAST_BYTES
from procd.unix.fd import RESERVED
from tests.aliases import Client, MakeClient
from tests.api import sessions
from tests.api.clients import (
    WAIT_S,
    Fifo,
    Gate,
    connect,
    create,
    delete,
    descriptors_exhausted,
    listed,
    program,
    refused,
)


async def reasons(client: Client) -> list[str]:
    """Why procd isn't ready; empty if it is."""
    async with client.get("/readyz") as reply:
        if reply.status == 200:
            assert await reply.json() == {"status": "ready"}
            return []
        body = await refused(reply, 503, "NOT_READY")
        found: list[str] = body["reasons"]
        assert body["message"] == f"not ready: {'; '.join(found)}"
        return found


async def test_healthz(procd: MakeClient) -> None:
    client = await procd()
    async with client.get("/healthz") as reply:
        assert (reply.status, await reply.json()) == (200, {"status": "ok", "auth": "none"})


async def test_ready(procd: MakeClient) -> None:
    assert await reasons(await procd()) == []


async def test_not_ready_while_stopping(procd: MakeClient) -> None:
    client = await procd()
    client.app[READINESS].stopping = True
    assert await reasons(client) == ["shutting down"]


async def test_not_ready_at_the_process_limit(procd: MakeClient) -> None:
    client = await procd(process={"max_processes": 1})
    await create(client, "t1")
    assert await reasons(client) == ["limit of 1 processes is reached"]
    await delete(client, "t1")
    assert await reasons(client) == []


async def test_not_ready_when_the_memory_for_output_is_used_up(
    procd: MakeClient, tmp_path: Path
) -> None:
    most = 1 << 20
    client = await procd(
        process={
            "shell": program(tmp_path, "seq -w 299999; echo END; read x"),
            "max_total_output_bytes": most,
        },
        pty={"max_ended": 0, "replay_bytes": most},
    )
    await create(client, "t1")
    terminal = await connect(client, "t1")
    await terminal.until(b"END")
    assert await reasons(client) == [f"limit of {most} bytes of output held in memory is reached"]
    await delete(client, "t1")
    assert await reasons(client) == []


async def test_not_ready_when_the_memory_for_commands_is_used_up(
    procd: MakeClient, gate: Gate
) -> None:
    most = 1 << 20
    client = await procd(sessions={"max_total_text_bytes": most})
    await sessions.create(client)
    text = "x" * (most - 2 * LEAST_BYTES)
    await sessions.run(client, f": {text}")
    assert await reasons(client) == []
    command_id = await sessions.start(client, f"read x <{gate}; : {text}")
    assert await reasons(client) == [f"limit of {most} bytes of commands' texts is reached"]
    gate.open()
    await sessions.ended(client, command_id)
    assert await reasons(client) == []


async def test_not_ready_without_a_descriptor_for_work(procd: MakeClient) -> None:
    """Nor when a command would still get its own, and no session, terminal or context."""
    client = await procd()
    assert await listed(client) == []  # so that the connection is admitted
    assert await reasons(client) == []
    for left in (0, RESERVED, RESERVED + 2):
        with descriptors_exhausted(but=left):
            said = await reasons(client)
            async with client.post("/process/pty", json={"id": "t1"}) as reply:
                refusal = await refused(reply, 429, "LIMIT_REACHED")
        assert said == [refusal["message"]]
    assert await reasons(client) == []


async def test_not_ready_without_a_shell(procd: MakeClient, tmp_path: Path) -> None:
    shell = program(tmp_path, "exit 0")
    client = await procd(process={"shell": shell})
    assert await reasons(client) == []
    os.unlink(shell)
    assert await reasons(client) == [f"no shell can be executed: tried {shell}"]


async def test_ready_when_the_state_directory_is_cleaned_up(
    procd: MakeClient, tmp_path: Path
) -> None:
    """It is made again when it is needed."""
    client = await procd(sessions={"state_dir": str(tmp_path)})
    (root,) = tmp_path.iterdir()
    shutil.rmtree(root)
    assert await reasons(client) == []


async def test_not_ready_without_a_place_for_state(procd: MakeClient, tmp_path: Path) -> None:
    place = tmp_path / "state"
    place.mkdir()
    client = await procd(sessions={"state_dir": str(place)})
    assert await reasons(client) == []
    shutil.rmtree(place)
    assert await reasons(client) == ["state directory is not there: No such file or directory"]


async def test_not_ready_on_a_full_disk(procd: MakeClient) -> None:
    client = await procd(health={"min_disk_bytes": 1 << 62})
    assert await reasons(client) == [f"state directory has less than {1 << 62} bytes free"]


async def test_several_reasons(procd: MakeClient) -> None:
    client = await procd(health={"min_disk_bytes": 1 << 62}, process={"shell": "/nowhere"})
    assert len(await reasons(client)) == 2


async def test_not_ready_with_a_slow_loop(procd: MakeClient) -> None:
    client = await procd()
    readiness = client.app[READINESS]
    limit_s = HealthConfig().max_loop_lag_s
    assert readiness.reasons(limit_s) == []
    assert readiness.reasons(limit_s + 1) == [f"event loop lags by {limit_s + 1:.1f} s"]
    client = await procd(health={"max_loop_lag_s": 0})
    assert client.app[READINESS].reasons(3600.0) == []


async def test_probes_answer_while_commands_run(procd: MakeClient, alive: Fifo, gate: Gate) -> None:
    client = await procd()
    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as group:
        command = f"echo here > {alive}; read x < {gate}"
        running = group.create_task(client.post("/process/execute", json={"command": command}))
        assert await alive.line() == "here"
        assert await reasons(client) == []
        gate.open()
        assert (await running).status == 200
