"""procd's own priority, set in processes that the tests start, as it can't be undone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from procd.unix import own_process
from tests.capabilities import CAP_SYS_NICE, has

needs_priority = pytest.mark.skipif(not has(CAP_SYS_NICE), reason="needs CAP_SYS_NICE")

PROGRAM = """
import os, sys
from pathlib import Path
from procd.unix.own_process import raise_priority
nice, before, lead = (int(word) for word in sys.argv[1:])
if lead:
    os.setsid()
os.nice(before)
raise_priority(nice)
group = Path("/proc/self/autogroup")
print(os.getpriority(os.PRIO_PROCESS, 0), end=" ")
print(group.read_text().split()[-1] if lead and group.exists() else nice, flush=True)
pid = os.posix_spawn("/bin/sh", ("sh", "-c", "nice; cat /proc/self/autogroup"), {}, setsid=True)
os.waitpid(pid, 0)
"""
REFUSED = """
import os
from procd.unix.own_process import raise_priority
os.setuid(65534)
try:
    raise_priority(-7)
except PermissionError:
    print(os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0))
"""


def run(program: str, *arguments: int) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True, check=True, text=True, timeout=20,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    return done.stdout.split()


@needs_priority
@pytest.mark.parametrize("lead", [1, 0])
def test_children_have_normal_priority(lead: int) -> None:
    """The autogroup is changed only by the leader of its session."""
    group = Path("/proc/self/autogroup")
    before = group.read_text() if group.exists() else ""
    own, of_group, child, *of_childs_group = run(PROGRAM, -7, 0, lead)
    assert (own, of_group, child) == ("-7", "-7", "0")
    assert of_childs_group[-1:] in ([], ["0"])
    assert not before or group.read_text() == before


def test_chosen_priority_stays() -> None:
    own, _, child, *_ = run(PROGRAM, -7, 5, 0)
    assert (own, child) == ("5", "5")


@needs_priority
def test_without_the_right_nothing_changes() -> None:
    assert run(REFUSED) == ["0", "0"]


@pytest.mark.parametrize(("text", "nice"), [("/autogroup-25 nice -7\n", -7), ("", 0), (None, 0)])
def test_nice_value_of_the_autogroup(
    text: str | None, nice: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below an init that never called setsid(2) the file is empty, as kthreadd's is."""
    file = tmp_path / "autogroup"
    if text is not None:
        file.write_text(text)
    monkeypatch.setattr(own_process, "AUTOGROUP", file)
    assert own_process.autogroup_nice() == nice
