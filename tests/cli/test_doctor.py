"""procd doctor."""

import json
import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from procd.config import Config
from procd.doctor import _cgroup, _processes
from procd.process import cgroup
from tests.cli.conftest import Cli
from tests.daemon.daemon import PROCD, Daemon
from tests.passable import let_pass

Found = dict[str, dict[str, str]]


def doctor(cli: Cli, **settings: Any) -> tuple[int, Found]:
    """What the doctor says, by check."""
    result = cli("doctor", "--json", **{"PROCD_SERVER_PORT": "0"} | settings)
    assert result.stderr == b""
    return result.returncode, {each["name"]: each for each in json.loads(result.stdout)}


def program(path: Path, script: str) -> str:
    """A program of the test's."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_a_good_machine(cli: Cli) -> None:
    code, found = doctor(cli)
    assert code == 0
    assert found.keys() == {
        "configuration", "shell", "python", "kernel", "terminals", "process trees", "cgroup",
        "systemd", "port", "socket", "descriptors", "processes", "memory", "logs",
    }  # fmt: skip
    assert "problem" not in {each["state"] for each in found.values()}


def test_for_people(cli: Cli) -> None:
    result = cli("doctor", PROCD_SERVER_PORT="0")
    assert b"ok       shell          /" in result.stdout


LONG = "/" + "b" * 256  # more than a name may have
REFUSED = [
    ({"PROCD_NO_SUCH": "1"}, "PROCD_NO_SUCH: no such setting"),
    ({"PROCD_SERVER_HOST": "0.0.0.0"}, "server.host: 0.0.0.0 is not loopback"),
    ({"PROCD_AUTH_TOKEN": "short"}, "PROCD_AUTH_TOKEN: must have"),
    ({"PROCD_AUTH_TOKEN_FILE": "/no/such"}, "auth.token_file: /no/such: No such file"),
    ({"PROCD_PROCESS_USER": "nobody-at-all"}, "process.user: no such user: nobody-at-all"),
    ({"PROCD_PROCESS_CGROUP": "/tmp"}, "process.cgroup: not the absolute path of a writable "),
    ({"PROCD_PROCESS_SHELL": "sh"}, "process.shell: "),
    ({"PROCD_INTERPRETER_PYTHON": "/no/such"}, "interpreter.python: "),
    ({"PROCD_SERVER_ALLOWED_HOSTS": "http://a"}, "server.allowed_hosts: "),
    ({"PROCD_PROCESS_UMASK": "9"}, "process.umask: "),
    ({"PROCD_SERVER_TRUSTED_PROXIES": "here"}, "server.trusted_proxies: "),
    ({"PROCD_AUDIT_FILE": "/no/such/file"}, "audit.file: can't be written: /no/such/file"),
    ({"PROCD_AUDIT_FILE": "/"}, "audit.file: not a file: /"),
    ({"PROCD_PROCESS_WORK_DIR": LONG}, f"process.work_dir: not a directory: {LONG}"),
    ({"PROCD_PROCESS_CGROUP": LONG}, "process.cgroup: not the absolute path of a writable "),
    ({"PROCD_PROCESS_SHELL": LONG}, "process.shell: not the absolute path of a program: "),
    ({"PROCD_INTERPRETER_PYTHON": LONG}, "interpreter.python: not the absolute path of a program"),
    ({"PROCD_CODE_RUN_PYTHON": LONG}, "code_run.python: not the absolute path of a program: "),
    ({"PROCD_SESSIONS_STATE_DIR": LONG}, "sessions.state_dir: File name too long: "),
    ({"PROCD_AUTH_TOKEN_FILE": LONG}, f"auth.token_file: {LONG}: File name too long"),
    ({"PROCD_AUDIT_FILE": LONG}, f"audit.file: File name too long: {LONG}"),
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


def test_a_cgroup_is_what_serve_uses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is only ours to write to is no cgroup that can be divided, nor is the top one."""
    (tmp_path / "cgroup.controllers").touch()
    monkeypatch.setattr(cgroup, "MOUNT", tmp_path)
    assert (_cgroup(Config()).state == "ok") == (cgroup.find_root("auto") is not None)


