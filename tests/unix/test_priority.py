"""Priority: procd's own, and not its children's. In processes of their own: it can't be undone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import denied

PROGRAM = """
import os, sys
from pathlib import Path
from procd.unix.priority import precede
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

# Says what a child is while it starts, which is until somebody opens the file that it opens, and
# what it and procd are after that.
STARTING = """
import os, sys
from functools import partial
from procd.unix.priority import precede, start_first
from tests.denied import deny
fifo, nice, *denied = sys.argv[1:]
os.mkfifo(fifo)
precede(int(nice))
if denied == ["child"]:
    change = os.sched_setscheduler
    def refuse(pid, *rest):
        if pid:
            raise PermissionError(13, "Permission denied")
        return change(pid, *rest)
    os.sched_setscheduler = refuse
else:
    deny(denied)
own = os.getpid()
if not os.fork():
    children = f"/proc/{own}/task/{own}/children"
    while len(pids := open(children).read().split()) < 2:
        pass
    child = next(pid for pid in map(int, pids) if pid != os.getpid())
    print(os.sched_getscheduler(own), os.sched_getscheduler(child), flush=True)
    os.close(os.open(fifo, os.O_WRONLY))
    os._exit(0)
start = partial(
    os.posix_spawn, "/bin/sh", ("sh", "-c", "nice; read x"), os.environ, setsid=True,
    file_actions=[(os.POSIX_SPAWN_OPEN, 3, fifo, os.O_RDONLY, 0)],
)
pid = start_first(start)
print(os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0), flush=True)
print(os.sched_getscheduler(pid), os.getpriority(os.PRIO_PROCESS, pid), flush=True)
try:
    start_first(partial(os.posix_spawn, "/nowhere", ("nowhere",), os.environ))
except FileNotFoundError:
    print(os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0), flush=True)
for _ in range(2):
    os.wait()
"""
PLAIN = f"{os.SCHED_OTHER | os.SCHED_RESET_ON_FORK}"

root = pytest.mark.skipif(os.geteuid() != 0, reason="a higher priority takes CAP_SYS_NICE")


def output(*command: str) -> list[str]:
    done = subprocess.run(
        command, capture_output=True, check=True, text=True, timeout=20, stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    return done.stdout.split()


def run(nice: int, before: int = 0, *, lead: bool = True) -> list[str]:
    return output(sys.executable, "-c", PROGRAM, str(nice), str(before), str(int(lead)))


@root
def test_children_have_none_of_it() -> None:
    """procd's is raised, and so is its group's; a child starts with 0 in both."""
    own, group, child, *rest = run(-7)
    assert (own, child) == ("-7", "0")
    assert group in ("-7", "-")
    if rest:
        assert rest[-1] == "0"


@root
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


@root
def test_a_child_goes_first_up_to_its_program(tmp_path: Path) -> None:
    """Both are real-time tasks then, and neither is afterwards, whatever has come of it."""
    found = output(sys.executable, "-c", STARTING, str(tmp_path / "fifo"), "-7")
    real_time = str(os.SCHED_RR)
    assert found[:2] == [real_time, real_time]
    assert sorted(found[2:]) == sorted([PLAIN, "-7", str(os.SCHED_OTHER), "0", "0", PLAIN, "-7"])


@root
@pytest.mark.skipif(not denied.POSSIBLE, reason="no numbers of system calls for this machine")
def test_where_nothing_may_be_a_real_time_task(tmp_path: Path) -> None:
    """A child then has to wait for a processor, as before."""
    rule = "sched_setscheduler=EPERM"
    found = output(sys.executable, "-c", STARTING, str(tmp_path / "fifo"), "-7", rule)
    plain_child = str(os.SCHED_OTHER)
    assert found[:2] == [PLAIN, plain_child]
    assert sorted(found[2:]) == sorted([PLAIN, "-7", plain_child, "0", "0", PLAIN, "-7"])


@root
def test_a_child_that_can_not_be_changed_is_the_last(tmp_path: Path) -> None:
    """A security module may forbid that, of programs that are another's business."""
    found = output(sys.executable, "-c", STARTING, str(tmp_path / "fifo"), "-7", "child")
    real_time = str(os.SCHED_RR)
    assert found[:2] == [real_time, real_time]
    assert sorted(found[2:]) == sorted([PLAIN, "-7", real_time, "0", "0", PLAIN, "-7"])


def test_without_precedence_nothing_goes_first(tmp_path: Path) -> None:
    """As where procd was started with a priority of somebody's choice, or `server.nice` is 0."""
    found = output("nice", "-n", "5", sys.executable, "-c", STARTING, str(tmp_path / "fifo"), "-7")
    plain = str(os.SCHED_OTHER)
    assert found[:2] == [plain, plain]
    assert sorted(found[2:]) == sorted([plain, "5", plain, "5", "5", plain, "5"])
