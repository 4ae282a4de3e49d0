"""A procd that stands still for a while: time that is up for it alone is nobody's timeout."""

import asyncio
import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.daemon.conftest import Start
from tests.daemon.daemon import PATIENCE_S, Daemon
from tests.daemon.test_connections import VERSION, answers, connected

TIMEOUT_S = 2


@contextmanager
def standstill(daemon: Daemon) -> Iterator[None]:
    """It stands still while this is done, and then until all times are up."""
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        yield
        time.sleep(TIMEOUT_S)
    finally:
        os.kill(daemon.pid, signal.SIGCONT)


@pytest.mark.parametrize("in_session", [False, True])
async def test_a_command_that_has_ended_in_time(
    start: Start, http: aiohttp.ClientSession, tmp_path: Path, *, in_session: bool
) -> None:
    daemon = start()
    gate, mark = tmp_path / "gate", tmp_path / "mark"
    os.mkfifo(gate)
    os.mkfifo(mark)
    url = f"{daemon.url}/process/execute"
    if in_session:
        async with http.post(f"{daemon.url}/process/session", json={"sessionId": "s"}) as reply:
            assert reply.status == 201
        url = f"{daemon.url}/process/session/s/exec"
    command = f"echo in >{mark}; read x <{gate}; echo fine; : >{mark}; (exit 3)"
    body = {"command": command, "timeout": TIMEOUT_S}
    asking = asyncio.ensure_future(http.post(url, json=body))
    assert await asyncio.to_thread(mark.read_text) == "in\n"
    with standstill(daemon):
        gate.write_text("go on\n")
        mark.read_text()
    async with await asking as reply:
        answer = await reply.json()
    assert answer["exitCode"] == 3
    assert "fine\n" in (answer.get("result"), answer.get("output"))


async def test_code_that_has_ended_in_time(
    start: Start, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    daemon = start()
    gate, mark = tmp_path / "gate", tmp_path / "mark"
    os.mkfifo(gate)
    os.mkfifo(mark)
    code = f"print('in'); open({str(gate)!r}).read(); open({str(mark)!r}, 'w').close()"
    async with http.ws_connect(f"{daemon.url}/process/interpreter/execute") as ws:
        await ws.send_json({"code": code, "timeout": TIMEOUT_S})
        assert (await ws.receive_json(timeout=PATIENCE_S))["text"] == "in\n"
        with standstill(daemon):
            gate.write_text("go on")
            mark.read_text()  # from here on it has nothing left to do but to say so
        assert (await ws.receive_json(timeout=PATIENCE_S))["text"] == "completed"
        await ws.receive(timeout=PATIENCE_S)
        assert ws.close_code == aiohttp.WSCloseCode.OK


async def test_code_that_has_cleaned_up_in_time(
    start: Start, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    daemon = start(env={"PROCD_INTERPRETER_GRACE_S": str(TIMEOUT_S)})
    gate, mark = tmp_path / "gate", tmp_path / "mark"
    os.mkfifo(gate)
    os.mkfifo(mark)
    code = f"""
import time
try:
    time.sleep(60)
finally:
    state = "kept"
    print("out", flush=True)
    open({str(gate)!r}).read()
    open({str(mark)!r}, "w").close()
"""
    async with http.ws_connect(f"{daemon.url}/process/interpreter/execute") as ws:
        await ws.send_json({"code": code, "timeout": 3})
        assert (await ws.receive_json(timeout=PATIENCE_S))["text"] == "out\n"
        with standstill(daemon):
            gate.write_text("go on")
            mark.read_text()  # from here on it has nothing left to do but to say so
        await ws.receive(timeout=PATIENCE_S)
        assert ws.close_code == 4008
    async with http.ws_connect(f"{daemon.url}/process/interpreter/execute") as ws:
        await ws.send_json({"code": "print(state)"})
        assert (await ws.receive_json(timeout=PATIENCE_S))["text"] == "kept\n"


async def test_an_interpreter_that_has_died_in_time(
    start: Start, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    daemon = start()
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    code = f"import os; print(os.getpid(), flush=True); open({str(gate)!r}).read(); os._exit(3)"
    async with http.ws_connect(f"{daemon.url}/process/interpreter/execute") as ws:
        await ws.send_json({"code": code, "timeout": TIMEOUT_S})
        pid = int((await ws.receive_json(timeout=PATIENCE_S))["text"])
        pidfd = os.pidfd_open(pid)
        with standstill(daemon):
            gate.write_text("go on")
            select.select([pidfd], [], [])
        os.close(pidfd)
        await ws.receive(timeout=PATIENCE_S)
        assert ws.close_code == aiohttp.WSCloseCode.INTERNAL_ERROR


async def test_requests_that_come_meanwhile(start: Start) -> None:
    daemon = start(env={"PROCD_SERVER_KEEPALIVE_S": "1"})
    with ExitStack() as stack:
        clients = [stack.enter_context(connected(daemon)) for _ in range(30)]
        assert all(answers(client) for client in clients)
        with standstill(daemon):
            for client in clients:
                client.sendall(VERSION)
            time.sleep(0.5)  # so that the timers are late by clearly more than LATE_S
        assert all(client.recv(1000).startswith(b"HTTP/1.1 200") for client in clients)
