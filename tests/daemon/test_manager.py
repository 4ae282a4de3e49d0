"""What the service manager is told while procd runs: beats, and the course of a reload."""

import os
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.daemon.conftest import Start
from tests.daemon.daemon import Daemon, eventually
from tests.daemon.test_access import bearer, make

BEAT = {"WATCHDOG": "1"}


def told(daemon: Daemon) -> dict[str, str]:
    """The next notification but beats."""
    while (state := daemon.notify.receive()) == BEAT:
        pass
    return state


@contextmanager
def piped(content: bytes) -> Iterator[int]:
    """A pipe that has this in it, and no more."""
    reading, writing = os.pipe()
    os.write(writing, content)
    os.close(writing)
    yield reading
    os.close(reading)


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


@pytest.mark.parametrize("address", ["/nonexistent", "/x" * 100, "@nobody"])
async def test_a_manager_that_is_not_there(
    start: Start, http: aiohttp.ClientSession, address: str
) -> None:
    """It is told of nothing, and procd serves."""
    daemon = start(env={"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"})
    async with http.get(f"{daemon.url}/version") as reply:
        assert reply.status == 200
    assert daemon.stop() == 0
    for state in ("WATCHDOG=1", "READY=1", "STOPPING=1"):
        (line,) = [line for line in daemon.stderr().splitlines() if state in line]
        assert "the service manager can't be told" in line
        assert not line.endswith("None")


async def test_a_manager_that_reads_nothing(start: Start, http: aiohttp.ClientSession) -> None:
    """What finds no room in its queue is lost, and said to be; procd waits for nobody."""
    daemon = start()

    def lost() -> bool:
        os.kill(daemon.pid, signal.SIGHUP)
        return "can't be told RELOADING=1" in daemon.stderr()

    assert eventually(lost)
    async with http.get(f"{daemon.url}/version") as reply:
        assert reply.status == 200
    assert daemon.stop() == 0
    assert "can't be told STOPPING=1" in daemon.stderr()


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


async def test_a_reload_waits_for_no_pipe(
    start: Start, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """Whatever stands in the place of a file that was there at the start."""
    config, tokens, audit = tmp_path / "procd.toml", tmp_path / "tokens", tmp_path / "audit"
    config.write_text(f"[auth]\ntoken_file = '{tokens}'\n[audit]\nfile = '{audit}'\n")
    secret = make(tokens, "one")
    daemon = start("--config", str(config))
    assert "READY" in daemon.notify.receive()
    for file in (config, tokens, audit):
        file.rename(file.with_suffix(".old"))
        os.mkfifo(file, 0o600)
    os.kill(daemon.pid, signal.SIGHUP)
    assert "RELOADING" in daemon.notify.receive()
    reason = "can't be read again: not a regular file"
    status = daemon.notify.receive()["STATUS"]
    assert f"; not reloaded: auth.token_file: {tokens}: {reason}; audit.file: {audit}: " in status
    assert status.endswith(f" a pipe that nobody reads, or a socket; {config}: {reason}")
    async with http.get(f"{daemon.url}/version", headers=bearer(secret)) as reply:
        assert reply.status == 200
    assert f"auth.token_file: {tokens}: {reason}" in daemon.stderr()
    assert f"can't be opened again: audit.file: {audit}: a pipe that nobody" in daemon.stderr()
    assert daemon.stop() == 0
    assert '"token":"one"' in audit.with_suffix(".old").read_text()


async def test_a_reload_of_wrong_tokens_is_no_success(start: Start, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    make(tokens, "one")
    daemon = start(env={"PROCD_AUTH_TOKEN_FILE": str(tokens)})
    ready = daemon.notify.receive()
    lines = tokens.read_text()
    reason = f"auth.token_file: {tokens}: line 2: must be NAME SCOPE sha256:HASH"
    for text, told_of in ((f"{lines}nonsense\n", f"; not reloaded: {reason}"), (lines, "")):
        tokens.write_text(text)
        os.kill(daemon.pid, signal.SIGHUP)
        assert "RELOADING" in daemon.notify.receive()
        state = daemon.notify.receive()
        assert state == {"READY": "1", "STATUS": ready["STATUS"] + told_of}


async def test_pipes_are_read_at_the_start(
    start: Start, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """As of a shell's <(…); what they said is kept."""
    secret = make(tmp_path / "tokens", "one")
    with piped((tmp_path / "tokens").read_bytes()) as tokens:
        text = f"[auth]\ntoken_file = '/dev/fd/{tokens}'\n[log]\nlevel = 'error'\n"
        with piped(text.encode()) as config:
            daemon = start("--config", f"/dev/fd/{config}", pass_fds=(config, tokens))
    assert "READY" in daemon.notify.receive()
    os.kill(daemon.pid, signal.SIGHUP)
    assert "RELOADING" in daemon.notify.receive()
    state = daemon.notify.receive()
    assert f"not reloaded: auth.token_file: /dev/fd/{tokens}: can't be" in state["STATUS"]
    assert f"; /dev/fd/{config}: can't be" in state["STATUS"]
    for headers, status in ({}, 401), (bearer(secret), 200):
        async with http.get(f"{daemon.url}/version", headers=headers) as reply:
            assert reply.status == status
    session = f"{daemon.url}/process/session"
    async with http.post(session, json={"sessionId": "s"}, headers=bearer(secret)) as reply:
        assert reply.status == 201
    assert "session started" not in daemon.stderr(), "the level of before counts"
