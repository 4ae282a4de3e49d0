"""asciicast, the file format of recorded terminals: version 3 written, versions 2 and 3 read.

A recording is lines of JSON: a header, then events. Pure standard library: the server and the
command line use it.

Source: asciinema, "asciicast v3" and "asciicast v2" file formats.
"""

import json
import math
import time
from codecs import getincrementaldecoder
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

# What parsing a line raises that isn't of a recording.
MALFORMED: Final = (
    LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError,
)  # fmt: skip


class Writer:
    """Encodes a recording; each method returns the lines to be written."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._decoder = getincrementaldecoder("utf-8")("replace")

    def header(self, cols: int, rows: int, term: str, title: str = "") -> bytes:
        terminal: dict[str, Any] = {"cols": cols, "rows": rows}
        if term:
            terminal["type"] = term
        document = {"version": 3, "term": terminal, "timestamp": int(time.time())}
        return _line(document | {"title": title} if title else document)

    def output(self, data: bytes, *, final: bool = False) -> bytes:
        """Output of the terminal; a character that comes in parts is in the line of its last."""
        text = self._decoder.decode(data, final)
        return self._event("o", text) if text else b""

    def resize(self, cols: int, rows: int) -> bytes:
        return self._event("r", f"{cols}x{rows}")

    def marker(self, text: str) -> bytes:
        return self._event("m", text)

    def end(self, exit_code: int | None) -> bytes:
        """The rest of the output, and the exit code of its program, if that is known."""
        rest = self.output(b"", final=True)
        return rest if exit_code is None else rest + self._event("x", str(exit_code))

    def _event(self, code: str, data: str) -> bytes:
        now = time.monotonic()
        interval_s, self._last = round(now - self._last, 6), now
        return _line([interval_s, code, data])


def _line(document: object) -> bytes:
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return text.encode(errors="replace") + b"\n"


class NotARecordingError(ValueError): ...


class Header(NamedTuple):
    """The first line; 0 or "" for what is missing, None without a limit of pauses."""

    version: int
    title: str
    cols: int
    rows: int
    timestamp: float
    idle_limit_s: float | None


class Event(NamedTuple):
    interval_s: float
    code: str
    data: str


def read_header(line: str | bytes) -> Header:
    """Parse the first line; raises NotARecordingError if it is no header of these versions."""
    try:
        document = json.loads(line)
        version, limit = document["version"], document.get("idle_time_limit")
        term = document.get("term", {})
        header = Header(
            version=version,
            title=str(document.get("title", "")),
            cols=int(term.get("cols", document.get("width", 0))),
            rows=int(term.get("rows", document.get("height", 0))),
            timestamp=float(document.get("timestamp", 0)),
            idle_limit_s=limit,
        )
    except MALFORMED as exc:
        raise NotARecordingError("not a recording") from exc
    if version not in (2, 3):
        raise NotARecordingError(f"asciicast version {version} is not known")
    if limit is not None and (type(limit) not in (int, float) or not limit >= 0):
        raise NotARecordingError(f"idle_time_limit is no time: {limit}")
    return header


def read_events(lines: Iterable[str], version: int) -> Iterator[Event]:
    """Parse the lines after the header; raises NotARecordingError if one is no event."""
    before = 0.0
    for number, line in enumerate(lines, 2):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            moment, code, data = json.loads(line)
            interval_s = float(moment) if version > 2 else float(moment) - before
            if not math.isfinite(interval_s):
                raise ValueError
            event = Event(max(0.0, interval_s), str(code), str(data))
        except MALFORMED as exc:
            raise NotARecordingError(f"line {number} is no event") from exc
        before = float(moment)
        yield event
