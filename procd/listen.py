"""Where clients reach procd: TCP, a unix socket, or sockets that the service manager passes on.

Passed sockets replace the configured ones.
"""

import asyncio
import errno
import os
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from procd.config import ConfigError, ServerConfig
from procd.unix.fd import refuse_passed_fds

# Access for the owner and the group: a client may run anything.
SOCKET_UMASK: Final = 0o117
BACKLOG: Final = 1024
# How many clients asyncio's own loop accepts in a turn, and how often it logs that it can't.
ACCEPTS_A_TURN: Final = 4
# A path that is too long for a socket; Python itself reports that without an errno.
TOO_LONG: Final = (None, errno.ENAMETOOLONG)
# ::1 is missing, which a container's /etc/hosts may name though it has no IPv6.
NO_IPV6: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
# UnixSocket removes its path, and the service manager keeps its own. Source: Python,
# create_unix_server, cleanup_socket.
KEEP_PATH: Final[dict[str, Any]] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}


class UnixSocket:
    """A unix socket, and its path; raises OSError if it can't be made there."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._remove_stale()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        umask = os.umask(SOCKET_UMASK)
        try:
            self.socket.bind(path)
        except OSError:
            self.socket.close()
            raise
        finally:
            os.umask(umask)
        self._identity = self._find()

    def _remove_stale(self) -> None:
        """Remove the socket of a procd that was killed."""
        try:
            if not stat.S_ISSOCK(self._path.lstat().st_mode):
                raise FileExistsError(errno.EEXIST, "something that is no socket is there")
        except FileNotFoundError:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(0)
            try:
                probe.connect(str(self._path))
            except ConnectionRefusedError:
                self._path.unlink()
                return
            except BlockingIOError:
                pass  # somebody listens, and is busy
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))

    def _find(self) -> tuple[int, int] | None:
        try:
            found = self._path.lstat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def remove(self) -> None:
        """Remove the path, unless another file has taken its place."""
        if self._find() == self._identity:
            self._path.unlink()


def tcp_sockets(host: str, port: int) -> list[socket.socket]:
    """Make sockets at all addresses of a host, at one port, not yet listening.

    The event loop would look up the name in a thread, but spawn's change of directory is sound only
    in a single-threaded process.

    Raises:
        ConfigError: `host` is no possible name.
        OSError: there is no such host, or one of its addresses can't be used.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except UnicodeError as exc:  # of IDNA
        raise ConfigError(f"server.host: not the name of a host: {host}") from exc
    bound: list[socket.socket] = []
    lacking: OSError | None = None
    try:
        for family, kind, protocol, _, (name, _, *rest) in found:
            try:
                sock = _bound(family, kind, protocol, (name, port, *rest))
            except OSError as exc:
                if name != "::1" or exc.errno not in NO_IPV6:
                    raise
                lacking = exc
            else:
                bound.append(sock)
                port = sock.getsockname()[1]
        if lacking is not None and not bound:
            raise lacking
    except OSError:
        for sock in bound:
            sock.close()
        raise
    return bound


def _bound(family: int, kind: int, protocol: int, address: tuple[Any, ...]) -> socket.socket:
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:  # 0.0.0.0 has a socket of its own
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def place(sock: socket.socket) -> str:
    """Where a socket listens, for people: HOST:PORT or unix:PATH."""
    address = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        text = address.decode() if isinstance(address, bytes) else address
        return f"unix:{text.replace(chr(0), '@')}"
    host, port = address[:2]
    return f"[{host}]:{port}" if sock.family == socket.AF_INET6 else f"{host}:{port}"


class Listeners:
    """The sockets that procd listens on.

    Attributes:
        places: where, for people.
        port: of the first TCP socket; 0 without one.
    """

    def __init__(self, connect: Callable[[], asyncio.Protocol]) -> None:
        self._connect = connect
        self._unix: UnixSocket | None = None
        self._servers: list[asyncio.Server] = []
        self.places: list[str] = []
        self.port = 0

    async def open(self, config: ServerConfig, passed: list[socket.socket]) -> None:
        """Listen on the sockets that were passed on, or else on those of the configuration.

        Raises:
            ConfigError: there is nothing to listen on, or a key names nothing possible.
            OSError: one can't be listened on; the message says which.
        """
        for sock in passed:
            await self._listen(sock)
        if passed:
            return
        if config.unix:
            try:
                self._unix = UnixSocket(config.unix)
            except OSError as exc:
                if exc.errno in TOO_LONG:
                    raise ConfigError(f"server.unix: {exc.strerror or exc}: {config.unix}") from exc
                raise _with_place(exc, f"unix:{config.unix}") from exc
            await self._listen(self._unix.socket)
        if config.host:
            try:
                for sock in tcp_sockets(config.host, config.port):
                    await self._listen(sock)
            except OSError as exc:
                raise _with_place(exc, f"{config.host}:{config.port}") from exc
        if not self.places:
            raise ConfigError("nothing to listen on: server.host and server.unix are empty")

    async def _listen(self, sock: socket.socket) -> None:
        loop, connect = asyncio.get_running_loop(), self._connect
        if sock.family == socket.AF_UNIX:
            refuse_passed_fds(sock)
            server = await loop.create_unix_server(
                connect, sock=sock, backlog=ACCEPTS_A_TURN, **KEEP_PATH
            )
        else:
            self.port = self.port or sock.getsockname()[1]
            server = await loop.create_server(connect, sock=sock, backlog=ACCEPTS_A_TURN)
        self._servers.append(server)
        with server.sockets[0].dup() as own:
            own.listen(BACKLOG)  # the kernel's queue is longer
        self.places.append(place(server.sockets[0]))

    def close(self) -> None:
        for server in self._servers:
            server.close()
        if self._unix is not None:
            self._unix.remove()


def _with_place(exc: OSError, where: str) -> OSError:
    return OSError(exc.errno, f"cannot listen on {where}: {exc.strerror or exc}")
