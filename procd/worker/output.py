"""The standard streams of the interpreter: kept in order, and written at the right pace.

Runs in the user's Python, 3.8 or later.
"""

from __future__ import annotations

import sys
from _signal import (  # type: ignore[import-not-found]  # signal's own, without its wrappers
    SIG_BLOCK,
    pthread_sigmask,
    valid_signals,
)
from _thread import _count as count_threads
from _thread import allocate_lock, start_new_thread
from fcntl import F_DUPFD_CLOEXEC, fcntl
from io import BufferedReader, BufferedWriter, FileIO, TextIOWrapper
from os import dup2, fstat, set_blocking
from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit
from time import sleep  # noqa: TID251 - no event loop here

# All of these by name, so that what the user's code does to modules isn't done to us.

# How often the output of code that runs is looked at, seconds: at first, and when it is silent.
TICK_S = 0.005
SLOW_TICK_S = 0.1
# So many writes between two looks make it worth gathering them.
MANY_WRITES = 200
STARTERS = {"os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "pty.spawn"}


def far(number: int) -> int:
    """A copy of a descriptor with a high number, which children don't inherit."""
    soft, _ = getrlimit(RLIMIT_NOFILE)
    if soft == RLIM_INFINITY or soft > 1000:
        soft = 1000
    return fcntl(number, F_DUPFD_CLOEXEC, max(soft - 16, 10))


class Streams:
    """Descriptors 0 to 2 and the text streams on them, put right before each cell."""

    def __init__(self) -> None:
        self._originals = {number: far(number) for number in (0, 1, 2)}
        self._identities = {
            number: _identity(original) for number, original in self._originals.items()
        }
        self._opened: dict[int, TextIOWrapper] = {}

    @property
    def stdout(self) -> TextIOWrapper | None:
        """Ours on descriptor 1."""
        return self._opened.get(1)

    def restore(self) -> None:
        """Undo what earlier code did to them.

        Raises:
            OSError: the code has left too few descriptors.
        """
        for number, original in self._originals.items():
            try:
                intact = _identity(number) == self._identities[number]
            except OSError:
                intact = False
            if not intact:
                dup2(original, number)
            set_blocking(original, True)
        sys.stdin = sys.__stdin__ = self._stream(0)  # type: ignore[misc]  # not final at run time
        sys.stdout = sys.__stdout__ = self._stream(1)  # type: ignore[misc]  # as above
        sys.stderr = sys.__stderr__ = self._stream(2)  # type: ignore[misc]  # as above

    def _stream(self, number: int) -> TextIOWrapper:
        stream = self._opened.get(number)
        if stream is None or not _as_made(stream):
            raw = FileIO(number, "w" if number else "r", closefd=False)
            buffer = BufferedWriter(raw) if number else BufferedReader(raw)
            stream = TextIOWrapper(
                buffer, encoding="utf-8", errors="backslashreplace", line_buffering=number > 0
            )
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
                set_blocking(self._originals[number], True)
                stream.flush()
            except (OSError, ValueError):
                self._discard(number)

    def _discard(self, number: int) -> None:
        """Have a stream that can't be written to forget its text, lest the next cell say it."""
        stream = self._opened.pop(number)
        try:
            dup2(self._originals[0], number)
            stream.flush()
        except (OSError, ValueError):
            return  # it is closed, or there is no descriptor: the text goes with the stream


class Pacer:
    """Has each line written as it comes while lines come one by one, and many at once in a flood.

    A write for each line makes a loop that prints ten times as slow as it need be; but to gather
    lines always would keep those of code that falls silent, or lose those of code that crashes. So
    while code runs a thread of ours looks at standard output now and then: in a flood it has lines
    gathered, and what then waits is flushed when nothing was written since it last looked.

    It never comes in between: text that waits while the code's only thread prints is flushed by
    whoever takes it first, in order; code with several threads writes line by line.
    """

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._running = False
        self._resumes = False
        self._alive = False
        self._gathering = False
        self._hooked = False
        self._tick_s = TICK_S
        # While no code runs the thread waits for `_wake`; while it looks it has `_looking`.
        self._waiting = False
        self._wake = allocate_lock()
        self._wake.acquire()
        self._looking = allocate_lock()

    def go(self) -> None:
        """Code begins to run."""
        self._tick_s = TICK_S
        self._running = True
        if not self._alive:
            try:
                start_new_thread(self._work, ())
            except RuntimeError:
                return  # there is no room for a thread: each line is written as it comes
            self._alive = True
        elif self._waiting:
            self._waiting = False
            self._wake.release()

    def stop(self) -> None:
        """It has ended: nothing may wait any longer."""
        self._running = False
        with self._looking:
            self._gather(gathering=False)
            self._gathering = False
            self._streams.flush()

    def stop_for_fork(self) -> None:
        """A child begins with nothing that waits, and without the thread."""
        self._resumes = self._running
        self.stop()

    def go_after_fork(self) -> None:
        """In the parent."""
        if self._resumes:
            self.go()

    def forget(self) -> None:
        """In the child."""
        self._alive = self._waiting = False
        self._wake = allocate_lock()
        self._wake.acquire()
        self._looking = allocate_lock()

    def flush(self) -> None:
        """Write what waits, now."""
        if self._gathering:
            self._streams.flush()

    def _gather(self, *, gathering: bool) -> None:
        stream = self._streams.stdout
        if gathering != self._gathering and stream is not None:
            try:
                stream.reconfigure(line_buffering=not gathering)
            except (OSError, ValueError):
                return  # it can't be written to, which the code will hear of
            self._gathering = gathering

    def _work(self) -> None:
        pthread_sigmask(SIG_BLOCK, valid_signals())  # they are the main thread's
        seen = _writes()
        while True:
            if not self._running:
                self._waiting = True
                self._wake.acquire()
                seen = _writes()
            sleep(self._tick_s)
            with self._looking:
                if self._running:
                    now = _writes()
                    self._look(now - seen)
                    seen = now

    def _look(self, writes: int) -> None:
        if count_threads() > 1 or (self._gathering and not writes):
            self._gather(gathering=False)
        elif writes > MANY_WRITES and not self._gathering:
            self._gather(gathering=True)
            self._hook()
        if not writes:
            stream = self._streams.stdout
            if stream is not None:
                try:
                    stream.flush()
                except (OSError, ValueError):
                    return  # as above
        self._tick_s = TICK_S if writes else min(2 * self._tick_s, SLOW_TICK_S)

    def _hook(self) -> None:
        """From the first flood on, see to it that what a child prints comes after it."""
        if self._hooked:
            return
        self._hooked = True

        def starting(event: str, _: object) -> None:
            if event in STARTERS:
                self.flush()

        sys.addaudithook(starting)


def _writes() -> int:
    """How many times this process has called write(2): proc_pid_io(5)."""
    try:
        with FileIO("/proc/self/io") as file:
            return int(file.read().partition(b"syscw: ")[2].partition(b"\n")[0])
    except (OSError, ValueError):
        return 0  # each line is written as it comes, then


def _identity(number: int) -> tuple[int, int]:
    status = fstat(number)
    return status.st_dev, status.st_ino


def _as_made(stream: TextIOWrapper) -> bool:
    try:
        return not stream.closed and (stream.encoding, stream.line_buffering) == ("utf-8", True)
    except ValueError:  # its buffer was detached
        return False
