"""realtime: procd is a real-time task for a while, and what it was afterwards."""

import logging
import os
from collections.abc import Iterator

import pytest

from procd.process.realtime import RealTime
from tests.process.scheduling import denied, needs_real_time

FLAG = os.SCHED_RESET_ON_FORK


@pytest.fixture(autouse=True)
def policy() -> Iterator[int]:
    """This process's own, which it has again afterwards where it may."""
    own = os.sched_getscheduler(0)
    yield own
    if own != os.sched_getscheduler(0):
        os.sched_setscheduler(0, own, os.sched_param(0))


def _policy_of_a_child() -> int:
    if (pid := os.fork()) == 0:
        os._exit(os.sched_getscheduler(0))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@needs_real_time
@pytest.mark.parametrize("inherited", [False, True])
@pytest.mark.parametrize("before", [os.SCHED_OTHER, os.SCHED_BATCH, os.SCHED_OTHER | FLAG])
def test_it_is_one_from_begin_to_end(before: int, *, inherited: bool) -> None:
    """Its children are if they are to be, whatever they would be otherwise."""
    os.sched_setscheduler(0, before, os.sched_param(0))
    one = RealTime(3, inherited=inherited)
    assert one.begin()
    assert os.sched_getscheduler(0) & ~FLAG == os.SCHED_FIFO
    assert os.sched_getparam(0).sched_priority == 3
    if inherited:
        assert _policy_of_a_child() == os.SCHED_FIFO
    elif before & FLAG:
        assert _policy_of_a_child() == os.SCHED_OTHER
    one.end()
    assert os.sched_getscheduler(0) == before
    assert one.policy == before


@needs_real_time
def test_what_somebody_has_made_a_real_time_task_stays_one() -> None:
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(7))
    assert not RealTime().begin()
    assert os.sched_getscheduler(0) == os.SCHED_RR
    assert os.sched_getparam(0).sched_priority == 7


@pytest.mark.parametrize("call", ["sched_getscheduler", "sched_setscheduler"])
def test_where_that_is_denied(policy: int, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    with monkeypatch.context() as within:
        within.setattr(os, call, denied)
        assert not RealTime().begin()
    assert os.sched_getscheduler(0) == policy


@needs_real_time
def test_who_stays_one_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = RealTime()
    assert one.begin()
    with monkeypatch.context() as within, caplog.at_level(logging.ERROR):
        within.setattr(os, "sched_setscheduler", denied)
        one.end()
    assert "procd stays a real-time task" in caplog.text
