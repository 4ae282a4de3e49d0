"""Recordings of terminals: asciicast v3 files, of output and sizes.

What is typed is never in one, but for what the terminal echoes.

Source: asciinema's documentation, "asciicast v3".
"""

import asyncio
import errno
import json
import logging
import os
import re
import stat
import tempfile
import time
from codecs import getincrementaldecoder
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from procd.config import PtyConfig
from procd.errors import Conflict, Exhausted, ProcessNotFound
from procd.output.statedir import StateDirectory
from procd.unix.fd import OwnedFd, write_all
from procd.unix.file import open_regular

log = logging.getLogger(__name__)

DECODER: Final = getincrementaldecoder("utf-8")

NAME: Final = re.compile(r"\d{8}T\d{6}\.\d{6}Z\.cast", re.ASCII)
NAME_FORMAT: Final = "%Y%m%dT%H%M%S.%fZ.cast"
# Where they are below the state directory.
DIRECTORY: Final = "recordings"
# Written at once: this many bytes or what came in this time.
FLUSH_BYTES: Final = 64 << 10
FLUSH_S: Final = 1.0
# Of a file's first line.
MAX_HEADER_BYTES: Final = 4096
# Of each side of a terminal.
MAX_CELLS: Final = 1000
# Characters of a terminal's name in it: one that is longer is none that anybody knows.
MAX_TERM: Final = 255
# Kept free for the last events of a file that reaches its limit.
RESERVE_BYTES: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingInfo:
    """What is told about a recording.

    Attributes:
        active: whether its terminal still writes it.
    """

    name: str
    pty_id: str
    cols: int
    rows: int
    started_at: datetime
    size_bytes: int
    active: bool


class Recording:
    """One file while it is written.

    An error of the disk, or a want of memory, ends the recording, never the terminal.
    """

    def __init__(self, path: Path, header: Mapping[str, Any], max_bytes: int) -> None:
        self.path = path
        self._fd: OwnedFd | None = open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        self._max_bytes = max_bytes - RESERVE_BYTES
        self._size = 0
        self._held = bytearray()
        self._decoder = DECODER("replace")
        self._last = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._put(header)

    @property
    def active(self) -> bool:
        """Whether more may come."""
        return self._fd is not None

    def output(self, data: bytes) -> None:
        """Record output; a character that comes in parts is recorded when it is whole."""
        self._event("o", data)

    def resized(self, cols: int, rows: int) -> None:
        """Record a new size."""
        self._event("r", f"{cols}x{rows}")

    def finish(self, exit_code: int | None) -> None:
        """Record the end, and close the file."""
        self._event("o", b"", final=True)
        if exit_code is not None:
            self._event("x", str(exit_code))
        self.close()

    def _event(self, kind: str, data: str | bytes, *, final: bool = False) -> None:
        if self._fd is None:
            return
        try:
            text = data if isinstance(data, str) else self._decoder.decode(data, final)
            if text:
                self._add(kind, text)
        except MemoryError:  # rather no more than with a hole
            self.close()
            log.warning("recording ended: no memory", extra={"recording": self.path.name})

    def _add(self, kind: str, text: str) -> None:
        now = time.monotonic()
        if self._put([round(now - self._last, 6), kind, text]):
            self._last = now
            return
        self._max_bytes += RESERVE_BYTES
        self._put([round(now - self._last, 6), "m", "the recording has reached its size limit"])
        self.close()

    def _put(self, line: object) -> bool:
        encoded = json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        if self._size + len(encoded) > self._max_bytes:
            return False
        self._held += encoded
        self._size += len(encoded)
        if len(self._held) >= FLUSH_BYTES:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self.flush)
        return True

    def flush(self) -> None:
        """Write what is held."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._fd is None:
            return
        try:
            write_all(self._fd, self._held)
        except OSError as exc:
            self._give_up(self._fd, exc.strerror)
        except MemoryError:
            self._give_up(self._fd, "no memory")
        self._held.clear()

    def _give_up(self, fd: OwnedFd, reason: str | None) -> None:
        """Have the file end with the last of its lines that is whole, of `_held` or before."""
        begin = self._size - len(self._held)
        written = os.lseek(fd.number, 0, os.SEEK_CUR) - begin
        with suppress(OSError):
            os.ftruncate(fd.number, begin + self._held.rfind(b"\n", 0, written) + 1)
        fd.close()
        self._fd = None
        log.warning("recording ended: %s", reason, extra={"recording": self.path.name})

    def discard(self) -> None:
        """Remove it: nothing ever ran.

        Raises:
            OSError: the file can't be removed.
        """
        self.close()
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Write what is held and close the file; a second time does nothing."""
        self.flush()
        if self._fd is not None:
            self._fd.close()
            self._fd = None


def _check_own(directory: Path) -> None:
    """Refuse what others have put where our directory should be, as into a state directory of all.

    Raises:
        OSError: there is nothing, or it is a link, a file or somebody else's.
    """
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise NotADirectoryError(errno.ENOTDIR, "not a directory of procd's own", str(directory))


