"""Pipes and files of ours that a child opens by path, to have descriptors of its own.

A child of our own user opens them through /proc/OUR_PID/fd: no name can be removed, and no disk is
used. Another user's child may not do that; for it there are FIFOs and files in a directory.

Source: proc_pid_fd(5); fifo(7); pipe(7).
"""

import ctypes
import logging
import os
import select
import struct
from collections.abc import Container
from contextlib import suppress
from pathlib import Path
from typing import Final

from procd.process.limits import ChildLimits
from procd.unix.fd import OwnedFd, anonymous_file, pipe, write_all
from procd.unix.libc import LIBC

log = logging.getLogger(__name__)

MODE: Final = 0o600
NEW_FILE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
# sys/inotify.h
IN_OPEN: Final = 0x20
IN_Q_OVERFLOW: Final = 0x4000
IN_ONESHOT: Final = 0x80000000
EVENT: Final = struct.Struct("iIII")  # of an event without a name; the first two: watch, mask
READ_BYTES: Final = 4096
NOT_WATCHED: Final = -1


class OpenWatch:
    """Records which files have been opened since they were added.

    Where the kernel watches no more files, it counts as opened. Source: inotify(7).
    """

    def __init__(self) -> None:
        self._unopened: set[int] = set()
        number = LIBC.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        self._fd = OwnedFd(number) if number >= 0 else None
        if self._fd is None:
            log.warning("opened scripts can't be watched: %s", os.strerror(ctypes.get_errno()))

    def add(self, file: OwnedFd) -> int:
        """Watch a file; returns a number for `opened` and `remove`."""
        if self._fd is None:
            return NOT_WATCHED
        path = f"/proc/self/fd/{file.number}".encode()
        mask = ctypes.c_uint(IN_OPEN | IN_ONESHOT)
        watch = int(LIBC.inotify_add_watch(self._fd.number, path, mask))
        if watch >= 0:
            self._unopened.add(watch)
        return watch

    def opened(self, watch: int) -> bool:
        """Whether the file was opened, or isn't watched."""
        if watch in self._unopened and self._fd is not None:
            with suppress(BlockingIOError):
                while True:
                    self._read(os.read(self._fd.number, READ_BYTES))
        return watch not in self._unopened

    def _read(self, events: bytes) -> None:
        for watch, mask, _, _ in EVENT.iter_unpack(events):
            if mask & IN_Q_OVERFLOW:
                self._unopened.clear()
            elif mask & IN_OPEN:
                self._unopened.discard(watch)

    def remove(self, watch: int) -> None:
        if not self.opened(watch) and self._fd is not None:
            self._unopened.discard(watch)
            LIBC.inotify_rm_watch(self._fd.number, watch)

    def close(self) -> None:
        self._unopened.clear()
        if self._fd is not None:
            self._fd.close()
            self._fd = None


class ChildPath:
    """A descriptor of ours, and the path by which a child opens the same pipe or file.

    `name` is its path in a directory; empty if it is opened through /proc.
    """

    def __init__(self, fd: OwnedFd, name: str = "", open_watch: OpenWatch | None = None) -> None:
        self.fd = fd
        self.name = name
        self._open_watch = open_watch
        self._watch = NOT_WATCHED if open_watch is None else open_watch.add(fd)

    @property
    def path(self) -> str:
        return self.name or f"/proc/{os.getpid()}/fd/{self.fd.number}"

    @property
    def opened(self) -> bool:
        """Whether a child has opened the file, or that can't be known."""
        return self._open_watch is None or self._open_watch.opened(self._watch)

    def close(self) -> None:
        """Close it, and remove its name; further calls do nothing."""
        if self._open_watch is not None:
            self._open_watch.remove(self._watch)
            self._open_watch = None
        self.fd.close()
        name, self.name = self.name, ""
        if name:
            with suppress(OSError):  # its directory goes with the session
                Path(name).unlink()


