"""No descriptors or processes are left: procd answers, refuses what it can't do, and recovers.

Each test runs a daemon with limits of its own. The fork bomb runs within RLIMIT_NPROC, as a user
without an account, and procd kills it.
"""

import asyncio
import io
import json
import os
import resource
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from procd.unix.fd import RESERVED, SHORT_LIVED
from tests.daemon.conftest import Start
from tests.daemon.daemon import Daemon, descendants, descriptors, eventually

# No account, process or file of this machine has this uid.
BOMBER = 2_000_000_011
MOST_TASKS = 40
BOMB = "bomb() { bomb | bomb & }; bomb; exec sleep 1000"

as_another_user = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None or shutil.which("prlimit") is None,
    reason="a fork bomb takes root, setpriv and prlimit, to be set off within bounds",
)


async def version(http: aiohttp.ClientSession, daemon: Daemon) -> int:
    async with asyncio.timeout(20), http.get(f"{daemon.url}/version") as reply:
        return reply.status


async def execute(
    http: aiohttp.ClientSession, daemon: Daemon, command: str, timeout_s: int = 3
) -> dict[str, Any]:
    """Run a command; returns the reply, whatever its status."""
    async with (
        asyncio.timeout(60),
        http.post(
            f"{daemon.url}/process/execute", json={"command": command, "timeout": timeout_s}
        ) as reply,
    ):
        body: dict[str, Any] = await reply.json()
        return body | {"status": reply.status}


@contextmanager
def limited(daemon: Daemon, limit: int, soft: int) -> Iterator[None]:
    before = resource.prlimit(daemon.pid, limit)
    resource.prlimit(daemon.pid, limit, (soft, before[1]))
    try:
        yield
    finally:
        resource.prlimit(daemon.pid, limit, before)


async def test_no_descriptor_for_connections(start: Start, http: aiohttp.ClientSession) -> None:
    daemon = start()
    async with http.ws_connect(f"{daemon.url}/process/pty/create-connect?id=t") as old:
        assert (await old.receive_json())["status"] == "connected"
        with ExitStack() as stack:
            with limited(daemon, resource.RLIMIT_NOFILE, max(descriptors(daemon.pid)) + 1):
                # New clients wait in the kernel's queue, or are closed at once by uvloop, which
                # has a spare descriptor for that.
                for _ in range(20):
                    stack.enter_context(socket.create_connection(("127.0.0.1", daemon.port)))
                await old.send_bytes(b"echo st''ill\n")
                async with asyncio.timeout(20):
                    while b"still" not in (await old.receive()).data:
                        continue
            assert await version(http, daemon) == 200
    assert (await execute(http, daemon, "echo on"))["result"] == "on\n"
    assert daemon.stderr().count("out of system resource") < 100


async def test_no_descriptor_for_commands(start: Start, http: aiohttp.ClientSession) -> None:
    daemon = start()
    assert await version(http, daemon) == 200
    with (
        limited(daemon, resource.RLIMIT_NOFILE, max(descriptors(daemon.pid)) + 1 + RESERVED),
        ExitStack() as stack,
    ):
        for _ in range(100):
            stack.enter_context(socket.create_connection(("127.0.0.1", daemon.port)))
        # Until some of them are closed, as they send no request.
        async with asyncio.timeout(20):
            while [await version(http, daemon) for _ in range(5)] != [200] * 5:
                continue
        body = await execute(http, daemon, "echo x")
        assert body.get("exitCode") == -1, (body, daemon.stderr())
        assert "Too many open files" in body["result"]
    assert (await execute(http, daemon, "echo on"))["result"] == "on\n"


async def test_processes_leave_descriptors_for_connections(
    start: Start, http: aiohttp.ClientSession
) -> None:
    """So that a health check, which opens a new connection each time, gets one."""
    daemon = start()
    assert await version(http, daemon) == 200
    most = max(descriptors(daemon.pid)) + RESERVED + SHORT_LIVED + 30
    with limited(daemon, resource.RLIMIT_NOFILE, most):
        statuses: list[int] = []
        while 429 not in statuses:
            body = {"id": f"t{len(statuses)}"}
            async with http.post(f"{daemon.url}/process/pty", json=body) as reply:
                statuses.append(reply.status)
        assert len(statuses) > 5
        for _ in range(5):
            assert await version(http, daemon) == 200
        for number in range(len(statuses) - 1):
            async with http.delete(f"{daemon.url}/process/pty/t{number}") as reply:
                assert reply.status == 200
        assert (await execute(http, daemon, "echo on"))["result"] == "on\n"


