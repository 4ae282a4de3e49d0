"""A log on disk: what a command says, addressed by offset.

Writes go to the page cache; what is read is mostly what was just written. A full disk costs the
oldest output and never a command.
"""

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

from procd.output.buffer import Run
from procd.output.stream_index import Boundaries, Opener
from procd.unix.fd import OwnedFd
from procd.unix.file import punch, size_of

log = logging.getLogger(__name__)

READ_BYTES: Final = 256 << 10
# Space is given up in steps, so that a log at its cap doesn't do so at each write: of so much,
# or of one part in STEPS of what may be kept, if that is less.
STEP_BYTES: Final = 1 << 20
STEPS: Final = 16
BLOCK_BYTES: Final = 4096
# What is short enough to be in memory while it is sent.
COPIED_BYTES: Final = 2 << 20


class LogKeeper(Opener, Protocol):
    """What a log needs of whoever keeps all of them.

    It is a Protocol because `logstore`, where that class is, imports this module.

    Attributes:
        max_log_bytes: what one log may keep.
        step_bytes: what is given up at least.
        used_bytes: what all of them take; each counts itself.
    """

    max_log_bytes: int
    step_bytes: int
    used_bytes: int

    def make_room(self, log_file: "LogFile", size: int) -> None:
        """See that `size` more bytes of it are within the budget."""

    def free_space(self, log_file: "LogFile", size: int) -> None:
        """Give up that much of what is kept, for its output."""

    def note_finished(self, log_file: "LogFile") -> None:
        """It gets no more output."""

    def forget(self, log_file: "LogFile") -> None:
        """It is to be deleted."""


