"""Boundaries: where in a log on disk the stream changes."""

import errno
import os
from array import array
from bisect import bisect_right
from pathlib import Path
from typing import Final, NoReturn, Protocol

from procd.unix.fd import OwnedFd, write_all
from procd.unix.file import punch, size_of

# Boundaries held in memory; beyond these, older ones go to a file beside the log.
HELD_BOUNDARIES: Final = 1024
STREAMS: Final = {1, 2}
# So many at the most, while that file can't be written.
MOST_HELD: Final = 64 * HELD_BOUNDARIES


class Opener(Protocol):
    """What opens and closes the file."""

    def open(self, path: Path, flags: int) -> OwnedFd:
        """Open a regular file, made if need be with its directory; raises OSError."""

    def close_fd(self, fd: OwnedFd) -> None:
        """Close what `open` gave."""


class Boundaries:
    """Where the stream changes, in order: eight bytes each, most of them in a file if many.

    An entry is `offset << 2 | stream`. Entries before index `first` are gone.
    """

    __slots__ = ("_block", "_block_index", "_held", "_opener", "_path", "_spilled", "_tampered",
                 "first")  # fmt: skip

    def __init__(self, opener: Opener, path: Path) -> None:
        self._opener = opener
        self._path = path
        self._held = array("Q")
        self._spilled = 0
        self._block = array("Q")
        self._block_index = -1
        self._tampered = False
        self.first = 0

    def __len__(self) -> int:
        return self._spilled + len(self._held)

    def __getitem__(self, index: int) -> int:
        if index >= self._spilled:
            return self._held[index - self._spilled]
        block_index, position = divmod(index, HELD_BOUNDARIES)
        if block_index != self._block_index:
            block = array("Q")
            size = HELD_BOUNDARIES * block.itemsize
            data = self._read(size, block_index * size)
            if len(data) < size:
                raise OSError(errno.ENODATA, "the file was cut")
            block.frombytes(data)
            self._check(block[max(self.first - block_index * HELD_BOUNDARIES, 0) :])
            self._block, self._block_index = block, block_index
        return self._block[position]

    def _read(self, size: int, position: int) -> bytes:
        fd = self._opener.open(self._path, os.O_RDONLY)
        try:
            return os.pread(fd.number, size, position)
        finally:
            self._opener.close_fd(fd)

    def _check(self, entries: "array[int]") -> None:
        """Refuse what nobody has appended in this order.

        Raises:
            OSError: somebody has written to the file.
        """
        listed = entries.tolist()
        if listed != sorted(listed) or not {entry & 3 for entry in listed} <= STREAMS:
            self._tamper()

    def _tamper(self) -> NoReturn:
        self._tampered = True
        raise OSError(errno.ENODATA, "the file was written to")

    @property
    def sole_stream(self) -> int:
        """The stream of the only segment; 0 if there are several, or none."""
        return self[self.first] & 3 if len(self) - self.first == 1 else 0

    @property
    def cost_bytes(self) -> int:
        """What they take, in memory or on disk."""
        return (len(self) - self.first) * self._held.itemsize

    @property
    def whole(self) -> bool:
        """Whether all entries are there still; nobody is known to have changed the file."""
        if self.first >= self._spilled:
            return True
        return not self._tampered and size_of(self._path) >= self._spilled * self._held.itemsize

    def append(self, offset: int, stream: int) -> None:
        """Begin a segment at `offset`.

        Raises:
            OSError: MOST_HELD are in memory, and can't be written; the boundary is not recorded.
        """
        if len(self._held) >= 2 * HELD_BOUNDARIES:
            try:
                self._spill()
            except OSError:
                if len(self._held) >= MOST_HELD:
                    raise
        self._held.append(offset << 2 | stream)

    def _spill(self) -> None:
        oldest = self._held[:HELD_BOUNDARIES]
        fd = self._opener.open(self._path, os.O_WRONLY | os.O_CREAT)
        try:
            # What a failure has left half done is written over.
            os.lseek(fd.number, self._spilled * oldest.itemsize, os.SEEK_SET)
            write_all(fd, oldest.tobytes())
        finally:
            self._opener.close_fd(fd)
        del self._held[:HELD_BOUNDARIES]
        self._spilled += HELD_BOUNDARIES

    def forget_before(self, offset: int) -> None:
        """Give up the entries that say nothing of `offset` and what follows it."""
        self.first = max(self.index_at(offset), self.first)
        spilled = min(self.first, self._spilled)
        if spilled:
            try:
                fd = self._opener.open(self._path, os.O_RDWR)
            except FileNotFoundError:
                return  # somebody has deleted it
            try:
                punch(fd, spilled * self._held.itemsize)
            finally:
                self._opener.close_fd(fd)

    def forget_file(self) -> int:
        """Give up the entries in the file; the offset where the first of the others begins."""
        self.first = self._spilled
        return self[self.first] >> 2

    def hold(self) -> None:
        """Take what is in the file into memory, so that it can be read when the file is gone."""
        if self._spilled:
            whole = array("Q")
            size = self._spilled * whole.itemsize
            spilled = self._read(size, 0) if self.first < self._spilled else b""
            whole.frombytes(spilled.ljust(size, b"\0"))
            self._check(whole[self.first :])
            self._held = whole + self._held
            self._spilled = 0
            self._path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget all.

        Raises:
            OSError: the file is left, and will be written over; all is forgotten nevertheless.
        """
        has_file = self._spilled > 0
        self._held = array("Q")
        self._spilled = self.first = 0
        self._block_index = -1
        self._tampered = False
        if has_file:
            self._path.unlink(missing_ok=True)

    def index_at(self, offset: int) -> int:
        """Index of the segment that holds `offset`."""
        index = bisect_right(self, offset << 2 | 3, lo=self.first) - 1
        if index < self.first < self._spilled:
            self._tamper()
        return index
