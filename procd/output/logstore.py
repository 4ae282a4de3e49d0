"""All logs on disk, and the budget that they share."""

import errno
import heapq
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from procd.output.logfile import STEP_BYTES, STEPS, LogFile
from procd.unix.fd import OwnedFd
from procd.unix.file import make_directory, open_regular

log = logging.getLogger(__name__)

# How often a directory is made that somebody deletes meanwhile.
MOST_TRIES: Final = 10
# So few that have gone may be among the logs that could give up space, and for each of those that
# are there this share of one. To take them out takes time for each that stays.
FEW: Final = 64
SHARE: Final = 1 / 4


class LogStore:
    """All logs on disk, the budget that they share, and a descriptor in reserve.

    With that one a command that can't be started for want of descriptors can still have its log say
    so, and a log be read.
    """

    def __init__(self, max_log_bytes: int, max_total_bytes: int) -> None:
        self._reserve: OwnedFd | None = None
        self._reserving = False
        self.max_log_bytes = max_log_bytes
        self.step_bytes = min(STEP_BYTES, max_log_bytes // STEPS, max_total_bytes // STEPS)
        self._max_total_bytes = max_total_bytes
        self._finished: set[LogFile] = set()
        # A heap of those, the largest first, among others that have gone since.
        self._victims: list[tuple[int, int, LogFile]] = []
        self.used_bytes = 0

    def keep_reserve(self) -> None:
        """Hold a descriptor in reserve from now on, until `close`."""
        self._reserving = True
        self._refill()

    def _refill(self) -> None:
        if self._reserving and self._reserve is None:
            try:
                self._reserve = OwnedFd(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
            except OSError as exc:
                log.debug("no descriptor is in reserve: %s", exc.strerror)

    def open(self, path: Path, flags: int) -> OwnedFd:
        """Open a regular file, in place of the reserve if there is no other descriptor.

        Raises:
            OSError: it can't be opened.
        """
        used_reserve = False
        tries = MOST_TRIES
        while True:
            try:
                return open_regular(path, flags)
            except OSError as exc:
                if exc.errno in (errno.EMFILE, errno.ENFILE) and self._reserve is not None:
                    self._reserve.close()
                    self._reserve = None
                    used_reserve = True
                elif exc.errno == errno.ENOENT and flags & os.O_CREAT and tries:
                    # The first of its session; or somebody is cleaning up where it was.
                    tries -= 1
                    with suppress(FileNotFoundError):  # what is above it may go as well
                        make_directory(path.parent)
                else:
                    if used_reserve:
                        self._refill()
                    raise

    def close_fd(self, fd: OwnedFd) -> None:
        """Close what `open` gave."""
        fd.close()
        self._refill()

    def close(self) -> None:
        """Let go of the reserve; to be called when all logs are closed."""
        self._reserving = False
        if self._reserve is not None:
            self._reserve.close()
            self._reserve = None

    def create(self, path: Path) -> LogFile:
        """A new log that will be kept at `path`."""
        return LogFile(self, path)

    def make_room(self, log_file: LogFile, size: int) -> None:
        """See that `size` more bytes in `log_file` are within the budget.

        The oldest bytes of the largest finished logs go first, then those of the log itself.
        """
        excess = log_file.excess_bytes(size) - log_file.spare_bytes
        if excess > 0:
            log_file.drop(excess)
        excess = self.used_bytes + size - self._max_total_bytes
        if excess > 0:
            self.free_space(log_file, excess)

    def free_space(self, log_file: LogFile, size: int) -> None:
        """Give up `size` bytes or more of what is kept, for output of `log_file`."""
        goal = self.used_bytes - size
        read: list[LogFile] = []  # which go after those that nobody reads
        while self.used_bytes > goal and self._victims:
            _, _, victim = heapq.heappop(self._victims)
            if victim not in self._finished:
                continue
            if victim.pinned:
                read.append(victim)
                continue
            self._drop(victim, goal)
        for victim in read:
            self._drop(victim, goal)
        if self.used_bytes > goal and log_file.kept_bytes:
            log_file.drop(self.used_bytes - goal)

    def _drop(self, victim: LogFile, goal: int) -> None:
        if self.used_bytes > goal:
            victim.drop(self.used_bytes - goal)
        self._finished.remove(victim)
        self.note_finished(victim)

    def note_finished(self, log_file: LogFile) -> None:
        """It gets no more output: its own goes before that of the others."""
        if log_file.kept_bytes and log_file not in self._finished:
            self._finished.add(log_file)
            heapq.heappush(self._victims, (-log_file.kept_bytes, id(log_file), log_file))

    def forget(self, log_file: LogFile) -> None:
        """It is to be deleted."""
        self._finished.discard(log_file)
        if len(self._victims) > (1 + SHARE) * len(self._finished) + FEW:
            self._victims = [each for each in self._victims if each[2] in self._finished]
            heapq.heapify(self._victims)
