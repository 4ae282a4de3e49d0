"""Where clients reach procd: TCP, a unix socket, or the sockets that the service manager passes on.

Passed sockets take the place of the configured ones: whoever set them up has said where to listen.
"""

import asyncio
import errno
import logging
import os
import socket
import stat
import sys
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from procd.config import ConfigError, ServerConfig
from procd.tasks import Tasks
from procd.unix.fd import refuse_passed_fds

log = logging.getLogger(__name__)

# For its owner and its group: who may connect may run anything.
SOCKET_UMASK: Final = 0o117
BACKLOG: Final = 1024
# What asyncio's own loop accepts in a turn: also how often it fails, aloud, without a descriptor.
BATCH: Final = 4
# How long after a want of memory all is listened on anew.
RENEW_S: Final = 0.5
# Why no socket can ever be at a path: it is too long, which Python says itself, without a number.
# All else may be mended, as a directory may come that isn't there yet.
TOO_LONG: Final = (None, errno.ENAMETOOLONG)
# Why ::1 can't be had, which a container's /etc/hosts may have though it is without IPv6.
NO_IPV6: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
# A socket's path goes with who made it: UnixSocket, or the service manager, which keeps its own for
# the next procd. Left alone, the event loops of Python 3.13 and later remove either.
# Source: Python, asyncio "Event Loop", create_unix_server, cleanup_socket.
KEEP_PATH: Final[dict[str, Any]] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}


class UnixSocket:
    """A unix socket at a path, which goes with it.

    Raises:
        OSError: it can't be made there, or somebody answers there.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._remove_stale()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        umask = os.umask(SOCKET_UMASK)  # one thread: nobody else makes a file meanwhile
        try:
            self.socket.bind(path)
        except OSError:
            self.socket.close()
            raise
        finally:
            os.umask(umask)
        self._identity = self._found()

    def _remove_stale(self) -> None:
        """Make room where a procd that was killed has left its socket."""
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
                pass  # it listens, and has its hands full
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))

    def _found(self) -> tuple[int, int] | None:
        try:
            found = self._path.lstat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def remove(self) -> None:
        """Remove it from the file system, unless another has taken its place."""
        if self._found() == self._identity:
            self._path.unlink()


def tcp_sockets(host: str, port: int) -> list[socket.socket]:
    """Sockets at all addresses of a host: at one port, and not yet listening.

    The one for ::1 may be missing beside others, where there is no IPv6.

    Names are looked up here and not by the event loop, which would keep threads for it. One
    thread is what makes spawn's change of directory sound, and the kernel gives the others, if
    there are any, every SIGCHLD that comes while the first waits for an exec.

    Raises:
        ConfigError: no host can have that name.
        OSError: there is no such host, or one of its addresses can't be had.
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


class Site(web.BaseSite):
    """A site on a socket that is there.

    aiohttp's own have no room for a unix socket that exists already, and accept as many clients
    in a turn as the kernel may queue.
    """

    __slots__ = ("_socket",)

    def __init__(self, runner: web.BaseRunner, sock: socket.socket) -> None:
        super().__init__(runner, backlog=BATCH)
        self._socket = sock

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return place(self._socket)

    async def start(self) -> None:
        """Listen."""
        await super().start()
        self._server = await self._listen(self._socket)

    async def renew(self) -> None:
        """Listen anew at the same socket, unless that is over."""
        if self._server is None or self not in self._runner.sites:
            return
        old, sock = self._server, self._socket.dup()
        try:
            self._server = await self._listen(sock)
        except BaseException:
            sock.close()
            raise
        self._socket = sock
        old.close()

    async def _listen(self, sock: socket.socket) -> asyncio.Server:
        loop, factory = asyncio.get_running_loop(), self._runner.server
        assert factory is not None
        if sock.family == socket.AF_UNIX:  # else uvloop takes it for a TCP socket
            refuse_passed_fds(sock)
            server = await loop.create_unix_server(factory, sock=sock, backlog=BATCH, **KEEP_PATH)
        else:
            server = await loop.create_server(factory, sock=sock, backlog=BATCH)
        for listening in server.sockets:
            with listening.dup() as own:
                own.listen(BACKLOG)  # the kernel's queue is another matter
        return server


def place(sock: socket.socket) -> str:
    """Where a socket listens, for people: HOST:PORT or unix:PATH."""
    address = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        text = address.decode() if isinstance(address, bytes) else address
        return f"unix:{text.replace(chr(0), '@')}"
    host, port = address[:2]
    return f"[{host}]:{port}" if sock.family == socket.AF_INET6 else f"{host}:{port}"


class Listeners:
    """All that is listened on."""

    def __init__(self, runner: web.AppRunner) -> None:
        self._runner = runner
        self._unix: UnixSocket | None = None
        self._sites: list[Site] = []
        self._tasks = Tasks()
        self._renewal: asyncio.TimerHandle | None = None
        self.places: list[str] = []
        self.port = 0  # of the first TCP socket; 0 without one

    async def open(self, config: ServerConfig, passed: list[socket.socket]) -> None:
        """Listen on the sockets that were passed, or else on those of the configuration.

        Raises:
            ConfigError: there is nothing to listen on, `server.unix` is too long for a socket, or
                `server.host` is no name.
            OSError: one can't be listened on; the message says which.
        """
        for sock in passed:
            await self._start(sock)
        if passed:
            return
        if config.unix:
            try:
                self._unix = UnixSocket(config.unix)
            except OSError as exc:
                if exc.errno in TOO_LONG:
                    raise ConfigError(f"server.unix: {exc.strerror or exc}: {config.unix}") from exc
                raise _named(exc, f"unix:{config.unix}") from exc
            await self._start(self._unix.socket)
        if config.host:
            try:
                for sock in tcp_sockets(config.host, config.port):
                    await self._start(sock)
            except OSError as exc:
                raise _named(exc, f"{config.host}:{config.port}") from exc
        if not self.places:
            raise ConfigError("nothing to listen on: server.host and server.unix are empty")

    async def _start(self, sock: socket.socket) -> None:
        site = Site(self._runner, sock)
        await site.start()
        self._sites.append(site)
        if sock.family != socket.AF_UNIX:
            self.port = self.port or sock.getsockname()[1]
        self.places.append(place(sock))

    def failed(self, exc: BaseException | None) -> bool:
        """Something has raised `exc` in the event loop, and that may have been its accept(2).

        Where there is no memory for that, uvloop accepts nobody any more at the same socket; so all
        are listened on anew, in a moment. Asyncio's own loop goes on as it is.

        Returns:
            Whether that is news: memory is missing a thousand times in a moment.
        """
        if not isinstance(exc, MemoryError):
            return True
        if self._renewal is not None:
            return False
        try:
            self._renewal = asyncio.get_running_loop().call_later(RENEW_S, self._renew)
        except MemoryError:
            return False
        return True

    def _renew(self) -> None:
        self._renewal = None
        self._tasks.start(self._renew_all(), "listen anew")

    async def _renew_all(self) -> None:
        try:
            for site in self._sites:
                await site.renew()
        except (OSError, MemoryError) as exc:
            log.warning("cannot listen anew: %s", exc)
            self._renewal = asyncio.get_running_loop().call_later(RENEW_S, self._renew)

    async def aclose(self) -> None:
        """Remove what the file system shows; the runner closes the sockets."""
        if self._renewal is not None:
            self._renewal.cancel()
        await self._tasks.aclose()
        if self._unix is not None:
            self._unix.remove()


def _named(exc: OSError, where: str) -> OSError:
    return OSError(exc.errno, f"cannot listen on {where}: {exc.strerror or exc}")
