"""Logs of commands on disk, addressed by offset, and the disk space that they share.

A full disk costs the oldest output and never a command.
"""

import errno
import logging
import os
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from procd.output.budget import Budget
from procd.output.buffer import Run
from procd.unix.fd import OwnedFd
from procd.unix.file import make_directory, open_regular, punch

log = logging.getLogger(__name__)

READ_BYTES: Final = 256 << 10
# A log at its limit gives up this much at a time, or one part in STEPS of the limit if less.
STEP_BYTES: Final = 1 << 20
STEPS: Final = 16
# A log with more changes of its stream (512 KiB) loses the older half, with the output before.
MAX_CHANGES: Final = 64 << 10
# A copy of this much may be kept in memory while it is sent.
COPIED_BYTES: Final = 2 << 20


class StreamIndex:
    """Where in a log the stream changes, oldest first; an entry is `offset << 2 | stream`."""

    __slots__ = ("_entries", "_memory")

    def __init__(self, memory: Budget) -> None:
        self._entries = array("Q")
        self._memory = memory

    @property
    def size(self) -> int:
        return len(self._entries) * self._entries.itemsize

    @property
    def full(self) -> bool:
        return len(self._entries) >= MAX_CHANGES

    @property
    def middle(self) -> int:
        return self._entries[len(self._entries) // 2] >> 2

    @property
    def sole_stream(self) -> int:
        """The stream of all bytes; 0 if there are several streams, or no bytes."""
        return self._entries[0] & 3 if len(self._entries) == 1 else 0

    def append(self, offset: int, stream: int) -> None:
        if not self._entries or self._entries[-1] & 3 != stream:
            self._entries.append(offset << 2 | stream)
            self._memory.used_bytes += self._entries.itemsize

    def forget_before(self, offset: int) -> None:
        self._forget(self._at(offset))

    def clear(self) -> None:
        self._forget(len(self._entries))

    def _forget(self, count: int) -> None:
        del self._entries[:count]
        self._memory.used_bytes -= count * self._entries.itemsize

    def cut(self, offset: int, data: bytes) -> Iterator[Run]:
        begin, end = offset, offset + len(data)
        index = self._at(offset) if data else 0
        while offset < end:
            stream = self._entries[index] & 3
            index += 1
            following = self._entries[index] >> 2 if index < len(self._entries) else end
            piece = data[offset - begin : following - begin]
            yield Run(offset, stream, piece)
            offset += len(piece)

    def _at(self, offset: int) -> int:
        return bisect_right(self._entries, offset << 2 | 3) - 1


class LogStore:
    """All logs on disk, and the space that they share; `memory` counts what their indexes take."""

    def __init__(self, max_log_bytes: int, max_total_bytes: int, memory: Budget) -> None:
        self.memory = memory
        self.max_log_bytes = max_log_bytes
        self.used_bytes = 0
        self._max_total_bytes = max_total_bytes
        self._step_bytes = min(STEP_BYTES, max_log_bytes // STEPS, max_total_bytes // STEPS)
        self.finished: set[LogFile] = set()

    def create(self, path: Path) -> "LogFile":
        return LogFile(self, path)

    def make_room(self, log_file: "LogFile", size: int) -> None:
        """Give up output so that `size` more bytes of `log_file` are within both limits."""
        excess = log_file.kept_bytes + size - self.max_log_bytes
        if excess > 0:
            log_file.drop(max(excess, self._step_bytes))
        excess = self.used_bytes + size - self._max_total_bytes
        if excess > 0:
            self.free_space(log_file, excess)

    def free_space(self, log_file: "LogFile", size: int) -> None:
        """Give up at least `size` bytes: of the largest finished logs, then of `log_file`."""
        goal = self.used_bytes - max(size, self._step_bytes)
        for victim in sorted(self.finished, key=lambda each: each.kept_bytes, reverse=True):
            if self.used_bytes <= goal or not victim.kept_bytes:
                break
            victim.drop(self.used_bytes - goal)
        if self.used_bytes > goal:
            log_file.drop(self.used_bytes - goal)

    def forget(self, log_file: "LogFile") -> None:
        self.finished.discard(log_file)
        self.used_bytes -= log_file.kept_bytes


class LogFile:
    """The output of one command, in one append-only file that is made when there is some.

    An appended byte keeps its offset. No descriptor is open after `finish`, except during `hold`.
    """

    __slots__ = ("_base", "_fd", "_finished", "_holds", "_loss_logged", "_path", "_removed",
                 "_store", "end", "index", "start")  # fmt: skip

    def __init__(self, store: LogStore, path: Path) -> None:
        self._store = store
        self._path = path
        self.index = StreamIndex(store.memory)
        self._fd: OwnedFd | None = None
        self._base = 0  # offset of the file's first byte
        self._holds = 0
        self._finished = False
        self._removed = False
        self._loss_logged = False
        self.start = 0
        self.end = 0

    @property
    def kept_bytes(self) -> int:
        return self.end - self.start

    @property
    def safe_lag_bytes(self) -> int:
        return self._store.max_log_bytes // 4

    def append(self, data: bytes, stream: int = 0) -> None:
        """Add `data`; if it can't be written, it and all output before it are lost."""
        self._store.make_room(self, len(data))
        try:
            try:
                self._write(data)
            except OSError as exc:
                if exc.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                self._store.free_space(self, len(data))
                self._write(data)
        except OSError as exc:
            if not self._loss_logged:
                self._loss_logged = True
                log.warning("output lost: %s", exc.strerror, extra={"log": self._path.name})
            self._forget_before(self.end)
            self.start += len(data)
            self.end = self._base = self.start
            return
        self.index.append(self.end, stream)
        self.end += len(data)
        self._store.used_bytes += len(data)
        if self.index.full:
            self.drop(self.index.middle - self.start)

    def _write(self, data: bytes) -> None:
        if self._fd is None:
            self._fd = self._open(os.O_RDWR | os.O_CREAT)
        position = self.end - self._base
        left = memoryview(data)
        while left:
            written = os.pwrite(self._fd.number, left, position)
            left = left[written:]
            position += written

    def _open(self, flags: int) -> OwnedFd:
        try:
            return open_regular(self._path, flags)
        except FileNotFoundError:
            if not flags & os.O_CREAT:
                raise
        make_directory(self._path.parent)  # the first log of its session, or it was removed
        return open_regular(self._path, flags)

    def drop(self, size: int) -> None:
        """Give up the oldest `size` bytes, or all if the file system can't make a hole."""
        start = self.start + size
        try:
            with self.hold():
                if start < self.end and not (
                    self._fd is not None and punch(self._fd, start - self._base)
                ):
                    start = self.end
        except OSError:
            start = self.end
        self._forget_before(min(start, self.end))

    def _forget_before(self, start: int) -> None:
        if not self._removed:
            self._store.used_bytes -= start - self.start
        self.start = start
        if start < self.end:
            self.index.forget_before(start)
            return
        self.index.clear()
        self._base = self.end
        try:
            if self._fd is not None:
                os.ftruncate(self._fd.number, 0)
            else:
                self._path.unlink(missing_ok=True)
        except OSError as exc:
            log.warning("a file is left: %s", exc.strerror, extra={"log": self._path.name})

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep the file open while this lasts: it can be read though it is removed meanwhile."""
        if self._fd is None and self.kept_bytes:
            self._fd = self._open(os.O_RDWR)
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
            self._close_unused()

    def read(self, offset: int, most: int) -> bytes:
        """Up to `most` bytes of all streams from `offset` on; b"" at the end.

        LookupError if `offset` is before `start` or beyond the end; OSError if they can't be read.
        """
        if not self.start <= offset <= self.end:
            raise LookupError(offset)
        most = min(most, self.end - offset)
        if not most:
            return b""
        with self.hold():
            assert self._fd is not None
            data = os.pread(self._fd.number, most, offset - self._base)
        if len(data) < most:
            raise OSError(errno.ENODATA, "its file was shortened")
        return data

    def slices(self, offset: int, most: int) -> Iterator[Run]:
        """As `read`, cut where the stream changes."""
        return self.index.cut(offset, self.read(offset, most))

    def snapshot(self) -> "Snapshot":
        return Snapshot(self)

    def finish(self) -> None:
        if not self._finished:
            self._finished = True
            if not self._removed:
                self._store.finished.add(self)
            self._close_unused()

    def remove(self) -> None:
        if self._removed:
            return
        self._store.forget(self)
        self._removed = self._finished = True
        try:
            self._path.unlink(missing_ok=True)
        except OSError as exc:
            log.warning("a file is left: %s", exc.strerror, extra={"log": self._path.name})
        self._close_unused()

    def _close_unused(self) -> None:
        if self._finished and not self._holds:
            if self._fd is not None:
                self._fd.close()
                self._fd = None
            if self._removed:
                self.start = self._base = self.end
                self.index.clear()


class Snapshot:
    """The bytes that a log kept at one moment, to be read while `hold` lasts, more than once."""

    __slots__ = ("_end", "_file", "kept_bytes", "sole_stream", "start")

    def __init__(self, log_file: LogFile) -> None:
        self._file = log_file
        self._end = log_file.end
        self.start = log_file.start
        self.kept_bytes = log_file.kept_bytes
        self.sole_stream = log_file.index.sole_stream

    def claim(self, size: int) -> bool:
        """Whether a copy of `size` bytes may be kept in memory for a while."""
        return self.kept_bytes + size <= COPIED_BYTES

    def dropped(self, _: int) -> int:
        """How many bytes are gone; of which stream they were isn't recorded."""
        return self.start

    def runs(self) -> Iterator[Run]:
        """The bytes, cut where the stream changes; OSError if they have been dropped."""
        offset = self.start
        while offset < self._end:
            try:
                for run in self._file.slices(offset, min(READ_BYTES, self._end - offset)):
                    yield run
                    offset = run.offset + len(run.data)
                    if offset < self._file.start:
                        break
            except LookupError as exc:
                raise OSError(errno.ENODATA, "output was dropped while it was read") from exc
