"""Recordings of terminals: asciicast v3 files, of output and sizes.

What is typed is never in one, but for what the terminal echoes.

Source: asciinema's documentation, "asciicast v3".
"""

import asyncio
import json
import logging
import os
import re
import tempfile
import time
from codecs import getincrementaldecoder
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from procd.config import PtyConfig
from procd.errors import Conflict, Exhausted, ProcessNotFound
from procd.unix.fd import OwnedFd

log = logging.getLogger(__name__)

DECODER: Final = getincrementaldecoder("utf-8")

NAME: Final = re.compile(r"\d{8}T\d{6}\.\d{6}Z\.cast")
# Written at once: this many bytes or what came in this time.
FLUSH_BYTES: Final = 64 << 10
FLUSH_S: Final = 1.0
# Of a file's first line.
MAX_HEADER_BYTES: Final = 4096
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

    An error of the disk ends the recording, never the terminal.
    """

    def __init__(self, path: Path, header: Mapping[str, Any], max_bytes: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        self.path = path
        self._fd: OwnedFd | None = OwnedFd(os.open(path, flags, 0o600))
        self._max_bytes = max_bytes - RESERVE_BYTES
        self._size = 0
        self._held: list[bytes] = []
        self._held_bytes = 0
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
        if text := self._decoder.decode(data):
            self._event("o", text)

    def resized(self, cols: int, rows: int) -> None:
        """Record a new size."""
        self._event("r", f"{cols}x{rows}")

    def finish(self, exit_code: int | None) -> None:
        """Record the end, and close the file."""
        if rest := self._decoder.decode(b"", final=True):
            self._event("o", rest)
        if exit_code is not None:
            self._event("x", str(exit_code))
        self.close()

    def _event(self, kind: str, data: str) -> None:
        if self._fd is None:
            return
        now = time.monotonic()
        if self._put([round(now - self._last, 6), kind, data]):
            self._last = now
            return
        self._max_bytes += RESERVE_BYTES
        self._put([round(now - self._last, 6), "m", "the recording has reached its size limit"])
        self.close()

    def _put(self, line: object) -> bool:
        encoded = json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        if self._size + len(encoded) > self._max_bytes:
            return False
        self._size += len(encoded)
        self._held.append(encoded)
        self._held_bytes += len(encoded)
        if self._held_bytes >= FLUSH_BYTES:
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
        data = b"".join(self._held)
        self._held.clear()
        self._held_bytes = 0
        try:
            while data:
                data = data[os.write(self._fd.number, data) :]
        except OSError as exc:
            log.warning("recording ended: %s", exc.strerror, extra={"recording": self.path.name})
            self._fd.close()
            self._fd = None

    def discard(self) -> None:
        """Remove it: nothing ever ran."""
        self.close()
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Write what is held and close the file; a second time does nothing."""
        self.flush()
        if self._fd is not None:
            self._fd.close()
            self._fd = None


class Recordings:
    """The recordings in the state directory: those being written, and those of the past.

    Args:
        parent: the state directory; without one, they are in a temporary directory of their own.
    """

    def __init__(self, config: PtyConfig, parent: str | None) -> None:
        self._config = config
        self._directory = None if parent is None else Path(parent).absolute() / "recordings"
        self._active: dict[str, Recording] = {}

    def start(self, pty_id: str, cols: int, rows: int, term: str) -> Recording:
        """Begin a recording; the oldest of the past goes if there are too many.

        Raises:
            Exhausted: `pty.max_recordings` are being written.
            OSError: there can be no file.
        """
        if self._directory is None:
            # 0700 and a name that nobody can have prepared: mkdtemp(3).
            self._directory = Path(tempfile.mkdtemp(prefix="procd-recordings-"))
        self._directory.mkdir(mode=0o700, exist_ok=True)
        directory = self._directory
        names = self._names()
        past = [name for name in names if not self._is_active(name)]
        for name in past[: max(0, len(names) + 1 - self._config.max_recordings)]:
            (directory / name).unlink(missing_ok=True)
            names.remove(name)
        if len(names) >= self._config.max_recordings:
            raise Exhausted(f"limit of {self._config.max_recordings} recordings is reached")
        now = datetime.now(UTC)
        header = {
            "version": 3,
            "term": {"cols": cols, "rows": rows, "type": term[:MAX_TERM]},
            "timestamp": int(now.timestamp()),
            "title": pty_id,
        }
        path = directory / now.strftime("%Y%m%dT%H%M%S.%fZ.cast")
        recording = Recording(path, header, self._config.max_recording_bytes)
        self._active[path.name] = recording
        return recording

    def _names(self) -> list[str]:
        """All files of this kind, oldest first."""
        if self._directory is None:
            return []
        try:
            entries = os.listdir(self._directory)  # noqa: PTH208 - names are all that is needed
        except FileNotFoundError:
            return []
        return sorted(name for name in entries if NAME.fullmatch(name))

    def _is_active(self, name: str) -> bool:
        recording = self._active.get(name)
        if recording is not None and not recording.active:
            del self._active[name]
            return False
        return recording is not None

    def list(self) -> list[RecordingInfo]:
        """All recordings that can be read, oldest first."""
        found = [self._describe(self._path(name)) for name in self._names()]
        return [info for info in found if info is not None]

    def _path(self, name: str) -> Path:
        if self._directory is None or not NAME.fullmatch(name):
            raise ProcessNotFound("recording not found")
        return self._directory / name

    def _describe(self, path: Path) -> RecordingInfo | None:
        name = path.name
        if name in self._active:
            self._active[name].flush()
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                header = json.loads(file.readline(MAX_HEADER_BYTES))
            return RecordingInfo(
                name=name,
                pty_id=str(header["title"]),
                cols=int(header["term"]["cols"]),
                rows=int(header["term"]["rows"]),
                started_at=datetime.fromtimestamp(header["timestamp"], UTC),
                size_bytes=size,
                active=self._is_active(name),
            )
        except (OSError, ValueError, LookupError, TypeError) as exc:
            log.warning("recording can't be read: %s", exc, extra={"recording": name})
            return None

    def open(self, name: str) -> OwnedFd:
        """The file of a recording, to read from; all that was recorded by now is in it.

        Raises:
            ProcessNotFound: there is none of this name.
        """
        path = self._path(name)
        if name in self._active:
            self._active[name].flush()
        try:
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
            return OwnedFd(os.open(path, flags))
        except FileNotFoundError:
            raise ProcessNotFound("recording not found") from None

    def delete(self, name: str) -> None:
        """Remove a recording.

        Raises:
            Conflict: it is still being written.
            ProcessNotFound: there is none of this name.
        """
        self.open(name).close()
        if self._is_active(name):
            raise Conflict("recording is still being written")
        self._path(name).unlink(missing_ok=True)

    def close(self) -> None:
        """Close all files."""
        for recording in self._active.values():
            recording.close()
        self._active.clear()
