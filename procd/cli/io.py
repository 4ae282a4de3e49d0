"""The descriptors of this process: writing all of something, and hearing of signals in a loop."""

import os
import select
import signal
import socket
import sys
from collections.abc import Iterable
from types import FrameType
from typing import Final

from procd.cli.failure import Failure

STDIN: Final = 0
STDOUT: Final = 1
STDERR: Final = 2
NAMES: Final = {STDOUT: "standard output", STDERR: "standard error"}
# What asks a program with a terminal to end.
ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
PIECE_BYTES: Final = 48 << 10


def hold_standard() -> None:
    """Make sure that 0, 1 and 2 are open, lest a socket becomes this process's input or output."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        continue
    os.close(number)
    if sys.stdin is None:
        sys.stdin = open(STDIN)  # noqa: PTH123, SIM115 - the one that this process was started without


def write_all(number: int, data: bytes) -> None:
    """Write all of it, however long that takes.

    Raises:
        BrokenPipeError: nobody reads.
        Failure: it can't be written.
    """
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(number, view) :]
        except BlockingIOError:  # another program has made the terminal non-blocking
            select.select([], [number], [])
        except BrokenPipeError:
            raise
        except OSError as exc:
            raise Failure(f"can't write to {NAMES.get(number, 'a file')}: {exc.strerror}") from exc


def read_stdin(most: int = -1) -> bytes:
    """What standard input brings next, at most so many bytes; all of it if that is negative.

    Raises:
        Failure: it can't be read.
    """
    if most < 0:
        return b"".join(iter(lambda: read_stdin(PIECE_BYTES), b""))
    while True:
        try:
            return os.read(STDIN, most)
        except BlockingIOError:  # another program has made it non-blocking
            select.select([STDIN], [], [])
        except OSError as exc:
            raise Failure(f"can't read standard input: {exc.strerror}") from exc


def coloured(number: int) -> bool:
    """Whether what is written there is to have colours. Source: no-color.org."""
    return os.isatty(number) and not os.environ.get("NO_COLOR")


def in_foreground() -> bool:
    """Whether reading standard input can't stop this process: a job in the background may not."""
    try:
        return os.tcgetpgrp(STDIN) == os.getpgrp()
    except OSError:
        return True  # no terminal


class Signals:
    """Signals as something to wait on.

    Attributes:
        ending: those of them that ask this process to end. One that comes while another still waits
            to be taken is raised: who should have taken that is stuck.
        raising: whether those that end are raised at once, for who doesn't always wait; it isn't
            any more once one was.

    Source: signal.set_wakeup_fd.
    """

    class Raised(BaseException):
        """A signal came."""

        def __init__(self, number: int) -> None:
            super().__init__(number)
            self.number = number

    def __init__(
        self, numbers: Iterable[int], *, ending: Iterable[int] = (), raising: bool = False
    ) -> None:
        self._numbers = tuple(numbers)
        self.ending = tuple(ending)
        self.raising = raising
        self._came: list[int] = []
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Signals":
        self._reading, self._writing = socket.socketpair()
        self._reading.settimeout(0)
        self._writing.settimeout(0)
        self._woken_before = signal.set_wakeup_fd(self._writing.fileno(), warn_on_full_buffer=False)
        for number in self._numbers:
            # What was ignored when this began goes on to be: nohup(1).
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)  # type: ignore[arg-type]  # what signal() itself gave
        signal.set_wakeup_fd(self._woken_before)
        self._reading.close()
        self._writing.close()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number in self.ending and (
            self.raising or any(other in self.ending for other in self._came)
        ):
            self.raising = False  # what follows is the way out
            self._came.clear()
            raise Signals.Raised(number)
        self._came.append(number)

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._reading.fileno()

    def take(self) -> list[int]:
        """Those that came since the last call."""
        try:
            while self._reading.recv(4096):
                continue
        except BlockingIOError:
            pass  # all are read
        came, self._came = self._came, []
        return came
