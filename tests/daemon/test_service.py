"""How procd behaves towards the service manager, and that it ends with all it has started."""

import asyncio
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop

from tests.capabilities import CAP_SYS_NICE, has
from tests.daemon.conftest import Start
from tests.daemon.daemon import (
    PATIENCE_S,
    PROCD,
    Daemon,
    NotifySocket,
    Watch,
    children,
    descendants,
    environment,
    eventually,
)
from tests.daemon.test_listen import passing

SOCKETS = 50
EXECUTES = 10
SENT_BYTES = 500_000


async def execute(http: aiohttp.ClientSession, daemon: Daemon, command: str) -> dict[str, Any]:
    async with http.post(
        f"{daemon.url}/process/execute", json={"command": command, "timeout": 0}
    ) as reply:
        body: dict[str, Any] = await reply.json()
        return body | {"status": reply.status}


async def test_readiness_is_notified(start: Start) -> None:
    daemon = start()
    assert daemon.notify.receive() == {
        "READY": "1",
        "STATUS": f"listening on 127.0.0.1:{daemon.port}",
    }
    assert daemon.stop() == 0
    assert daemon.notify.receive() == {"STOPPING": "1"}


async def test_event_loop_is_the_one_chosen(start: Start) -> None:
    daemon = start()  # on the kind of loop that this test runs on
    with open(f"/proc/{daemon.pid}/maps") as file:
        has_uvloop = "/uvloop/" in file.read()
    assert has_uvloop == isinstance(asyncio.get_running_loop(), uvloop.Loop)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_stops_idle(start: Start, number: signal.Signals) -> None:
    daemon = start()
    assert daemon.stop(number) == 0
    lines = daemon.stderr().splitlines()
    if not has(CAP_SYS_NICE):
        assert "no priority over what it runs" in lines.pop(0)
    (line,) = lines
    assert "no token is required" in line, "all that it has to say"


