"""Leaves of a real cgroup v2, where there is one to make them in."""

import logging
import os
import re
import select
import signal
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from procd.config import ConfigError
from procd.process.cgroup import CgroupRoot, Leaf, find_root
from procd.process.spawn import Spec, spawn
from procd.process.tags import TAG_BASE


def _mounts() -> list[Path]:
    """Where cgroup2 is mounted."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        if rest.split()[0] == "cgroup2":
            found.append(Path(fields.split()[4]))
    return found


@pytest.fixture
def root() -> Iterator[Path]:
    """A cgroup of the test's own."""
    for mount in _mounts():
        path = mount / f"procd-test-{uuid4().hex}"
        try:
            path.mkdir()
        except OSError:
            continue
        if (path / "cgroup.kill").exists():
            break
        path.rmdir()
    else:
        pytest.skip("no cgroup v2 with cgroup.kill that can be written to")
    yield path
    for leaf in path.iterdir():
        if leaf.is_dir():
            leaf.rmdir()
    path.rmdir()


@pytest.fixture
def kernel_log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What the module warns of."""
    caplog.set_level(logging.WARNING, "procd.process.process.cgroup")
    return caplog


def _events(path: Path) -> str:
    return (path / "cgroup.events").read_text()


def _until_empty(path: Path) -> None:
    """Wait for the kernel's word that nobody is inside: POLLPRI on cgroup.events."""
    with (path / "cgroup.events").open() as events:
        poll = select.poll()
        poll.register(events, select.POLLPRI)
        while "populated 0" not in _events(path):
            assert poll.poll(10_000), "the leaf is still populated"
            events.seek(0)
            events.read()


def _started(script: str) -> tuple[int, int]:
    """A child that has said a line, and the end of its output."""
    reading, writing = os.pipe()
    spec = Spec(
        argv=("/bin/sh", "-c", script),
        cwd="/",
        env={"PATH": "/usr/bin:/bin"},
        stdio=(os.devnull, writing, os.devnull),
    )
    pid = spawn(spec, TAG_BASE + 4)
    os.close(writing)
    assert os.read(reading, 100) == b"up\n"
    return pid, reading


def test_off_is_none() -> None:
    """Nothing is looked for."""
    assert find_root("off") is None


def test_auto_is_our_own_or_none() -> None:
    """What was not delegated is left alone: the top cgroup is nobody's."""
    found = find_root("auto")
    own = re.search(r"^0::(.*)$", Path("/proc/self/cgroup").read_text(), re.MULTILINE)
    if own is None or own[1] == "/":
        assert found is None
    else:
        assert found in (None, CgroupRoot(Path("/sys/fs/cgroup" + own[1])))


@pytest.mark.parametrize("path", ["/absent", "/tmp", "relative"])
def test_a_path_that_is_no_cgroup(path: str) -> None:
    """A setting that can't be used is refused by name."""
    with pytest.raises(ConfigError, match=rf"process\.cgroup: not the absolute .*: {path}$"):
        find_root(path)


