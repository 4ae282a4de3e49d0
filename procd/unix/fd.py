"""File descriptors: each has one owner, which closes it."""

import errno
import os
import resource
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

# New work doesn't get the last descriptors: procd accepts connections and ends what runs with them.
RESERVED: Final = 64
# Long-lived work leaves so many more, or an eighth of the rest if that is less: when no more shells
# can be started, those that run can still execute commands.
SHORT_LIVED: Final = 64
# asm-generic/socket.h
SO_PASSRIGHTS: Final = 83


class OwnedFd:
    """A descriptor, and the duty to close it. A closed one has no `number` (AttributeError).

    `close` first calls `before_close`, to remove the number from an event loop: it may be reused at
    once, and the loop would watch the wrong file.
    """

    __slots__ = ("before_close", "closed", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.closed = False
        self.before_close: Callable[[], object] | None = None

    def close(self) -> None:
        if self.closed:
            return
        if self.before_close is not None:
            self.before_close()
            self.before_close = None
        number = self.number
        self.closed = True
        del self.number
        os.close(number)

    def __repr__(self) -> str:
        return "OwnedFd()" if self.closed else f"OwnedFd({self.number})"


def own_fds(*numbers: int) -> list[OwnedFd]:
    """Own new descriptors; if one is among the last RESERVED, close all and raise EMFILE."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if max(numbers) >= most - RESERVED:
        for number in numbers:
            os.close(number)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return [OwnedFd(number) for number in numbers]


def has_room_for_long_lived() -> bool:
    """Whether so many descriptors are free that long-lived work may take some."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        number = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        if exc.errno in (errno.EMFILE, errno.ENFILE):
            return False
        raise
    os.close(number)
    return number < most - RESERVED - min(SHORT_LIVED, (most - RESERVED) // 8)


def pipe() -> tuple[OwnedFd, OwnedFd]:
    """Create a pipe: its reading end and its writing end, blocking and not inheritable."""
    reading, writing = own_fds(*os.pipe())
    return reading, writing


def refuse_passed_fds(sock: socket.socket) -> None:
    """Have the kernel refuse descriptors that a peer passes through this unix socket.

    It applies to accepted sockets too. Closing a received one can block for as long as its sender
    chose, with SO_LINGER. Does nothing before Linux 6.16.

    Source: unix(7), SCM_RIGHTS; socket(7), SO_LINGER; net/unix/af_unix.c, SO_PASSRIGHTS.
    """
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)


def write_all(file: OwnedFd, content: bytes | bytearray) -> None:
    """Write all of `content`; after an OSError, a part may be written."""
    remaining = memoryview(content)
    while remaining:
        remaining = remaining[os.write(file.number, remaining) :]


def anonymous_file(name: str, content: bytes) -> OwnedFd:
    """Create a file in memory, positioned at its start and not inheritable: memfd_create(2)."""
    file = OwnedFd(os.memfd_create(name, os.MFD_CLOEXEC))
    try:
        write_all(file, content)
        os.lseek(file.number, 0, os.SEEK_SET)
    except OSError:
        file.close()
        raise
    return file


def seal_inherited() -> None:
    """Open 0, 1 and 2 if they are closed, and make all other descriptors close-on-exec.

    Python's own are (PEP 446), but those that procd inherited need not be. With 0 to 2 open no pipe
    gets one of these numbers, which the file actions of `spawn` rely on.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)  # noqa: FBT003 - the signature is os's
    os.close(number)
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers, not paths
        if int(name) > 2:
            with suppress(OSError):  # the listing's own descriptor, closed by now
                os.set_inheritable(int(name), False)  # noqa: FBT003 - as above
