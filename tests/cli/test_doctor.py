"""procd doctor."""

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.daemon.daemon import PROCD, Daemon
from tests.passable import let_pass

Found = dict[str, dict[str, str]]


def doctor(cli: Cli, **settings: str) -> tuple[int, Found]:
    """Run it; returns its exit code, and what it found by check."""
    result = cli("doctor", "--json", stdin=b"", **({"PROCD_SERVER_PORT": "0"} | settings))
    assert result.stderr == b""
    return result.returncode, {each["name"]: each for each in json.loads(result.stdout)}


def test_a_good_machine(cli: Cli, tmp_path: Path) -> None:
    code, found = doctor(
        cli, PROCD_AUDIT_FILE=f"{tmp_path}/audit", PROCD_SERVER_UNIX=f"{tmp_path}/socket"
    )
    assert code == 0
    assert found.keys() == {
        "configuration", "shell", "python", "kernel", "terminals", "process trees", "cgroup",
        "systemd", "port", "socket", "descriptors", "processes", "memory", "logs",
    }  # fmt: skip
    assert "problem" not in {each["state"] for each in found.values()}
    assert found["socket"]["found"] == f"{tmp_path}/socket"
    assert list(tmp_path.iterdir()) == []  # it changes nothing
    result = cli("doctor", PROCD_SERVER_PORT="0")
    assert b"ok       shell          /" in result.stdout


