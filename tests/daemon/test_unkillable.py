"""Children that procd can't end: each wait for an end has one of its own.

A disk that hangs keeps a process from ending. The same is seen here of a process of another user,
with a root that may not signal those.
"""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress

import aiohttp
import pytest

from tests.daemon.conftest import Start
from tests.daemon.daemon import PATIENCE_S, PROCD, Daemon, descendants

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None,
    reason="only root can become another user, and setpriv takes a capability from it",
)

WITHOUT_KILL = ("setpriv", "--bounding-set=-kill", "--inh-caps=-kill")
SLEEP = "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(1000)"


@pytest.fixture
def procd(start: Start) -> Iterator[Daemon]:
    """One whose children are out of its reach; they are ended with the test."""
    daemon = start(command=(*WITHOUT_KILL, *PROCD), env={"PROCD_PROCESS_USER": "nobody"}, cwd="/")
    yield daemon
    if daemon.process.poll() is None:
        for pid in descendants(daemon.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


async def test_a_timeout_is_answered(procd: Daemon, http: aiohttp.ClientSession) -> None:
    """And the context goes on with another process."""
    for _ in range(2):
        async with http.ws_connect(f"{procd.url}/process/interpreter/execute") as ws:
            await ws.send_json({"code": SLEEP, "timeout": 3})
            await ws.receive_json(timeout=PATIENCE_S)
            await ws.receive(timeout=PATIENCE_S)
            assert ws.close_code == 4008


async def test_a_context_is_restarted_and_deleted(
    procd: Daemon, http: aiohttp.ClientSession
) -> None:
    """Whose cell it was is told."""
    contexts = f"{procd.url}/process/interpreter/context"
    async with http.post(contexts, json={"cwd": "/"}) as reply:
        context_id = (await reply.json())["id"]
    for method, path, reason in (
        ("POST", f"{context_id}/restart", "context restarted"),
        ("DELETE", context_id, "context deleted"),
    ):
        async with http.ws_connect(f"{procd.url}/process/interpreter/execute") as ws:
            await ws.send_json({"code": SLEEP, "contextId": context_id})
            await ws.receive_json(timeout=PATIENCE_S)
            async with http.request(method, f"{contexts}/{path}") as reply:
                assert reply.status == 200
            message = await ws.receive(timeout=PATIENCE_S)
            assert (message.data, message.extra) == (1011, reason)


async def test_a_session_and_a_terminal_are_deleted(
    procd: Daemon, http: aiohttp.ClientSession
) -> None:
    for path, body in (
        ("pty", {"id": "a", "cwd": "/"}),
        ("session", {"sessionId": "a"}),
    ):
        async with http.post(f"{procd.url}/process/{path}", json=body) as reply:
            assert reply.status == 201
        async with http.delete(f"{procd.url}/process/{path}/a") as reply:
            assert reply.status in (200, 204)
        async with http.get(f"{procd.url}/process/{path}/a") as reply:
            assert reply.status == 404


async def test_a_stop_comes_to_its_end(procd: Daemon, http: aiohttp.ClientSession) -> None:
    async with http.ws_connect(f"{procd.url}/process/interpreter/execute") as ws:
        await ws.send_json({"code": SLEEP})
        pid = int((await ws.receive_json(timeout=PATIENCE_S))["text"])
        try:
            assert procd.stop(within_s=PATIENCE_S) == 0
        finally:
            os.kill(pid, signal.SIGKILL)