class LogFile:
    """One command's output in one append-only file.

    What was appended has its offset for ever; what lies before `start` is gone.
    """

    __slots__ = (
        "_accounted",
        "_base",
        "_boundaries",
        "_fd",
        "_loss_told",
        "_path",
        "_pins",
        "_removed",
        "_store",
        "_stream",
        "end",
        "start",
    )

    head_end: Final = 0

    def __init__(self, store: LogKeeper, path: Path) -> None:
        self._store = store
        self._path = path
        self._boundaries = Boundaries(store, path.with_suffix(".streams"))
        self._fd: OwnedFd | None = None
        self._base = 0  # offset of the file's first byte
        self._stream = 0
        self._removed = False
        self._loss_told = False
        self._accounted = 0
        self._pins = 0
        self.start = 0
        self.end = 0

    @property
    def kept_bytes(self) -> int:
        """How many bytes are kept."""
        return self.end - self.start

    @property
    def safe_lag_bytes(self) -> int:
        """How far a reader may be behind and lose nothing, whatever others take."""
        return self._store.max_log_bytes // 4

    @property
    def sole_stream(self) -> int:
        """The stream of all bytes that are kept; 0 if there are several, or none."""
        return self._boundaries.sole_stream

    @property
    def spare_bytes(self) -> int:
        """How much more than `sessions.max_log_bytes` it may keep for now."""
        return self.safe_lag_bytes if self._pins else 0

    @property
    def pinned(self) -> bool:
        """Whether somebody is reading what it keeps."""
        return self._pins > 0

    @contextmanager
    def pin(self) -> Iterator[None]:
        """Give up less of it, if anything, while this lasts."""
        self._pins += 1
        try:
            yield
        finally:
            self._pins -= 1
            excess = self.excess_bytes(0)
            if excess > 0 and not (self._pins or self._removed):
                self.drop(excess)

    def snapshot(self) -> "Snapshot":
        """What is kept now.

        Raises:
            OSError: the files can't be looked at.
        """
        self.notice_damage()
        return Snapshot(self, self.start, self.end, self.sole_stream)

    @property
    def cost_bytes(self) -> int:
        """What it takes of the budget."""
        return self.kept_bytes + self._boundaries.cost_bytes

    def excess_bytes(self, size: int) -> int:
        """How far `size` more bytes are beyond `sessions.max_log_bytes`, less than 0 for room.

        Where the stream changes is no output: it counts apart, lest it take the room of any.
        """
        most = max(self.kept_bytes + size, self._boundaries.cost_bytes)
        return most - self._store.max_log_bytes

    def append(self, data: bytes, stream: int = 0) -> None:
        """Add `data`; if there is no room for it on the disk, it and all before it are lost."""
        self._store.make_room(self, len(data))
        try:
            try:
                self._write(data, stream)
            except OSError as exc:
                if exc.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                self._store.free_space(self, len(data))
                self._write(data, stream)
        except OSError as exc:
            if not self._loss_told:  # on a full disk each piece would be a line of procd's log
                log.warning("output lost: %s", exc.strerror, extra={"log": self._path.name})
                self._loss_told = True
            self.end += len(data)
            self._forget_before(self.end)
        self._account()

    def _account(self) -> None:
        """Tell the store what is taken now."""
        cost = self.cost_bytes
        self._store.used_bytes += cost - self._accounted
        self._accounted = cost

    def notice_damage(self) -> None:
        """Take for dropped what somebody has cut off the files, or deleted with them.

        A log has one gap, at its beginning: what is missing at the end costs all that was before.

        Raises:
            OSError: the files can't be looked at.
        """
        if not self.kept_bytes:
            return
        size = size_of(self._path) if self._fd is None else os.fstat(self._fd.number).st_size
        if size < self.end - self._base:
            start = self.end
        elif not self._boundaries.whole:
            start = self._boundaries.forget_file()
        else:
            return
        log.warning("output lost: its file was cut or deleted", extra={"log": self._path.name})
        self._forget_before(start)

    def _write(self, data: bytes, stream: int) -> None:
        # What is written behind the end of a file that was cut makes zeros before it.
        self.notice_damage()
        if self._fd is None:
            self._fd = self._store.open(self._path, os.O_RDWR | os.O_CREAT)
        if stream != self._stream:
            self._boundaries.append(self.end, stream)
            self._stream = stream
        position = self.end - self._base
        written = os.pwrite(self._fd.number, data, position)
        while written < len(data):
            written += os.pwrite(self._fd.number, data[written:], position + written)
        self.end += len(data)

    def drop(self, least_bytes: int) -> None:
        """Give up at least `least_bytes` of the oldest output, or all there is."""
        try:
            self.notice_damage()  # else what is missing would cost the rest as well
            start = self.start + max(least_bytes, self._store.step_bytes)
            start += -(start - self._base) % BLOCK_BYTES  # to the end of a block
            if start >= self.end or not self._punch(start):
                start = self.end
        except OSError:
            start = self.end
        self._forget_before(start)

    def _forget_before(self, start: int) -> None:
        self.start = start
        if start == self.end:
            self._empty()
        self._account()

    def _empty(self) -> None:
        self._base = self.end
        self._stream = 0
        with self._cleaning_up():
            self._boundaries.clear()
        with self._cleaning_up():
            if self._fd is not None:
                os.ftruncate(self._fd.number, 0)
            else:
                self._path.unlink(missing_ok=True)

    @contextmanager
    def _cleaning_up(self) -> Iterator[None]:
        """Say of what can't be removed that it is left; what is kept doesn't need it gone."""
        try:
            yield
        except OSError as exc:
            log.warning("a file is left: %s", exc.strerror, extra={"log": self._path.name})

    def _punch(self, start: int) -> bool:
        fd = self._fd or self._store.open(self._path, os.O_RDWR)
        try:
            done = punch(fd, start - self._base)
        finally:
            if fd is not self._fd:
                self._store.close_fd(fd)
        self._boundaries.forget_before(start)
        return done

    def read(self, offset: int, most: int) -> bytes:
        """Bytes of all streams from `offset` on; b"" at the end.

        Raises:
            LookupError: `offset` is before `start` or beyond the end.
            OSError: the file can't be read.
        """
        self.notice_damage()
        if not self.start <= offset <= self.end:
            raise LookupError(offset)
        most = min(most, self.end - offset)
        if not most:
            return b""
        if self._fd is not None:
            return os.pread(self._fd.number, most, offset - self._base)
        fd = self._store.open(self._path, os.O_RDONLY)
        try:
            return os.pread(fd.number, most, offset - self._base)
        finally:
            self._store.close_fd(fd)

    def slices(self, offset: int, most: int) -> Iterator[Run]:
        """What `read` gives, cut where the stream changes."""
        data = self.read(offset, most)
        begin, end = offset, offset + len(data)
        index = self._boundaries.index_at(offset) if data else 0
        while offset < end:
            stream = self._boundaries[index] & 3
            index += 1
            cut = self._boundaries[index] >> 2 if index < len(self._boundaries) else end
            piece = data[offset - begin : cut - begin]
            yield Run(offset, stream, piece)
            offset += len(piece)

    def finish(self) -> None:
        """No more output follows: hold no descriptor."""
        if self._fd is not None:
            if not self._removed:
                self._restore(self._fd)
            self._store.close_fd(self._fd)
            self._fd = None
        if self._removed:
            self.start = self._base = self.end
            with self._cleaning_up():
                self._boundaries.clear()
        else:
            self._store.note_finished(self)

    def _restore(self, fd: OwnedFd) -> None:
        """Write it anew, if it is short and somebody has deleted the file."""
        try:
            if self.kept_bytes > STEP_BYTES or os.fstat(fd.number).st_nlink:
                return
            data = os.pread(fd.number, self.kept_bytes, self.start - self._base)
            copy = self._store.open(self._path, os.O_WRONLY | os.O_CREAT)
            try:
                # `notice_damage` tells if it is short.
                os.pwrite(copy.number, data, self.start - self._base)
            finally:
                self._store.close_fd(copy)
        except OSError as exc:
            log.warning("output lost: %s", exc.strerror, extra={"log": self._path.name})

    def remove(self, *, keep_readable: bool = False) -> None:
        """Delete it; with `keep_readable`, it can still be read until `finish`."""
        if keep_readable and self.kept_bytes:
            try:
                self.notice_damage()
                self._boundaries.hold()
                self._fd = self._fd or self._store.open(self._path, os.O_RDWR)
            except OSError as exc:
                log.warning("output lost: %s", exc.strerror, extra={"log": self._path.name})
                keep_readable = False
        self._store.forget(self)
        self._store.used_bytes -= self._accounted
        self._accounted = 0
        self._removed = True
        with self._cleaning_up():
            self._path.unlink(missing_ok=True)
        if not keep_readable or not self.kept_bytes:
            self.finish()


class Snapshot:
    """What a log kept at one moment, to be read more than once, while more is written.

    Attributes:
        start: offset of its first byte.
        kept_bytes: how many it has.
        sole_stream: the stream of all of them; 0 if there are several, or none.
    """

    __slots__ = ("_end", "_file", "kept_bytes", "sole_stream", "start")

    def __init__(self, log_file: LogFile, start: int, end: int, sole_stream: int) -> None:
        self._file = log_file
        self._end = end
        self.start = start
        self.kept_bytes = end - start
        self.sole_stream = sole_stream

    def claim(self, size: int) -> bool:
        """Whether a copy of `size` bytes may be kept in memory for a while."""
        return self.kept_bytes + size <= COPIED_BYTES

    def dropped(self, _: int) -> int:
        """How many bytes are gone; of which stream they were isn't recorded."""
        return self.start

    def runs(self) -> Iterator[Run]:
        """The bytes, oldest first; what was gone before shows as a jump of the offset.

        Raises:
            OSError: they can't be read, or have gone since.
        """
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
