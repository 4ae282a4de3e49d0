"""Access to a running daemon: tokens made, given, read again; what procd never says."""

import os
import shlex
import signal
import stat
import subprocess
from pathlib import Path

import aiohttp
import pytest

from tests.daemon.conftest import Start
from tests.daemon.daemon import PROCD, eventually
from tests.daemon.test_command_line import refusal, run

SECRET = "a-secret-of-somebody-s-own-choice"


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def make(file: Path, name: str, scope: str = "write") -> str:
    """The secret of a new token."""
    result = run("token", "--name", name, "--scope", scope, "--file", str(file))
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.strip()


def test_a_token_is_printed_once_and_stored_as_a_hash(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    secret = make(file, "ci")
    assert secret.startswith("procd_")
    assert len(secret) > 40
    assert file.read_text().startswith("ci write sha256:")
    assert secret not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = run("token", "--name", "ci", "--scope", "read", "--file", str(file))
    assert "has a token named ci already" in refusal(again)


@pytest.mark.parametrize("output", [">/dev/full", ">&-", "| true"])
def test_a_token_that_nobody_was_told_is_not_in_force(tmp_path: Path, output: str) -> None:
    file = tmp_path / "tokens"
    token = f"token --name ci --scope read --file {file}"
    script = f"set -o pipefail; sleep 0.2 | {shlex.join(PROCD)} {token} {output}"
    result = subprocess.run(["bash", "-c", script], capture_output=True, check=False)
    assert result.returncode != 0
    assert b"Traceback" not in result.stderr
    assert os.listdir(tmp_path) == []


def test_a_token_for_the_configured_file(tmp_path: Path) -> None:
    result = run("token", "--name", "a", "--scope", "read")
    assert "no token file: give --file, or set auth.token_file" in refusal(result)
    file = tmp_path / "tokens"
    result = run("token", "--name", "a", "--scope", "read", PROCD_AUTH_TOKEN_FILE=str(file))
    assert result.returncode == 0
    assert file.exists()
    assert "--name" in refusal(run("token", "--name", "a b", "--scope", "read"))


def test_a_token_that_procd_would_not_start_with(tmp_path: Path) -> None:
    """The file is as it was."""
    config, file = tmp_path / "procd.toml", tmp_path / "tokens"
    config.write_text("[auth]\nmax_tokens = 1\n")
    make(file, "one")
    before = file.read_text()
    token = ("token", "--scope", "read", "--file", str(file), "--config", str(config))
    assert f"{file}: has 1 tokens: auth.max_tokens is 1" in refusal(run(*token, "--name", "two"))
    assert "--name: environment is" in refusal(run(*token, "--name", "environment"))
    assert file.read_text() == before


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_refuses_to_be_open_to_the_network(host: str) -> None:
    message = refusal(run("serve", "--host", host, "--port", "0"))
    for named in ("procd token", "auth.token_file", "PROCD_AUTH_TOKEN", 'auth.mode = "none"'):
        assert named in message


async def test_open_on_loopback_and_says_so(start: Start, http: aiohttp.ClientSession) -> None:
    daemon = start()
    async with http.get(f"{daemon.url}/version") as reply:
        assert reply.status == 200
    assert "no token is required: anybody who reaches 127.0.0.1" in daemon.stderr()


async def test_a_token_in_the_environment(start: Start, http: aiohttp.ClientSession) -> None:
    """It works, and no child can read it, neither in its own environment nor in procd's."""
    daemon = start(env={"PROCD_AUTH_TOKEN": SECRET, "KEPT": "kept"})
    async with http.get(f"{daemon.url}/version") as reply:
        assert reply.status == 401
    command = f"env; cat /proc/{daemon.pid}/environ /proc/{daemon.pid}/cmdline /proc/self/environ"
    async with http.post(
        f"{daemon.url}/process/execute", json={"command": command}, headers=bearer(SECRET)
    ) as reply:
        result = (await reply.json())["result"]
    assert result.count("KEPT=kept") == 3
    assert "PROCD_AUTH_TOKEN" not in result
    assert SECRET not in result
    assert "no token is required" not in daemon.stderr()


async def test_a_credential_of_the_service_manager(
    start: Start, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    secret = make(tmp_path / "procd-tokens", "unit", "read")
    daemon = start("--host", "0.0.0.0", env={"CREDENTIALS_DIRECTORY": str(tmp_path)})
    for headers, status in ({}, 401), (bearer(secret), 200):
        async with http.get(f"{daemon.url}/version", headers=headers) as reply:
            assert reply.status == status
    # The service manager makes its copy when it starts procd, and leaves it as it is.
    os.kill(daemon.pid, signal.SIGHUP)
    assert eventually(lambda: "procd-tokens is the copy" in daemon.stderr())
    assert "stays in force until a restart" in daemon.stderr()


def test_credentials_that_can_not_be_looked_for(tmp_path: Path) -> None:
    """As where the service manager could not mount them: there may be tokens among them."""
    missing = tmp_path / "missing"
    result = run("serve", "--port", "0", CREDENTIALS_DIRECTORY=str(missing))
    assert (result.returncode, result.stdout) == (2, "")
    assert f"CREDENTIALS_DIRECTORY: No such file or directory: {missing}" in result.stderr


async def test_other_credentials(start: Start, http: aiohttp.ClientSession, tmp_path: Path) -> None:
    (tmp_path / "somebody-s").write_text("secret")
    daemon = start(env={"CREDENTIALS_DIRECTORY": str(tmp_path)})
    async with http.get(f"{daemon.url}/version") as reply:
        assert reply.status == 200


async def test_sighup(start: Start, http: aiohttp.ClientSession, tmp_path: Path) -> None:
    file, audit = tmp_path / "tokens", tmp_path / "audit"
    old = make(file, "old")
    daemon = start(env={"PROCD_AUTH_TOKEN_FILE": str(file), "PROCD_AUDIT_FILE": str(audit)})
    url = f"{daemon.url}/process/pty/create-connect?id=t1"
    async with http.ws_connect(url, headers=bearer(old)) as ws:
        assert (await ws.receive_json())["status"] == "connected"
        file.unlink()
        new = make(file, "new")
        audit.rename(tmp_path / "audit.1")
        os.kill(daemon.pid, signal.SIGHUP)
        while (message := await ws.receive()).type is aiohttp.WSMsgType.BINARY:
            pass
        assert (message.data, message.extra) == (1008, "the token is no longer valid")
    assert eventually(audit.exists)
    for secret, status in (old, 401), (new, 200):
        async with http.get(f"{daemon.url}/process/pty/t1", headers=bearer(secret)) as reply:
            assert reply.status == status
    assert '"token":"new"' in audit.read_text()
    assert '"token":"old"' in (tmp_path / "audit.1").read_text()
    assert daemon.stop() == 0


async def test_nothing_secret_is_logged(
    start: Start, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    secret, wrong = make(tmp_path / "tokens", "ci"), "wrong-but-perhaps-right-elsewhere"
    daemon = start(
        env={"PROCD_AUTH_TOKEN_FILE": str(tmp_path / "tokens"), "PROCD_LOG_LEVEL": "debug"}
    )
    for key in (secret, wrong):
        query = f"DAYTONA_SANDBOX_AUTH_KEY={key}&ticket={key}"
        async with http.get(f"{daemon.url}/nowhere?{query}", headers=bearer(key)) as reply:
            assert key not in await reply.text()
        url = f"{daemon.url}/process/pty/create-connect?id=a&DAYTONA_SANDBOX_AUTH_KEY={key}"
        if key == wrong:
            with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
                await http.ws_connect(url, protocols=(key,))
            continue
        async with http.ws_connect(url, protocols=(key,)) as ws:
            assert (await ws.receive_json())["status"] == "connected"
    assert daemon.stop() == 0
    assert secret not in daemon.stderr()
    assert wrong not in daemon.stderr()
