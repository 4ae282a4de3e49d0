"""Recordings of terminals: asciicast version 3 written, versions 2 and 3 read.

Source: asciinema, "asciicast v3" file format.
"""

import contextlib
import json
import math
from codecs import getincrementaldecoder
from collections.abc import Iterator
from typing import IO, Any, Final, NamedTuple

from procd.cli.failure import Failure

VERSIONS: Final = (2, 3)
MAX_LINE: Final = 16 << 20


class Event(NamedTuple):
    """One event: seconds since the one before, what it is, and its data."""

    interval_s: float
    code: str
    data: str


class Writer:
    """Writes a recording, line by line, so that what is there is always whole.

    Args:
        begin: seconds since the epoch.
        now: seconds of any clock that never goes back.

    Raises:
        Failure: it can't be written, at any call.
        BrokenPipeError: nobody reads what is written.
    """

    def __init__(
        self, file: IO[str], *, cols: int, rows: int, term: str, begin: int, now: float
    ) -> None:
        self._file = file
        self._before = now
        # A character may come in parts.
        self._decoder = getincrementaldecoder("utf-8")("replace")
        about: dict[str, Any] = {"cols": cols, "rows": rows}
        if term:
            about["type"] = term
        self._line({"version": 3, "term": about, "timestamp": begin})

    def output(self, data: bytes, now: float) -> None:
        """The terminal showed this."""
        if text := self._decoder.decode(data):
            self._event(now, "o", text)

    def resize(self, cols: int, rows: int, now: float) -> None:
        """The terminal changed its size."""
        self._event(now, "r", f"{cols}x{rows}")

    def exit(self, code: int, now: float) -> None:
        """Its shell ended."""
        self._event(now, "x", str(code))

    def _event(self, now: float, code: str, data: str) -> None:
        self._line([round(now - self._before, 6), code, data])
        self._before = now

    def _line(self, document: object) -> None:
        line = json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n"
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as exc:
            with contextlib.suppress(OSError):
                self._file.close()  # lest it be tried again
            if isinstance(exc, BrokenPipeError):
                raise
            raise Failure(f"{self._file.name}: {exc.strerror}") from exc


def read(file: IO[str], name: str) -> tuple[float | None, Iterator[Event]]:
    """The longest pause that a recording asks for, seconds, if it does; and its events.

    Raises:
        Failure: it is none, or can't be read; for an event that is none, when that is read.
    """
    try:
        header = json.loads(_read_line(file, name))
        version = header["version"]
        limit = header.get("idle_time_limit")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise Failure(
            f"{name}: not a recording", "asciicast is what `procd record` writes"
        ) from exc
    if version not in VERSIONS:
        raise Failure(f"{name}: asciicast version {version} is not known")
    if limit is not None and (type(limit) not in (int, float) or not limit >= 0):
        raise Failure(f"{name}: idle_time_limit is no time: {limit}")
    return limit, _events(file, name, version)


def _read_line(file: IO[str], name: str) -> str:
    try:
        return file.readline(MAX_LINE)
    except OSError as exc:
        raise Failure(f"{name}: {exc.strerror}") from exc


def _events(file: IO[str], name: str, version: int) -> Iterator[Event]:
    before = 0.0
    number = 1
    while line := _read_line(file, name):
        number += 1
        if not line.strip() or line.startswith("#"):
            continue
        try:
            time, code, data = json.loads(line)
            interval_s = float(time) if version > 2 else float(time) - before
            if not math.isfinite(interval_s):
                raise ValueError
            event = Event(max(0.0, interval_s), str(code), str(data))
        except (ValueError, TypeError, OverflowError, RecursionError) as exc:
            raise Failure(f"{name}: line {number} is no event") from exc
        before = float(time)
        yield event
