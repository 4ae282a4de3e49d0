"""Whether anybody has opened a file."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from procd.unix.fd import OwnedFd, anonymous_file
from procd.unix.sightings import READ_BYTES, Sightings


@pytest.fixture
def sightings() -> Iterator[Sightings]:
    """What looks, until the test's end."""
    made = Sightings()
    yield made
    made.close()


def _open(path: str) -> None:
    os.close(os.open(path, os.O_RDONLY))


def test_what_was_opened_is_told_from_what_was_not(sightings: Sightings, tmp_path: Path) -> None:
    """With a name or without one; and for good, until it is forgotten."""
    named = tmp_path / "named"
    for path in "", str(named):
        files = [
            OwnedFd(os.open(path + each, os.O_CREAT | os.O_WRONLY))
            if path
            else anonymous_file(each, b"content")
            for each in ("a", "b")
        ]
        first, second = (sightings.watch(file) for file in files)
        assert not sightings.seen(first)
        _open(f"{path}a" if path else f"/proc/{os.getpid()}/fd/{files[0].number}")
        for _ in range(2):
            assert sightings.seen(first)
            assert not sightings.seen(second)
        for watched, file in zip((first, second), files, strict=True):
            sightings.forget(watched)
            file.close()


def test_more_news_than_are_read_at_once(sightings: Sightings) -> None:
    """Each is taken in."""
    files = [anonymous_file("many", b"") for _ in range(READ_BYTES // 16)]
    watches = [sightings.watch(file) for file in files]
    for file in files:
        _open(f"/proc/self/fd/{file.number}")
    assert all(sightings.seen(watched) for watched in watches)
    for watched, file in zip(watches, files, strict=True):
        sightings.forget(watched)
        file.close()


def test_what_cannot_be_watched_may_have_been_opened() -> None:
    """As after the end of it."""
    sightings = Sightings()
    sightings.close()
    file = anonymous_file("late", b"")
    watched = sightings.watch(file)
    assert sightings.seen(watched)
    sightings.forget(watched)
    file.close()
