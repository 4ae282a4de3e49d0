"""Timers: real ones."""

import os
import select
import time

import pytest

from procd.process.timer import Timer


@pytest.mark.parametrize("seconds", [0.0003, 0.02, 1.001])
def test_ready_when_the_time_is_over(seconds: float) -> None:
    """Not before."""
    timer = Timer()
    begin = time.monotonic()
    timer.set(seconds)
    assert select.select([timer.number], [], [], 20)[0]
    assert time.monotonic() - begin >= seconds
    timer.clear()
    assert not select.select([timer.number], [], [], 0)[0]
    timer.close()


def test_set_again() -> None:
    """The time set last counts."""
    timer = Timer()
    timer.set(3600)
    timer.clear()
    timer.set(0.001)
    assert select.select([timer.number], [], [], 20)[0]
    timer.close()


def test_not_inherited_and_closed() -> None:
    """It is nobody else's."""
    timer = Timer()
    assert not os.get_inheritable(timer.number)
    timer.close()
    assert not os.path.lexists(f"/proc/self/fd/{timer.number}")
