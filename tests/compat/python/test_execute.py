"""process.exec."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from daytona.common.errors import (
    DaytonaBadRequestError,
    DaytonaProcessExecutionTimeoutError,
    DaytonaTimeoutError,
)

from tests.compat.python.sdk import Sdk
from tests.daemon.daemon import Daemon


async def test_output(sdk: Sdk) -> None:
    reply = await sdk.exec("echo hi")
    assert (reply.result, reply.exit_code) == ("hi\n", 0)
    assert reply.artifacts is not None
    assert reply.artifacts.stdout == "hi\n"


async def test_both_streams(sdk: Sdk) -> None:
    reply = await sdk.exec("echo out; echo err >&2; echo end")
    assert reply.result == "out\nerr\nend\n"
    assert reply.additional_properties == {}


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("true", 0), ("false", 1), ("exit 3", 3), ("exit 255", 255), ("nosuch-command", 127),
        ("/etc/passwd", 126), ("kill -TERM $$", 143), ("kill -KILL $$", 137),
        ("sh -c 'kill -INT $$'", 130),
    ],
)  # fmt: skip
async def test_exit_codes(sdk: Sdk, command: str, code: int) -> None:
    assert (await sdk.exec(command)).exit_code == code


async def test_environment(sdk: Sdk) -> None:
    value = "a b'\"$HOME\n\u00e9\U0001f600"
    reply = await sdk.exec('printf %s "$GIVEN"; env | grep -c ^HOME=', env={"GIVEN": value})
    assert reply.result == value + "1\n"  # the daemon's own
    assert (await sdk.exec("echo ok", env={})).result == "ok\n"


async def test_working_directory(sdk: Sdk, daemon: Daemon, tmp_path: Path) -> None:
    assert (await sdk.exec("pwd", cwd=str(tmp_path))).result == f"{tmp_path}\n"
    assert (await sdk.exec("pwd")).result == os.readlink(f"/proc/{daemon.pid}/cwd") + "\n"
    missing = await sdk.exec("pwd", cwd=f"{tmp_path}/missing")
    assert missing.exit_code == -1
    assert missing.result == f"working directory does not exist: {tmp_path}/missing"


async def test_output_that_is_not_text(sdk: Sdk) -> None:
    reply = await sdk.exec(r"printf 'a\0b\377c\303\251'")
    assert reply.result == "a\0b\ufffdc\u00e9"


async def test_timeout(sdk: Sdk) -> None:
    with pytest.raises(DaytonaProcessExecutionTimeoutError, match="timeout") as caught:
        await sdk.exec("echo begun; sleep 1000", timeout=1)
    assert isinstance(caught.value, DaytonaTimeoutError)
    assert caught.value.status_code == 408
    assert caught.value.code == "PROCESS_EXECUTION_TIMEOUT"
    assert caught.value.source == "DAYTONA_DAEMON"
    assert str(caught.value) == "Failed to execute command: command execution timeout"


async def test_background_child_is_not_waited_for(sdk: Sdk, daemon: Daemon) -> None:
    reply = await sdk.exec("sleep 1000 & echo $!", timeout=5)
    pid = int(reply.result)
    assert reply.exit_code == 0
    assert Path(f"/proc/{pid}/comm").read_text() == "sleep\n"  # and goes on
    os.kill(pid, signal.SIGTERM)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"command": " \n\t"}, "command cannot be empty or whitespace-only"),
        ({"command": "true", "env": {"A-B": "x"}}, "invalid environment variable name: 'A-B'"),
        ({"command": "true", "env": {"": "x"}}, "invalid environment variable name: ''"),
    ],
)
async def test_bad_requests(sdk: Sdk, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(DaytonaBadRequestError) as caught:
        await sdk.exec(**arguments)
    assert str(caught.value) == f"Failed to execute command: {message}"
    assert caught.value.code == "BAD_REQUEST"
    assert caught.value.source == "DAYTONA_DAEMON"


@pytest.mark.parametrize(
    "arguments",
    [
        {"command": ""},
        {"command": "true", "timeout": -1},
        {"command": "true", "timeout": 2**32},
        {"command": "tr\0ue"},
        {"command": "true", "cwd": "/t\0mp"},
        {"command": "true", "env": {"A": "\0"}},
    ],
)
async def test_invalid_bodies(sdk: Sdk, arguments: dict[str, Any]) -> None:
    with pytest.raises(DaytonaBadRequestError) as caught:
        await sdk.exec(**arguments)
    assert caught.value.status_code == 400
    assert caught.value.code in ("INVALID_REQUEST_BODY", "BAD_REQUEST")
    assert caught.value.source == "DAYTONA_DAEMON"
