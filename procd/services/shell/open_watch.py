"""Sightings: whether anybody has opened a file.

Source: inotify(7); inode(7), "Last access timestamp".
"""

import ctypes
import logging
import os
import struct
from typing import Final

from procd.unix.fd import OwnedFd
from procd.unix.libc import LIBC

log = logging.getLogger(__name__)

# sys/inotify.h
IN_OPEN: Final = 0x20
IN_Q_OVERFLOW: Final = 0x4000
IN_ONESHOT: Final = 0x80000000
EVENT: Final = struct.Struct("iIII")  # descriptor of the watch, what, two that mean nothing here
READ_BYTES: Final = 4096
UNKNOWN: Final = -1
BY_TIME: Final = -2
# A time of access, ns since the epoch, that no access leaves.
NEVER_NS: Final = 0


class Sightings:
    """Tells of files whether they were opened since `watch`.

    Where the kernel watches no more, a file's time of access tells whether it was read. Where that
    isn't kept either, it is taken that it was.
    """

    __slots__ = ("_fd", "_opened", "_warned")

    def __init__(self) -> None:
        self._opened: dict[int, bool] = {}  # by descriptor of the watch
        number = LIBC.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        self._fd = OwnedFd(number) if number >= 0 else None
        self._warned = False
        if self._fd is None:
            log.info("files can't be watched: %s", os.strerror(ctypes.get_errno()))

    def watch(self, file: OwnedFd) -> int:
        """Look at a file with content from now on; what to name it by, until `forget`."""
        watched = self._watch(file)
        if watched != UNKNOWN:
            return watched
        if _never_read(file):
            return BY_TIME
        if not self._warned:
            self._warned = True
            log.warning("it can't be told whether a shell that ends had come to its command")
        return UNKNOWN

    def _watch(self, file: OwnedFd) -> int:
        if self._fd is None:
            return UNKNOWN
        self._take()  # so that the kernel holds few
        path = f"/proc/self/fd/{file.number}".encode()
        watched = LIBC.inotify_add_watch(self._fd.number, path, ctypes.c_uint(IN_OPEN | IN_ONESHOT))
        if watched < 0:
            log.debug("a file can't be watched: %s", os.strerror(ctypes.get_errno()))
            return UNKNOWN
        self._opened[watched] = False
        return int(watched)

    def seen(self, watched: int, file: OwnedFd) -> bool:
        """Whether the file of that name was opened, or nobody can know."""
        if watched == BY_TIME:
            return os.fstat(file.number).st_atime_ns != NEVER_NS
        self._take()
        return self._opened.get(watched, True)

    def _take(self) -> None:
        while self._fd is not None:
            try:
                events = os.read(self._fd.number, READ_BYTES)
            except BlockingIOError:
                return
            for watched, what, _, _ in EVENT.iter_unpack(events):
                if what & IN_Q_OVERFLOW:
                    self._opened.clear()
                elif what & IN_OPEN and watched in self._opened:
                    self._opened[watched] = True
            if len(events) < READ_BYTES - EVENT.size:
                return

    def forget(self, watched: int) -> None:
        """Look at it no more; the file is still open."""
        self._take()
        opened = self._opened.pop(watched, True)
        if self._fd is not None and not opened:
            LIBC.inotify_rm_watch(self._fd.number, watched)

    def close(self) -> None:
        """Look at nothing any more."""
        if self._fd is not None:
            self._fd.close()
            self._fd = None


def _never_read(file: OwnedFd) -> bool:
    """Have a file's time of access say that nobody has read it; False if it won't tell who does."""
    try:
        _set_never_read(file)
        os.pread(file.number, 1, 0)
        if os.fstat(file.number).st_atime_ns == NEVER_NS:  # as where it is mounted `noatime`
            return False
        _set_never_read(file)
    except OSError:  # it may not be set, or the file not be read
        return False
    return True


def _set_never_read(file: OwnedFd) -> None:
    os.utime(file.number, ns=(NEVER_NS, os.fstat(file.number).st_mtime_ns))