async def test_nobody_reads_its_log(start: Start, http: aiohttp.ClientSession) -> None:
    """As under a runner that waits for the line on its standard output, and reads nothing else."""
    reading, writing = os.pipe()
    size = fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    daemon = start(env={"PROCD_LOG_LEVEL": "debug"}, stderr=writing)
    os.close(writing)
    for _ in range(size // len("DEBUG procd.api.observe: request")):
        async with http.get(f"{daemon.url}/healthz") as reply:
            assert reply.status == 200
    assert daemon.stop() == 0
    os.close(reading)


async def test_who_read_its_log_has_gone(start: Start, http: aiohttp.ClientSession) -> None:
    """What it could not be told is not tried again at the end, to fail with exit code 120."""
    reading, writing = os.pipe()
    buffered = {"PYTHONUNBUFFERED": ""}
    daemon = start(env={"PROCD_LOG_LEVEL": "debug"} | buffered, stderr=writing)
    os.close(writing)
    os.close(reading)
    async with http.get(f"{daemon.url}/healthz") as reply:
        assert reply.status == 200
    assert daemon.stop() == 0


@pytest.mark.parametrize("leads_to", ["a full disk", "nobody"])
def test_a_runner_that_cannot_be_told(leads_to: str) -> None:
    """Where its standard output is a file on a full disk, it starts after a crash all the same."""
    if leads_to == "nobody":
        reading, writing = os.pipe()
        os.close(reading)
    else:
        writing = os.open("/dev/full", os.O_WRONLY)
    notify = NotifySocket()
    process = subprocess.Popen(
        [*PROCD, "serve", "--port", "0"],
        stdout=writing,
        stderr=subprocess.PIPE,
        env=environment(NOTIFY_SOCKET=notify.address),
    )
    os.close(writing)
    try:
        assert notify.receive()["READY"] == "1"
        process.terminate()
        _, said = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
        process.wait()
        notify.close()
    assert process.returncode == 0
    assert b"can't write to standard output" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_stops_with_everyone_at_work(
    start: Start,
    http: aiohttp.ClientSession,
    watch: Callable[[list[int]], Watch],
    number: signal.Signals,
) -> None:
    daemon = start(env={"PROCD_PROCESS_SHELL": "/bin/bash"})  # zsh becomes its last command
    sockets = [
        await http.ws_connect(f"{daemon.url}/process/pty/create-connect?id=t{index}")
        for index in range(SOCKETS)
    ]
    for ws in sockets:  # their shells have started meanwhile, all at once
        assert (await ws.receive_json())["status"] == "connected"
        # Besides the shell: a job that would survive its terminal.
        await ws.send_bytes(b"setsid sleep 1000 & echo bo''th\n")
        output = b""
        while b"both\r\n" not in output:
            output += (await ws.receive(timeout=20)).data
    executing = [
        asyncio.ensure_future(
            execute(http, daemon, "trap '' TERM HUP INT; setsid sleep 1000 & sleep 1000")
        )
        for _ in range(EXECUTES)
    ]
    # An orphan of a command that has ended.
    orphan = await execute(http, daemon, "(setsid sleep 1000 > /dev/null 2>&1 &)")
    assert orphan["exitCode"] == 0

    # Shell and sleep of each terminal, shell and two sleeps of each command, the orphan.
    wanted = 2 * SOCKETS + 3 * EXECUTES + 1
    assert await asyncio.to_thread(eventually, lambda: len(descendants(daemon.pid)) == wanted), (
        descendants(daemon.pid)
    )
    watched = watch(descendants(daemon.pid))

    ended: Awaitable[int] = asyncio.to_thread(daemon.stop, number)
    stopping = asyncio.ensure_future(ended)
    for ws in sockets:
        while (message := await ws.receive(timeout=20)).type is aiohttp.WSMsgType.BINARY:
            pass
        assert message.type is aiohttp.WSMsgType.CLOSE, message
        assert message.data == aiohttp.WSCloseCode.GOING_AWAY, message
    assert await stopping == 0
    assert watched.survivors() == []
    # A command that was begun gets an answer, so that the client doesn't send it again (13.4).
    for answer in await asyncio.gather(*executing):
        assert answer["status"] == 200, answer
        assert answer["exitCode"] == 128 + signal.SIGKILL, answer
    assert "Traceback" not in daemon.stderr()


BLOCKING = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
os.execvp(sys.argv[1], sys.argv[1:])
"""


def test_whoever_started_it_has_blocked_all_signals(start: Start) -> None:
    daemon = start(command=(sys.executable, "-c", BLOCKING, *PROCD))
    assert daemon.stop() == 0


async def test_is_heard_while_many_interpreters_start(
    start: Start, http: aiohttp.ClientSession
) -> None:
    """Each start keeps the event loop for a moment: few are made between two other things."""
    daemon = start(env={"PROCD_INTERPRETER_WARM": "100"})
    seen = {0}
    while max(seen) <= 100:  # with that of the default context
        async with http.get(f"{daemon.url}/version") as reply:
            assert reply.status == 200
        seen.add(len(children(daemon.pid)))
        if len(seen) == 5:
            assert daemon.stop(within_s=PATIENCE_S) == 0
            return
    pytest.fail(f"nobody was heard in between: {seen}")


async def test_refuses_newcomers_while_it_stops(start: Start, http: aiohttp.ClientSession) -> None:
    daemon = start()
    # A client that does not answer the close frame holds the end up, within its bound.
    reader, writer = await asyncio.open_connection("127.0.0.1", daemon.port)
    writer.write(
        b"GET /process/pty/create-connect?id=deaf HTTP/1.1\r\nHost: localhost\r\n"
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
    )
    await reader.readuntil(b'"connected"')
    stopping = asyncio.ensure_future(asyncio.to_thread(daemon.stop))
    await asyncio.to_thread(daemon.notify.receive)  # READY
    assert await asyncio.to_thread(daemon.notify.receive) == {"STOPPING": "1"}
    await reader.readuntil(b'\x03\xe9{"error":"server shutdown"}')
    with pytest.raises(aiohttp.ClientConnectionError):
        await http.get(f"{daemon.url}/version")
    assert await stopping == 0
    writer.close()


async def test_a_second_signal_changes_nothing(
    start: Start, http: aiohttp.ClientSession, watch: Callable[[list[int]], Watch]
) -> None:
    daemon = start()
    ws = await http.ws_connect(f"{daemon.url}/process/pty/create-connect?id=t")
    assert (await ws.receive_json())["status"] == "connected"
    watched = watch(children(daemon.pid))
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.stop() == 0
    assert watched.survivors() == []


async def test_entrypoint_is_asked_to_end(start: Start, tmp_path: Path) -> None:
    """It is deleted at shutdown, and a deletion begins with SIGTERM: contract, 8.9 and 8.8."""
    lock = tmp_path / "lock"
    script = f"trap 'rmdir {lock}; exit' TERM; mkdir {lock}; sleep 1000 & wait"
    daemon = start("--", "sh", "-c", script)
    assert await asyncio.to_thread(eventually, lock.exists)
    assert daemon.stop() == 0
    assert not lock.exists()


async def test_entrypoint_that_does_not_listen_is_killed(
    start: Start, watch: Callable[[list[int]], Watch]
) -> None:
    deaf = "trap '' TERM; setsid sleep 1000 & sleep 1000"
    daemon = start("--", "sh", "-c", deaf, env={"PROCD_SERVER_SHUTDOWN_S": "0.3"})
    # The session's shell may have become the command's.
    assert await asyncio.to_thread(eventually, lambda: len(descendants(daemon.pid)) >= 3)
    watched = watch(descendants(daemon.pid))
    assert daemon.stop() == 0
    assert watched.survivors() == []


async def test_a_killed_daemon_leaves_terminals_hung_up(
    start: Start, http: aiohttp.ClientSession, watch: Callable[[list[int]], Watch]
) -> None:
    daemon = start()
    async with http.post(f"{daemon.url}/process/pty", json={"id": "t"}) as reply:
        assert reply.status == 201
    async with http.ws_connect(f"{daemon.url}/process/pty/t/connect") as ws:
        assert (await ws.receive_json())["status"] == "connected"
        await ws.send_bytes(b"echo re''ady\n")
        output = b""
        while b"ready\r\n" not in output:
            output += (await ws.receive(timeout=20)).data
    watched = watch(children(daemon.pid))
    daemon.process.kill()
    daemon.process.wait()
    assert watched.survivors(within_s=20) == []


async def test_what_a_killed_daemon_has_left_is_removed(
    start: Start, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    state = {"PROCD_SESSIONS_STATE_DIR": str(tmp_path)}
    killed, other = start(env=state), start(env=state)
    for daemon in (killed, other):
        async with http.post(f"{daemon.url}/process/session", json={"sessionId": "s"}) as reply:
            assert reply.status == 201
        run = f"{daemon.url}/process/session/s/exec"
        async with http.post(run, json={"command": "echo said"}) as reply:
            assert (await reply.json())["output"] == "said\n"
    killed.stop(signal.SIGKILL)
    assert len(list(tmp_path.iterdir())) == 2
    successor = start(env=state)
    assert len(list(tmp_path.iterdir())) == 2, "that of the dead is gone, that of the living is not"
    run = f"{other.url}/process/session/s/exec"
    async with http.post(run, json={"command": "echo still"}) as reply:
        assert (await reply.json())["output"] == "still\n"
    assert (other.stop(), successor.stop()) == (0, 0)
    assert list(tmp_path.iterdir()) == []


DEAF = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(os.getpid(), flush=True)
time.sleep(1000)
"""


async def test_what_is_killed_is_not_kept_by_what_may_leave(
    start: Start, http: aiohttp.ClientSession, watch: Callable[[list[int]], Watch]
) -> None:
    """A context has its time of grace; nothing else lives on, and takes the CPU, meanwhile."""
    daemon = start(env={"PROCD_INTERPRETER_GRACE_S": "1000", "PROCD_SERVER_SHUTDOWN_S": "1500"})
    async with http.ws_connect(f"{daemon.url}/process/interpreter/execute") as code:
        await code.send_json({"code": DEAF, "timeout": 0})
        deaf = int((await code.receive_json(timeout=PATIENCE_S))["text"])
        executing = asyncio.ensure_future(execute(http, daemon, "sleep 1000"))
        assert await asyncio.to_thread(eventually, lambda: len(descendants(daemon.pid)) == 2)
        others = watch([pid for pid in descendants(daemon.pid) if pid != deaf])
        stopping = asyncio.ensure_future(asyncio.to_thread(daemon.stop, within_s=PATIENCE_S))
        assert (await code.receive()).type is aiohttp.WSMsgType.CLOSE
        assert await asyncio.to_thread(others.survivors, PATIENCE_S) == []
        assert (await executing)["exitCode"] == 128 + signal.SIGKILL
        os.kill(deaf, signal.SIGKILL)
    assert await stopping == 0


def test_what_is_being_sent_is_sent_to_its_end(start: Start) -> None:
    """Though its request is over, and the client takes its time."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        for each, size in (listener, socket.SO_SNDBUF), (client, socket.SO_RCVBUF):
            each.setsockopt(socket.SOL_SOCKET, size, 32 << 10)  # so that the most of it waits
        daemon = start(
            command=passing(listener, names="web"),
            pass_fds=[listener.fileno()],
            env={"PROCD_SERVER_SHUTDOWN_S": "60"},
        )
        client.connect(("127.0.0.1", daemon.port))
        body = json.dumps({"command": f"head -c {SENT_BYTES} /dev/zero | tr '\\0' x"}).encode()
        head = "POST /process/execute HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n"
        client.sendall(head.format(len(body)).encode() + body)
        reply = client.recv(1)
        os.kill(daemon.pid, signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            daemon.process.wait(1)
        while data := client.recv(1 << 20):
            reply += data
    assert reply.count(b"x") >= SENT_BYTES
    assert reply.endswith((b"}", b"0\r\n\r\n"))
    assert daemon.process.wait(PATIENCE_S) == 0
