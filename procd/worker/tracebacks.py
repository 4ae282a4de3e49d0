"""How clients see exceptions of the user's code: with lines of cells, without frames of ours."""

from __future__ import annotations

import sys
import warnings  # noqa: F401 - once it is loaded, a SyntaxWarning shows the line that it is about
from io import StringIO
from os.path import dirname

from .isolation import BUILTINS as __builtins__  # type: ignore[no-redef]  # noqa: F401 - see there
from .isolation import import_standard, on_import

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CELL = "<stdin-%d>"
MAX_CELLS = 1000
MAX_SOURCE_CHARS = 32 << 20
MAX_NAME_CHARS = 256
MAX_VALUE_CHARS = 64 << 10
MAX_TRACEBACK_CHARS = 256 << 10
# As many as Python itself shows.
LAST_FRAMES = -1000
UNKNOWN = "<exception str() failed>"
HERE = dirname(__file__) + "/"  # noqa: PTH120 - pathlib takes longer than all the rest
# A class's own name, whatever its metaclass says.
name_of: Any = type.__dict__["__name__"].__get__


class Sources:
    """The lines of the latest cells, and tracebacks with them."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[int, None, list[str], str]] = {}  # as linecache has them
        self._chars = 0
        self.traceback: Any = None  # the module
        on_import("linecache", self._fill)

    def load(self) -> None:
        """Import traceback, which takes as long as Python's start; raises what the import does."""
        if self.traceback is None:
            self.traceback = import_standard("traceback")

    def _fill(self, linecache: Any) -> None:
        linecache.cache.update(self._entries)

    def remember(self, code: str, filename: str) -> None:
        lines = StringIO(code, newline=None).readlines()
        if lines and not lines[-1].endswith("\n"):  # places of carets are counted with it
            lines[-1] += "\n"
        caches = [self._entries, getattr(sys.modules.get("linecache"), "cache", {})]
        for cache in caches:
            cache[filename] = (len(code), None, lines, filename)
        self._chars += len(code)
        while len(self._entries) > 1 and (
            len(self._entries) > MAX_CELLS or self._chars > MAX_SOURCE_CHARS
        ):
            oldest = next(iter(self._entries))
            self._chars -= self._entries[oldest][0]
            for cache in caches:
                cache.pop(oldest, None)

    def describe(self, exc: BaseException) -> dict[str, str]:
        """Return the fields of an `error` frame; calls the user's code, such as `__str__`."""
        name = name_of(type(exc))
        if isinstance(exc, SyntaxError):
            self._complete(exc)
        try:
            value = str(exc)
        except Exception:  # noqa: BLE001 - a __str__ of the user's
            value = UNKNOWN
        try:
            self.load()
            self._fill(self.traceback.linecache)
            text = _format(exc, self.traceback.TracebackException)
        except Exception:  # noqa: BLE001 - an exception that can't be shown is still one
            text = f"{name}: {value}\n"
        return {
            "name": _cut(name, MAX_NAME_CHARS),
            "value": _cut(value, MAX_VALUE_CHARS),
            "traceback": _cut(text, MAX_TRACEBACK_CHARS),
        }

    def _complete(self, exc: Any) -> None:
        """Add to a SyntaxError of a cell the line, which the compiler looks for in a file."""
        if not _is_cell(exc.filename):
            return
        lines = self._entries[exc.filename][2] if exc.filename in self._entries else []
        exc.filename = "<stdin>"
        if exc.text is None and exc.lineno and exc.lineno <= len(lines):
            exc.text = lines[exc.lineno - 1]


def undescribed(exc: BaseException) -> dict[str, str]:
    """Return the fields of an exception whose description fails or is interrupted."""
    name = _cut(name_of(type(exc)), MAX_NAME_CHARS)
    return {"name": name, "value": UNKNOWN, "traceback": f"{name}: {UNKNOWN}\n"}


def _format(exc: BaseException, exception: Any) -> str:
    first = exc.__traceback__  # the first frame of a cell
    while first is not None and not _is_cell(first.tb_frame.f_code.co_filename):
        first = first.tb_next
    limit = None if hasattr(sys, "tracebacklimit") else LAST_FRAMES
    shown = exception(type(exc), exc, first, limit=limit)
    pending, seen = [shown], set()
    while pending:
        one = pending.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        one.stack[:] = [frame for frame in one.stack if not frame.filename.startswith(HERE)]
        for frame in [*one.stack, one]:  # `one` has a filename if it is a SyntaxError
            if _is_cell(getattr(frame, "filename", None)):
                frame.filename = "<stdin>"  # its line was looked up already
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
