"""Leaves of a real cgroup v2, where one can be made; and how much memory there is."""

import os
import re
import resource
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from procd.config import ConfigError
from procd.process.cgroup import CgroupRoot, Leaf, find_root, memory_bytes
from procd.process.spawn import Spec, spawn
from procd.process.tags import TAG_BASE
from procd.unix.host import Host
from tests.process.cgroups import controllers
from tests.process.programs import run


@pytest.fixture
def sleepers() -> Iterator[list[int]]:
    """The pids of two processes."""
    spec = Spec(argv=("/bin/sleep", "1000"), cwd="/", env={}, stdio=(os.devnull,) * 3)
    pids = [spawn(spec, TAG_BASE) for _ in range(2)]
    yield pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def until_empty(path: Path) -> None:
    """Wait until no process is inside: POLLPRI on cgroup.events."""
    with (path / "cgroup.events").open() as events:
        poll = select.poll()
        poll.register(events, select.POLLPRI)
        while "populated 0" not in events.read():
            assert poll.poll(10_000), "the leaf is still populated"
            events.seek(0)


def test_memory_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    most = memory_bytes()
    assert 0 < most <= Host().usage("/").mem_total
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (64 << 30, hard))
        assert memory_bytes() == min(most, 64 << 30)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))

    def read_text(path: Path) -> str:  # as with systemd's ProcSubset=pid
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", read_text)
    assert memory_bytes() > 0


def test_setting_of_the_root() -> None:
    assert find_root("off") is None
    own = re.search(r"^0::(.*)$", Path("/proc/self/cgroup").read_text(), re.MULTILINE)
    if own is None or own[1] == "/":
        assert find_root("auto") is None, "the top cgroup isn't delegated"
    else:
        assert find_root("auto") in (None, CgroupRoot(Path("/sys/fs/cgroup" + own[1])))


@pytest.mark.parametrize("path", ["/absent", "/tmp", "relative"])
def test_path_that_is_no_cgroup(path: str) -> None:
    with pytest.raises(ConfigError, match=rf"process\.cgroup: not the absolute .*: {path}$"):
        find_root(path)


def test_path_of_a_cgroup(cgroup_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_root(str(cgroup_root)) == CgroupRoot(cgroup_root)
    monkeypatch.chdir(cgroup_root.parent)
    with pytest.raises(ConfigError):
        find_root(cgroup_root.name)  # relative


def test_kill_and_removal_of_a_leaf(cgroup_root: Path, sleepers: list[int]) -> None:
    """A leaf with a process can't be removed; a kill leaves other leaves alone."""
    root = CgroupRoot(cgroup_root)
    leaf, other = root.leaf("one"), root.leaf("two")
    assert (leaf, leaf.entrance) == (Leaf(cgroup_root / "one"), ())
    with pytest.raises(FileExistsError):
        root.leaf("one")
    for each, pid in zip((leaf, other), sleepers, strict=True):
        each.add(pid)
        assert (each.path / "cgroup.procs").read_text().split() == [str(pid)]
    assert not leaf.remove()
    leaf.kill()
    until_empty(leaf.path)
    assert (other.path / "cgroup.procs").read_text().split() == [str(sleepers[1])]
    other.kill()
    until_empty(other.path)
    assert leaf.remove()
    assert leaf.remove()
    assert other.remove()


def test_kill_of_a_leaf_that_is_gone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Leaf(tmp_path / "gone").kill()
    assert "No such file or directory" in caplog.text


def test_program_enters_its_limited_leaf_first(cgroup_root: Path) -> None:
    """Where it can't, it doesn't run."""
    # A file that every cgroup has, whatever controllers there are.
    leaf = CgroupRoot(cgroup_root, {"cgroup.max.descendants": "7"}).leaf("procd-1")
    assert (leaf.path / "cgroup.max.descendants").read_text() == "7\n"
    argv = ("/bin/sh", "-c", "cat /proc/self/cgroup; exit 3")
    output, code = run(argv, wrappers=leaf.entrance)
    assert b"/procd-1\n" in output
    assert code == 3
    assert leaf.usage()["cpuUsec"] > 0
    assert leaf.remove()
    assert leaf.usage() == {}
    output, code = run(argv, wrappers=leaf.entrance)
    assert b"/procd-1\n" not in output
    assert code not in (0, 3)


def test_limit_without_its_controller(cgroup_root: Path, caplog: pytest.LogCaptureFixture) -> None:
    limited = CgroupRoot(cgroup_root).limited({"nonsense.max": "1"}, os.getpid())
    assert limited == CgroupRoot(cgroup_root)
    assert "no nonsense.max" in caplog.text
    assert "not delegated" in caplog.text


def test_process_in_the_root_of_a_limited_leaf(
    cgroup_root: Path, sleepers: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """procd itself moves into a leaf; another process prevents the limits."""
    if not controllers(cgroup_root):
        pytest.skip("no controller is delegated")
    pid = sleepers[0]
    for controller in controllers(cgroup_root):
        (cgroup_root / "cgroup.procs").write_text(str(pid))
        limits = {f"{controller}.max": "1"}
        assert CgroupRoot(cgroup_root).limited(limits, os.getpid()).limits == {}
        assert f"no {controller}.max in {cgroup_root}: process {pid} is in it" in caplog.text
        assert CgroupRoot(cgroup_root).limited(limits, pid).limits == limits
        assert (cgroup_root / "cgroup.subtree_control").read_text().split() == [controller]
        assert f"/{cgroup_root.name}/procd-daemon\n" in Path(f"/proc/{pid}/cgroup").read_text()
        leaf = CgroupRoot(cgroup_root).leaf("procd-1")
        leaf.add(pid)
        (cgroup_root / "cgroup.subtree_control").write_text(f"-{controller}")
        (cgroup_root / "cgroup.procs").write_text(str(pid))
        assert leaf.remove()
