"""The machine runs out of something: procd answers, refuses what it can't do, and recovers.

Each runs a daemon of its own whose limits bind nobody else. The fork bomb goes off as a user that
nobody is, within RLIMIT_NPROC, and is killed by procd itself.
"""

import asyncio
import io
import itertools
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
import uvloop

from procd.unix.fd import SHORT_LIVED, RESERVED
from tests.daemon.conftest import Start
from tests.daemon.daemon import Daemon, descendants, descriptors, eventually

# No entry, no process, no file of this machine has it.
BOMBER = 2_000_000_011
MOST_TASKS = 40
BOMB = "bomb() { bomb | bomb & }; bomb; exec sleep 1000"

as_another_user = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None or shutil.which("prlimit") is None,
    reason="a fork bomb takes root, setpriv and prlimit, to be set off within bounds",
)


async def version(http: aiohttp.ClientSession, daemon: Daemon) -> int:
    """The status of GET /version."""
    async with asyncio.timeout(20), http.get(f"{daemon.url}/version") as reply:
        return reply.status


async def execute(
    http: aiohttp.ClientSession, daemon: Daemon, command: str, timeout_s: int = 3
) -> dict[str, Any]:
    """Run a command; the answer whatever it is."""
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
    """Have the daemon, and nobody else, bound by a limit for a while."""
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
                # Newcomers wait in the kernel's queue; uvloop, which has a descriptor in reserve
                # for that, tells them at once that there is no room. Who is at work goes on.
                for _ in range(20):
                    stack.enter_context(socket.create_connection(("127.0.0.1", daemon.port)))
                await old.send_bytes(b"echo st''ill\n")
                async with asyncio.timeout(20):
                    while b"still" not in (await old.receive()).data:
                        continue
            # It recovers by itself.
            assert await version(http, daemon) == 200
    assert (await execute(http, daemon, "echo on"))["result"] == "on\n"
    assert daemon.stderr().count("out of system resource") < 100, "it says so, and doesn't scream"


async def test_connections_have_no_descriptor_left_for_work(
    start: Start, http: aiohttp.ClientSession
) -> None:
    daemon = start()
    assert await version(http, daemon) == 200
    with (
        limited(daemon, resource.RLIMIT_NOFILE, max(descriptors(daemon.pid)) + 1 + RESERVED),
        ExitStack() as stack,
    ):
        for _ in range(100):
            stack.enter_context(socket.create_connection(("127.0.0.1", daemon.port)))
        # They get a moment to say something.
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
    """A probe comes by a new connection each time, and one that gets none restarts the sandbox."""
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


async def test_no_memory(start: Start, http: aiohttp.ClientSession) -> None:
    daemon = start()
    assert (await execute(http, daemon, "echo before"))["result"] == "before\n"
    with open(f"/proc/{daemon.pid}/statm") as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    with limited(daemon, resource.RLIMIT_AS, mapped + (4 << 20)):
        # More output than there is memory for: what doesn't fit stays with the command.
        greedy = asyncio.ensure_future(execute(http, daemon, "head -c 30000000 /dev/zero"))
        said = "no memory for output"
        assert await asyncio.to_thread(eventually, lambda: said in daemon.stderr()), daemon.stderr()
        for _ in range(5):
            try:
                assert await version(http, daemon) == 200
            except aiohttp.ClientError:
                # asyncio's own loop takes 256 KiB for each read of a socket, and closes it without;
                # uvloop has them.
                assert not isinstance(asyncio.get_running_loop(), uvloop.Loop)
        assert daemon.process.poll() is None, daemon.stderr()
        assert not greedy.done()
        greedy.cancel()
        with suppress(asyncio.CancelledError):
            await greedy
    assert (await execute(http, daemon, "echo after"))["result"] == "after\n"
    assert daemon.stop() == 0
    assert daemon.stderr().count(said) < 100, "it rests, and doesn't spin"


