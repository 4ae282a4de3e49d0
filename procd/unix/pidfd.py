"""Signalling processes and waiting for their ends, safely though pids are reused.

They are named by pid and start time in ticks. Source: pidfd_open(2), proc_pid_stat(5).
"""

import asyncio
import errno
import os
import signal
from collections.abc import Mapping
from typing import Final

from procd.tasks import STEPS
from procd.unix.fd import OwnedFd
from procd.unix.procfs import stat_of

# How long to wait for a descriptor when none is left.
RETRY_S: Final = 0.2
NO_DESCRIPTOR: Final = frozenset({errno.EMFILE, errno.ENFILE})


def send(pid: int, start_time: int, numbers: tuple[int, ...]) -> None:
    """Send signals to a process. ProcessLookupError: it has ended; PermissionError: refused."""
    try:
        pidfd = _open(pid, start_time)
    except OSError as exc:
        if exc.errno not in NO_DESCRIPTOR:
            raise
        _check(pid, start_time)  # it needs one descriptor where `_open` needs two
        for number in numbers:
            os.kill(pid, number)
        return
    try:
        for number in numbers:
            signal.pidfd_send_signal(pidfd.number, number)
    finally:
        pidfd.close()


def _open(pid: int, start_time: int) -> OwnedFd:
    """Open a pidfd. The start time is checked afterwards: then it is the right process's."""
    try:
        pidfd = OwnedFd(os.pidfd_open(pid))
    except OSError as exc:
        if exc.errno != errno.EINVAL:  # up to Linux 6.12: only a group or session has the number
            raise
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from exc
    try:
        _check(pid, start_time)
    except OSError:
        pidfd.close()
        raise
    return pidfd


def _check(pid: int, start_time: int) -> None:
    stat = stat_of(pid)
    if stat is None or not stat.alive or stat.start_time != start_time:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))


async def wait_ended(processes: Mapping[int, int], within_s: float | None = None) -> bool:
    """Wait at most `within_s` for these processes (pid → start time); whether all have ended."""
    left = list(processes.items())
    try:
        async with asyncio.timeout(within_s):
            while left:
                if len(left) % STEPS == 0:
                    await asyncio.sleep(0)
                # One after the other: there may be more of them than descriptors.
                await _wait_ended(*left[-1])
                left.pop()
    except TimeoutError:
        return False
    return True


async def _wait_ended(pid: int, start_time: int) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            pidfd = _open(pid, start_time)
        except ProcessLookupError:
            return
        except OSError:
            await asyncio.sleep(RETRY_S)
            continue
        ended = asyncio.Event()
        try:
            loop.add_reader(pidfd.number, ended.set)
            await ended.wait()
            return
        finally:
            loop.remove_reader(pidfd.number)
            pidfd.close()
