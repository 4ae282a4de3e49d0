"""Timer: a descriptor that can be read when a time is over, for less than a millisecond too.

Source: timerfd_create(2); Python's `os` has it from 3.13 on.
"""

import ctypes
import os
from typing import Final

from procd.unix.libc import LIBC

# time.h and sys/timerfd.h
CLOCK_MONOTONIC: Final = 1
TFD_NONBLOCK: Final = os.O_NONBLOCK
TFD_CLOEXEC: Final = os.O_CLOEXEC
NANOSECONDS: Final = 1_000_000_000

ItimerSpec = ctypes.c_long * 4  # of the interval and the first time: seconds, nanoseconds


class Timer:
    """One time at a time; its descriptor is ready to be read when that is over.

    Raises:
        OSError: there is no descriptor for it.
    """

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = LIBC.timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
        if self.number < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def set(self, seconds: float) -> None:
        """Be ready in so many seconds, more than none."""
        whole = int(seconds)
        spec = ItimerSpec(0, 0, whole, int((seconds - whole) * NANOSECONDS))
        LIBC.timerfd_settime(self.number, 0, spec, None)

    def clear(self) -> None:
        """Be no longer ready."""
        try:
            os.read(self.number, 8)
        except BlockingIOError:
            return  # it was not

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.number)