def test_a_relative_path(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused wherever it leads: the directory that it is relative to changes."""
    monkeypatch.chdir(root.parent)
    with pytest.raises(ConfigError):
        find_root(root.name)


def test_a_path_that_is_one(root: Path) -> None:
    """A directory that was given is the root."""
    assert find_root(str(root)) == CgroupRoot(root)


def test_the_life_of_a_leaf(root: Path) -> None:
    """Made, entered, not to be removed while somebody is inside, killed whole, and removed."""
    leaf = CgroupRoot(root).leaf("one")
    assert leaf == Leaf(root / "one")
    pid, reading = _started("echo up; exec sleep 1000")
    leaf.add(pid)
    assert (leaf.path / "cgroup.procs").read_text().split() == [str(pid)]
    assert not leaf.remove()
    assert leaf.path.is_dir()
    leaf.kill()
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    os.close(reading)
    _until_empty(leaf.path)
    assert leaf.remove()
    assert not leaf.path.exists()
    assert leaf.remove(), "what is gone counts as removed"


def test_two_leaves_are_two(root: Path) -> None:
    """A kill of one leaves those in the other alone."""
    cgroups = CgroupRoot(root)
    first, second = cgroups.leaf("first"), cgroups.leaf("second")
    one, one_out = _started("echo up; exec sleep 1000")
    two, two_out = _started("echo up; exec sleep 1000")
    first.add(one)
    second.add(two)
    first.kill()
    assert os.waitpid(one, 0)[1] == signal.SIGKILL
    assert os.waitpid(two, os.WNOHANG) == (0, 0)
    assert (second.path / "cgroup.procs").read_text().split() == [str(two)]
    second.kill()
    assert os.waitpid(two, 0)[1] == signal.SIGKILL
    for number in (one_out, two_out):
        os.close(number)
    for leaf in (first, second):
        _until_empty(leaf.path)
        assert leaf.remove()


def test_a_name_is_taken_once(root: Path) -> None:
    """The kernel's refusals are errors."""
    cgroups = CgroupRoot(root)
    leaf = cgroups.leaf("same")
    with pytest.raises(FileExistsError):
        cgroups.leaf("same")
    assert leaf.remove()
    with pytest.raises(FileNotFoundError):
        Leaf(root / "absent").add(os.getpid())


def test_a_process_that_has_gone(root: Path) -> None:
    """Adding who is no more is an error, and the leaf can be removed."""
    leaf = CgroupRoot(root).leaf("late")
    pid, reading = _started("echo up")
    os.waitpid(pid, 0)
    os.close(reading)
    with pytest.raises(ProcessLookupError):
        leaf.add(pid)
    assert leaf.remove()


def test_killing_a_leaf_that_is_gone(tmp_path: Path, kernel_log: pytest.LogCaptureFixture) -> None:
    """It is warned of and goes on: the tree walk kills as well."""
    leaf = Leaf(tmp_path / "gone")
    leaf.kill()
    (record,) = kernel_log.records
    assert "No such file or directory" in record.getMessage()


def test_a_limited_leaf_is_entered_before_the_program_begins(root: Path) -> None:
    """What it forks first is inside as well; the leaf has its limits by then."""
    # A file that every cgroup has, whatever controllers there are.
    leaf = CgroupRoot(root, {"cgroup.max.descendants": "7"}).leaf("procd-1")
    assert (leaf.path / "cgroup.max.descendants").read_text() == "7\n"
    reading, writing = os.pipe()
    spec = Spec(
        argv=("/bin/sh", "-c", "cat /proc/self/cgroup; exit 3"),
        cwd="/", env=dict(os.environ), stdio=(os.devnull, writing, writing),
        wrappers=leaf.entrance,
    )  # fmt: skip
    pid = spawn(spec, TAG_BASE)
    os.close(writing)
    with open(reading) as said:
        assert "/procd-1\n" in said.read()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    usage = leaf.usage()
    assert usage["cpuUsec"] > 0
    assert leaf.remove()
    assert leaf.usage() == {}


def test_a_program_does_not_run_outside_of_its_limits(root: Path) -> None:
    """Where the leaf can't be entered it is not begun."""
    leaf = CgroupRoot(root, {"cgroup.max.descendants": "0"}).leaf("procd-1")
    assert leaf.remove()
    spec = Spec(
        argv=("/bin/sh", "-c", "exit 0"),
        cwd="/", env=dict(os.environ), stdio=(os.devnull, os.devnull, os.devnull),
        wrappers=leaf.entrance,
    )  # fmt: skip
    pid = spawn(spec, TAG_BASE)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0


def test_an_unlimited_leaf_needs_no_entrance(root: Path) -> None:
    """The program starts as it is."""
    leaf = CgroupRoot(root).leaf("procd-1")
    assert leaf.entrance == ()
    assert leaf.remove()


def test_limits_without_their_controllers(root: Path, kernel_log: pytest.LogCaptureFixture) -> None:
    """They are left out, with a warning each."""
    limited = CgroupRoot(root).limited({"nonsense.max": "1"}, os.getpid())
    assert limited == CgroupRoot(root)
    assert "no nonsense.max" in kernel_log.text
    assert "not delegated" in kernel_log.text


def _controllers(root: Path) -> list[str]:
    names = (root / "cgroup.controllers").read_text().split()
    if not names:
        pytest.skip("no controller is delegated")
    return names


@pytest.fixture
def sleeper() -> Iterator[int]:
    """The pid of a process that has nothing to do with cgroups."""
    spec = Spec(
        argv=("/bin/sleep", "1000"), cwd="/", env={}, stdio=(os.devnull, os.devnull, os.devnull)
    )
    pid = spawn(spec, TAG_BASE)
    yield pid
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_each_controller_with_a_process_in_the_way(root: Path, sleeper: int) -> None:
    """Who is in the cgroup itself moves into a leaf: else the kernel refuses, or closes leaves."""
    for controller in _controllers(root):
        (root / "cgroup.procs").write_text(str(sleeper))
        limited = CgroupRoot(root).limited({f"{controller}.max": "1"}, sleeper)
        assert limited.limits == {f"{controller}.max": "1"}
        assert (root / "cgroup.subtree_control").read_text().split() == [controller]
        assert f"/{root.name}/procd-daemon\n" in Path(f"/proc/{sleeper}/cgroup").read_text()
        leaf = CgroupRoot(root).leaf("procd-1")
        leaf.add(sleeper)
        assert f"/{root.name}/procd-1\n" in Path(f"/proc/{sleeper}/cgroup").read_text()
        (root / "cgroup.subtree_control").write_text(f"-{controller}")
        (root / "cgroup.procs").write_text(str(sleeper))
        assert leaf.remove()


def test_no_controller_with_another_process_in_the_way(
    root: Path, sleeper: int, kernel_log: pytest.LogCaptureFixture
) -> None:
    """Who isn't ours to move keeps the limits out, not the commands: a warning says so."""
    (root / "cgroup.procs").write_text(str(sleeper))
    for controller in _controllers(root):
        limited = CgroupRoot(root).limited({f"{controller}.max": "1"}, os.getpid())
        assert limited.limits == {}
        assert f"no {controller}.max in {root}: process {sleeper} is in it" in kernel_log.text
    assert (root / "cgroup.subtree_control").read_text().split() == []
