"""Which directories may not answer, by what is mounted."""

import os
from pathlib import Path

import pytest

from procd.unix import mounts
from procd.unix.file import is_remote
from tests.daemon.stalled import stalled_at


def test_what_is_of_this_machine() -> None:
    for path in ("/", "/proc/self", "/dev", "//", os.path.dirname(__file__), "absent"):
        assert not is_remote(path)


def test_what_the_root_is_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though another machine had all files."""
    monkeypatch.setattr(mounts, "REMOTE", tuple(bytes([first]) for first in range(256)))
    assert is_remote("/proc/self")
    for path in ("/", "//", "/proc/..", "/absent"):
        assert not is_remote(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_what_another_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the directory is written; not what only begins with the same letters."""
    place = tmp_path / "a\rvolume\\ of"
    place.mkdir()
    monkeypatch.chdir(tmp_path)
    assert not is_remote(str(place))
    with stalled_at(place):
        for path in (
            place,
            f"/{place}",
            f"{place}/",
            f"{place}/x",
            f"{tmp_path}/y/../{place.name}",
        ):
            assert is_remote(str(path))
        assert is_remote(place.name)
        for path in (tmp_path, f"{place}2", f"{place}/..", ""):
            assert not is_remote(str(path))
    assert not is_remote(str(place))