def test_a_cgroup_of_an_old_kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Delegation wouldn't help there, and isn't advised."""
    (tmp_path / "cgroup.controllers").touch()
    monkeypatch.setattr(cgroup, "MOUNT", tmp_path)
    (tmp_path / "a").mkdir()
    monkeypatch.setattr(cgroup, "own", lambda: tmp_path / "a")
    finding = _cgroup(Config())
    assert (finding.state, finding.found) == ("warning", f"{tmp_path}/a has no cgroup.kill")
    assert "Linux 5.14" in finding.advice
    (tmp_path / "a/cgroup.kill").touch()
    assert "Delegate=yes" in _cgroup(Config()).advice


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs processes as somebody else")
def test_a_state_directory_that_is_closed_to_the_user(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o700)
    settings = {"PROCD_PROCESS_USER": "1234", "PROCD_SESSIONS_STATE_DIR": f"{tmp_path}/closed"}
    code, found = doctor(cli, **settings)
    assert code == 1
    assert "uid 1234 can't pass through" in found["configuration"]["found"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs processes as somebody else")
def test_a_state_directory_that_is_the_users(cli: Cli, tmp_path: Path) -> None:
    let_pass(tmp_path)
    os.chown(tmp_path, 1234, -1)
    settings = {"PROCD_PROCESS_USER": "1234", "PROCD_SESSIONS_STATE_DIR": str(tmp_path)}
    code, found = doctor(cli, **settings)
    assert code == 1
    told = f"sessions.state_dir: uid 1234 could exchange what is in {tmp_path}"
    assert told in found["configuration"]["found"]


def test_a_path_that_is_no_text(cli: Cli, tmp_path: Path) -> None:
    """It is told as Python has it, in JSON that anybody can read."""
    place = f"{tmp_path}/\udcff"
    os.mkdir(place)
    _, found = doctor(cli, PROCD_SESSIONS_STATE_DIR=place)
    assert place in found["logs"]["found"]


def test_an_audit_file_that_is_a_socket(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        test_what_serve_refuses(
            cli, {"PROCD_AUDIT_FILE": str(path)}, f"audit.file: not a file: {path}"
        )


def test_it_changes_nothing(cli: Cli, tmp_path: Path) -> None:
    code, found = doctor(
        cli, PROCD_AUDIT_FILE=f"{tmp_path}/audit", PROCD_SERVER_UNIX=f"{tmp_path}/socket"
    )
    assert code == 0
    assert found["socket"]["found"] == f"{tmp_path}/socket"
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody else has, who doesn't listen."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        yield other.getsockname()[1]


@pytest.mark.parametrize("host", ["a..b", ".x", "x" * 64, "é" * 70])
def test_a_host_that_is_no_name(cli: Cli, host: str) -> None:
    settings = {"PROCD_SERVER_HOST": host, "PROCD_AUTH_TOKEN": "x" * 20}
    code, found = doctor(cli, **settings)
    assert code == 1
    assert found["port"]["state"] == "problem"
    with pytest.raises(RuntimeError) as caught:
        Daemon.start(env=settings)
    said = str(caught.value)
    assert "server.host: not the name of a host: " in said
    assert "Traceback" not in said


def test_port(cli: Cli, daemon: Daemon, taken: int) -> None:
    code, found = doctor(cli, PROCD_SERVER_PORT=str(taken))
    assert code == 1
    assert found["port"]["found"] == f"127.0.0.1:{taken}: Address already in use"
    assert found["port"]["advice"]
    code, found = doctor(cli, PROCD_SERVER_PORT=str(daemon.port))
    assert code == 0
    assert found["port"]["found"] == f"procd listens on 127.0.0.1:{daemon.port}"
    code, found = doctor(cli, PROCD_SERVER_HOST="")
    assert found["port"]["state"] == "warning"
    assert found["port"]["found"] == "nothing to listen on"
    code, found = doctor(cli, PROCD_SERVER_HOST="", PROCD_SERVER_UNIX="/tmp/none")
    assert found["port"]["found"] == "no TCP, as server.host is empty"


def test_unix_socket(cli: Cli, home: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, message in (
        ("no/socket", "can't be made"),
        ("file", "is no socket"),
        ("long" * 30, "is too long"),
        (LONG[1:], "is too long"),
    ):
        code, found = doctor(cli, PROCD_SERVER_UNIX=f"{tmp_path}/{path}")
        assert code == 1
        assert found["socket"]["found"] == f"{tmp_path}/{path} {message}"
    path = f"{tmp_path}/socket"
    with Daemon.start(env={"HOME": home, "PROCD_SERVER_UNIX": path}):
        code, found = doctor(cli, PROCD_SERVER_UNIX=path)
    assert found["socket"]["found"] == f"procd listens on {path}"
    assert code == 0


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exit 3", "fails with exit code 3"),
        ('test "$2" = pass', "is older than 3.8"),
        ("kill -9 $$", "fails with exit code -9"),
    ],
)
def test_a_python_that_is_none(cli: Cli, tmp_path: Path, script: str, message: str) -> None:
    path = program(tmp_path / "python3", script)
    code, found = doctor(cli, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert code == 0
    assert found["python"]["state"] == "warning"
    assert found["python"]["found"] == f"{path} {message}"
    for name in ("INTERPRETER", "CODE_RUN"):
        code, found = doctor(cli, **{f"PROCD_{name}_PYTHON": f"{tmp_path}/none"})
        told = f"{tmp_path}/none can't be started: No such file or directory"
        assert found["python"]["found"] == told


def test_a_shell_that_fails(cli: Cli, tmp_path: Path) -> None:
    path = program(tmp_path / "sh", "exit 4")
    code, found = doctor(cli, PROCD_PROCESS_SHELL=path)
    assert code == 1
    assert found["shell"]["found"] == f"{path} fails with exit code 4"


def test_a_shell_of_another_language(cli: Cli, tmp_path: Path) -> None:
    """fish and tcsh take the `--` before a script for the script."""
    path = program(tmp_path / "fish", 'test "$2" != -- || exit 127')
    code, found = doctor(cli, PROCD_PROCESS_SHELL=path)
    assert code == 1
    assert found["shell"]["found"] == f"{path} fails with exit code 127"


@pytest.fixture
def few() -> Iterator[int]:
    """A limit of processes."""
    before = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (1000, before[1]))
    yield 1000
    resource.setrlimit(resource.RLIMIT_NPROC, before)


@pytest.mark.skipif(os.geteuid() != 0, reason="is about root")
@pytest.mark.parametrize(("outside", "state"), [(0, "ok"), (1000, "warning")])
def test_a_limit_of_processes_holds_the_root_of_a_rootless_container(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, few: int, outside: int, state: str
) -> None:
    """Who is user 1000 outside, and not who is root there as well."""
    (tmp_path / "uid_map").write_text(f"         0 {outside:10}          1\n")
    monkeypatch.setattr("procd.doctor.UID_MAP", tmp_path / "uid_map")
    finding = _processes(Config())
    assert finding.state == state
    assert (f"up to {few}, by RLIMIT_NPROC" == finding.found) == (state == "warning")


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
