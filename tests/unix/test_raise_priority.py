"""Priority: procd's own, and not its children's. In processes of their own: it can't be undone."""

import os
import subprocess
import sys
from pathlib import Path

from tests.process.scheduling import needs_priority

PROGRAM = """
import os, sys
from pathlib import Path
from procd.unix.own_process import precede
nice, before, lead = (int(word) for word in sys.argv[1:])
if lead:
    os.setsid()
os.nice(before)
precede(nice)
print(os.getpriority(os.PRIO_PROCESS, 0))
group = Path("/proc/self/autogroup")
print(group.read_text().split()[-1] if lead and group.exists() else "-", flush=True)
argv = ("sh", "-c", "nice; cat /proc/self/autogroup")
pid = os.posix_spawn("/bin/sh", argv, os.environ, setsid=True)
os.waitpid(pid, 0)
"""


def run(nice: int, before: int = 0, *, lead: bool = True) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(nice), str(before), str(int(lead))],
        capture_output=True, check=True, text=True, timeout=20,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    return done.stdout.split()


@needs_priority
def test_children_have_none_of_it() -> None:
    """procd's is raised, and so is its group's; a child starts with 0 in both."""
    own, group, child, *rest = run(-7)
    assert (own, child) == ("-7", "0")
    assert group in ("-7", "-")
    if rest:
        assert rest[-1] == "0"


@needs_priority
def test_who_leads_no_session_leaves_its_group_alone() -> None:
    """The terminal that it was started from has others in it."""
    before = (
        Path("/proc/self/autogroup").read_text() if Path("/proc/self/autogroup").exists() else ""
    )
    own, group, child, *_ = run(-7, lead=False)
    assert (own, group, child) == ("-7", "-", "0")
    if before:
        assert Path("/proc/self/autogroup").read_text() == before


def test_a_chosen_priority_stays() -> None:
    """Started with `nice`, procd and its children keep that."""
    own, _, child, *_ = run(-7, 5)
    assert (own, child) == ("5", "5")


@needs_priority
def test_who_may_have_no_priority_stays_what_it_was() -> None:
    """The flag alone would reset its children's slices, and only the root can unset it."""
    program = """
import os
from procd.unix.own_process import precede
os.setuid(65534)
try:
    precede(-7)
except PermissionError:
    print(os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True, timeout=20,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert done.stdout.split() == ["0", "0"]
