"""PTY sessions."""

import base64
import hashlib
import os
import signal
from pathlib import Path

import pytest
from daytona.common.errors import (
    DaytonaBadRequestError,
    DaytonaConflictError,
    DaytonaConnectionError,
    DaytonaGoneError,
    DaytonaNotFoundError,
    DaytonaProcessNotFoundError,
    DaytonaSessionEndedError,
)
from daytona.common.pty import PtySize

from tests.compat.python.sdk import AsyncSdk, Sdk, SyncSdk, value
from tests.daemon.daemon import Daemon

OUTPUT_BYTES = 20_000_000


async def test_type_and_read(sdk: Sdk) -> None:
    async with await sdk.create("typing") as terminal:
        assert terminal.connected
        await terminal.enter("expr 6 '*' 7\n")
        await terminal.until(b"42\r\n")
        await terminal.enter(b"echo by''tes\n")
        await terminal.until(b"bytes\r\n")
        await terminal.kill()


@pytest.mark.parametrize(
    ("typed", "code", "error"),
    [
        ("exit 0\n", 0, None),
        ("exit 3\n", 3, "non-zero exit"),
        ("kill -TERM $$; kill -KILL $$\n", 137, "SIGKILL"),
        ("exec sh -c 'kill -TERM $$'\n", 143, "SIGTERM"),
        ("exec sh -c 'kill -HUP $$'\n", 129, "signal 1"),
    ],
)
async def test_exit(sdk: Sdk, typed: str, code: int, error: str | None) -> None:
    async with await sdk.create("exits") as terminal:
        await terminal.enter(typed)
        result = await terminal.wait()
        assert (result.exit_code, result.error) == (code, error)
        assert not terminal.connected
        with pytest.raises(DaytonaConnectionError):
            await terminal.enter("more\n")
    assert await ids(sdk) == []


async def test_kill(sdk: Sdk) -> None:
    async with await sdk.create("killed") as terminal:
        await terminal.kill()
        result = await terminal.wait()
        assert (result.exit_code, result.error) == (137, "SIGKILL")
    with pytest.raises(DaytonaProcessNotFoundError, match="PTY session not found"):
        await value(sdk.process.kill_pty_session("killed"))


async def test_resize(sdk: Sdk) -> None:
    async with await sdk.create("sized", pty_size=PtySize(cols=120, rows=40)) as terminal:
        await terminal.enter("stty size\n")
        await terminal.until(b"40 120\r\n")
        info = await terminal.resize(cols=100, rows=30)
        assert (info.cols, info.rows) == (100, 30)
        await terminal.enter("stty size\n")
        await terminal.until(b"30 100\r\n")
        info = await value(sdk.process.resize_pty_session("sized", PtySize(rows=31, cols=101)))
        assert (info.cols, info.rows) == (101, 31)
        await terminal.enter("stty size\n")
        await terminal.until(b"31 101\r\n")
        await terminal.kill()


async def ids(sdk: Sdk) -> list[str]:
    """The ids of the sessions."""
    return [info.id for info in await value(sdk.process.list_pty_sessions())]


async def test_list_and_info(sdk: Sdk, tmp_path: Path) -> None:
    assert await ids(sdk) == []
    async with (
        await sdk.create("one", cwd=str(tmp_path), envs={"A": "b"}) as one,
        await sdk.create("two, with a name", pty_size=PtySize(cols=99, rows=9)) as two,
    ):
        assert await ids(sdk) == ["one", "two, with a name"]
        info = await value(sdk.process.get_pty_session_info("one"))
        assert (info.id, info.cwd, info.cols, info.rows) == ("one", str(tmp_path), 80, 24)
        assert info.envs == {"A": "b", "TERM": "xterm-256color"}
        assert (info.active, info.lazy_start) == (True, False)
        assert info.created_at
        info = await value(sdk.process.get_pty_session_info("two, with a name"))
        assert (info.cols, info.rows) == (99, 9)
        await one.kill()
        assert await ids(sdk) == ["two, with a name"]
        await two.kill()
    assert await ids(sdk) == []


async def test_disconnect_and_connect_again(sdk: Sdk) -> None:
    async with await sdk.create("kept") as terminal:
        await terminal.enter("state=here; echo fi''rst\n")
        await terminal.until(b"first\r\n")
    assert not terminal.connected
    assert await ids(sdk) == ["kept"]
    async with await sdk.connect("kept") as terminal, await sdk.connect("kept") as other:
        await terminal.until(b"first\r\n")  # what was printed before
        await terminal.enter("echo still $state\n")
        await terminal.until(b"still here\r\n")
        await other.until(b"still here\r\n")
        await other.enter("exit 4\n")
        for each in (terminal, other):
            assert (await each.wait()).exit_code == 4


async def test_lazy_session(sdk: Sdk) -> None:
    reply = await value(
        sdk.api.create_pty_session(
            sdk.models.PtyCreateRequest(
                id="lazy", lazy_start=True, cols=90, rows=20, envs={"A": "b"}
            )
        )
    )
    assert reply.session_id == "lazy"
    info = await value(sdk.process.get_pty_session_info("lazy"))
    assert (info.active, info.lazy_start) == (False, True)
    await value(sdk.process.resize_pty_session("lazy", PtySize(cols=91, rows=21)))
    async with await sdk.connect("lazy") as terminal:
        assert (await value(sdk.process.get_pty_session_info("lazy"))).active is True
        await terminal.enter("stty size; echo A=$A\n")
        await terminal.until(b"21 91\r\nA=b\r\n")
        await terminal.kill()


