"""Where procd listens: unix sockets, and sockets that a service manager passes on."""

import os
import select
import shutil
import signal
import socket
import stat
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from procd.listen import tcp_sockets
from tests.capabilities import needs_namespaces
from tests.conftest import passing_can_be_refused
from tests.daemon.conftest import Start
from tests.daemon.daemon import PATIENCE_S, PROCD, environment, eventually
from tests.daemon.test_command_line import run

ACTIVATE = shutil.which("systemd-socket-activate")


async def version(connector: aiohttp.BaseConnector, url: str = "http://procd") -> int:
    async with (
        aiohttp.ClientSession(connector=connector) as http,
        http.get(f"{url}/version") as reply,
    ):
        return reply.status


async def terminal_works(path: Path) -> bool:
    """Whether a terminal can be used over a unix socket."""
    connector = aiohttp.UnixConnector(str(path))
    async with (
        aiohttp.ClientSession(connector=connector) as http,
        http.ws_connect("http://procd/process/pty/create-connect?id=t") as ws,
    ):
        assert (await ws.receive_json())["status"] == "connected"
        await ws.send_bytes(b"expr 6 '*' 7; exit\n")
        output = b""
        while (message := await ws.receive(timeout=PATIENCE_S)).type is aiohttp.WSMsgType.BINARY:
            output += message.data
        return b"42\r\n" in output


