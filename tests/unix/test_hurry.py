"""hurry: who begins with short slices, when, and that nothing is left of it."""

import ctypes
import errno
import os
import sys
import time
from collections.abc import Iterator

import pytest

from procd.errors import SpawnFailed
from procd.unix.fd import pipe
from procd.unix.hurry import (
    ATTRIBUTES,
    BUSY_S,
    BUSY_SHARE,
    BUSY_START_S,
    LONG_START_S,
    SHARE_S,
    SHORT_SLICE_NS,
    STARTS,
    SYS_SCHED_SETATTR,
    Hurry,
)
from procd.unix.libc import LIBC
from procd.unix.spawn import Spec
from procd.unix.tags import TAG_BASE

SLEEP = Spec(argv=("/bin/sleep", "60"), cwd="/", env={}, stdio=(os.devnull,) * 3)
NOTHING = Spec(argv=("/nowhere",), cwd="/", env={}, stdio=(os.devnull,) * 3)
needs_the_call = pytest.mark.skipif(
    os.uname().machine not in SYS_SCHED_SETATTR or sys.maxsize < 1 << 32,
    reason="it isn't known how to ask the kernel",
)


class Clock:
    """Goes on by `step` at each look."""

    def __init__(self) -> None:
        self.now = time.monotonic()
        self.step = 0.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now


class Story:
    """Children that are started, each of which takes as long as the clock says.

    Attributes:
        share: what others have of the processors; None if the kernel doesn't tell.
        asked: how many times somebody wanted to know.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.share: float | None = 1.0
        self.asked = 0
        self.hurry = Hurry(self.clock, self._others_share)
        self.pids: list[int] = []

    def start(self, seconds: float = 0.0, times: int = 1) -> int:
        """Start so many, each as ever in so long; the last of them."""
        self.clock.step = seconds
        for _ in range(times):
            self.pids.append(self.hurry.spawn(SLEEP, TAG_BASE))
        self.clock.step = 0.0
        return self.pids[-1]

    def _others_share(self) -> float:
        self.asked += 1
        if self.share is None:
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
        return self.share

    def end(self) -> None:
        """End them all."""
        for pid in self.pids:
            os.kill(pid, 9)
            os.waitpid(pid, 0)


@pytest.fixture
def story() -> Iterator[Story]:
    """One; this process is afterwards what it was, but for a flag that only the root may unset."""
    policy = os.sched_getscheduler(0)
    told = Story()
    yield told
    told.end()
    if os.geteuid() == 0:
        os.sched_setscheduler(0, policy, os.sched_param(0))


def attributes(pid: int) -> tuple[int, ...]:
    """What sched_getattr(2) says, which has the next number: with nice at 3, slice at 5."""
    said = ctypes.create_string_buffer(ATTRIBUTES.size)
    number = SYS_SCHED_SETATTR[os.uname().machine] + 1
    assert LIBC.syscall(number, pid, said, len(said), 0) == 0
    return ATTRIBUTES.unpack(said.raw)


@needs_the_call
def test_a_child_begins_with_short_slices_and_goes_on_with_ordinary_ones(story: Story) -> None:
    """And procd has its own before and after."""
    usual = attributes(story.start())
    own = attributes(0)
    assert story.hurry.begin()
    pid = story.start()  # as ever, within
    if usual[5]:  # a kernel that has slices: Linux 6.12
        assert attributes(pid)[5] == SHORT_SLICE_NS
    story.hurry.release(pid)
    assert attributes(pid) == usual
    story.hurry.end()
    assert attributes(0) == own
    assert attributes(story.start()) == usual


@needs_the_call
@pytest.mark.skipif(os.geteuid() != 0, reason="needs to go before others")
@pytest.mark.parametrize("nice", [-10, -1, 0])
def test_that_procd_goes_before_others_is_not_inherited(story: Story, nice: int) -> None:
    """Nor lost."""
    os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))
    os.setpriority(os.PRIO_PROCESS, 0, nice)
    try:
        own = attributes(0)
        story.start(LONG_START_S, STARTS)
        assert story.hurry.busy
        assert attributes(story.start())[3] == 0
        assert attributes(0) == own
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, 0)


@needs_the_call
def test_what_procd_was_started_with_is_inherited_as_ever(story: Story) -> None:
    """A nice value that somebody has chosen, for one that has no flag."""
    if os.sched_getscheduler(0) != os.SCHED_OTHER:
        pytest.skip("somebody has set the flag")
    reading, writing = pipe()
    if (pid := os.fork()) == 0:
        try:
            os.nice(5)
            story.start(LONG_START_S, STARTS)
            inherited = attributes(story.start())[3]
            os.write(writing.number, b"%d %d" % (inherited, os.getpriority(os.PRIO_PROCESS, 0)))
        finally:
            story.end()
            os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reading.number, 100) == b"5 5"
    reading.close()
    writing.close()


def test_nobody_hurries_where_a_start_takes_no_time(story: Story) -> None:
    """One in ten takes long where many start; of a standstill nothing follows."""
    for _ in range(5):
        story.start(60.0)
        story.start(BUSY_START_S / 8, 9)
        assert not story.hurry.busy


@needs_the_call
def test_nobody_hurries_where_there_are_only_commands_of_procd(story: Story) -> None:
    """Who was first would lose the processor's caches to the next; who are others is seen soon."""
    story.share = BUSY_SHARE / 2
    story.start(LONG_START_S, STARTS)
    assert not story.hurry.busy
    story.share = BUSY_SHARE
    story.start(LONG_START_S)
    assert not story.hurry.busy
    assert story.asked == 1  # there is no share of a moment
    story.clock.now += SHARE_S
    story.start(LONG_START_S)
    assert story.hurry.busy


