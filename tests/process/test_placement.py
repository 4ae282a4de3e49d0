"""placement: a child is sent off to other processors, and may use all of them afterwards."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from procd.process import placement
from procd.process.placement import Placement
from procd.process.tags import TAG_BASE
from procd.process.tree import Tree
from procd.unix.libc import LIBC
from procd.unix.procfs import children
from tests.process.scheduling import needs_real_time

EVERY = os.sched_getaffinity(0)
needs_several = pytest.mark.skipif(
    len(EVERY) < 2 or len(EVERY) < os.sysconf("SC_NPROCESSORS_ONLN"),
    reason="needs several processors, and to be allowed all of them",
)


@contextmanager
def program(*argv: str) -> Iterator[Tree]:
    """One that says `ready` and stays."""
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        try:
            yield Tree(running.pid, TAG_BASE)
        finally:
            # Who waits for a child ends with it, and leaves us none to wait for.
            for pid in children(running.pid, 1) or [running.pid]:
                os.kill(pid, 9)


def spinning() -> tuple[str, ...]:
    """What wants a processor all the time."""
    return sys.executable, "-c", "print('ready', flush=True)\nwhile True: pass"


def processor_of(pid: int) -> int:
    """The one it runs on, or waits for; field 39 of proc_pid_stat(5)."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[36])


@needs_real_time
@needs_several
def test_who_waits_for_our_processor_goes_on_elsewhere() -> None:
    """At once, and is free to come back."""
    one = Placement()
    with program(*spinning()) as tree:
        while True:
            ours = LIBC.sched_getcpu()
            os.sched_setaffinity(tree.leader, {ours})
            one.send_off(tree)
            theirs = processor_of(tree.leader)
            assert os.sched_getaffinity(tree.leader) == EVERY
            if LIBC.sched_getcpu() == ours:  # else we have gone elsewhere ourselves
                break
        assert theirs != ours


@needs_several
@pytest.mark.parametrize("limited_first", [False, True])
def test_nobody_gets_more_processors_than_procd(*, limited_first: bool) -> None:
    """Whether it was started with few, or somebody has left it few since."""
    few = {min(EVERY)}
    one = Placement()
    os.sched_setaffinity(0, few)
    try:
        if limited_first:
            one = Placement()
        with program(*spinning()) as tree:
            one.send_off(tree)
            assert os.sched_getaffinity(tree.leader) == few
    finally:
        os.sched_setaffinity(0, EVERY)


@needs_real_time
@needs_several
def test_what_it_has_started_meanwhile_may_use_all_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where procd itself was kept in the middle of it."""
    times = iter([0.0, 0.5])
    one = Placement(lambda: next(times))
    with program("/bin/sh", "-c", "sleep 60 & echo ready; wait") as tree:
        (child,) = children(tree.leader, 1)
        fewer: list[set[int]] = []

        def allow(pid: int, cpus: bytes) -> bool:
            if pid == tree.leader and cpus != placement.EVERYWHERE:
                allowed(child, cpus)  # as if it had been started just then
                fewer.append(os.sched_getaffinity(child))
            return allowed(pid, cpus)

        allowed = placement._allow
        monkeypatch.setattr(placement, "_allow", allow)
        one.send_off(tree)
        assert [len(cpus) for cpus in fewer] == [len(EVERY) - 1]
        assert os.sched_getaffinity(child) == EVERY
        assert os.sched_getaffinity(tree.leader) == EVERY


@needs_several
def test_who_started_nothing_is_not_looked_at() -> None:
    """A look at all processes takes longer than what it is for."""
    times = iter([0.0, 0.00001])
    one = Placement(lambda: next(times))
    with program("/bin/sh", "-c", "sleep 60 & echo ready; wait") as tree:
        (child,) = children(tree.leader, 1)
        os.sched_setaffinity(child, {min(EVERY)})
        one.send_off(tree)
        assert os.sched_getaffinity(child) == {min(EVERY)}


@needs_real_time
@needs_several
@pytest.mark.parametrize("policy", [os.SCHED_OTHER, os.SCHED_BATCH])
def test_nobody_gets_our_processor_meanwhile(policy: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the child may use was for milliseconds what it was to use for microseconds."""
    seen = []

    def allow(pid: int, cpus: bytes) -> bool:
        seen.append(os.sched_getscheduler(0))
        return allowed(pid, cpus)

    allowed = placement._allow
    monkeypatch.setattr(placement, "_allow", allow)
    before = os.sched_getscheduler(0)
    os.sched_setscheduler(0, policy, os.sched_param(0))
    try:
        with program(*spinning()) as tree:
            Placement(lambda: 0.0).send_off(tree)
        assert os.sched_getscheduler(0) == policy
    finally:
        os.sched_setscheduler(0, before, os.sched_param(0))
    assert seen == [os.SCHED_FIFO] * 2


def test_nobody_is_sent_off_where_that_is_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    denials = []

    def deny(*_: object) -> None:
        denials.append(1)
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "sched_setscheduler", deny)
    asked = []
    monkeypatch.setattr(placement, "_allow", lambda *_: asked.append(1))
    one = Placement()
    with program(*spinning()) as tree:
        one.send_off(tree)
        one.send_off(tree)
    assert not asked
    assert len(denials) <= 1  # none where there is one processor


def test_one_that_is_not_there() -> None:
    """Nothing happens; nobody is sent off from then on, as where that isn't allowed."""
    one = Placement()
    with program(*spinning()) as tree:
        gone = Tree((1 << 22) - 1, TAG_BASE)  # the highest pid that there can be
        one.send_off(gone)
        one.send_off(tree)
        assert os.sched_getaffinity(tree.leader) == EVERY
