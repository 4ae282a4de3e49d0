"""The whole client, from its configuration on, with a stub of the control plane.

Source: Process API contract, section 14.4.
"""

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from daytona import AsyncDaytona, Daytona, DaytonaConfig
from daytona.common.errors import DaytonaConflictError, DaytonaProcessExecutionTimeoutError
from daytona.common.pty import PtySize

from tests.daemon.daemon import Daemon

SANDBOX = {
    "id": "sb1", "organizationId": "o", "name": "sb1", "user": "root", "env": {}, "labels": {},
    "public": False, "networkBlockAll": False, "kvm": False, "target": "us", "cpu": 1, "gpu": 0,
    "memory": 1, "disk": 1, "state": "started",
}  # fmt: skip


@pytest.fixture
def configuration(daemon: Daemon) -> Iterator[DaytonaConfig]:
    """How to reach a control plane that knows one sandbox, which is the daemon."""

    class ControlPlane(BaseHTTPRequestHandler):
        """`GET /sandbox/sb1` and nothing else; the SDK is content without its event stream."""

        def do_GET(self) -> None:
            known = self.path.partition("?")[0] == "/sandbox/sb1"
            sandbox = SANDBOX | {"toolboxProxyUrl": f"{daemon.url}/toolbox"}
            body = json.dumps(sandbox if known else {"message": "not found"}).encode()
            self.send_response(200 if known else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), ControlPlane) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield DaytonaConfig(
            api_key="key", api_url=f"http://127.0.0.1:{server.server_port}", target="us"
        )
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_dotenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK reads DAYTONA_* from the environment, and a .env file where it runs."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("DAYTONA_"):
            monkeypatch.delenv(name)


def test_sync(daemon: Daemon, configuration: DaytonaConfig) -> None:
    sandbox = Daytona(configuration).get("sb1")
    assert sandbox.get_work_dir() == os.readlink(f"/proc/{daemon.pid}/cwd")
    assert sandbox.get_user_home_dir() == home_of(daemon)
    process = sandbox.process
    reply = process.exec("echo $A; exit 3", env={"A": "b"})
    assert (reply.result, reply.exit_code) == ("b\n", 3)
    with pytest.raises(DaytonaProcessExecutionTimeoutError, match="timeout"):
        process.exec("sleep 1000", timeout=1)
    handle = process.create_pty_session("whole", pty_size=PtySize(cols=100, rows=30))
    with pytest.raises(DaytonaConflictError):
        process.create_pty_session("whole")
    assert [info.id for info in process.list_pty_sessions()] == ["whole"]
    handle.send_input("stty size; exit 3\n")
    output = bytearray()
    result = handle.wait(on_data=output.extend)
    assert b"30 100\r\n" in output
    assert (result.exit_code, result.error) == (3, "non-zero exit")
    handle.disconnect()
    context = sandbox.code_interpreter.create_context()
    sandbox.code_interpreter.run_code("x = 6", context=context)
    shown = sandbox.code_interpreter.run_code("print(x * 7)", context=context)
    assert (shown.stdout, shown.error) == ("42\n", None)
    sandbox.code_interpreter.delete_context(context)
    assert process.code_run("import sys; print(sys.argv)").result == "['-']\n"
    # This flavour has no close(), and its event thread keeps it from being collected.
    process._api_client.api_client.rest_client.pool_manager.clear()


async def test_async(daemon: Daemon, configuration: DaytonaConfig) -> None:
    async with AsyncDaytona(configuration) as daytona:
        sandbox = await daytona.get("sb1")
        assert await sandbox.get_work_dir() == os.readlink(f"/proc/{daemon.pid}/cwd")
        assert await sandbox.get_user_home_dir() == home_of(daemon)
        process = sandbox.process
        reply = await process.exec("echo $A; exit 3", env={"A": "b"})
        assert (reply.result, reply.exit_code) == ("b\n", 3)
        with pytest.raises(DaytonaProcessExecutionTimeoutError, match="timeout"):
            await process.exec("sleep 1000", timeout=1)
        output = bytearray()
        handle = await process.create_pty_session(
            "whole", on_data=output.extend, pty_size=PtySize(cols=100, rows=30)
        )
        with pytest.raises(DaytonaConflictError):
            await process.create_pty_session("whole", on_data=output.extend)
        assert [info.id for info in await process.list_pty_sessions()] == ["whole"]
        await handle.send_input("stty size; exit 3\n")
        result = await handle.wait()
        assert b"30 100\r\n" in output
        assert (result.exit_code, result.error) == (3, "non-zero exit")
        await handle.disconnect()
        context = await sandbox.code_interpreter.create_context()
        await sandbox.code_interpreter.run_code("x = 6", context=context)
        shown = await sandbox.code_interpreter.run_code("print(x * 7)", context=context)
        assert (shown.stdout, shown.error) == ("42\n", None)
        await sandbox.code_interpreter.delete_context(context)
        assert (await process.code_run("import sys; print(sys.argv)")).result == "['-']\n"


def home_of(daemon: Daemon) -> str:
    variables = Path(f"/proc/{daemon.pid}/environ").read_text().split("\0")
    return next(text[5:] for text in variables if text.startswith("HOME="))
