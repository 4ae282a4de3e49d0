"""Floor: a PTY without a server, its master read and written by hand."""

import contextlib
import os
import pty
import signal
import time
from typing import Final

from bench.programs import SHELL, Place, environment
from bench.report import percentile

LINE: Final = "The quick brown fox jumps over the lazy dog, again and again."
# The terminal echoes, and cat takes what is typed, so that the terminal's own queue stays empty.
ECHO_SCRIPT: Final = "stty raw echo; printf '%s%s' REA DY; exec cat >/dev/null"
READY: Final = b"READY"  # not in the script, whose text the terminal echoes
DONE: Final = b"DONE"


def output_script(size: int) -> str:
    """Print `size` bytes as soon as a line is typed."""
    return (
        "stty raw -echo; printf '%s%s' REA DY; read -r _; "
        f"yes '{LINE}' | head -c {size}; printf '%s%s' DO NE"
    )


class Terminal:
    """A shell that runs a script on a terminal of its own."""

    def __init__(self, place: Place, script: str) -> None:
        self.master, slave = pty.openpty()
        path = os.ttyname(slave)
        self._pid = os.posix_spawn(
            SHELL, (SHELL, "-c", script), environment(place.home), setsid=True,
            setsigdef=(signal.SIGPIPE,),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, path, os.O_RDWR, 0),
                (os.POSIX_SPAWN_DUP2, 0, 1),
                (os.POSIX_SPAWN_DUP2, 0, 2),
            ],
        )  # fmt: skip
        seen = b""
        while READY not in seen:
            seen += os.read(self.master, 65536)
        os.close(slave)

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        os.close(self.master)
        os.waitpid(self._pid, 0)


def echo_latencies(terminal: Terminal, count: int) -> list[float]:
    """Write a byte and read it back, so many times; in seconds each."""
    master = terminal.master
    taken: list[float] = []
    for _ in range(count):
        begin = time.perf_counter()
        os.write(master, b"x")
        os.read(master, 16)
        taken.append(time.perf_counter() - begin)
    return taken


def echo_p50(terminal: Terminal, count: int) -> float:
    """The median, in milliseconds."""
    return percentile(echo_latencies(terminal, count), 50) * 1000


def read_rate(place: Place, size: int) -> float:
    """MB/s of a program's output, read from the master and thrown away."""
    terminal = Terminal(place, output_script(size))
    master = terminal.master
    begin = time.perf_counter()
    os.write(master, b"\n")
    left = size + len(DONE)
    while left > 0:
        left -= len(os.read(master, 65536))
    taken = time.perf_counter() - begin
    terminal.close()
    return size / 1e6 / taken
