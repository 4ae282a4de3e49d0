"""How much memory there is: by the machine, and by limits."""

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from procd.process.cgroup import memory_bytes
from procd.unix.host import Host


@pytest.fixture
def space() -> Iterator[int]:
    """A limit of this process's address space that is above what it has, and its memory."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    yield 64 << 30
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def test_no_more_than_the_machine_has(space: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert 0 < (most := memory_bytes()) <= Host().usage("/").mem_total
    resource.setrlimit(resource.RLIMIT_AS, (space, resource.RLIM_INFINITY))
    assert memory_bytes() == min(most, space)


def test_where_proc_shows_processes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As systemd has it with ProcSubset=pid."""

    def read_text(path: Path) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", read_text)
    assert memory_bytes() > 0