@pytest.mark.parametrize("spare_kib", [300, 500, 1000, 2000, 3000])
async def test_output_that_there_is_little_memory_for(
    start: Start, http: aiohttp.ClientSession, spare_kib: int
) -> None:
    """It comes late, and all of it."""
    daemon = start(env={"PROCD_INTERPRETER_WARM": "0"})
    assert (await execute(http, daemon, "echo before"))["result"] == "before\n"
    with open(f"/proc/{daemon.pid}/statm") as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    with limited(daemon, resource.RLIMIT_AS, mapped + (spare_kib << 10)):
        numbers = asyncio.ensure_future(execute(http, daemon, "seq 1000000", timeout_s=60))
        said = "no memory for output"
        await asyncio.to_thread(eventually, lambda: numbers.done() or said in daemon.stderr())
    reply = await numbers
    if reply["status"] == 200:  # else it was refused, or its reply was
        whole = "".join(f"{number}\n" for number in range(1, 1_000_001))
        assert (reply["exitCode"], reply["stdout"] == whole) == (0, True), len(reply["stdout"])
    assert daemon.stop() == 0


async def test_a_recorded_terminal_that_there_is_little_memory_for(
    start: Start, http: aiohttp.ClientSession
) -> None:
    """It says all that it has to, and what is recorded of that has no hole."""
    daemon = start(env={"PROCD_INTERPRETER_WARM": "0", "PROCD_PTY_RECORD": "true"})
    numbers = "".join(f"{number}\r\n" for number in range(1, 500_001))
    pty = f"{daemon.url}/process/pty/create-connect?id=t"
    async with http.ws_connect(pty, max_msg_size=0) as terminal:
        assert (await terminal.receive_json())["status"] == "connected"
        said = bytearray()

        async def until(text: bytes) -> None:
            async with asyncio.timeout(20):
                while text not in said[-4096:]:
                    said.extend((await terminal.receive()).data)

        await terminal.send_bytes(b"stty -echo; PS1=; echo rea''dy\n")
        await until(b"ready\r\n")
        with open(f"/proc/{daemon.pid}/statm") as file:
            mapped = int(file.read().split()[0]) * resource.getpagesize()
        spare = itertools.count(0, 16 << 10)

        def short() -> bool:
            resource.prlimit(
                daemon.pid, resource.RLIMIT_AS, (mapped + next(spare), resource.RLIM_INFINITY)
            )
            return heard.done() or "recording ended: no memory" in daemon.stderr()

        with limited(daemon, resource.RLIMIT_AS, mapped):
            await terminal.send_bytes(b"seq 500000; echo do''ne\n")
            heard = asyncio.ensure_future(until(b"done\r\n"))
            assert await asyncio.to_thread(eventually, short)
        await heard
    text = said.decode()
    assert numbers in text[text.index("1\r\n2\r\n") :]
    async with http.get(f"{daemon.url}/recordings") as reply:
        (one,) = (await reply.json())["recordings"]
    async with http.get(f"{daemon.url}/recordings/{one['name']}") as reply:
        events = [json.loads(line) for line in (await reply.text()).splitlines()[1:]]
    recorded = "".join(data for _, kind, data in events if kind == "o")
    assert text.startswith(recorded)
    assert daemon.stop() == 0


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
    # Others of that user are refused by the kernel, with words, and procd goes on.
    other = await execute(http, daemon, "true; (true); (true)")
    assert other["status"] in (200, 408)
    assert (await bomb)["status"] in (200, 408)
    assert await asyncio.to_thread(eventually, lambda: not descendants(daemon.pid))
    assert (await execute(http, daemon, "(echo on)"))["result"] == "on\n"
    assert daemon.stop() == 0


@pytest.fixture
def pids() -> Iterator[Path]:
    """A cgroup of the test's own that bounds the number of tasks in it, of version 1 or 2."""
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


