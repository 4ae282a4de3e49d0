"""A cgroup v2 of the test's own, where one can be made."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest


def leaves(root: Path) -> list[Path]:
    return [path for path in root.iterdir() if path.is_dir()]


def controllers(root: Path) -> set[str]:
    """The controllers that it may enable."""
    return set((root / "cgroup.controllers").read_text().split())


@contextmanager
def made_cgroup() -> Iterator[Path]:
    """Make one; skip the test if that isn't possible."""
    path = _make()
    if path is None:
        pytest.skip("no cgroup v2 with cgroup.kill that can be written to")
    yield path
    for leaf in leaves(path):
        leaf.rmdir()
    path.rmdir()


def _make() -> Path | None:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        if rest.split()[0] != "cgroup2":
            continue
        path = Path(fields.split()[4]) / f"procd-test-{uuid4().hex}"
        try:
            path.mkdir()
        except OSError:
            continue
        if (path / "cgroup.kill").exists():
            return path
        path.rmdir()
    return None
