"""slices: a child begins with short ones, and nothing is left of them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from procd.process.slices import SHORT_SLICE_NS, ShortSlices
from procd.process.spawn import Spec, spawn
from procd.process.tags import TAG_BASE
from tests.process.scheduling import attributes, denied, needs_the_call

SLEEP = Spec(argv=("/bin/sleep", "60"), cwd="/", env={}, stdio=(os.devnull,) * 3)


@contextmanager
def child() -> Iterator[int]:
    """One that sleeps."""
    pid = spawn(SLEEP, TAG_BASE)
    try:
        yield pid
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


@needs_the_call
def test_a_child_begins_with_short_slices_and_goes_on_with_ordinary_ones() -> None:
    """And procd has its own before and after."""
    slices = ShortSlices()
    with child() as ordinary:
        usual, own = attributes(ordinary), attributes(0)
    assert slices.begin()
    with child() as pid:
        if usual[5]:  # a kernel that has slices: Linux 6.12
            assert attributes(pid)[5] == SHORT_SLICE_NS
        slices.release(pid)
        assert attributes(pid) == usual
    slices.end()
    assert attributes(0) == own
    with child() as later:
        assert attributes(later) == usual


def test_where_procd_is_no_ordinary_task_nobody_has_any() -> None:
    """Somebody has made it what it is."""
    policy = os.sched_getscheduler(0)
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    try:
        assert not ShortSlices().begin()
        assert os.sched_getscheduler(0) == os.SCHED_BATCH
    finally:
        os.sched_setscheduler(0, policy, os.sched_param(0))


@pytest.mark.parametrize("call", ["sched_getscheduler", "getpriority"])
def test_where_the_kernel_does_not_tell_nobody_has_any(
    monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setattr(os, call, denied)
    assert not ShortSlices().begin()
