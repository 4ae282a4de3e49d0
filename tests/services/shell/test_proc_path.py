"""What a child opens by path, and whether it has."""

import os
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from procd.process.limits import ChildLimits
from procd.process.run_as import RunAs
from procd.services.shell.proc_path import READ_BYTES, ChildPaths, OpenWatch
from procd.unix.fd import RESERVED
from tests.api.clients import descriptors_exhausted


@pytest.fixture
def watch() -> Iterator[OpenWatch]:
    made = OpenWatch()
    yield made
    made.close()


@pytest.fixture(params=["/proc", "FIFO"])
def paths(request: pytest.FixtureRequest, tmp_path: Path, watch: OpenWatch) -> ChildPaths:
    owner = RunAs(uid=os.geteuid(), gid=os.getegid(), groups=())
    return ChildPaths(
        ChildLimits(run_as=owner if request.param == "FIFO" else None), tmp_path, watch
    )


def test_an_input_that_is_inherited_blocks(paths: ChildPaths) -> None:
    reading, writing = paths.input("in")
    assert os.get_blocking(reading.fd.number)
    reading.close()
    writing.close()


@pytest.mark.parametrize("kind", ["output", "input", "channel", "file"])
def test_without_descriptors_nothing_is_left_open(
    paths: ChildPaths, tmp_path: Path, kind: str
) -> None:
    make = partial(paths.file, content=b"x") if kind == "file" else getattr(paths, kind)
    before = set(os.listdir("/proc/self/fd"))
    made = None
    for spare in range(RESERVED + 10):
        with descriptors_exhausted(but=spare), suppress(OSError):
            made = make(str(spare))
        if made is not None:
            break
        assert set(os.listdir("/proc/self/fd")) == before
    assert made is not None
    for one in made if isinstance(made, tuple) else (made,):
        one.close()
    assert set(os.listdir("/proc/self/fd")) == before


def _open(path: str) -> None:
    os.close(os.open(path, os.O_RDONLY))


def test_files_that_were_opened(paths: ChildPaths) -> None:
    first, second = paths.file("a", b"content"), paths.file("b", b"content")
    assert not first.opened
    _open(first.path)
    assert (first.opened, second.opened) == (True, False)
    first.close()
    second.close()


def test_more_files_than_events_are_read_at_once(paths: ChildPaths) -> None:
    files = [paths.file(str(number), b"") for number in range(READ_BYTES // 16)]
    for file in files:
        _open(file.path)
    assert all(file.opened for file in files)
    for file in files:
        file.close()


def test_a_file_that_cannot_be_watched_counts_as_opened(
    paths: ChildPaths, watch: OpenWatch
) -> None:
    watch.close()
    file = paths.file("a", b"content")
    assert file.opened
    file.close()
