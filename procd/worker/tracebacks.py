"""What the user's code raises, as clients are told: with the lines of the cells, less ours."""

from __future__ import annotations

import sys
import warnings  # noqa: F401 - with it loaded, the line that a SyntaxWarning is about is shown
from io import StringIO
from os.path import dirname

from .on_import import on_import
from .own import BUILTINS as __builtins__  # type: ignore[no-redef]  # noqa: F401 - see there
from .own import Modules, is_own

TYPE_CHECKING = False
if TYPE_CHECKING:
    import types
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
# The traceback module takes as long to import as Python itself to start: it, and what it and
# linecache import in any version, some of it as they need it.
HEAVY = (
    "traceback", "linecache", "_colorize", "ast", "codeop", "collections", "contextlib", "copyreg",
    "enum", "functools", "heapq", "keyword", "operator", "re", "reprlib", "sre_compile",
    "sre_constants", "sre_parse", "textwrap", "token", "tokenize", "types", "unicodedata",
)  # fmt: skip
HERE = dirname(__file__) + "/"  # noqa: PTH120 - pathlib costs as much as all the rest
# A class's own name, whatever its metaclass says.
name_of: Any = type.__dict__["__name__"].__get__


class Sources:
    """The text of the latest cells, and what shows it."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[int, None, list[str], str]] = {}
        self._chars = 0
        self._traceback: Any = None  # the module, once it is loaded
        self._linecache: Any = None  # that of the user's code, once it is
        self._own_modules = Modules(*HEAVY)
        on_import("linecache", self._attach)

    @property
    def prepared(self) -> bool:
        """Whether all is loaded that tells of an exception."""
        return self._traceback is not None

    def prepare(self) -> None:
        """Load it, if that is yet to be done.

        Raises:
            Exception: there is no more memory or no descriptor for it, or whatever the user's code
                has made of what it takes.
        """
        if self._traceback is None:
            with self._own_modules:
                import traceback
            self._traceback = traceback
            self._show_cells()  # the user's code may have the same linecache

    def _show_cells(self) -> None:
        for cache in self._caches():
            cache.update(self._entries)

    def _attach(self, linecache: Any) -> None:
        if is_own(linecache, "linecache"):
            self._linecache = linecache
            _cache_of(linecache).update(self._entries)

    def _caches(self) -> list[dict[str, Any]]:
        """Where what shows lines of source looks for them."""
        modules = [self._linecache, getattr(self._traceback, "linecache", None)]
        return [_cache_of(module) for module in modules if module is not None]

    def remember(self, code: str, filename: str) -> None:
        """Keep a cell's lines."""
        lines = StringIO(code, newline=None).readlines()
        if lines and not lines[-1].endswith("\n"):  # the places of carets are counted with it
            lines[-1] += "\n"
        caches = self._caches()
        for entries in (self._entries, *caches):
            entries[filename] = (len(code), None, lines, filename)
        self._chars += len(code)
        while len(self._entries) > 1 and (
            len(self._entries) > MAX_CELLS or self._chars > MAX_SOURCE_CHARS
        ):
            oldest = next(iter(self._entries))
            self._chars -= self._entries.pop(oldest)[0]
            for cache in caches:
                cache.pop(oldest, None)

    def describe(self, exc: BaseException) -> dict[str, str]:
        """An exception as the `error` frame shows it; runs the user's code, to say it."""
        name = name_of(type(exc))
        if issubclass(type(exc), SyntaxError):
            self._complete(exc)
        try:
            value = str(exc)
        except Exception:  # noqa: BLE001 - a __str__ of the user's
            value = UNKNOWN
        try:
            self.prepare()
            self._show_cells()
            with self._own_modules:
                text = _traceback(exc, self._traceback.TracebackException)
        except Exception:  # noqa: BLE001 - an exception that can't be shown is still one
            text = f"{self._frames(exc)}{name}: {value}\n"
        return {
            "name": _cut(name, MAX_NAME_CHARS),
            "value": _cut(value, MAX_VALUE_CHARS),
            "traceback": _cut(text, MAX_TRACEBACK_CHARS),
        }

    def _frames(self, exc: BaseException) -> str:
        """Where it comes from, as far as that can be told without the traceback module."""
        text = ""
        for filename, line, function in _places(exc)[LAST_FRAMES:]:
            shown = "<stdin>" if _is_cell(filename) else filename
            text += f'  File "{shown}", line {line}, in {function}\n'
            if filename in self._entries:
                text += f"    {self._entries[filename][2][line - 1].strip()}\n"
        return text and f"Traceback (most recent call last):\n{text}"

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


def _cache_of(linecache: Any) -> dict[str, Any]:
    if type(linecache.cache) is not dict:  # the user's code has made something else of it
        linecache.cache = {}
    cache: dict[str, Any] = linecache.cache
    return cache


def _characters(line: str, offset: int | None) -> int | None:
    """From a place in the line's UTF-8, counted from 1, to one in its text."""
    if not offset or offset < 1:
        return offset
    return len(line.encode()[: offset - 1].decode("utf-8", "replace")) + 1


def bare(exc: BaseException) -> dict[str, str]:
    """The same of an exception that can't be described."""
    name = _cut(name_of(type(exc)), MAX_NAME_CHARS)
    return {"name": name, "value": UNKNOWN, "traceback": f"{name}: {UNKNOWN}\n"}


def _first(exc: BaseException) -> types.TracebackType | None:
    """Where the frames of the cells begin."""
    found = exc.__traceback__
    while found is not None and not _is_cell(found.tb_frame.f_code.co_filename):
        found = found.tb_next
    return found


def _places(exc: BaseException) -> list[tuple[str, int, str]]:
    places = []
    entry = _first(exc)
    while entry is not None:
        code = entry.tb_frame.f_code
        if not code.co_filename.startswith(HERE):
            places.append((code.co_filename, entry.tb_lineno, code.co_name))
        entry = entry.tb_next
    return places


def _traceback(exc: BaseException, exception: Any) -> str:
    limit = None if hasattr(sys, "tracebacklimit") else LAST_FRAMES
    shown = exception(type(exc), exc, _first(exc), limit=limit)
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
