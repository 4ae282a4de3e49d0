"""The audit log: one JSON object a line, in a file that only its owner can read.

It never contains input, output, commands or values of variables.
"""

import errno
import json
import logging
import os
import time
from collections.abc import Mapping

from procd.config import AuditConfig, ConfigError

log = logging.getLogger(__name__)


class AuditFile:
    """Appends records, each by one write(2).

    Raises:
        ConfigError: the file can't be opened.
    """

    def __init__(self, config: AuditConfig) -> None:
        self._config = config
        try:
            self._number = self._open()
        except OSError as exc:
            raise ConfigError(self._problem(exc)) from exc
        self._fails = False
        self._second = 0
        self._refused = 0
        self._unrecorded = 0

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        # The file may be a pipe, which must not block the event loop.
        return os.open(self._config.file, flags | os.O_NONBLOCK, 0o600)

    def _problem(self, exc: OSError) -> str:
        """Why the file can't be opened. Source: open(2), ENXIO."""
        reason = (
            "a pipe that nobody reads, or a socket" if exc.errno == errno.ENXIO else exc.strerror
        )
        return f"audit.file: {self._config.file}: {reason}"

    def reopen(self) -> str:
        """Open the file again, for log rotation; the old one stays in use if that fails.

        Returns:
            The problem, or "".
        """
        try:
            fresh = self._open()
        except OSError as exc:
            problem = self._problem(exc)
            log.error("the audit file can't be opened again: %s", problem)
            return problem
        os.close(self._number)
        self._number = fresh
        return ""

    def write(self, record: Mapping[str, object]) -> None:
        """Append a record; consecutive failures are logged once."""
        if self._number < 0:
            return
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        try:
            self._append(line)
        except OSError as exc:
            if not self._fails:
                log.error("the audit file can't be written: %s", exc.strerror)
            self._fails = True
        else:
            self._fails = False

    def _append(self, line: bytes) -> None:
        missing = len(line) - os.write(self._number, line)
        if missing:
            # The disk is full. Remove the partial line.
            end = os.fstat(self._number).st_size
            os.ftruncate(self._number, end - (len(line) - missing))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write_refused(self, record: Mapping[str, object]) -> None:
        """Append the record of a refused request; those beyond `audit.refused_per_s` are counted.

        So unauthenticated clients can't fill the disk.
        """
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._refused = second, 0
        self._refused += 1
        if self._refused > self._config.refused_per_s:
            self._unrecorded += 1
            return
        if self._unrecorded:
            record = {**record, "unrecordedBefore": self._unrecorded}
            self._unrecorded = 0
        self.write(record)

    def close(self) -> None:
        """Close the file; later records are dropped."""
        os.close(self._number)
        self._number = -1