async def test_unix_socket_beside_tcp(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "procd.sock"
    daemon = start(env={"PROCD_SERVER_UNIX": str(path)})
    assert daemon.notify.receive()["STATUS"] == (
        f"listening on unix:{path}, 127.0.0.1:{daemon.port}"
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert await version(aiohttp.UnixConnector(str(path))) == 200
    assert await version(aiohttp.TCPConnector(), daemon.url) == 200
    assert await terminal_works(path)
    assert daemon.stop() == 0
    assert not path.exists()
    assert "Traceback" not in daemon.stderr()


async def test_unix_socket_alone(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "procd.sock"
    daemon = start(env={"PROCD_SERVER_UNIX": str(path), "PROCD_SERVER_HOST": ""})
    assert daemon.port == 0
    assert f"anybody who reaches unix:{path} may do anything" in daemon.stderr()
    assert daemon.notify.receive()["STATUS"] == f"listening on unix:{path}"
    assert await version(aiohttp.UnixConnector(str(path))) == 200
    assert daemon.stop() == 0


@passing_can_be_refused
async def test_descriptors_are_refused(start: Start, tmp_path: Path) -> None:
    """Whoever may connect, with or without a token, could have procd close what takes years."""
    path = tmp_path / "procd.sock"
    daemon = start(env={"PROCD_SERVER_UNIX": str(path)})
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        with pytest.raises(PermissionError):
            socket.send_fds(client, [b"GET /version HTTP/1.1\r\n"], [0])
    assert await version(aiohttp.UnixConnector(str(path))) == 200
    assert daemon.stop() == 0


def attached(path: Path, session_id: str) -> socket.socket:
    """A connection to a new terminal, by a client that reads nothing more."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(PATIENCE_S)
    connection.connect(str(path))
    connection.sendall(
        f"GET /process/pty/create-connect?id={session_id} HTTP/1.1\r\nHost: localhost\r\n"
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    assert connection.recv(12) == b"HTTP/1.1 101"
    return connection


def test_who_is_not_read_is_not_dead(start: Start, tmp_path: Path) -> None:
    """A client that only types, while nobody reads what it has typed, leaves pings unread."""
    path, shell = tmp_path / "procd.sock", tmp_path / "shell"
    shell.write_text("#!/bin/sh\nstty raw -echo; exec sleep 1000\n")
    shell.chmod(0o755)
    daemon = start(
        env={
            "PROCD_SERVER_UNIX": str(path),
            "PROCD_SERVER_PING_S": "0.1",
            "PROCD_SERVER_DEAD_PEER_S": "0.4",
            "PROCD_PROCESS_SHELL": str(shell),
        }
    )
    message = b"\x82\xff" + (64 << 10).to_bytes(8) + bytes(4 + (64 << 10))
    with attached(path, "a") as typing:
        typing.settimeout(0.2)
        with suppress(TimeoutError):  # its input is no longer read then
            while True:
                typing.sendall(message)
        for session_id in ("b", "c"):  # each takes the time in which one is found dead
            with attached(path, session_id) as silent:
                assert eventually(lambda: _is_over(silent))
        assert not _is_over(typing)
    assert daemon.stop() == 0


def _is_over(connection: socket.socket) -> bool:
    """Whether the server has closed, without reading what there is to read."""
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    return bool(poll.poll(0))


async def test_stale_unix_socket_is_replaced(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "procd.sock"
    first = start(env={"PROCD_SERVER_UNIX": str(path)})
    first.stop(signal.SIGKILL)
    assert path.exists()
    second = start(env={"PROCD_SERVER_UNIX": str(path)})
    assert await version(aiohttp.UnixConnector(str(path))) == 200
    assert second.stop() == 0


async def test_living_unix_socket_is_left_alone(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "procd.sock"
    first = start(env={"PROCD_SERVER_UNIX": str(path)})
    with pytest.raises(RuntimeError, match=f"cannot listen on unix:{path}: Address already in use"):
        start(env={"PROCD_SERVER_UNIX": str(path)})
    assert await version(aiohttp.UnixConnector(str(path))) == 200
    path.unlink()
    second = start(env={"PROCD_SERVER_UNIX": str(path)})
    assert first.stop() == 0
    assert await version(aiohttp.UnixConnector(str(path))) == 200, "not its own to remove"
    assert second.stop() == 0


@pytest.mark.parametrize(
    ("path", "reason", "code"),
    [
        ("here/file", "something that is no socket is there", 1),
        ("here", "something that is no socket is there", 1),
        ("here/file/procd.sock", "Not a directory", 1),
        ("nowhere/procd.sock", "No such file or directory", 1),
        ("here/" + "long" * 30, "AF_UNIX path too long", 2),
        ("here/" + "long" * 300, "File name too long", 2),
    ],
)
def test_bad_place_for_a_unix_socket(tmp_path: Path, path: str, reason: str, code: int) -> None:
    """Only where there can never be one, no restart helps."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "file").touch()
    result = run("serve", "--port", "0", PROCD_SERVER_UNIX=str(tmp_path / path))
    assert (result.returncode, result.stdout) == (code, "")
    assert "cannot listen" in result.stderr
    assert reason in result.stderr
    assert str(tmp_path / path) in result.stderr
    assert "Traceback" not in result.stderr
    assert (tmp_path / "here" / "file").is_file()


def test_nothing_to_listen_on() -> None:
    result = run("serve", PROCD_SERVER_HOST="")
    assert (result.returncode, result.stdout) == (2, "")
    assert "nothing to listen on" in result.stderr


def passing(*sockets: socket.socket, names: str) -> tuple[str, ...]:
    """A command that gives sockets to procd as a service manager does."""
    moves = [f"{index}<&{sock.fileno()}" for index, sock in enumerate(sockets, 3)]
    variables = f"LISTEN_PID=$$ LISTEN_FDS={len(sockets)} LISTEN_FDNAMES={names}"
    script = f'exec {" ".join(moves)}; {variables} exec "$@"'
    return ("bash", "-c", script, "bash", *PROCD)


async def test_passed_sockets(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "passed.sock"
    ignored = tmp_path / "ignored.sock"
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        unix.bind(str(path))
        unix.listen()
        port = tcp.getsockname()[1]
        daemon = start(
            command=passing(tcp, unix, names="web:local"),
            pass_fds=(tcp.fileno(), unix.fileno()),
            env={"PROCD_SERVER_UNIX": str(ignored), "PROCD_SERVER_HOST": ""},
        )
        assert daemon.port == port
        assert f"anybody who reaches 127.0.0.1:{port}, unix:{path} may" in daemon.stderr()
        assert daemon.notify.receive()["STATUS"] == f"listening on 127.0.0.1:{port}, unix:{path}"
        assert await version(aiohttp.TCPConnector(), daemon.url) == 200
        assert await version(aiohttp.UnixConnector(str(path))) == 200
        assert await terminal_works(path)
        assert not ignored.exists()
        headers = {"Host": "evil.example"}
        connector = aiohttp.TCPConnector()
        async with (
            aiohttp.ClientSession(connector=connector) as http,
            http.get(f"{daemon.url}/version", headers=headers) as reply,
        ):
            assert reply.status == 403, "a page whose own name leads here"
        assert daemon.stop() == 0
        assert path.exists(), "it belongs to who has passed it on"


async def test_passed_to_somebody_else(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as tcp:
        daemon = start(
            env={"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}, pass_fds=(tcp.fileno(),)
        )
        assert daemon.port != tcp.getsockname()[1]
        assert daemon.stop() == 0


def refusal_of(passed: socket.socket) -> str:
    """What procd says of a socket that it doesn't take, when it ends as the unit expects it to."""
    result = subprocess.run(
        [*passing(passed, names="odd"), "serve"],
        pass_fds=(passed.fileno(),),
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (result.returncode, result.stdout) == (2, "")
    return result.stderr


def test_what_cannot_be_listened_on_is_refused() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        assert "descriptor 3 (odd): not a stream socket" in refusal_of(datagrams)


def test_a_passed_socket_that_is_open_to_the_network_is_refused() -> None:
    with socket.create_server(("", 0)) as everywhere:
        message = refusal_of(everywhere)
    assert "the socket that was passed on listens on 0.0.0.0" in message
    assert "procd token" in message


def accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(str(path)) == 0


@pytest.mark.skipif(ACTIVATE is None, reason="systemd-socket-activate is not installed")
async def test_socket_activation_with_the_real_tool(tmp_path: Path) -> None:
    path = tmp_path / "activated.sock"
    assert ACTIVATE is not None
    with subprocess.Popen(
        [ACTIVATE, "--listen", str(path), "--fdname=procd", *PROCD, "serve"],
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            assert eventually(lambda: accepts(path))  # it is there before anybody listens
            assert await version(aiohttp.UnixConnector(str(path))) == 200
            process.terminate()
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()


async def test_one_thread(start: Start, http: aiohttp.ClientSession) -> None:
    """No thread but the event loop's is there, before a request and after some."""
    daemon = start("--host", "localhost")
    tasks = Path(f"/proc/{daemon.pid}/task")
    assert len(list(tasks.iterdir())) == 1
    async with http.post(f"{daemon.url}/process/execute", json={"command": "true"}) as reply:
        assert (await reply.json())["exitCode"] == 0
    assert len(list(tasks.iterdir())) == 1


def two_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every name lead to two addresses of this machine."""
    look_up = socket.getaddrinfo

    def found(host: str, port: int, **hints: Any) -> list[Any]:
        return [
            entry for name in ("127.0.0.1", "127.0.0.2") for entry in look_up(name, port, **hints)
        ]

    monkeypatch.setattr(socket, "getaddrinfo", found)


def test_all_addresses_at_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    two_addresses(monkeypatch)
    first, second = tcp_sockets("twofold", 0)
    with first, second:
        (name, port), (other_name, other_port) = first.getsockname(), second.getsockname()
        assert (name, other_name) == ("127.0.0.1", "127.0.0.2")
        assert port == other_port != 0


@needs_namespaces
def test_localhost_without_ipv6(start: Start, tmp_path: Path) -> None:
    """As in a container, whose /etc/hosts has ::1 all the same. A network that is down has none."""
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n::1 localhost\n::1 only6\n")
    script = f'mount --bind {hosts} /etc/hosts; exec "$@"'
    command = ("unshare", "--net", "--mount", "sh", "-c", script, "sh", *PROCD)
    daemon = start("--host", "localhost", command=command)
    assert daemon.port
    assert daemon.stop() == 0
    with pytest.raises(RuntimeError, match="cannot listen on only6:0: Cannot assign"):
        start("--host", "only6", command=command, env={"PROCD_AUTH_TOKEN": "x" * 20})


def test_an_address_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is listened on then, nor kept."""
    two_addresses(monkeypatch)
    with socket.create_server(("127.0.0.2", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            tcp_sockets("twofold", port)
        socket.create_server(("127.0.0.1", port)).close()
