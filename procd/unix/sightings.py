"""Sightings: whether anybody has opened a file.

Source: inotify(7).
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


class Sightings:
    """Tells of files whether they were opened since `watch`.

    Where the kernel watches no more, it is taken that they were.
    """

    __slots__ = ("_fd", "_opened")

    def __init__(self) -> None:
        self._opened: dict[int, bool] = {}  # by descriptor of the watch
        number = LIBC.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        self._fd = OwnedFd(number) if number >= 0 else None
        if self._fd is None:
            log.warning("files can't be watched: %s", os.strerror(ctypes.get_errno()))

    def watch(self, file: OwnedFd) -> int:
        """Look at a file from now on; what to name it by, until `forget`."""
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

    def seen(self, watched: int) -> bool:
        """Whether it was opened, or nobody can know."""
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
        if self._fd is not None and not self.seen(watched):
            LIBC.inotify_rm_watch(self._fd.number, watched)
        self._opened.pop(watched, None)

    def close(self) -> None:
        """Look at nothing any more."""
        if self._fd is not None:
            self._fd.close()
            self._fd = None
