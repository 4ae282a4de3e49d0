"""Whether anybody has opened a file."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from procd.services.shell.open_watch import READ_BYTES, Sightings
from procd.unix.fd import OwnedFd, anonymous_file


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
        assert not sightings.seen(first, files[0])
        _open(f"{path}a" if path else f"/proc/{os.getpid()}/fd/{files[0].number}")
        for _ in range(2):
            assert sightings.seen(first, files[0])
            assert not sightings.seen(second, files[1])
        for watched, file in zip((first, second), files, strict=True):
            sightings.forget(watched)
            file.close()


def test_more_news_than_are_read_at_once(sightings: Sightings) -> None:
    """Each is taken in."""
    files = [anonymous_file("many", b"") for _ in range(READ_BYTES // 16)]
    watches = [sightings.watch(file) for file in files]
    for file in files:
        _open(f"/proc/self/fd/{file.number}")
    assert all(map(sightings.seen, watches, files))
    for watched, file in zip(watches, files, strict=True):
        sightings.forget(watched)
        file.close()


@pytest.fixture
def unwatching() -> Sightings:
    """What can watch no more, as where others have all that a user may have of it."""
    sightings = Sightings()
    sightings.close()
    return sightings


def test_what_cannot_be_watched_tells_by_its_time_of_access(
    unwatching: Sightings, tmp_path: Path
) -> None:
    files = [anonymous_file("late", b"content")]
    if not os.statvfs(tmp_path).f_flag & os.ST_NOATIME:
        files.append(OwnedFd(os.open(tmp_path / "named", os.O_CREAT | os.O_RDWR)))
        os.write(files[-1].number, b"content")
    for file in files:
        changed = os.fstat(file.number).st_mtime_ns
        watched = unwatching.watch(file)
        assert not unwatching.seen(watched, file)
        path = f"/proc/self/fd/{file.number}"
        _open(path)
        assert not unwatching.seen(watched, file), "nobody has read it"
        assert Path(path).read_bytes() == b"content"
        assert unwatching.seen(watched, file)
        assert os.fstat(file.number).st_mtime_ns == changed
        unwatching.forget(watched)
        file.close()


def test_what_tells_nothing_may_have_been_opened(
    unwatching: Sightings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of that one is warned, once."""
    # The second is as on a file system that is mounted `noatime`.
    for name, flags in ("unreadable", os.O_WRONLY), ("untold", os.O_RDWR | os.O_NOATIME):
        file = OwnedFd(os.open(tmp_path / name, os.O_CREAT | flags))
        os.write(file.number, b"content")
        for _ in range(2):
            watched = unwatching.watch(file)
            assert unwatching.seen(watched, file)
            unwatching.forget(watched)
        file.close()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