LONG = "/" + "b" * 256  # more than a name may have
REFUSED = [
    ({"PROCD_NO_SUCH": "1"}, "PROCD_NO_SUCH: no such setting"),
    ({"PROCD_SERVER_HOST": "0.0.0.0"}, "server.host: 0.0.0.0 is not loopback"),
    ({"PROCD_AUTH_TOKEN_FILE": "/no/such"}, "auth.token_file: /no/such: No such file"),
    ({"PROCD_PROCESS_CGROUP": "/tmp"}, "process.cgroup: not the absolute path of a writable "),
    ({"PROCD_SERVER_TRUSTED_PROXIES": "here"}, "server.trusted_proxies: "),
    ({"PROCD_AUDIT_FILE": "/no/such/file"}, "audit.file: can't be written: /no/such/file"),
    ({"PROCD_AUDIT_FILE": LONG}, f"audit.file: File name too long: {LONG}"),
    ({"PROCD_CODE_RUN_PYTHON": LONG}, "code_run.python: not the absolute path of a program: "),
    ({"PROCD_SESSIONS_STATE_DIR": LONG}, "sessions.state_dir: File name too long: "),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_what_serve_refuses(cli: Cli, settings: dict[str, str], message: str) -> None:
    code, found = doctor(cli, **settings)
    assert code == 1
    assert found["configuration"]["state"] == "problem"
    assert found["configuration"]["found"].startswith(message)
    with pytest.raises(RuntimeError) as caught:
        Daemon.start(env=settings)
    assert f"procd: {message}" in str(caught.value)


def test_an_audit_file_that_is_a_socket(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        message = f"audit.file: not a file: {path}"
        test_what_serve_refuses(cli, {"PROCD_AUDIT_FILE": str(path)}, message)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs processes as another user")
@pytest.mark.parametrize("closed", [True, False])
def test_a_state_directory_that_the_user_cannot_pass_or_owns(
    cli: Cli, tmp_path: Path, closed: bool
) -> None:
    place = tmp_path
    if closed:
        place = tmp_path / "closed"
        place.mkdir(mode=0o700)
    else:
        let_pass(tmp_path)
        os.chown(tmp_path, 1234, -1)
    code, found = doctor(cli, PROCD_PROCESS_USER="1234", PROCD_SESSIONS_STATE_DIR=str(place))
    assert code == 1
    message = "can't pass through" if closed else f"could exchange what is in {tmp_path}"
    assert f"uid 1234 {message}" in found["configuration"]["found"]


def test_a_path_that_is_not_utf_8(cli: Cli, tmp_path: Path) -> None:
    place = f"{tmp_path}/\udcff"
    os.mkdir(place)
    _, found = doctor(cli, PROCD_SESSIONS_STATE_DIR=place)
    assert place in found["logs"]["found"]


@pytest.mark.parametrize("host", ["a..b", "é" * 70])
def test_a_host_that_is_no_name(cli: Cli, host: str) -> None:
    settings = {"PROCD_SERVER_HOST": host, "PROCD_AUTH_TOKEN": "x" * 20}
    code, found = doctor(cli, **settings)
    assert code == 1
    assert found["port"]["state"] == "problem"
    with pytest.raises(RuntimeError, match="not the name of a host: "):
        Daemon.start(env=settings)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that is taken, but where nobody listens."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        yield other.getsockname()[1]


def test_port(cli: Cli, daemon: Daemon, taken: int) -> None:
    for settings, code, message in (
        ({"PORT": str(taken)}, 1, f"127.0.0.1:{taken}: Address already in use"),
        ({"PORT": str(daemon.port)}, 0, f"procd listens on 127.0.0.1:{daemon.port}"),
        ({"HOST": ""}, 0, "nothing to listen on"),
        ({"HOST": "", "UNIX": "/tmp/none"}, 0, "no TCP, as server.host is empty"),
    ):
        found = doctor(cli, **{f"PROCD_SERVER_{name}": value for name, value in settings.items()})
        assert (found[0], found[1]["port"]["found"]) == (code, message)


def test_unix_socket(cli: Cli, home: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, message in (
        ("no/socket", "can't be made"),
        ("file", "is no socket"),
        ("long" * 30, "is too long"),
    ):
        code, found = doctor(cli, PROCD_SERVER_UNIX=f"{tmp_path}/{path}")
        assert code == 1
        assert found["socket"]["found"] == f"{tmp_path}/{path} {message}"
    path = f"{tmp_path}/socket"
    with Daemon.start(env={"HOME": home, "PROCD_SERVER_UNIX": path}):
        code, found = doctor(cli, PROCD_SERVER_UNIX=path)
    assert found["socket"]["found"] == f"procd listens on {path}"
    assert code == 0


def program(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exit 3", "fails with exit code 3"),
        ('test "$2" = pass', "is older than 3.8"),
        ("kill -9 $$", "fails with exit code -9"),
        (None, "can't be started: No such file or directory"),
    ],
)
def test_a_python_that_does_not_work(
    cli: Cli, tmp_path: Path, script: str | None, message: str
) -> None:
    path = f"{tmp_path}/python3"
    settings = {"PROCD_CODE_RUN_PYTHON": path}
    if script is not None:
        program(tmp_path / "python3", script)
        settings = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    _, found = doctor(cli, **settings)
    assert found["python"]["state"] == "warning"
    assert found["python"]["found"] == f"{path} {message}"


@pytest.mark.parametrize(
    ("script", "exit_code"),
    [("exit 4", 4), ('test "$2" != -- || exit 127', 127)],  # the second like fish and tcsh
)
def test_a_shell_that_does_not_work(cli: Cli, tmp_path: Path, script: str, exit_code: int) -> None:
    path = program(tmp_path / "shell", script)
    code, found = doctor(cli, PROCD_PROCESS_SHELL=path)
    assert code == 1
    assert found["shell"]["found"] == f"{path} fails with exit code {exit_code}"


@pytest.mark.parametrize(
    ("limit", "check", "state", "found"),
    [
        ("ulimit -n 100", "descriptors", "problem", "up to 100"),
        ("ulimit -n 1000", "descriptors", "warning", "up to 1000"),
        ("ulimit -v 250000", "memory", "warning", "up to 244 MiB, 61 of them for output"),
        ("ulimit -f 1000", "logs", "warning", "/tmp, files of up to 512000 bytes"),
        (
            "prlimit --pid $$ --rttime=1000:2000",
            "process trees",
            "warning",
            "the hard RLIMIT_RTTIME is 2000 us",
        ),
    ],
)
def test_limits(cli: Cli, limit: str, check: str, state: str, found: str) -> None:
    script = f'{limit}; exec "$@" doctor --json'
    process = cli.start(
        "-c", script, "sh", *PROCD, command=("sh",),
        settings={"PROCD_SERVER_PORT": "0", "TMPDIR": "/tmp"},
    )  # fmt: skip
    output, _ = process.communicate()
    finding = next(each for each in json.loads(output) if each["name"] == check)
    assert (finding["state"], finding["found"]) == (state, found)
    assert finding["advice"]