class Recordings:
    """The recordings in the state directory: those being written, and those of the past.

    Args:
        parent: the state directory; without one, they are in a temporary directory, and go when
            procd does: nobody would find them any more.
    """

    def __init__(self, config: PtyConfig, parent: str | None) -> None:
        self._config = config
        self._directory = None if parent is None else Path(parent).absolute() / DIRECTORY
        self._temporary: StateDirectory | None = None
        self._active: dict[str, Recording] = {}

    def start(self, pty_id: str, cols: int, rows: int, term: str) -> Recording:
        """Begin a recording.

        When its terminal runs, `make_room` is to be called; or, if that can't be started, its
        `discard`.

        Raises:
            Exhausted: `pty.max_recordings` are being written.
            OSError: there can be no file.
        """
        self._active = {name: each for name, each in self._active.items() if each.active}
        if len(self._active) >= self._config.max_recordings:
            raise Exhausted(f"limit of {self._config.max_recordings} recordings is reached")
        if self._directory is None:
            self._temporary = StateDirectory(tempfile.gettempdir())
            self._directory = self._temporary.path / DIRECTORY
        self._directory.mkdir(mode=0o700, exist_ok=True)
        _check_own(self._directory)
        now = datetime.now(UTC)
        header = {
            "version": 3,
            "term": {"cols": cols, "rows": rows, "type": term[:MAX_TERM]},
            "timestamp": int(now.timestamp()),
            "title": pty_id,
        }
        path = self._directory / self._last_name(now)
        recording = Recording(path, header, self._config.max_recording_bytes)
        self._active[path.name] = recording
        return recording

    def _last_name(self, now: datetime) -> str:
        """The name of one that begins now: it comes last, though the clock was set back."""
        for path in reversed(self._paths()):
            try:
                newest = datetime.strptime(path.name, NAME_FORMAT).replace(tzinfo=UTC)
                now = max(now, newest + datetime.resolution)
                break
            except (ValueError, OverflowError):  # somebody else's: none can come after it
                continue
        return now.strftime(NAME_FORMAT)

    def make_room(self) -> None:
        """Remove the oldest of the past if there are too many; what can't be removed is left."""
        try:
            paths = self._paths()
        except OSError as exc:
            log.warning("old recordings can't be removed: %s", exc.strerror)
            return
        excess = len(paths) - self._config.max_recordings
        for path in paths:
            if excess <= 0:
                return
            if self._is_active(path.name):
                continue
            try:
                path.unlink(missing_ok=True)
                excess -= 1
            except OSError as exc:
                log.warning(
                    "recording can't be removed: %s", exc.strerror, extra={"recording": path.name}
                )

    def _paths(self) -> list[Path]:
        """All files of this kind, oldest first; nothing else that has such a name is one."""
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
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _is_active(self, name: str) -> bool:
        return name in self._active and self._active[name].active

    def list(self) -> list[RecordingInfo]:
        """All recordings that can be read, oldest first."""
        found = [self._describe(path.name) for path in self._paths()]
        return [info for info in found if info is not None]

    def _describe(self, name: str) -> RecordingInfo | None:
        """What is told of a recording; None of a file that is none, whoever has made it."""
        try:
            file = self.open(name)
            try:
                size = os.fstat(file.number).st_size
                begin = os.pread(file.number, MAX_HEADER_BYTES, 0)
            finally:
                file.close()
            header = json.loads(begin.partition(b"\n")[0])
            pty_id = str(header["title"])
            pty_id.encode()  # no lone surrogates: they are no text that can be sent
            cols, rows = int(header["term"]["cols"]), int(header["term"]["rows"])
            if not (1 <= cols <= MAX_CELLS and 1 <= rows <= MAX_CELLS):
                raise ValueError("a terminal can't be of this size")
            started_at = datetime.fromtimestamp(header["timestamp"], UTC)
        except (
            OSError, ProcessNotFound, ValueError, LookupError, TypeError, OverflowError,
            RecursionError,
        ) as exc:  # fmt: skip
            log.warning("recording can't be read: %s", exc, extra={"recording": name})
            return None
        return RecordingInfo(
            name=name,
            pty_id=pty_id,
            cols=cols,
            rows=rows,
            started_at=started_at,
            size_bytes=size,
            active=self._is_active(name),
        )

    def open(self, name: str) -> OwnedFd:
        """The file of a recording, to read from; all that was recorded by now is in it.

        Raises:
            ProcessNotFound: there is none of this name that can be read.
            OSError: it can't be opened.
        """
        path = self._path(name)
        if name in self._active:
            self._active[name].flush()
        try:
            return open_regular(path, os.O_RDONLY)
        except (FileNotFoundError, PermissionError):
            raise ProcessNotFound("recording not found") from None

    def _path(self, name: str) -> Path:
        """Where the recording of this name is.

        Raises:
            ProcessNotFound: there is none, or something that is no file.
        """
        if self._directory is not None and NAME.fullmatch(name):
            path = self._directory / name
            with suppress(FileNotFoundError, NotADirectoryError):
                _check_own(self._directory)
                if stat.S_ISREG(path.lstat().st_mode):
                    return path
        raise ProcessNotFound("recording not found")

    def delete(self, name: str) -> None:
        """Remove a recording.

        Raises:
            Conflict: it is still being written.
            ProcessNotFound: there is none of this name.
        """
        path = self._path(name)
        if self._is_active(name):
            raise Conflict("recording is still being written")
        path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close all files, and remove what is of no more use."""
        for recording in self._active.values():
            recording.close()
        self._active.clear()
        if self._temporary is not None:
            self._temporary.remove()
            self._temporary = self._directory = None
