"""The standard streams of the interpreter.

Runs in the user's Python, 3.8 or later.
"""

from __future__ import annotations

import sys
from fcntl import F_DUPFD_CLOEXEC, F_GETFL, fcntl
from io import BufferedReader, BufferedWriter, FileIO, TextIOWrapper
from os import O_ACCMODE, dup2, fstat, set_blocking, write
from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit

from .own import BUILTINS as __builtins__  # type: ignore[no-redef]  # noqa: F401 - see there

# All of these by name, so that what the user's code does to modules isn't done to us.

TYPE_CHECKING = False  # nor what typing costs
if TYPE_CHECKING:
    from typing import Any

# So much is written without the end of its line. Source: Process API contract, section 11.3.
LONG_BYTES = 1024
# What the streams are called in `sys`.
NAMES = {
    0: ("stdin", "__stdin__"),
    1: ("stdout", "__stdout__"),
    2: ("stderr", "__stderr__"),
}


def far(number: int) -> int:
    """A copy of a descriptor with a high number, which children don't inherit."""
    soft, _ = getrlimit(RLIMIT_NOFILE)
    if soft == RLIM_INFINITY or soft > 1000:
        soft = 1000
    return fcntl(number, F_DUPFD_CLOEXEC, max(soft - 16, 10))


def identity(number: int) -> tuple[int, int]:
    """What tells the file that a descriptor is open on from any other.

    Raises:
        OSError: it is closed.
    """
    status = fstat(number)
    return status.st_dev, status.st_ino


def say(text: str) -> None:
    """Write a line of ours to whoever reads descriptor 2, if there is somebody."""
    try:
        write(2, f"{text}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        return


class Streams:
    """Descriptors 0 to 2 and the text streams on them, put right before each cell."""

    def __init__(self) -> None:
        self._originals = {number: far(number) for number in (0, 1, 2)}
        self._states = {number: _state(original) for number, original in self._originals.items()}
        self._opened: dict[int, TextIOWrapper] = {}

    @property
    def changed(self) -> bool:
        """Whether others have taken their place, or they aren't what they were."""
        for number, stream in self._opened.items():
            if not _as_made(stream, number):
                return True
            for name in NAMES[number]:
                if getattr(sys, name, None) is not stream:
                    return True
        return False

    def restore(self) -> None:
        """Undo what earlier code did to them; what it has put in their place may run its code.

        Raises:
            OSError: it has left nothing that they could be restored from.
        """
        # A stream of the user's closes what it was made of when nobody has it any more: it has to
        # go before we look what is left.
        for number, stream in self._opened.items():
            _name(number, stream)
        for number, original in self._originals.items():
            if not self._intact(number, number):
                if not self._intact(original, number):
                    raise OSError("the output's descriptors are gone")
                dup2(original, number)
            set_blocking(number, True)
        for number in NAMES:
            _name(number, self._stream(number))

    def _intact(self, candidate: int, number: int) -> bool:
        """Whether a descriptor is what `number` was at the start."""
        try:
            return _state(candidate) == self._states[number]
        except OSError:
            return False

    def _stream(self, number: int) -> TextIOWrapper:
        stream = self._opened.get(number)
        if stream is None or not _as_made(stream, number):
            if stream is not None:
                _disarm(stream)
            raw = FileIO(number, "w" if number else "r", closefd=False)
            # One that holds nothing back: the text waits in the stream above it.
            buffer = BufferedWriter(raw, 1) if number else BufferedReader(raw)
            # Whatever else the user's code makes of it, and forgets, closes it: that is to do
            # nothing. In this one alone, since TextIOWrapper is slower on top of a subclass.
            buffer.close = raw.flush  # type: ignore[method-assign]
            stream = TextIOWrapper(
                buffer, encoding="utf-8", errors="backslashreplace", line_buffering=number > 0
            )
            if number:
                # CPython's, which has no other name for it.
                stream._CHUNK_SIZE = LONG_BYTES  # type: ignore[attr-defined]  # noqa: SLF001
            stream.mode = "w" if number else "r"  # type: ignore[misc]  # an attribute at run time
            self._opened[number] = stream
        return stream

    def flush(self) -> None:
        """Write out what is buffered."""
        for number in (1, 2):
            stream = self._opened.get(number)
            if stream is None:
                continue
            try:
                set_blocking(number, True)
                TextIOWrapper.flush(stream)  # whatever is in the way in this one
            except Exception:  # noqa: BLE001 - parts of it may be the user's by now
                self._discard(number)

    def unlock(self) -> None:
        """After a fork, take them from threads that it has left behind in the midst of a write."""
        for number in (1, 2):
            try:
                buffer: Any = self._opened[number].buffer
                BufferedWriter.__init__(buffer, buffer.raw, 1)  # all that gives it a new lock
            except Exception:  # noqa: BLE001, S112 - there is none, or it was detached
                continue

    def _discard(self, number: int) -> None:
        """Have a stream that can't be written to forget its text, lest the next cell say it."""
        stream = self._opened.pop(number)
        try:
            dup2(self._originals[0], number)
            TextIOWrapper.flush(stream)
        except Exception:  # noqa: BLE001 - as above
            return  # it is closed, or there is no descriptor: the text goes with the stream


def _state(number: int) -> tuple[int, int, int]:
    """What file a descriptor is open on, and whether for reading or writing.

    Raises:
        OSError: it is closed.
    """
    return (*identity(number), fcntl(number, F_GETFL) & O_ACCMODE)


def _name(number: int, stream: TextIOWrapper) -> None:
    """Let a stream have its names, and whatever has had them go."""
    for name in NAMES[number]:
        setattr(sys, name, stream)


def _disarm(stream: TextIOWrapper) -> None:
    """Take the user's methods from a stream that goes: Python 3.13 shows what they raise then."""
    for method in ("flush", "close"):
        vars(stream).pop(method, None)
    try:
        vars(stream.buffer).pop("flush", None)
    except (TypeError, ValueError):  # it was detached: which of them depends on Python
        return


def _as_made(stream: TextIOWrapper, number: int) -> bool:
    try:
        return (
            not stream.closed
            and (stream.encoding, stream.line_buffering) == ("utf-8", number > 0)
            # No methods but its own.
            and vars(stream).keys() == {"mode"}
            and vars(stream.buffer).keys() == {"close"}
        )
    except ValueError:  # its buffer was detached
        return False
