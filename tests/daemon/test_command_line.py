"""What the command line accepts, and how procd refuses to start."""

import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import pytest

from procd import __version__
from tests.daemon.conftest import Start
from tests.daemon.daemon import PATIENCE_S, PROCD, Daemon, environment


def run(
    *arguments: str, command: Sequence[str] = PROCD, **settings: str
) -> "subprocess.CompletedProcess[str]":
    """Run procd until it ends by itself."""
    return subprocess.run(
        [*command, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment(**settings),
        timeout=PATIENCE_S,
        check=False,
    )


def refusal(result: "subprocess.CompletedProcess[str]") -> str:
    """The line with which procd refused its configuration."""
    assert result.returncode == 2, result
    assert result.stdout == ""
    assert result.stderr.startswith("procd: "), result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr


def serve_refusal(*arguments: str, command: Sequence[str] = PROCD, **settings: str) -> str:
    """The line with which `procd serve` refuses its configuration."""
    return refusal(run("serve", "--port", "0", *arguments, command=command, **settings))


def test_version() -> None:
    result = run("--version")
    assert result.returncode == 0
    assert result.stdout == f"procd, version {__version__}\n"
    assert result.stderr == ""


@pytest.mark.parametrize("most", [9, 99])
def test_too_few_descriptors(most: int) -> None:
    command = ("sh", "-c", f'ulimit -n {most}; exec "$@"', "sh", *PROCD)
    assert serve_refusal(command=command) == (
        f"procd: up to {most} descriptors are too few:"
        " raise the hard limit (ulimit -Hn, LimitNOFILE=) to 100 or more\n"
    )


async def test_the_fewest_descriptors(start: Start, http: aiohttp.ClientSession) -> None:
    daemon = start(command=("sh", "-c", 'ulimit -n 100; exec "$@"', "sh", *PROCD))
    async with http.post(f"{daemon.url}/process/execute", json={"command": "echo on"}) as reply:
        assert (await reply.json())["result"] == "on\n"


async def test_free_port(start: Start, http: aiohttp.ClientSession) -> None:
    one, other = start(), start()
    assert one.port != other.port
    for daemon in (one, other):
        async with http.get(f"{daemon.url}/version") as reply:
            assert await reply.json() == {"version": f"v{__version__}"}


async def test_log_as_json(start: Start, http: aiohttp.ClientSession) -> None:
    daemon = start(env={"PROCD_LOG_FORMAT": "json", "PROCD_LOG_LEVEL": "debug"})
    headers = {"X-Request-Id": "mine"}
    async with http.get(f"{daemon.url}/version", headers=headers) as reply:
        assert reply.status == 200
    assert daemon.stop() == 0
    lines = [json.loads(line) for line in daemon.stderr().splitlines()]
    (line,) = [line for line in lines if line["message"] == "request"]
    assert (line["request_id"], line["route"], line["status"]) == ("mine", "/version", 200)


async def test_host(start: Start, http: aiohttp.ClientSession) -> None:
    daemon = start("--host", "127.0.0.2")
    async with http.get(f"http://127.0.0.2:{daemon.port}/version") as reply:
        assert reply.status == 200
    with pytest.raises(aiohttp.ClientConnectorError):
        await http.get(f"http://127.0.0.1:{daemon.port}/version")


async def test_config_file(start: Start, http: aiohttp.ClientSession, tmp_path: Path) -> None:
    file = tmp_path / "procd.toml"
    file.write_text(
        f"[server]\nport = 1\n\n[process]\nwork_dir = '{tmp_path}'\n\n"
        "[execute]\nmax_output_bytes = 2048\n"
    )
    # The command line wins over the file (--port 0), and so does a variable.
    for arguments, settings in ((["--config", str(file)], {}), ([], {"PROCD_CONFIG": str(file)})):
        daemon = start(*arguments, env=settings | {"PROCD_EXECUTE_MAX_OUTPUT_BYTES": "4096"})
        async with http.get(f"{daemon.url}/work-dir") as reply:
            assert await reply.json() == {"dir": str(tmp_path)}
        body = {"command": "printf %05000d 0"}
        async with http.post(f"{daemon.url}/process/execute", json=body) as reply:
            document = await reply.json()
        assert document["truncated"] is True
        assert document["result"].count("0") >= 4096


async def pwd(http: aiohttp.ClientSession, daemon: Daemon, **fields: str) -> str:
    document = {"command": "pwd"} | fields
    async with http.post(f"{daemon.url}/process/execute", json=document) as reply:
        result: str = (await reply.json())["result"]
        return result.rstrip("\n")


async def test_a_relative_directory_is_relative_to_the_work_dir(
    start: Start, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """But settings are relative to where procd was started."""
    here, work = tmp_path / "here", tmp_path / "work"
    for directory in (here, work / "sub"):
        directory.mkdir(parents=True)
    (here / "procd.toml").write_text(
        "[process]\nwork_dir = '../work'\n[audit]\nfile = 'audit'\n[log]\nlevel = 'error'\n"
    )
    at_home = {"HOME": str(work), "DAYTONA_USER_HOME_AS_WORKDIR": "true"}
    for daemon in (
        start(cwd=str(here), env=at_home),
        start("--config", "procd.toml", cwd=str(here)),
    ):
        async with http.get(f"{daemon.url}/work-dir") as reply:
            assert await reply.json() == {"dir": str(work)}
        assert await pwd(http, daemon) == str(work)
        assert await pwd(http, daemon, cwd=".") == str(work)
        assert await pwd(http, daemon, cwd="sub") == str(work / "sub")
    assert (here / "audit").exists()
    assert "READY" in daemon.notify.receive()
    os.kill(daemon.pid, signal.SIGHUP)
    assert "RELOADING" in daemon.notify.receive()
    assert "not reloaded" not in daemon.notify.receive()["STATUS"]


async def test_the_example_is_a_valid_config(start: Start) -> None:
    start("--config", str(Path(__file__).parents[2] / "config.example.toml"))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        pytest.param("[server]\nprot = 1\n", "server.prot", id="unknown key"),
        pytest.param("[servers]\nport = 1\n", "servers", id="unknown section"),
        pytest.param("[server]\nport = 'x'\n", "server.port", id="text for an integer"),
        pytest.param("[cors]\nallowed_origins = ['a']\n", "cors.allowed_origins", id="no origin"),
        pytest.param("[server]\nallowed_hosts = ['*.a']\n", "server.allowed_hosts", id="pattern"),
        pytest.param(
            "[server]\nallowed_hosts = ['::1']\n", "server.allowed_hosts", id="no brackets"
        ),
        pytest.param("[server\n", "procd.toml", id="not TOML"),
    ],
)
def test_a_bad_config_file_is_refused(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "procd.toml"
    file.write_text(text)
    message = serve_refusal("--config", str(file)).replace(f"{tmp_path}/", "")
    assert f" {named}:" in message


def test_a_missing_config_file_is_refused(tmp_path: Path) -> None:
    file = str(tmp_path / "nowhere.toml")
    assert file in serve_refusal("--config", file)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PROCD_SERVER_PROT", "1"),
        ("PROCD_SERVER_PORT", "x"),
        ("PROCD_", "1"),
    ],
)
def test_a_bad_variable_is_refused(variable: str, value: str) -> None:
    assert f" {variable}:" in serve_refusal(**{variable: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("process.work_dir", "/nowhere"),
        ("process.shell", "/etc/passwd"),
        ("process.shell", "sh"),
        ("interpreter.python", "python3"),
        ("code_run.python", "/nowhere"),
        ("process.cgroup", "/nowhere"),
        ("process.cgroup", "."),
        ("sessions.state_dir", "/nowhere"),
        ("sessions.state_dir", "/proc"),  # root may write to it, but nothing can be made there
    ],
)
def test_a_path_that_cannot_be_used_is_refused(key: str, value: str) -> None:
    message = serve_refusal(**{f"PROCD_{key.replace('.', '_').upper()}": value})
    assert message.startswith(f"procd: {key}: ")
    assert message.endswith(f"{value}\n")


def test_bad_values_of_other_variables_are_refused() -> None:
    message = serve_refusal(STATE_DIRECTORY="/nowhere")
    assert message.startswith("procd: sessions.state_dir: ")
    message = serve_refusal(HOME="/nowhere", DAYTONA_USER_HOME_AS_WORKDIR="true")
    assert message == "procd: process.work_dir: No such file or directory: /nowhere\n"


@pytest.mark.parametrize(
    "arguments",
    [("serve", "--port", "65536"), ("serve", "--port", "x"), ("serve", "--prot", "1"), ("sing",)],
)
def test_bad_arguments_are_refused(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.returncode == 2
    assert arguments[-1 if arguments[1:2] != ("--prot",) else 1] in result.stderr


def test_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("serve", "--port", str(port))
    assert result.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="util-linux is missing")
def test_a_limit_that_cannot_be_set_is_refused() -> None:
    limit = "nofile=2000000000"
    message = serve_refusal(PROCD_PROCESS_RLIMITS=limit)
    assert message.startswith("procd: process.rlimits: ")
