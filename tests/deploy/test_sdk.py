"""The official SDK, either flavour, behind the shipped nginx."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.compat.python.sdk import AsyncSdk, Sdk, SyncSdk, value
from tests.daemon.conftest import Start
from tests.deploy.conftest import Serve


@pytest.fixture(params=["sync", "async"])
async def sdk(
    request: pytest.FixtureRequest,
    start: Start,
    nginx: Serve,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Sdk]:
    """One that trusts the gateway."""
    front = nginx(start())
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "tls.crt"))
    url = front.address_url
    sdk: Sdk = SyncSdk.at(url) if request.param == "sync" else AsyncSdk.at(url, tls=front.tls)
    yield sdk
    await sdk.aclose()


async def test_commands(sdk: Sdk) -> None:
    done = await sdk.exec("echo out; exit 3")
    assert (done.exit_code, done.result) == (3, "out\n")
    assert (await value(sdk.process.code_run("print(6 * 7)"))).result == "42\n"


# The synchronous one uses a TLS connection in two threads at a time, which breaks it now and then.
@pytest.mark.parametrize("sdk", ["async"], indirect=True)
async def test_a_terminal(sdk: Sdk) -> None:
    async with await sdk.create("t") as terminal:
        await terminal.enter("expr 6 '*' 7\n")
        await terminal.until(b"42\r\n")
        await terminal.enter("exit 3\n")
        assert (await terminal.wait()).exit_code == 3


async def test_a_log_is_followed(sdk: Sdk) -> None:
    await value(sdk.process.create_session("s"))
    request = sdk.models.SessionExecuteRequest(command="read x; echo got $x", run_async=True)
    command = (await value(sdk.process.execute_session_command("s", request))).cmd_id
    await value(sdk.process.send_session_command_input("s", command, "it"))
    seen: list[str] = []
    await sdk.process.get_session_command_logs_async("s", command, seen.append, seen.append)
    assert "".join(seen).endswith("got it\n")
