"""What the service manager is told while procd runs: beats, and the course of a reload."""

import os
import resource
import signal
import time
from pathlib import Path

import aiohttp
import pytest

from tests.daemon.conftest import Start
from tests.daemon.daemon import Daemon

BEAT = {"WATCHDOG": "1"}


def told(daemon: Daemon) -> dict[str, str]:
    """The next notification but beats."""
    while (state := daemon.notify.receive()) == BEAT:
        pass
    return state


async def test_watchdog_is_beaten(start: Start) -> None:
    daemon = start(env={"WATCHDOG_USEC": "100000"})
    assert "READY" in told(daemon)
    for _ in range(3):
        assert daemon.notify.receive() == BEAT
    os.kill(daemon.pid, signal.SIGTERM)
    assert told(daemon) == {"STOPPING": "1"}
    assert daemon.process.wait(20) == 0


async def test_watchdog_is_beaten_without_a_descriptor_to_spare(start: Start) -> None:
    daemon = start(env={"WATCHDOG_USEC": "100000"})
    assert "READY" in told(daemon)
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (3, 3))
    # Some of them may have been on their way before.
    for _ in range(5):
        assert daemon.notify.receive() == BEAT


async def test_watchdog_of_another_process(start: Start) -> None:
    daemon = start(env={"WATCHDOG_USEC": "1000", "WATCHDOG_PID": str(os.getpid())})
    assert "READY" in daemon.notify.receive()
    assert daemon.stop() == 0
    assert daemon.notify.receive() == {"STOPPING": "1"}


async def test_reload(start: Start, http: aiohttp.ClientSession, tmp_path: Path) -> None:
    file = tmp_path / "procd.toml"
    file.write_text("[log]\nlevel = 'error'\n")
    daemon = start("--config", str(file))
    ready = daemon.notify.receive()
    before = time.monotonic_ns() // 1000
    file.write_text("[log]\nlevel = 'info'\n")
    os.kill(daemon.pid, signal.SIGHUP)
    reloading = daemon.notify.receive()
    assert reloading.pop("RELOADING") == "1"
    assert before <= int(reloading.pop("MONOTONIC_USEC")) <= time.monotonic_ns() // 1000
    assert reloading == {}
    assert daemon.notify.receive() == ready
    async with http.post(f"{daemon.url}/process/session", json={"sessionId": "s"}) as reply:
        assert reply.status == 201
    assert "session started" in daemon.stderr(), "the new level counts"
    assert daemon.stop() == 0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[server]\nprot = 1\n", "server.prot: no such setting"),
        (f"[server]\nping_s = {'9' * 400}\n", "server.ping_s: must fit into 64 bits"),
    ],
    ids=["unknown", "beyond 64 bits"],
)
async def test_a_bad_reload_changes_nothing(
    start: Start, http: aiohttp.ClientSession, tmp_path: Path, text: str, reason: str
) -> None:
    file = tmp_path / "procd.toml"
    file.write_text("")
    daemon = start("--config", str(file))
    assert "READY" in daemon.notify.receive()
    file.write_text(text)
    os.kill(daemon.pid, signal.SIGHUP)
    assert "RELOADING" in daemon.notify.receive()
    state = daemon.notify.receive()
    assert state["READY"] == "1"
    assert f"not reloaded: {reason}" in state["STATUS"]
    async with http.get(f"{daemon.url}/version") as reply:
        assert reply.status == 200
    assert f"the configuration is as it was: {reason}" in daemon.stderr()
    assert daemon.stop() == 0
