"""cgroups v2: leaves for processes, whose use is limited, counted, and ended with one write.

Source: cgroups(7); Linux admin guide, "Control Group v2"; systemd.resource-control(5), Delegate=.
"""

import errno
import logging
import os
import resource
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from procd.config import ConfigError, ProcessConfig

log = logging.getLogger(__name__)

MOUNT: Final = Path("/sys/fs/cgroup")
# procd moves itself into this leaf before it enables controllers in its own cgroup. A cgroup that
# has processes can't give its children controllers ("no internal processes"): some the kernel
# refuses, with others no process can enter the leaves.
OWN_LEAF: Final = "procd-daemon"


def wanted_limits(config: ProcessConfig) -> dict[str, str]:
    """The limits of every leaf that the settings ask for: file of a controller → its content."""
    wanted = {
        "memory.max": config.memory_max_bytes,
        "pids.max": config.pids_max,
        "cpu.weight": config.cpu_weight,
    }
    return {file: str(value) for file, value in wanted.items() if value}


@dataclass(frozen=True, slots=True)
class Leaf:
    path: Path
    limited: bool = False

    @property
    def entrance(self) -> tuple[str, ...]:
        """A wrapper that enters the leaf before a program starts; empty without limits."""
        if not self.limited:
            return ()
        return ("/bin/sh", "-c", 'echo 0 >"$0" && exec "$@"', str(self.path / "cgroup.procs"))

    def add(self, pid: int) -> None:
        """Move a process in, without what it has started before."""
        (self.path / "cgroup.procs").write_text(str(pid))

    def kill(self) -> None:
        try:
            (self.path / "cgroup.kill").write_text("1")
        except OSError as exc:
            log.warning("cgroup %s: %s", self.path, exc.strerror)

    def usage(self) -> dict[str, int]:
        """What the processes inside use, as far as it is counted: cpuUsec, memoryBytes, pids."""
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
            return ""  # there is no such controller, or the leaf is gone

    def remove(self) -> bool:
        """Remove the leaf; False while a process is inside."""
        try:
            self.path.rmdir()
        except OSError as exc:
            return exc.errno == errno.ENOENT
        return True


@dataclass(frozen=True, slots=True)
class CgroupRoot:
    path: Path
    limits: Mapping[str, str] = field(default_factory=dict)

    def leaf(self, name: str) -> Leaf:
        """Make a leaf, with its limits; OSError, for instance at cgroup.max.descendants."""
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
        """The same root, whose leaves get those of the limits whose controllers are delegated.

        `pid` is moved into a leaf if it is in the root itself.
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
        if str(pid) in self._pids():
            leaf = Leaf(self.path / OWN_LEAF)
            leaf.path.mkdir(exist_ok=True)
            leaf.add(pid)
        if others := self._pids():
            raise OSError(errno.EBUSY, f"process {others[0]} is in it")
        (self.path / "cgroup.subtree_control").write_text(f"+{controller}")

    def _pids(self) -> list[str]:
        return (self.path / "cgroup.procs").read_text().split()


def own() -> Path:
    """The cgroup v2 of this process; the top one if there is none."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:  # a kernel without cgroups
        return MOUNT
    name = next((line[3:] for line in lines if line.startswith("0::")), "/")
    return MOUNT / name[1:]


def limits(name: str) -> dict[str, int]:
    """The limits of this process's cgroup and its parents: path of the file `name` → value."""
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


def memory_bytes() -> int:
    """The machine's memory, or less if limited: sysconf(3); memory.max; getrlimit(2), RLIMIT_AS."""
    sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE")]
    sizes += limits("memory.max").values()
    space, _ = resource.getrlimit(resource.RLIMIT_AS)
    return min(sizes if space == resource.RLIM_INFINITY else [*sizes, space])


def find_root(setting: str) -> CgroupRoot | None:
    """The root for leaves by this setting: "off", the absolute path of a cgroup v2, or "auto".

    "auto" takes procd's own cgroup if it is delegated: not the top one, and writable.
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
    # cgroup.kill needs Linux 5.14; the top cgroup has none.
    return os.access(path / "cgroup.kill", os.F_OK) and os.access(path / "cgroup.procs", os.W_OK)
