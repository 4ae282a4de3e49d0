"""hurry: who begins before others, when, and that nothing is left of it."""

import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

import pytest

from procd.errors import SpawnFailed
from procd.process import hurry
from procd.process.hurry import (
    BUSY_S,
    BUSY_SHARE,
    BUSY_START_S,
    FIRST,
    LONG_START_S,
    SECOND,
    SHARE_S,
    SOON_S,
    STARTS,
    Hurry,
)
from procd.process.slices import SHORT_SLICE_NS
from procd.process.spawn import Spec, spawn
from procd.process.tags import TAG_BASE
from procd.unix.fd import pipe
from procd.unix.procfs import threads_of
from tests.process.scheduling import (
    attributes,
    denied,
    needs_priority,
    needs_real_time,
    needs_the_call,
)

SLEEP = Spec(argv=("/bin/sleep", "60"), cwd="/", env={}, stdio=(os.devnull,) * 3)
NOTHING = Spec(argv=("/nowhere",), cwd="/", env={}, stdio=(os.devnull,) * 3)


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

    def start(self, seconds: float = 0.0, times: int = 1, spec: Spec = SLEEP) -> int:
        """Start so many, each as ever in so long; the last of them."""
        self.clock.step = seconds
        for _ in range(times):
            self.pids.append(self.hurry.spawn(spec, TAG_BASE))
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
    if policy != os.sched_getscheduler(0):
        with suppress(PermissionError):
            os.sched_setscheduler(0, policy, os.sched_param(0))


@needs_the_call
@needs_priority
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
        story.start(LONG_START_S, STARTS)
        assert os.sched_getscheduler(story.start()) == os.SCHED_BATCH
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@pytest.mark.parametrize("call", ["sched_getscheduler", "getpriority"])
def test_where_the_kernel_does_not_tell_nobody_hurries(
    story: Story, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Every one is started all the same."""
    with monkeypatch.context() as within:
        within.setattr(os, call, denied)
        story.start(LONG_START_S, STARTS)
        assert story.hurry.busy
        story.start()


class Seen:
    """What procd and a child are while it is started: policy and priority of each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, wait: Callable[[], object]) -> None:
        self.tasks: list[tuple[int, int]] = []
        self.inherited = -1  # what a child begins as
        self._wait = wait
        monkeypatch.setattr(hurry, "spawn", self._spawn)

    def _spawn(self, spec: Spec, tag: int, *, real_time: int = 0) -> int:
        """As that of its module, but that procd is kept for a while before it goes on."""
        self.inherited = os.sched_getscheduler(0)
        pid = spawn(spec, tag, real_time=real_time)
        self._wait()
        for task in (0, pid):
            priority = os.sched_getparam(task).sched_priority
            self.tasks.append((os.sched_getscheduler(task) & ~os.SCHED_RESET_ON_FORK, priority))
        return pid


@needs_real_time
def test_a_child_is_a_real_time_task_until_it_is_its_program(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its first moment; and procd one above it, which gets its processor back from it."""
    os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))
    before = os.sched_getscheduler(0)
    story.start(LONG_START_S, STARTS)
    seen = Seen(monkeypatch, lambda: None)
    pid = story.start()
    assert seen.inherited == os.SCHED_FIFO
    assert seen.tasks == [(os.SCHED_FIFO, FIRST), (os.SCHED_FIFO, SECOND)]
    assert os.sched_getscheduler(pid) == os.SCHED_OTHER
    assert os.sched_getscheduler(0) == before


PARENT: Final = """
import subprocess, threading
threading.Thread(target=threading.Event().wait).start()
child = subprocess.Popen(["sleep", "60"])
print(child.pid, flush=True)
child.wait()
"""


@needs_real_time
def test_what_a_program_has_started_by_then_is_no_real_time_task_either(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where procd was kept, by the host of its machine, after the child had become its program."""
    story.start(LONG_START_S, STARTS)
    reading, writing = pipe()
    argv = (sys.executable, "-c", PARENT)
    spec = Spec(argv=argv, cwd="/", env={}, stdio=(os.devnull, writing.number, 2))
    said = b""

    def until_it_has_forked() -> None:
        nonlocal said
        said = os.read(reading.number, 100)
        story.clock.now += SOON_S * 2

    Seen(monkeypatch, until_it_has_forked)
    pid = story.start(spec=spec)
    child = int(said)
    try:
        tasks = [*threads_of(pid), child]
        assert len(tasks) == 3
        assert {os.sched_getscheduler(task) for task in tasks} == {os.SCHED_OTHER}
    finally:
        os.kill(child, 9)
        reading.close()
        writing.close()


@needs_the_call
def test_where_it_may_not_be_that_a_child_begins_with_short_slices(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, own = attributes(story.start()), attributes(0)
    story.start(LONG_START_S, STARTS)
    slices: list[int] = []

    def spawn_and_look(spec: Spec, tag: int, *, real_time: int = 0) -> int:
        assert not real_time
        pid = spawn(spec, tag)
        slices.append(attributes(pid)[5])
        return pid

    monkeypatch.setattr(hurry, "spawn", spawn_and_look)
    with monkeypatch.context() as within:
        within.setattr(os, "sched_setscheduler", denied)
        pid = story.start()
    if usual[5]:
        assert slices == [SHORT_SLICE_NS]
        assert attributes(pid)[5] == usual[5]
    assert attributes(0) == own


@needs_real_time
def test_who_cannot_be_made_ordinary_is_told_of(
    story: Story, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It runs all the same."""
    story.start(LONG_START_S, STARTS)
    with monkeypatch.context() as within:
        within.setattr(os, "setpriority", denied)
        pid = story.start()
    assert f"{pid} stays a real-time task" in caplog.text


@needs_real_time
def test_who_there_is_no_memory_to_make_ordinary_is_killed(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would know of it; and a real-time task keeps a processor from all others."""
    own = attributes(0)
    story.start(LONG_START_S, STARTS)
    begun: list[int] = []

    def no_memory(_: int, pid: int) -> None:
        begun.append(pid)
        raise MemoryError

    with monkeypatch.context() as within:
        within.setattr(hurry, "_make_ordinary", no_memory)
        with pytest.raises(MemoryError):
            story.start()
    (pid,) = begun
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -9
    assert attributes(0) == own