async def test_duplicate(sdk: Sdk) -> None:
    async with await sdk.create("twin") as terminal:
        with pytest.raises(DaytonaConflictError) as caught:
            await sdk.create("twin")
        assert caught.value.status_code == 409
        with pytest.raises(Exception, match="PTY session with ID 'twin' already exists"):
            await value(sdk.api.create_pty_session(sdk.models.PtyCreateRequest(id="twin", cols=80)))
        await terminal.enter("exit 0\n")  # the first is none the worse for it
        assert (await terminal.wait()).exit_code == 0


async def test_unknown_session(sdk: Sdk) -> None:
    with pytest.raises(
        DaytonaConnectionError,
        match="Failed to connect to PTY session: PTY session nope not found",
    ):
        await sdk.connect("nope")
    with pytest.raises(DaytonaProcessNotFoundError, match="PTY session not found") as not_found:
        await value(sdk.process.get_pty_session_info("nope"))
    assert isinstance(not_found.value, DaytonaNotFoundError)
    with pytest.raises(DaytonaSessionEndedError, match="PTY session nope not found") as gone:
        await value(sdk.process.resize_pty_session("nope", PtySize(rows=1, cols=1)))
    assert isinstance(gone.value, DaytonaGoneError)


async def test_ended_session(sdk: Sdk) -> None:
    async with await sdk.create("over") as terminal:
        await terminal.enter("exit 0\n")
        await terminal.wait()
    with pytest.raises(
        DaytonaConnectionError,
        match="PTY session 'over' has terminated and is no longer available",
    ):
        await sdk.connect("over")
    async with await sdk.create("over") as terminal:  # the id is free
        await terminal.kill()


@pytest.mark.parametrize(
    ("session_id", "size", "envs"),
    [
        ("a/b", None, None),
        ("line\nfeed", None, None),
        ("..", None, None),
        ("create-connect", None, None),
        ("x" * 256, None, None),
        ("wide", PtySize(cols=1001, rows=24), None),
        ("flat", PtySize(cols=80, rows=0), None),
        ("named", None, {"A-B": "x"}),
        ("nul", None, {"A": "\0"}),
    ],
)
async def test_bad_requests(
    sdk: Sdk, session_id: str, size: PtySize | None, envs: dict[str, str] | None
) -> None:
    with pytest.raises(DaytonaBadRequestError):
        await sdk.create(session_id, pty_size=size, envs=envs)
    assert await ids(sdk) == []


async def test_start_failure(sdk: Sdk, tmp_path: Path) -> None:
    with pytest.raises(
        DaytonaConnectionError, match="Failed to start PTY session: working directory does not"
    ):
        await sdk.create("nowhere", cwd=f"{tmp_path}/missing")
    assert await ids(sdk) == []


async def test_environment_and_directory(sdk: Sdk, tmp_path: Path) -> None:
    big = base64.b64encode(os.urandom(15 * 1024)).decode()
    assert len(big) == 20 * 1024
    envs = {"BIG": big, "TEXT": "a b'\"$\u00e9\U0001f600"}
    async with await sdk.create("envs", envs=envs, cwd=str(tmp_path)) as terminal:
        await terminal.enter(
            'printf %s "$BIG" | sha256sum; printf %s "$TEXT" | sha256sum; echo $TERM; pwd\n'
        )
        for text in (big, envs["TEXT"]):
            await terminal.until(hashlib.sha256(text.encode()).hexdigest().encode())
        await terminal.until(f"xterm-256color\r\n{tmp_path}\r\n".encode())
        info = await value(sdk.process.get_pty_session_info("envs"))
        assert info.envs == envs | {"TERM": "xterm-256color"}
        await terminal.kill()


async def test_large_output_is_complete(sdk: Sdk, tmp_path: Path) -> None:
    data = base64.b64encode(os.urandom(OUTPUT_BYTES * 3 // 4))
    file = tmp_path / "data"
    file.write_bytes(data)
    async with await sdk.create("large") as terminal:
        await terminal.enter(f"stty raw -echo; echo be''gin; exec cat {file}\n")
        await terminal.until(b"begin\n")
        result = await terminal.wait()
        assert result.exit_code == 0
        assert len(terminal.output) == len(data)
        assert hashlib.sha256(terminal.output).digest() == hashlib.sha256(data).digest()


async def test_instant_exit(sdk: Sdk) -> None:
    """The session may be over before the client has heard of its beginning."""
    for code in range(1, 21):
        async with await sdk.create("instant", envs={"EXIT_AT_ONCE": str(code)}) as terminal:
            result = await terminal.wait()
            assert (result.exit_code, result.error) == (code, "non-zero exit")


def test_synchronous_handshake_200_times(daemon: Daemon) -> None:
    """The SDK waits for `connected` after the upgrade (contract, section 10.5, rule 2)."""
    sdk = SyncSdk.at(daemon.url)
    for _ in range(200):
        created = sdk.process.create_pty_session("handshake")
        created.disconnect()
        connected = sdk.process.connect_pty_session("handshake")
        connected.kill()
        assert connected.wait().exit_code == 137
        connected.disconnect()
    sdk.close()


@pytest.mark.parametrize("kind", [SyncSdk, AsyncSdk])
async def test_a_server_that_stops_says_why(kind: type[SyncSdk | AsyncSdk], tmp_path: Path) -> None:
    with Daemon.start(env={"HOME": str(tmp_path)}) as daemon:
        sdk = kind.at(daemon.url)
        async with await sdk.create("stopped") as terminal:
            os.kill(daemon.pid, signal.SIGTERM)
            result = await terminal.wait()
            assert (result.exit_code, result.error) == (None, "server shutdown")
        await sdk.aclose()


async def test_a_paste_beyond_the_limit_says_why(sdk: Sdk) -> None:
    async with await sdk.create("pasted") as terminal:
        await terminal.enter(b"x" * ((16 << 20) + 1))
        result = await terminal.wait()
        assert (result.exit_code, result.error) == (None, "the message was too long")
