"""What all commands have in common: help, progress, errors of input and output."""

import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from procd.cli.commands import COMMANDS
from tests.cli.conftest import Cli, OpenScreen, insist
from tests.daemon.daemon import PATIENCE_S, eventually

WAITING = [
    (["ps"], b"asking the server"),
    (["sessions"], b"asking the server"),
    (["logs", "s"], b"asking the server"),
    (["logs", "-f", "s"], b"asking the server"),
    (["input", "s", "c", "x"], b"asking the server"),
    (["kill", "s"], b"ending s"),
    (["exec", "true"], b"starting the command"),
    (["attach", "t"], b"attaching to t"),
    (["record", "t", "/dev/null"], b"attaching to t"),
    (["python"], b"starting a context"),
    (["run", "--language", "python", "/dev/null"], b"running /dev/null"),
    (["doctor"], b"asking who listens on 127.0.0.1"),
]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_progress_is_shown_while_it_waits(screen: OpenScreen, stalled: int, scheme: str) -> None:
    url = f"{scheme}://127.0.0.1:{stalled}"
    waiting = [
        (screen("--url", url, *arguments, PROCD_SERVER_PORT=str(stalled)), shown)
        for arguments, shown in WAITING
    ]
    for terminal, shown in waiting:
        terminal.until(rb"\r\S+ " + shown + rb"\S* \S+ \d+ s\x1b\[K")
        assert eventually(partial(insist, terminal.process, signal.SIGTERM))
        assert terminal.restored()


def test_progress_leaves_no_trace(screen: OpenScreen, tmp_path: Path) -> None:
    file = tmp_path / "slow.py"
    file.write_text("import time\ntime.sleep(1.5)\n")
    slow = screen("run", str(file), TERM="dumb")
    assert slow.wait() == 0
    assert slow.seen == b""
    slow = screen("run", str(file))
    slow.until(rb"running ")
    assert slow.wait() == 0
    assert slow.seen.endswith(b"\r\x1b[K")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"], ["ps"], ["ps", "--json"], ["doctor"], ["completion", "bash"],
        ["python"], ["play", "/dev/stdin"],
    ],
)  # fmt: skip
def test_a_full_disk(cli: Cli, arguments: list[str]) -> None:
    stdin = b"print(1)" if "python" in arguments else b'{"version": 3}\n[0, "o", "x"]\n'
    with open("/dev/full", "wb") as full:
        process = cli.start(*arguments, stdout=full, settings={"PROCD_SERVER_PORT": "0"})
        _, message = process.communicate(stdin, PATIENCE_S)
    assert process.returncode == 1
    assert re.fullmatch(rb"procd: can't write [^\n]*: No space left on device\n", message)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["python"], b"can't read standard input"),
        (["input", "s", "c"], b"can't read standard input"),
        (["run", "--language", "python", "-"], b"can't read standard input"),
        (["run", "--language", "python", "/proc/self/mem"], b"/proc/self/mem"),
        (["play", "-"], b"<stdin>"),
    ],
)
def test_input_that_cannot_be_read(cli: Cli, arguments: list[str], what: bytes) -> None:
    if arguments[0] == "input":
        cli.call("POST", "/process/session", {"sessionId": "s"})
        body = {"command": "cat", "runAsync": True}
        arguments[2] = cli.call("POST", "/process/session/s/exec", body)["cmdId"]
    with open("/dev/null", "wb") as unreadable:
        process = cli.start(*arguments, stdin=unreadable)
    assert process.wait(PATIENCE_S) == 1
    assert process.stderr is not None
    assert re.fullmatch(
        rb"procd: %s: (Bad file descriptor|Input/output error)\n" % what, process.stderr.read()
    )
    if arguments[0] == "input":
        assert cli("kill", "s").returncode == 0


def test_help_of_every_command(cli: Cli) -> None:
    listed = cli("--help").stdout.decode()
    for name in COMMANDS:
        result = cli(name, "--help")
        assert result.returncode == 0, result
        assert f"Usage: procd {name}".encode() in result.stdout
        assert f"Examples:\n  procd {name}".encode() in re.sub(rb"\n +", b"\n  ", result.stdout)
        variable = {"attach": "PROCD_DETACH_KEYS", "serve": "PROCD_CONFIG"}.get(name, "")
        assert variable in result.stdout.decode()
        assert f"  {name} " in listed


def test_python_dash_m(cli: Cli) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "procd", "exec", "--", "echo", "x"], env=cli.env(),
        capture_output=True, stdin=subprocess.DEVNULL, check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    assert (result.returncode, result.stdout) == (0, b"x\n")
