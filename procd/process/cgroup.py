"""Leaves of a delegated cgroup v2: everything in one ends with one write, forks in flight included.

Source: cgroups(7); Linux admin guide, "Control Group v2", cgroup.kill; systemd.resource-control(5),
Delegate=.
"""

import errno
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from procd.config import ConfigError, ProcessConfig

log = logging.getLogger(__name__)

MOUNT: Final = Path("/sys/fs/cgroup")
# Where procd itself goes when its own cgroup is to have controllers: a cgroup with those for its
# children has no processes of its own ("no internal processes"). The kernel refuses only some of
# them; with the others, those for threads, it's the leaves that nobody can enter.
OWN_LEAF: Final = "procd-daemon"


def wanted_limits(config: ProcessConfig) -> dict[str, str]:
    """What the settings ask of every leaf: file of a controller → its content."""
    wanted = {
        "memory.max": config.memory_max_bytes,
        "pids.max": config.pids_max,
        "cpu.weight": config.cpu_weight,
    }
    return {file: str(value) for file, value in wanted.items() if value}


@dataclass(frozen=True, slots=True)
class Leaf:
    """One leaf cgroup, by its path.

    Attributes:
        limited: whether nothing may run in it outside its limits.
    """

    path: Path
    limited: bool = False

    @property
    def entrance(self) -> tuple[str, ...]:
        """What to put before an argument vector so that the program begins inside, if it has to.

        A program moved in after its start may have forked meanwhile, and that child is outside.
        """
        if not self.limited:
            return ()
        return ("/bin/sh", "-c", 'echo 0 >"$0" && exec "$@"', str(self.path / "cgroup.procs"))

    def add(self, pid: int) -> None:
        """Move a process in; what it started before stays where it is, which the tree walk covers.

        Raises:
            OSError: the process has gone, or the leaf has.
        """
        (self.path / "cgroup.procs").write_text(str(pid))

    def kill(self) -> None:
        """SIGKILL all that is inside."""
        try:
            (self.path / "cgroup.kill").write_text("1")
        except OSError as exc:
            log.warning("cgroup %s: %s", self.path, exc.strerror)

    def usage(self) -> dict[str, int]:
        """What all inside use, as far as the kernel counts it here.

        Keys: cpuUsec, microseconds; memoryBytes; pids, the number of tasks.
        """
        used: dict[str, int] = {}
        for key, name in (("memoryBytes", "memory.current"), ("pids", "pids.current")):
            if (text := self._read(name)).strip().isdecimal():
                used[key] = int(text)
        for line in self._read("cpu.stat").splitlines():
            name, _, value = line.partition(" ")
            if name == "usage_usec":
                used["cpuUsec"] = int(value)
        return used

    def _read(self, name: str) -> str:
        try:
            return (self.path / name).read_text()
        except OSError:
            return ""  # no such controller, or the leaf has gone

    def remove(self) -> bool:
        """Remove the leaf; False while something is inside."""
        try:
            self.path.rmdir()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True


@dataclass(frozen=True, slots=True)
class CgroupRoot:
    """The directory that is ours to make leaves in."""

    path: Path
    limits: Mapping[str, str] = field(default_factory=dict)

    def leaf(self, name: str) -> Leaf:
        """Make a leaf, with its limits.

        Raises:
            OSError: the kernel refuses, for instance at cgroup.max.descendants.
        """
        leaf = Leaf(self.path / name, bool(self.limits))
        leaf.path.mkdir()
        try:
            for file, value in self.limits.items():
                (leaf.path / file).write_text(value)
        except OSError:
            leaf.remove()
            raise
        return leaf

    def limited(self, limits: Mapping[str, str], pid: int) -> "CgroupRoot":
        """The same, with these limits for every leaf: those whose controllers are delegated.

        Args:
            limits: file of a controller, such as memory.max → its content.
            pid: whom to move into a leaf, if it is in the way.
        """
        allowed: dict[str, str] = {}
        for file, value in limits.items():
            try:
                self._enable(file.partition(".")[0], pid)
            except OSError as exc:
                log.warning("no %s in %s: %s", file, self.path, exc.strerror)
            else:
                allowed[file] = value
        return CgroupRoot(self.path, allowed)

    def _enable(self, controller: str, pid: int) -> None:
        if controller not in (self.path / "cgroup.controllers").read_text().split():
            raise OSError(errno.ENODEV, f"the {controller} controller is not delegated")
        if str(pid) in self._inside():
            leaf = Leaf(self.path / OWN_LEAF)
            leaf.path.mkdir(exist_ok=True)
            leaf.add(pid)
        if others := self._inside():
            raise OSError(errno.EBUSY, f"process {others[0]} is in it")
        (self.path / "cgroup.subtree_control").write_text(f"+{controller}")

    def _inside(self) -> list[str]:
        return (self.path / "cgroup.procs").read_text().split()


def own() -> Path:
    """The cgroup v2 that this process is in; the top one where there is none."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:  # a kernel without cgroups
        return MOUNT
    name = next((line[3:] for line in lines if line.startswith("0::")), "/")
    return MOUNT / name[1:]


def limits(name: str) -> dict[str, int]:
    """What `name`, a file such as memory.max, allows in the cgroups that this process is in.

    By the file's path; those without a limit aren't there.
    """
    place = own()
    found: dict[str, int] = {}
    for path in (place, *place.parents[: len(place.relative_to(MOUNT).parts)]):
        try:
            text = (path / name).read_text().strip()
        except OSError:
            continue
        if text.isdecimal():
            found[str(path / name)] = int(text)
    return found


def find_root(setting: str) -> CgroupRoot | None:
    """The root for leaves under this setting: "off", "auto", or an absolute path.

    "auto" takes procd's own cgroup if it was delegated: not the top one, and ours to write to.

    Raises:
        ConfigError: the path given is no cgroup v2 directory that can be written to.
    """
    if setting == "off":
        return None
    if setting != "auto":
        path = Path(setting)
        if not (path.is_absolute() and _usable(path)):
            raise ConfigError(
                f"process.cgroup: not the absolute path of a writable cgroup v2: {setting}"
            )
        return CgroupRoot(path)
    path = own()
    if path == MOUNT:
        return None
    if path.name == OWN_LEAF:
        path = path.parent
    return CgroupRoot(path) if _usable(path) else None


def _usable(path: Path) -> bool:
    # cgroup.kill came with Linux 5.14; the top cgroup has none.
    return os.access(path / "cgroup.kill", os.F_OK) and os.access(path / "cgroup.procs", os.W_OK)
