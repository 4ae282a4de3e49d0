"""What the user's code raises, as clients are told: with the lines of the cells, less ours."""

from __future__ import annotations

import linecache
import sys
import warnings  # noqa: F401 - with it loaded, the line that a SyntaxWarning is about is shown
from io import StringIO
from os.path import dirname
from traceback import TracebackException

from .own import BUILTINS as __builtins__  # type: ignore[no-redef]  # noqa: F401 - see there
from .own import Modules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CELL = "<stdin-%d>"
MAX_CELLS = 1000
MAX_SOURCE_CHARS = 32 << 20
MAX_NAME_CHARS = 256
MAX_VALUE_CHARS = 64 << 10
MAX_TRACEBACK_CHARS = 256 << 10
# As Python itself shows: of a million frames, each takes its time.
LAST_FRAMES = -1000
UNKNOWN = "<exception str() failed>"
# What the traceback module imports as it needs it, and linecache for that.
LATE = ("ast", "token", "tokenize", "unicodedata")
HERE = dirname(__file__) + "/"  # noqa: PTH120 - pathlib costs as much as all the rest
# A class's own name, whatever its metaclass says.
name_of: Any = type.__dict__["__name__"].__get__


class Sources:
    """The text of the latest cells."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[int, None, list[str], str]] = {}
        self._chars = 0
        self._own_modules = Modules(*LATE)

    def remember(self, code: str, filename: str) -> None:
        """Keep a cell's lines."""
        lines = StringIO(code, newline=None).readlines()
        if lines and not lines[-1].endswith("\n"):  # the places of carets are counted with it
            lines[-1] += "\n"
        self._entries[filename] = (len(code), None, lines, filename)
        self._chars += len(code)
        cache = _cache()
        cache[filename] = self._entries[filename]
        while len(self._entries) > 1 and (
            len(self._entries) > MAX_CELLS or self._chars > MAX_SOURCE_CHARS
        ):
            oldest = next(iter(self._entries))
            self._chars -= self._entries.pop(oldest)[0]
            cache.pop(oldest, None)

    def describe(self, exc: BaseException) -> dict[str, str]:
        """An exception as the `error` frame shows it; runs the user's code, to say it."""
        name = name_of(type(exc))
        _cache().update(self._entries)
        if issubclass(type(exc), SyntaxError):
            self._complete(exc)
        try:
            value = str(exc)
        except Exception:  # noqa: BLE001 - a __str__ of the user's
            value = UNKNOWN
        try:
            with self._own_modules:
                text = _traceback(exc)
        except Exception:  # noqa: BLE001 - an exception that can't be shown is still one
            text = f"{name}: {value}\n"
        return {
            "name": _cut(name, MAX_NAME_CHARS),
            "value": _cut(value, MAX_VALUE_CHARS),
            "traceback": _cut(text, MAX_TRACEBACK_CHARS),
        }

    def _complete(self, exc: Any) -> None:
        """Say where a SyntaxError of a cell is, and what stands there.

        The compiler looks for the line in a file, and counts bytes; the parser has both right.
        """
        if not _is_cell(exc.filename):
            return
        _, _, lines, _ = self._entries.get(exc.filename, (0, None, [], ""))
        exc.filename = "<stdin>"
        if exc.text is not None or not exc.lineno or exc.lineno > len(lines):
            return
        exc.text = lines[exc.lineno - 1]
        exc.offset = _characters(exc.text, exc.offset)
        if getattr(exc, "end_lineno", None) == exc.lineno:  # since Python 3.10
            exc.end_offset = _characters(exc.text, exc.end_offset)


def _cache() -> dict[str, Any]:
    if type(linecache.cache) is not dict:  # the user's code has made something else of it
        linecache.cache = {}
    return linecache.cache


def _characters(line: str, offset: int | None) -> int | None:
    """From a place in the line's UTF-8, counted from 1, to one in its text."""
    if not offset or offset < 1:
        return offset
    return len(line.encode()[: offset - 1].decode("utf-8", "replace")) + 1


def bare(exc: BaseException) -> dict[str, str]:
    """The same of an exception that can't be described."""
    name = _cut(name_of(type(exc)), MAX_NAME_CHARS)
    return {"name": name, "value": UNKNOWN, "traceback": f"{name}: {UNKNOWN}\n"}


def _traceback(exc: BaseException) -> str:
    first = exc.__traceback__
    while first is not None and not _is_cell(first.tb_frame.f_code.co_filename):
        first = first.tb_next
    limit = None if hasattr(sys, "tracebacklimit") else LAST_FRAMES
    shown = TracebackException(type(exc), exc, first, limit=limit)
    pending, seen = [shown], set()
    while pending:
        one = pending.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        one.stack[:] = [frame for frame in one.stack if not frame.filename.startswith(HERE)]
        for frame in one.stack:
            if _is_cell(frame.filename):
                frame.filename = "<stdin>"  # its line was looked up already
        if _is_cell(getattr(one, "filename", None)):
            one.filename = "<stdin>"  # of a SyntaxError that is a cause
        pending += [cause for cause in (one.__cause__, one.__context__) if cause is not None]
        pending += getattr(one, "exceptions", None) or []
    if not shown.stack and shown.__cause__ is None and shown.__context__ is None:
        return "".join(shown.format_exception_only())
    return "".join(shown.format())


def _is_cell(filename: object) -> bool:
    return isinstance(filename, str) and filename.startswith("<stdin-")


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters dropped ...]\n{text[-half:]}"
