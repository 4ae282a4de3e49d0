"""What the kernel says of a process: its state, and which children it has.

Source: proc_pid_stat(5), proc_pid_status(5), proc_pid_task(5) "children".
"""

import os
import time
from collections.abc import Iterator
from typing import Final, NamedTuple

# What the kernel gives at a time. Source: seq_file.c, seq_read_iter.
PIECE_BYTES: Final = 4096
TICK_NS: Final = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def now() -> int:
    """What the start time is of whoever starts now: ticks since boot."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // TICK_NS


def children(pid: int, threads: int = 0) -> list[int]:
    """The direct children of `pid`, zombies included; none when it has gone.

    Args:
        threads: how many it has; 0 if that isn't known.
    """
    return [child for few in children_by_thread(pid, threads) for child in few]


def children_by_thread(pid: int, threads: int) -> Iterator[list[int]]:
    """As `children`, of one thread after another: some have as many as the kernel lets them."""
    if threads == 1:
        yield _listed(f"/proc/{pid}/task/{pid}/children")
        return
    try:
        names = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208 - a str, and much faster
    except (FileNotFoundError, ProcessLookupError):
        return
    for name in names:
        yield _listed(f"/proc/{pid}/task/{name}/children")


def threads_of(pid: int) -> set[int]:
    """The threads of `pid`; none when it has gone.

    Raises:
        OSError: there is no descriptor to look with.
    """
    try:
        return {int(name) for name in os.listdir(f"/proc/{pid}/task")}  # noqa: PTH208 - as above
    except (FileNotFoundError, ProcessLookupError):
        return set()


def own_children() -> list[int]:
    """The direct children of this process, which has one thread.

    Raises:
        OSError: the kernel doesn't list them, or there is no descriptor or no memory for that.
    """
    return [int(pid) for pid in _read(f"/proc/self/task/{os.getpid()}/children").split()]


def _listed(path: str) -> list[int]:
    return [int(pid) for pid in content(path).split()]


def content(path: str) -> bytes:
    """What a file says of a process, in half the time that it takes by `open`.

    Nothing if that has gone, or may not be looked at: proc(5), "hidepid".

    Raises:
        OSError: there is no descriptor to read it with.
        MemoryError: there is no memory.
    """
    try:
        return _read(path)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        said = b""
        while piece := os.read(fd, PIECE_BYTES):
            said += piece
        return said
    finally:
        os.close(fd)


def users_of(pid: int) -> tuple[int, int, int] | None:
    """The real, effective and saved user id of `pid`; None when it has gone."""
    ids = content(f"/proc/{pid}/status").partition(b"\nUid:")[2].split(maxsplit=3)
    return (int(ids[0]), int(ids[1]), int(ids[2])) if ids else None


class Stat(NamedTuple):
    """What proc_pid_stat(5) says of a process."""

    state: str
    group: int
    session: int
    threads: int
    start_time: int

    @property
    def alive(self) -> bool:
        """Whether it runs; without its first thread it does, and looks like a zombie."""
        return self.state not in "ZX" or self.threads > 1


def stat_of(pid: int) -> Stat | None:
    """What is said of `pid`; None when it has gone."""
    fields = content(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    if not fields:
        return None
    return Stat(
        state=fields[0].decode(),
        group=int(fields[2]),
        session=int(fields[3]),
        threads=int(fields[17]),
        start_time=int(fields[19]),
    )
