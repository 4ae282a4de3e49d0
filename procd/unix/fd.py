"""File descriptors: each with one owner.

The order at the end is always: leave the selector, forget the number, close. Epoll forgets a closed
descriptor and who waits for it does not, so a number closed too early may hit a stranger. Nor can
epoll be relied on to forget: a child in the middle of its start has copies until it has executed.
"""

import errno
import os
import resource
from collections.abc import Callable
from typing import Final

# The last descriptors are not for new work: who asks how procd is gets in, and what runs can end.
RESERVED: Final = 64


class OwnedFd:
    """A descriptor and the duty to close it.

    Attributes:
        before_close: called first, for whoever has registered the number as well.

    Raises:
        ValueError: the number is asked for after `close`.
    """

    __slots__ = ("_number", "before_close")

    def __init__(self, number: int) -> None:
        self._number = number
        self.before_close: Callable[[], None] | None = None

    @property
    def number(self) -> int:
        """The descriptor."""
        if self._number < 0:
            raise ValueError("descriptor is closed")
        return self._number

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._number < 0

    def close(self) -> None:
        """Close it; further calls do nothing."""
        if self._number < 0:
            return
        if self.before_close is not None:
            self.before_close()
            self.before_close = None
        number, self._number = self._number, -1
        os.close(number)

    def __repr__(self) -> str:
        return f"OwnedFd({self._number})"


def for_work(*numbers: int) -> list[OwnedFd]:
    """Own the descriptors of something new, unless one is of the last RESERVED that there can be.

    Raises:
        OSError: it is (EMFILE); all are closed.
    """
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if max(numbers) >= most - RESERVED:
        for number in numbers:
            os.close(number)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return [OwnedFd(number) for number in numbers]


def pipe() -> tuple[OwnedFd, OwnedFd]:
    """A pipe: (reading end, writing end), neither inherited, both blocking.

    Source: pipe(7).
    """
    reading, writing = for_work(*os.pipe())
    return reading, writing


def anonymous_file(name: str, content: bytes) -> OwnedFd:
    """A file in memory with `content`, at its beginning, without a path and not inherited.

    Raises:
        OSError: there is no descriptor or no memory for it.

    Source: memfd_create(2).
    """
    file = OwnedFd(os.memfd_create(name, os.MFD_CLOEXEC))
    try:
        remaining = memoryview(content)
        while remaining:
            remaining = remaining[os.write(file.number, remaining) :]
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
