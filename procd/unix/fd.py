"""File descriptors: each with one owner.

The order at the end is always: leave the selector, forget the number, close. Epoll forgets a closed
descriptor and who waits for it does not, so a number closed too early may hit a stranger. Nor can
epoll be relied on to forget: a child in the middle of its start has copies until it has executed.
"""

import errno
import os
import resource
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

# The last descriptors are not for new work, so that procd can be asked how it is, and what runs can
# end.
RESERVED: Final = 64
# So many more, or an eighth of the rest if that is less, are not for what lasts: when there can be
# no more shells, those that are there can still run commands, each for a moment.
SHORT_LIVED: Final = 64
# asm-generic/socket.h
SO_PASSRIGHTS: Final = 83


class OwnedFd:
    """A descriptor and the duty to close it.

    Attributes:
        number: the descriptor; a closed one has none, so that to ask for it is an AttributeError.
        closed: whether `close` was called.
        before_close: called first, for whoever has registered the number as well.
    """

    __slots__ = ("before_close", "closed", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.closed = False
        self.before_close: Callable[[], object] | None = None

    def close(self) -> None:
        """Close it; further calls do nothing."""
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
    """Own the descriptors of something new, unless one is of the last RESERVED that there can be.

    Raises:
        OSError: it is (EMFILE); all are closed, as after any error.
    """
    try:
        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if max(numbers) >= most - RESERVED:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return [OwnedFd(number) for number in numbers]
    except BaseException:
        for number in numbers:
            os.close(number)
        raise


def has_room_for_long_lived() -> bool:
    """Whether something new that lasts may take descriptors: more than those for moments are left.

    Raises:
        OSError: it can't be known.
    """
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        number = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        if exc.errno in (errno.EMFILE, errno.ENFILE):
            return False
        raise
    os.close(number)
    return number < most - RESERVED - min(SHORT_LIVED, (most - RESERVED) // 8)


def pipes(count: int) -> tuple[list[OwnedFd], list[OwnedFd]]:
    """So many pipes: their reading ends and their writing ends, none inherited, all blocking.

    Raises:
        OSError: there are no descriptors for all of them; then there is none.

    Source: pipe(7).
    """
    numbers: list[int] = []
    try:
        for _ in range(count):
            numbers += os.pipe()
    except BaseException:
        for number in numbers:
            os.close(number)
        raise
    ends = own_fds(*numbers)
    return ends[::2], ends[1::2]


def pipe() -> tuple[OwnedFd, OwnedFd]:
    """One pipe: its reading end and its writing end.

    Raises:
        OSError: as `pipes`.
    """
    (reading,), (writing,) = pipes(1)
    return reading, writing


def refuse_passed_fds(sock: socket.socket) -> None:
    """Have the kernel refuse what passes descriptors to a unix socket, or to one that it accepts.

    Nobody here wants any, and to drop one may be to close it: of a TCP socket whose peer doesn't
    read that takes as long as its sender says.

    Source: unix(7), SCM_RIGHTS; socket(7), SO_LINGER; Linux, net/unix/af_unix.c, SO_PASSRIGHTS.
    """
    # Before Linux 6.16 there was no way to refuse them, and a sandbox's filter may know of none.
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)


def write_all(file: OwnedFd, content: bytes | bytearray) -> None:
    """Write all of `content` to a file that is open.

    Raises:
        OSError: there is no room for it; part of it may be there.
    """
    remaining = memoryview(content)
    while remaining:
        remaining = remaining[os.write(file.number, remaining) :]


def anonymous_file(name: str, content: bytes) -> OwnedFd:
    """A file in memory with `content`, at its beginning, without a path and not inherited.

    Raises:
        OSError: there is no descriptor or no memory for it.

    Source: memfd_create(2).
    """
    file = OwnedFd(os.memfd_create(name, os.MFD_CLOEXEC))
    try:
        write_all(file, content)
        os.lseek(file.number, 0, os.SEEK_SET)
    except OSError:
        file.close()
        raise
    return file


def seal_inherited() -> None:
    """Make sure that 0, 1 and 2 are open and that no other descriptor reaches a child.

    Python's own descriptors are close-on-exec (PEP 446); what procd itself inherited need not be.
    An open 0..2 keeps pipes off those numbers, which spawn's file actions rely on.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)  # noqa: FBT003 - the signature is os's
    os.close(number)
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers, not paths
        if int(name) > 2:
            try:
                os.set_inheritable(int(name), False)  # noqa: FBT003 - as above
            except OSError as exc:
                if exc.errno != errno.EBADF:  # the listing's own descriptor is gone by now
                    raise