async def test_no_process_to_be_had(pids: Path, start: Start, http: aiohttp.ClientSession) -> None:
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
    # procd kills it all when its time is up, and has processes again.
    assert await asyncio.to_thread(eventually, lambda: not descendants(daemon.pid))
    assert (await execute(http, daemon, "(echo on)"))["result"] == "on\n"
    assert daemon.stop() == 0


def memory_kib(daemon: Daemon) -> int:
    """What the daemon has in memory."""
    for line in Path(f"/proc/{daemon.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no such line")


async def start_long_commands(http: aiohttp.ClientSession, daemon: Daemon) -> str:
    """Have a session remember 24 MB of commands; the id of the last of them."""
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


async def test_lists_that_there_is_little_memory_for(
    start: Start, http: aiohttp.ClientSession
) -> None:
    daemon = start()
    command_id = await start_long_commands(http, daemon)
    envs = dict.fromkeys("ABC", "long\n" * 20_000)
    for number in range(80):
        terminal = {"id": f"t{number}", "envs": envs, "lazyStart": True}
        async with http.post(f"{daemon.url}/process/pty", json=terminal) as reply:
            assert reply.status == 201
    with open(f"/proc/{daemon.pid}/statm") as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    # Half of what one of the texts takes to be encoded whole.
    with limited(daemon, resource.RLIMIT_AS, mapped + (32 << 20)):
        for path in "", "/s", f"/s/command/{command_id}":
            async with http.get(f"{daemon.url}/process/session{path}") as reply:
                shown = await reply.json()
                assert reply.status == 200
            shown = shown[0] if isinstance(shown, list) else shown
            texts = [each["command"] for each in shown.get("commands", [shown])]
            assert [len(text) for text in texts][-3:] == [8_400_002] * min(3, len(texts))
        async with http.get(f"{daemon.url}/process/pty") as reply:
            shown = await reply.json()
            assert reply.status == 200
        assert len(shown["sessions"]) == 80
        for terminal in shown["sessions"]:
            assert terminal["envs"] == envs | {"TERM": "xterm-256color"}
        for mib in range(16):  # whatever becomes of the replies
            limits = mapped + (mib << 20), resource.RLIM_INFINITY
            resource.prlimit(daemon.pid, resource.RLIMIT_AS, limits)
            for kind in "session", "pty":
                with suppress(aiohttp.ClientError, TimeoutError):
                    async with (
                        asyncio.timeout(5),
                        http.get(f"{daemon.url}/process/{kind}") as reply,
                    ):
                        assert reply.status in (200, 500)
        assert daemon.process.poll() is None, daemon.stderr()
    assert (await execute(http, daemon, "echo on"))["result"] == "on\n"


async def test_a_long_message_that_there_is_little_memory_for(
    start: Start, http: aiohttp.ClientSession
) -> None:
    daemon = start()
    cwd = "/" * 30_000_000
    body = json.dumps({"id": "t", "cwd": cwd}).encode()
    pty = f"{daemon.url}/process/pty"
    with open(f"/proc/{daemon.pid}/statm") as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    with limited(daemon, resource.RLIMIT_AS, mapped + (300 << 20)):
        async with http.post(pty, data=io.BytesIO(body)) as reply:
            assert reply.status == 500
            message = (await reply.json())["message"]
    assert message.endswith(f"{cwd}: File name too long")


async def test_lists_that_nobody_reads(start: Start, http: aiohttp.ClientSession) -> None:
    daemon = start()
    await start_long_commands(http, daemon)
    before_kib = memory_kib(daemon)
    with ExitStack() as stack:
        for _ in range(8):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", daemon.port)))
            client.sendall(b"GET /process/session HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await asyncio.to_thread(client.recv, 12)) == b"HTTP/1.1 200"
            # What can be sent is, in turns that others have as well.
            for _ in range(20):
                assert await version(http, daemon) == 200
        taken_kib = memory_kib(daemon) - before_kib
        assert taken_kib < 80 << 10, "the list is of 25 MB"
    assert (await execute(http, daemon, "echo on"))["result"] == "on\n"
