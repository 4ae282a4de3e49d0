"""Recordings of terminals: asciicast files of output and sizes.

What is typed is recorded only as far as the terminal echoes it.
"""

import asyncio
import errno
import logging
import os
import re
import stat
import tempfile
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from procd.config import PtyConfig
from procd.errors import Conflict, Exhausted, ProcessNotFound
from procd.output.asciicast import Writer, read_header
from procd.output.statedir import StateDirectory
from procd.unix.fd import OwnedFd, write_all
from procd.unix.file import open_regular

log = logging.getLogger(__name__)

NAME: Final = re.compile(r"\d{8}T\d{6}\.\d{6}Z\.cast", re.ASCII)
NAME_FORMAT: Final = "%Y%m%dT%H%M%S.%fZ.cast"
# Below the state directory.
DIRECTORY: Final = "recordings"
# Written at once: so many bytes, or what came in this time.
FLUSH_BYTES: Final = 64 << 10
FLUSH_S: Final = 1.0
MAX_HEADER_BYTES: Final = 4096
# Of the size limit, for the last events.
RESERVE_BYTES: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingInfo:
    """A recording, as it is listed; `active` while it is being written."""

    name: str
    pty_id: str
    cols: int
    rows: int
    started_at: datetime
    size_bytes: int
    active: bool


class Recording:
    """A file while it is written. An error of the disk ends it, and not the terminal."""

    def __init__(
        self, path: Path, max_bytes: int, *, cols: int, rows: int, term: str, title: str
    ) -> None:
        self.path = path
        self._fd: OwnedFd | None = open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        self._writer = Writer()
        self._held = self._writer.header(cols, rows, term[:255], title)
        self._size = len(self._held)
        self._max_bytes = max_bytes - RESERVE_BYTES
        self._timer: asyncio.TimerHandle | None = None

    @property
    def active(self) -> bool:
        return self._fd is not None

    def output(self, data: bytes) -> None:
        self._append(self._writer.output(data))

    def resized(self, cols: int, rows: int) -> None:
        self._append(self._writer.resize(cols, rows))

    def finish(self, exit_code: int | None) -> None:
        self._append(self._writer.end(exit_code))
        self.close()

    def _append(self, lines: bytes) -> None:
        if self._fd is None or not lines:
            return
        if self._size + len(lines) > self._max_bytes:
            self._held += self._writer.marker("the recording has reached its size limit")
            self.close()
            return
        self._held += lines
        self._size += len(lines)
        if len(self._held) >= FLUSH_BYTES:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self.flush)

    def flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        held, self._held = self._held, b""
        if self._fd is None:
            return
        begin = os.lseek(self._fd.number, 0, os.SEEK_CUR)
        try:
            write_all(self._fd, held)
        except OSError as exc:
            log.warning("recording ended: %s", exc.strerror, extra={"recording": self.path.name})
            written = os.lseek(self._fd.number, 0, os.SEEK_CUR) - begin
            with suppress(OSError):  # the file ends with a whole line
                os.ftruncate(self._fd.number, begin + held.rfind(b"\n", 0, written) + 1)
            self._fd.close()
            self._fd = None

    def discard(self) -> None:
        """Remove the file: the terminal did not start."""
        self.close()
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Write what is held and close the file; a second time does nothing."""
        self.flush()
        if self._fd is not None:
            self._fd.close()
            self._fd = None


class Recordings:
    """The recordings in the state directory, or in a temporary one that is removed at the end."""

    def __init__(self, config: PtyConfig, state_dir: str | None) -> None:
        self._config = config
        self._directory = None if state_dir is None else Path(state_dir).absolute() / DIRECTORY
        self._temporary: StateDirectory | None = None
        self._active: dict[str, Recording] = {}

    def start(self, pty_id: str, cols: int, rows: int, term: str) -> Recording:
        """Begin a recording; raises Exhausted if too many are being written, or OSError."""
        self._active = {name: each for name, each in self._active.items() if each.active}
        if len(self._active) >= self._config.max_recordings:
            raise Exhausted(f"limit of {self._config.max_recordings} recordings is reached")
        if self._directory is None:
            self._temporary = StateDirectory(tempfile.gettempdir())
            self._directory = self._temporary.path / DIRECTORY
        self._directory.mkdir(mode=0o700, exist_ok=True)
        _check_own(self._directory)
        path = self._directory / datetime.now(UTC).strftime(NAME_FORMAT)
        max_bytes = self._config.max_recording_bytes
        recording = Recording(path, max_bytes, cols=cols, rows=rows, term=term, title=pty_id)
        self._active[path.name] = recording
        return recording

    def remove_oldest(self) -> None:
        """Remove the oldest that are not being written, as long as there are too many."""
        paths = self._paths()
        excess = len(paths) - self._config.max_recordings
        finished = [path for path in paths if not self._is_active(path.name)]
        for path in finished[: max(excess, 0)]:
            with suppress(OSError):
                path.unlink()

    def _paths(self) -> list[Path]:
        if self._directory is None:
            return []
        try:
            _check_own(self._directory)
            with os.scandir(self._directory) as entries:
                return sorted(
                    self._directory / entry.name
                    for entry in entries
                    if NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
                )
        except OSError:  # it is not there yet, or is not ours
            return []

    def _is_active(self, name: str) -> bool:
        return name in self._active and self._active[name].active

    def list(self) -> list[RecordingInfo]:
        """All recordings that can be read, oldest first."""
        found = [self._describe(path.name) for path in self._paths()]
        return [info for info in found if info is not None]

    def _describe(self, name: str) -> RecordingInfo | None:
        """None if its header can't be read, as after a crash."""
        try:
            with closing(self.open(name)) as file:
                size_bytes = os.fstat(file.number).st_size
                begin = os.pread(file.number, MAX_HEADER_BYTES, 0)
            header = read_header(begin.partition(b"\n")[0])
            started_at = datetime.fromtimestamp(header.timestamp, UTC)
        except (OSError, ProcessNotFound, ValueError, OverflowError) as exc:
            log.warning("recording can't be read: %s", exc, extra={"recording": name})
            return None
        return RecordingInfo(
            name=name,
            pty_id=header.title,
            cols=header.cols,
            rows=header.rows,
            started_at=started_at,
            size_bytes=size_bytes,
            active=self._is_active(name),
        )

    def open(self, name: str) -> OwnedFd:
        """Open a recording, with all that was recorded so far; ProcessNotFound or OSError."""
        path = self._path(name)
        if name in self._active:
            self._active[name].flush()
        try:
            return open_regular(path, os.O_RDONLY)
        except (FileNotFoundError, PermissionError):
            raise ProcessNotFound("recording not found") from None

    def _path(self, name: str) -> Path:
        if self._directory is not None and NAME.fullmatch(name):
            path = self._directory / name
            with suppress(OSError):
                _check_own(self._directory)
                if stat.S_ISREG(path.lstat().st_mode):
                    return path
        raise ProcessNotFound("recording not found")

    def delete(self, name: str) -> None:
        """Remove a recording; Conflict if it is being written, or ProcessNotFound."""
        path = self._path(name)
        if self._is_active(name):
            raise Conflict("recording is still being written")
        path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close all files, and remove the temporary directory."""
        for recording in self._active.values():
            recording.close()
        self._active.clear()
        if self._temporary is not None:
            self._temporary.remove()
            self._temporary = self._directory = None


def _check_own(directory: Path) -> None:
    """Raise OSError for a link or another user's directory, where others can write."""
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise NotADirectoryError(errno.ENOTDIR, "not a directory of procd's own", str(directory))