def test_whoever_starts_in_no_time_asks_nobody(story: Story) -> None:
    """The kernel takes a millisecond to tell where there are many processors."""
    story.start(BUSY_START_S / 2, STARTS)
    assert not story.asked


@needs_the_call
def test_where_the_kernel_does_not_tell_of_others_there_are_some(story: Story) -> None:
    """A start that takes long is all there is to know."""
    story.share = None
    story.start(LONG_START_S, STARTS)
    assert story.hurry.busy


@needs_the_call
def test_now_and_then_one_shows_whether_others_are_still_busy(story: Story) -> None:
    """If they aren't, a few of those are enough."""
    story.start(LONG_START_S, STARTS)
    story.start()  # hurried: that it took no time says nothing
    assert story.hurry.busy
    story.clock.now += BUSY_S
    story.start(LONG_START_S)
    assert story.hurry.busy
    for _ in range(3):
        story.clock.now += BUSY_S
        story.start()
    assert not story.hurry.busy


@needs_the_call
def test_one_that_cannot_be_started_leaves_nothing(story: Story) -> None:
    """procd is what it was."""
    own = attributes(0)
    story.start(LONG_START_S, STARTS)
    with pytest.raises(SpawnFailed, match="does not exist"):
        story.hurry.spawn(NOTHING, TAG_BASE)
    assert attributes(0) == own


def test_where_procd_is_no_ordinary_task_nobody_hurries(story: Story) -> None:
    """Somebody has made it what it is."""
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    try:
        assert not story.hurry.begin()
        story.start(LONG_START_S, STARTS)
        assert os.sched_getscheduler(story.start()) == os.SCHED_BATCH
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@pytest.mark.parametrize("call", ["sched_getscheduler", "getpriority"])
def test_where_the_kernel_does_not_tell_nobody_hurries(
    story: Story, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Every one is started all the same."""

    def denied(*_: object) -> int:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    with monkeypatch.context() as within:
        within.setattr(os, call, denied)
        story.start(LONG_START_S, STARTS)
        assert story.hurry.busy
        story.start()
