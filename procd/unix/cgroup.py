"""Leaves of a delegated cgroup v2: everything in one ends with one write, forks in flight included.

Source: cgroups(7); Linux admin guide, "Control Group v2", cgroup.kill; systemd.resource-control(5),
Delegate=.
"""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Leaf:
    """One leaf cgroup, by its path."""

    path: Path

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

    def leaf(self, name: str) -> Leaf:
        """Make a leaf.

        Raises:
            OSError: the kernel refuses, for instance at cgroup.max.descendants.
        """
        leaf = Leaf(self.path / name)
        leaf.path.mkdir()
        return leaf


def find_root(setting: str) -> CgroupRoot | None:
    """The root for leaves under this setting: "off", "auto", or an absolute path.

    "auto" takes procd's own cgroup if it was delegated: not the top one, and ours to write to.

    Raises:
        ValueError: the path given is no cgroup v2 directory that can be written to.
    """
    if setting == "off":
        return None
    if setting != "auto":
        if not _usable(Path(setting)):
            raise ValueError(f"process.cgroup: not a writable cgroup v2 directory: {setting}")
        return CgroupRoot(Path(setting))
    name = next(
        (
            line[3:]
            for line in Path("/proc/self/cgroup").read_text().splitlines()
            if line.startswith("0::")
        ),
        "/",
    )
    path = Path("/sys/fs/cgroup" + name)
    return CgroupRoot(path) if name != "/" and _usable(path) else None


def _usable(path: Path) -> bool:
    # cgroup.kill came with Linux 5.14; the top cgroup has none.
    return (path / "cgroup.kill").exists() and os.access(path / "cgroup.procs", os.W_OK)
