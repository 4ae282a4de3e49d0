"""The standard streams of the interpreter.

Runs in the user's Python, 3.8 or later.
"""

from __future__ import annotations

import sys
from fcntl import F_DUPFD_CLOEXEC, fcntl
from io import BufferedReader, BufferedWriter, FileIO, TextIOWrapper
from os import dup2, fstat, set_blocking, write
from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit

from .own import BUILTINS as __builtins__  # type: ignore[no-redef]  # noqa: F401 - see there

# All of these by name, so that what the user's code does to modules isn't done to us.

# So much is written without the end of its line. Source: Process API contract, section 11.3.
LONG_BYTES = 1024


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
        self._identities = {
            number: identity(original) for number, original in self._originals.items()
        }
        self._opened: dict[int, TextIOWrapper] = {}

    def restore(self) -> None:
        """Undo what earlier code did to them.

        Raises:
            OSError: it has left nothing that they could be restored from.
        """
        for number, original in self._originals.items():
            if not self._intact(number, number):
                if not self._intact(original, number):
                    raise OSError("the output's descriptors are gone")
                dup2(original, number)
            set_blocking(number, True)
        sys.stdin = sys.__stdin__ = self._stream(0)  # type: ignore[misc]  # not final at run time
        sys.stdout = sys.__stdout__ = self._stream(1)  # type: ignore[misc]  # as above
        sys.stderr = sys.__stderr__ = self._stream(2)  # type: ignore[misc]  # as above

    def _intact(self, candidate: int, number: int) -> bool:
        """Whether a descriptor is what `number` was at the start."""
        try:
            return identity(candidate) == self._identities[number]
        except OSError:
            return False

    def _stream(self, number: int) -> TextIOWrapper:
        stream = self._opened.get(number)
        if stream is None or not _as_made(stream, number):
            raw = FileIO(number, "w" if number else "r", closefd=False)
            # One that holds nothing back: the text waits in the stream above it.
            buffer = BufferedWriter(raw, 1) if number else BufferedReader(raw)
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

    def _discard(self, number: int) -> None:
        """Have a stream that can't be written to forget its text, lest the next cell say it."""
        stream = self._opened.pop(number)
        try:
            dup2(self._originals[0], number)
            TextIOWrapper.flush(stream)
        except Exception:  # noqa: BLE001 - as above
            return  # it is closed, or there is no descriptor: the text goes with the stream


def _as_made(stream: TextIOWrapper, number: int) -> bool:
    made = ("utf-8", number > 0)
    try:
        return not stream.closed and (stream.encoding, stream.line_buffering) == made
    except ValueError:  # its buffer was detached
        return False
