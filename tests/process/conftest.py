"""What tests of several modules need."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.cgroups import made_cgroup


@pytest.fixture
def cgroup_root() -> Iterator[Path]:
    """A cgroup of the test's own."""
    with made_cgroup() as path:
        yield path