@as_another_user
async def test_fork_bomb(start: Start, http: aiohttp.ClientSession) -> None:
    daemon = start(
        env={
            "PROCD_PROCESS_USER": str(BOMBER),
            "PROCD_PROCESS_RLIMITS": f"nproc={MOST_TASKS}",
            "PROCD_PROCESS_WORK_DIR": "/",
            "PROCD_PROCESS_SHELL": "/bin/bash",
        },
    )
    bomb = asyncio.ensure_future(execute(http, daemon, BOMB))
    reached = await asyncio.to_thread(eventually, lambda: len(descendants(daemon.pid)) > 20)
    assert reached or bomb.done()
    for _ in range(10):
        assert await version(http, daemon) == 200
        assert len(descendants(daemon.pid)) <= MOST_TASKS + 1
    # The kernel refuses further processes of that user.
    other = await execute(http, daemon, "true; (true); (true)")
    assert other["status"] in (200, 408)
    assert (await bomb)["status"] in (200, 408)
    assert await asyncio.to_thread(eventually, lambda: not descendants(daemon.pid))
    assert (await execute(http, daemon, "(echo on)"))["result"] == "on\n"
    assert daemon.stop() == 0


@pytest.fixture
def pids() -> Iterator[Path]:
    """A cgroup of the test's own with the pids controller, of version 1 or 2."""
    for place in _pids_controllers():
        path = place / f"procd-test-{os.getpid()}-{time.monotonic_ns()}"
        try:
            path.mkdir()
        except OSError:
            continue
        if (path / "pids.max").exists():
            break
        path.rmdir()
    else:
        pytest.skip("no cgroup with the pids controller can be made")
    yield path

    def emptied() -> bool:
        for pid in (path / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        with suppress(OSError):
            path.rmdir()
        return not path.exists()

    assert eventually(emptied)


def _pids_controllers() -> list[Path]:
    found = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, options, *_ = line.split()
        if kind == "cgroup2" or (kind == "cgroup" and "pids" in options.split(",")):
            found.append(Path(place))
    return found


async def test_no_processes(pids: Path, start: Start, http: aiohttp.ClientSession) -> None:
    daemon = start()
    assert (await execute(http, daemon, "echo before"))["result"] == "before\n"
    (pids / "pids.max").write_text("1")
    (pids / "cgroup.procs").write_text(str(daemon.pid))
    body = await execute(http, daemon, "echo x")
    assert body["exitCode"] == -1
    assert "Resource temporarily unavailable" in body["result"]
    for kind, request in (("pty", {"id": "t"}), ("session", {"sessionId": "s"})):
        async with http.post(f"{daemon.url}/process/{kind}", json=request) as reply:
            assert reply.status == 500
            assert "Resource temporarily unavailable" in (await reply.json())["message"]
    assert await version(http, daemon) == 200
    (pids / "pids.max").write_text("max")
    assert (await execute(http, daemon, "echo on"))["result"] == "on\n"
    assert daemon.stop() == 0


async def test_fork_bomb_in_a_cgroup(pids: Path, start: Start, http: aiohttp.ClientSession) -> None:
    daemon = start(env={"PROCD_PROCESS_SHELL": "/bin/bash"})
    (pids / "pids.max").write_text(str(MOST_TASKS))
    (pids / "cgroup.procs").write_text(str(daemon.pid))
    bomb = asyncio.ensure_future(execute(http, daemon, BOMB))
    await asyncio.to_thread(eventually, lambda: len(descendants(daemon.pid)) > MOST_TASKS // 2)
    for _ in range(10):
        assert await version(http, daemon) == 200
    assert (await bomb)["status"] in (200, 408)
    assert await asyncio.to_thread(eventually, lambda: not descendants(daemon.pid))
    assert (await execute(http, daemon, "(echo on)"))["result"] == "on\n"
    assert daemon.stop() == 0


def memory_kib(daemon: Daemon) -> int:
    for line in Path(f"/proc/{daemon.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no such line")


async def start_long_commands(http: aiohttp.ClientSession, daemon: Daemon) -> str:
    """Have a session keep 24 MB of commands; returns the id of the last one."""
    sessions = f"{daemon.url}/process/session"
    async with http.post(sessions, json={"sessionId": "s"}) as reply:
        assert reply.status == 201
    command_id = ""
    for text in ["read x", *[": " + "long\n: " * 1_200_000] * 3]:
        body = json.dumps({"command": text, "runAsync": True}).encode()
        async with http.post(f"{sessions}/s/exec", data=io.BytesIO(body)) as reply:
            command_id = (await reply.json())["cmdId"]
            assert reply.status == 202
    return command_id


async def test_lists_that_nobody_reads(start: Start, http: aiohttp.ClientSession) -> None:
    daemon = start()
    await start_long_commands(http, daemon)
    before_kib = memory_kib(daemon)
    with ExitStack() as stack:
        for _ in range(8):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", daemon.port)))
            client.sendall(b"GET /process/session HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await asyncio.to_thread(client.recv, 12)) == b"HTTP/1.1 200"
            for _ in range(20):
                assert await version(http, daemon) == 200
        taken_kib = memory_kib(daemon) - before_kib
        assert taken_kib < 80 << 10, "the list is of 25 MB"
    assert (await execute(http, daemon, "echo on"))["result"] == "on\n"
