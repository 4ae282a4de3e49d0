"""Supervisor named by pid and start time, which together are never anybody else's.

Source: pidfd_open(2), proc_pid_stat(5).
"""

import asyncio
import errno
import os
import signal
from collections.abc import Mapping
from typing import Final

from procd.throttle import STEPS
from procd.unix.fd import OwnedFd
from procd.unix.procfs import stat_of

# How long to wait where no descriptor is left, no memory or no room in an epoll, until it may be.
RETRY_S: Final = 0.2
NO_DESCRIPTOR: Final = frozenset({errno.EMFILE, errno.ENFILE})
# What kernels as of 6.12 say of a number that no process has any more, but a group or a session.
NO_LEADER: Final = errno.EINVAL


def send(pid: int, start_time: int, numbers: tuple[int, ...]) -> None:
    """Send signals to the process that began then.

    Raises:
        ProcessLookupError: it has ended, whoever has its pid now.
        PermissionError: it is not ours to signal.
    """
    try:
        pidfd = _pidfd(pid, start_time)
    except OSError as exc:
        if exc.errno not in NO_DESCRIPTOR:
            raise
        _check(pid, start_time)  # with the last one that there is
        for number in numbers:
            os.kill(pid, number)
        return
    try:
        for number in numbers:
            signal.pidfd_send_signal(pidfd.number, number)
    finally:
        pidfd.close()


def _pidfd(pid: int, start_time: int) -> OwnedFd:
    """A pidfd of the process that began then; opened first, it is not one of a reused number.

    Raises:
        ProcessLookupError: it has ended, whoever has its pid now.
        OSError: there are not two descriptors, the one to look with.
    """
    try:
        pidfd = OwnedFd(os.pidfd_open(pid))
    except OSError as exc:
        if exc.errno != NO_LEADER:
            raise
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from exc
    try:
        _check(pid, start_time)
    except BaseException:
        pidfd.close()
        raise
    return pidfd


def _check(pid: int, start_time: int) -> None:
    stat = stat_of(pid)
    if stat is None or not stat.alive or stat.start_time != start_time:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))


async def ended(processes: Mapping[int, int], within_s: float | None = None) -> bool:
    """Wait until each of these processes (pid → start time) has ended, at most `within_s`.

    For one after the other, as there may be more of them than descriptors. Whether all have.
    """
    left = list(processes.items())
    try:
        async with asyncio.timeout(within_s):
            while left:
                if len(left) % STEPS == 0:  # they may all have
                    await asyncio.sleep(0)
                await _one_ended(*left[-1])
                left.pop()
    except TimeoutError:
        return False
    return True


async def _one_ended(pid: int, start_time: int) -> None:
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def wake() -> None:
        if not done.done():
            done.set_result(None)

    while not done.done():
        try:
            pidfd = _pidfd(pid, start_time)
            try:
                loop.add_reader(pidfd.number, wake)
                await done
            finally:
                loop.remove_reader(pidfd.number)
                pidfd.close()
        except ProcessLookupError:
            return
        except (OSError, MemoryError):
            await asyncio.sleep(RETRY_S)
