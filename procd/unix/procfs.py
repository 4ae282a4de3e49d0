"""Processes in /proc: proc_pid_stat(5), proc_pid_status(5), proc_pid_task(5) "children"."""

import os
import time
from typing import Final, NamedTuple

# The kernel returns at most this much at a time. Source: seq_file.c, seq_read_iter.
READ_BYTES: Final = 4096
TICK_NS: Final = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class Stat(NamedTuple):
    """A part of proc_pid_stat(5); `terminal` is 0 without a controlling terminal."""

    state: str
    group: int
    session: int
    terminal: int
    threads: int
    start_time: int

    @property
    def alive(self) -> bool:
        """Whether it runs. Once its first thread has ended it does so in state Z."""
        return self.state not in "ZX" or self.threads > 1


def stat_of(pid: int) -> Stat | None:
    fields = read_proc(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    if not fields:
        return None
    return Stat(
        state=fields[0].decode(),
        group=int(fields[2]),
        session=int(fields[3]),
        terminal=int(fields[4]),
        threads=int(fields[17]),
        start_time=int(fields[19]),
    )


def ticks_since_boot() -> int:
    """The start time of a process that starts now."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // TICK_NS


def children(pid: int) -> list[int]:
    """The direct children of `pid`, zombies included; none if it is gone."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208 - a str, and much faster
    except (FileNotFoundError, ProcessLookupError):
        return []
    found: list[int] = []
    for thread in threads:  # a child belongs to the thread that started it
        found += map(int, read_proc(f"/proc/{pid}/task/{thread}/children").split())
    return found


def own_children() -> list[int]:
    """The direct children of this process, which has one thread; OSError if they can't be read."""
    return [int(pid) for pid in _read(f"/proc/self/task/{os.getpid()}/children").split()]


def users_of(pid: int) -> tuple[int, int, int] | None:
    """The real, effective and saved user id of `pid`; None if it is gone."""
    ids = read_proc(f"/proc/{pid}/status").partition(b"\nUid:")[2].split(maxsplit=3)
    return (int(ids[0]), int(ids[1]), int(ids[2])) if ids else None


def read_proc(path: str) -> bytes:
    """Read a file in /proc; empty if its process is gone or hidden (proc(5), "hidepid")."""
    try:
        return _read(path)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = b""
        while piece := os.read(fd, READ_BYTES):
            content += piece
        return content
    finally:
        os.close(fd)
