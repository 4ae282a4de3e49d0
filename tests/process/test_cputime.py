"""cputime: what the kernel says of the processors, and whose time it was."""

import itertools
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from io import StringIO
from typing import NamedTuple

import pytest

from procd.process import cputime
from procd.process.cputime import Others, Ticks, machine_ticks, own_time_s

LINE = "cpu  100 20 30 400 50 6 7 80 9 10\n"


def spin(seconds: float) -> None:
    """Use a processor for so long."""
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


class Moment(NamedTuple):
    """What there is to be read at one time."""

    line: str
    own_s: float


def told(monkeypatch: pytest.MonkeyPatch, *moments: Moment) -> Others:
    """One to whom this is told, moment by moment."""
    lines = itertools.chain(moment.line for moment in moments)
    owns = itertools.chain(moment.own_s for moment in moments)
    monkeypatch.setattr("builtins.open", lambda _: StringIO(next(lines)))
    monkeypatch.setattr(cputime, "own_time_s", lambda: next(owns))
    monkeypatch.setattr(cputime, "TICKS_PER_S", 100)
    return Others()


def test_the_figures_are_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of proc_stat(5); guests' time is the users' already."""
    assert all(figure >= 0 for figure in machine_ticks())
    told(monkeypatch, Moment(LINE, 0.0))
    assert machine_ticks() == Ticks(100, 20, 30, 400, 50, 6, 7, 80)


@pytest.mark.parametrize("line", ["", "cpu\n", "cpu  1 2 3 4\n"])
def test_what_a_sandbox_does_not_tell(monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    told(monkeypatch, Moment(line, 0.0))
    with pytest.raises(OSError, match="No data"):
        machine_ticks()


def test_own_time_is_this_process_and_its_children_that_have_ended() -> None:
    before = own_time_s()
    spin(0.05)
    assert own_time_s() >= before + 0.05
    before = own_time_s()
    used = "import time\nwhile time.process_time() < 0.2: pass"
    subprocess.run([sys.executable, "-c", used], check=True)
    assert own_time_s() >= before + 0.2


def test_others_have_what_is_not_ours_and_not_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor stolen by the host of a virtual machine, which nobody here has had."""
    others = told(
        monkeypatch,
        Moment("cpu  0 0 0 0 0 0 0 0 0 0\n", 5.0),
        Moment("cpu  40 10 20 20 5 0 5 100 0 0\n", 5.3),  # of 200 ticks 75 were used, 30 by us
        Moment("cpu  40 10 20 120 5 0 5 100 0 0\n", 5.3),
        Moment("cpu  60 10 20 120 5 0 5 100 0 0\n", 6.3),  # a child of ours that ran for long
        Moment("cpu  60 10 20 120 5 0 5 100 0 0\n", 6.3),  # no tick since
    )
    others.share()
    assert others.share() == pytest.approx(45 / 200)
    assert [others.share() for _ in range(3)] == [0, 0, 0]


def test_who_runs_all_the_time_is_seen() -> None:
    """As many as there are processors have at least a third of them, whoever else there is."""
    others = Others()
    loop = [sys.executable, "-c", "print('ready', flush=True)\nwhile True: pass"]
    with ExitStack() as stack:
        for _ in os.sched_getaffinity(0):
            running = stack.enter_context(subprocess.Popen(loop, stdout=subprocess.PIPE))
            stack.callback(running.kill)
            assert running.stdout is not None
            running.stdout.readline()
        others.share()
        begin = machine_ticks()
        while sum(machine_ticks()) - sum(begin) < 50:
            time.sleep(0.01)
        assert others.share() > 1 / 3
