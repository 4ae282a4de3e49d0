"""The standard streams of the interpreter (Python 3.8 or later), restored before each cell."""

from __future__ import annotations

import sys
from fcntl import F_DUPFD_CLOEXEC, fcntl
from io import BufferedReader, BufferedWriter, FileIO, TextIOWrapper
from os import dup2, set_blocking, write
from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit

from .isolation import BUILTINS as __builtins__  # type: ignore[no-redef]  # noqa: F401 - see there

# Functions are imported by name: a module's attribute may be replaced by the user's code.

# Text without the end of a line that is written at once. Source: Process API contract, 11.3.
LONG_BYTES = 1024
# The names of the streams in `sys`.
NAMES = {
    0: ("stdin", "__stdin__"),
    1: ("stdout", "__stdout__"),
    2: ("stderr", "__stderr__"),
}


def move_up(number: int) -> int:
    """Duplicate a descriptor at a high number, which programs rarely close; not inherited."""
    soft, _ = getrlimit(RLIMIT_NOFILE)
    if soft == RLIM_INFINITY or soft > 1000:
        soft = 1000
    return fcntl(number, F_DUPFD_CLOEXEC, max(soft - 16, 10))


def say(text: str) -> None:
    """Write a line of ours to descriptor 2, if it is open."""
    try:
        write(2, f"{text}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        return


class Streams:
    def __init__(self) -> None:
        self._originals = {number: move_up(number) for number in NAMES}
        self._streams = {number: _open(number) for number in NAMES}

    def restore(self) -> None:
        """Put all of them back; OSError if the user's code has closed the copies as well."""
        self._name()  # a stream of the user's closes its descriptor when the last name of it goes
        for number, original in self._originals.items():
            dup2(original, number)
            set_blocking(number, True)
            if not _is_intact(self._streams[number], number):
                self._streams[number] = _open(number)
        self._name()

    def _name(self) -> None:
        for number, names in NAMES.items():
            for name in names:
                setattr(sys, name, self._streams[number])

    def flush(self) -> None:
        for number in (1, 2):
            try:
                TextIOWrapper.flush(self._streams[number])
            except Exception:  # noqa: BLE001 - the user's code has closed it, or its descriptor
                self._streams[number] = _open(number)


def _open(number: int) -> TextIOWrapper:
    raw = FileIO(number, "w" if number else "r", closefd=False)
    # One that holds nothing back: text waits in the stream above it.
    buffer = BufferedWriter(raw, 1) if number else BufferedReader(raw)
    # A stream that the user's code makes of the buffer closes it at its own end.
    buffer.close = raw.flush  # type: ignore[method-assign]
    stream = TextIOWrapper(
        buffer, encoding="utf-8", errors="backslashreplace", line_buffering=number > 0
    )
    if number:
        stream._CHUNK_SIZE = LONG_BYTES  # type: ignore[attr-defined]  # noqa: SLF001 - no other name
    stream.mode = "w" if number else "r"  # type: ignore[misc]  # an attribute at run time
    return stream


def _is_intact(stream: TextIOWrapper, number: int) -> bool:
    try:
        return (
            not stream.closed
            and stream.encoding == "utf-8"
            and stream.line_buffering == (number > 0)
        )
    except ValueError:  # its buffer was detached
        return False