class ChildPaths:
    """Makes them for the children of one session; another user's find them in `directory`.

    Each method raises OSError if no descriptor is left, or no space for a name or a file.
    """

    def __init__(self, child_limits: ChildLimits, directory: Path, open_watch: OpenWatch) -> None:
        self._child_limits = child_limits
        self._open_watch = open_watch
        self._directory = directory if child_limits.run_as is not None else None

    def output(self, name: str) -> tuple[ChildPath, OwnedFd]:
        """A pipe: the end that a child writes, and ours. `name` is of the FIFO, if any."""
        reading, writing, path = self._pipe(name)
        return ChildPath(writing, path), reading

    def input(self, name: str) -> tuple[ChildPath, OwnedFd]:
        """A pipe: the end that a child reads, which it opens or inherits, and ours."""
        reading, writing, path = self._pipe(name)
        os.set_blocking(reading.number, True)  # a child that inherits it shares the flag
        return ChildPath(reading, path), writing

    def _pipe(self, name: str) -> tuple[OwnedFd, OwnedFd, str]:
        if self._directory is None:
            return *pipe(), ""
        path = self._fifo(name)
        reading = _open(path, os.O_RDONLY)
        try:
            return reading, _open(path, os.O_WRONLY), path
        except OSError:
            ChildPath(reading, path).close()
            raise

    def channel(self, name: str) -> ChildPath:
        """Both ends of a pipe in one descriptor: a child opens it without waiting."""
        if self._directory is not None:
            path = self._fifo(name)
            return ChildPath(_open(path, os.O_RDWR), path)
        reading, writing = pipe()
        try:
            return ChildPath(_open(f"/proc/self/fd/{reading.number}", os.O_RDWR, follow=True))
        finally:
            reading.close()
            writing.close()

    def file(self, name: str, content: bytes) -> ChildPath:
        """A file with `content`, and with `opened`."""
        if self._directory is None:
            return ChildPath(anonymous_file(name, content), open_watch=self._open_watch)
        path = f"{self._directory}/{name}"
        file = OwnedFd(os.open(path, NEW_FILE, MODE))
        try:
            self._child_limits.give(file.number)
            write_all(file, content)
        except OSError:
            ChildPath(file, path).close()
            raise
        return ChildPath(file, path, self._open_watch)

    def _fifo(self, name: str) -> str:
        path = f"{self._directory}/{name}"
        os.mkfifo(path, MODE)
        self._child_limits.give(path)
        return path


def _open(path: str, flags: int, *, follow: bool = False) -> OwnedFd:
    flags |= os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    return OwnedFd(os.open(path, flags))


def has_reader(writing: OwnedFd) -> bool:
    """Whether any process has the reading end of a pipe open. Source: poll(2), POLLERR."""
    poll = select.poll()
    poll.register(writing.number, 0)
    return not poll.poll(0)


def pipe_name(number: int, pid: int | str = "self") -> str:
    """What the kernel calls the pipe of a descriptor, whichever end it is; empty if there is none.

    No file system is asked, as by stat(2): one of a network might never answer.
    """
    try:
        name = os.readlink(f"/proc/{pid}/fd/{number}")  # noqa: PTH115 - a str
    except OSError:
        return ""
    return name.removesuffix(" (deleted)")


def holds_pipe(pid: int, names: Container[str]) -> bool:
    """Whether a process has one of these pipes open (see `pipe_name`).

    Raises PermissionError: it is another user's, and CAP_SYS_PTRACE is missing.
    """
    try:
        numbers = os.listdir(f"/proc/{pid}/fd")  # noqa: PTH208 - a str
        os.readlink(f"/proc/{pid}/cwd")  # noqa: PTH115 - root may list, but not read links
    except PermissionError:
        raise
    except OSError:  # it has ended
        return False
    return any(pipe_name(int(number), pid) in names for number in numbers)
