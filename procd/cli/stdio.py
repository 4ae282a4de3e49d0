"""Standard input, output and error, as descriptors."""

import os
import select
import sys
from typing import Final

from procd.cli.failure import Failure

STDIN: Final = 0
STDOUT: Final = 1
STDERR: Final = 2
NAMES: Final = {STDOUT: "standard output", STDERR: "standard error"}
READ_BYTES: Final = 48 << 10


def open_standard() -> None:
    """Open those of 0, 1 and 2 that are closed, so that no socket gets their number."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        continue
    os.close(descriptor)
    if sys.stdin is None:
        sys.stdin = open(STDIN)  # noqa: PTH123, SIM115 - stays open


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of the data, however long that takes. BrokenPipeError: nobody reads."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:  # another program has made the terminal non-blocking
            select.select([], [descriptor], [])
        except BrokenPipeError:
            raise
        except OSError as exc:
            raise Failure(f"can't write to {NAMES[descriptor]}: {exc.strerror}") from exc


def read_stdin(size: int = -1) -> bytes:
    """Read at most `size` bytes of standard input; all of it if `size` is negative."""
    if size < 0:
        return b"".join(iter(lambda: read_stdin(READ_BYTES), b""))
    while True:
        try:
            return os.read(STDIN, size)
        except BlockingIOError:  # another program has made it non-blocking
            select.select([STDIN], [], [])
        except OSError as exc:
            raise Failure(f"can't read standard input: {exc.strerror}") from exc


def use_colours(descriptor: int) -> bool:
    """Whether to write colours there. Source: no-color.org."""
    return os.isatty(descriptor) and not os.environ.get("NO_COLOR")


def in_foreground() -> bool:
    """Whether standard input may be read: a background job that reads a terminal is stopped."""
    try:
        return os.tcgetpgrp(STDIN) == os.getpgrp()
    except OSError:
        return True  # not a terminal
