"""The service manager: notifications, the watchdog, and passed sockets.

Source: sd_notify(3), "Native implementation"; sd_watchdog_enabled(3); sd_listen_fds(3).
"""

import asyncio
import logging
import os
import socket
from collections.abc import Mapping
from typing import Final

log = logging.getLogger(__name__)

LISTEN_FDS_START: Final = 3


class ActivationError(Exception):
    """A passed descriptor can't be listened on; the message says which and why."""


def notify(state: str) -> None:
    """Send `state` (lines of KEY=VALUE) to the service manager, if there is one.

    A failure is logged: nobody reads the socket of NOTIFY_SOCKET, or its queue is full.
    """
    try:
        if address := _address(os.environ):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(0)
                sock.sendto(state.encode(), address)
    except OSError as exc:
        what = state.split("\n")[0]
        log.warning("the service manager can't be told %s: %s", what, exc.strerror or exc)


def _address(environ: Mapping[str, str]) -> str:
    address = environ.get("NOTIFY_SOCKET", "")
    # The abstract namespace: unix(7).
    return "\0" + address[1:] if address.startswith("@") else address


class Watchdog:
    """Sends WATCHDOG=1 from the event loop, so that the manager notices when that is stuck.

    The socket stays open, so that a lack of descriptors doesn't look like a stuck loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, environ: Mapping[str, str]) -> None:
        self._loop = loop
        self._address = _address(environ)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(0)
        self._timer: asyncio.TimerHandle | None = None
        usec, own = environ.get("WATCHDOG_USEC", ""), str(os.getpid())
        is_ours = usec.isdecimal() and environ.get("WATCHDOG_PID", own) == own
        self._interval_s = int(usec) / 1e6 / 2 if is_ours else 0  # half of the manager's timeout
        if self._interval_s and self._address:
            self._beat()

    def _beat(self) -> None:
        try:
            self._socket.sendto(b"WATCHDOG=1", self._address)
        except OSError as exc:  # the queue is full
            log.warning("the service manager can't be told WATCHDOG=1: %s", exc.strerror or exc)
        self._timer = self._loop.call_later(self._interval_s, self._beat)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._socket.close()


def passed_sockets(environ: Mapping[str, str]) -> list[socket.socket]:
    """The listening sockets that the service manager passed; the caller closes them.

    Raises:
        ActivationError: a descriptor is not a listening stream socket.

    Source: sd_listen_fds(3), systemd.socket(5) FileDescriptorName=.
    """
    if environ.get("LISTEN_PID", "") != str(os.getpid()):
        return []  # meant for a parent process
    count = environ.get("LISTEN_FDS", "")
    if not count.isdecimal():
        return []
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    sockets: list[socket.socket] = []
    try:
        for index in range(int(count)):
            name = names[index] if index < len(names) and names[index] else "unknown"
            sockets.append(_listening(LISTEN_FDS_START + index, name))
    except ActivationError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _listening(number: int, name: str) -> socket.socket:
    try:
        os.set_inheritable(number, False)  # noqa: FBT003 - the signature is os's
        sock = socket.socket(fileno=number)
    except OSError as exc:
        raise ActivationError(f"descriptor {number} ({name}): {exc.strerror}") from exc
    if (
        sock.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
        or sock.type != socket.SOCK_STREAM
        or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    ):
        sock.close()
        raise ActivationError(f"descriptor {number} ({name}): not a stream socket that listens")
    return sock
