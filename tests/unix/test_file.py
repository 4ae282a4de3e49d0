"""Which paths are on a remote file system."""

import os
from pathlib import Path

import pytest

from procd.unix import file
from procd.unix.file import is_remote
from tests.daemon.stalled import stalled_at


def test_local_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """The root directory counts as local, whatever its type."""
    for path in ("/", "/proc/self", "/dev", "//", os.path.dirname(__file__), "absent"):
        assert not is_remote(path)
    every_type = tuple(bytes([first]) for first in range(256))
    monkeypatch.setattr(file, "REMOTE", every_type)
    assert is_remote("/proc/self")
    for path in ("/", "//", "/proc/..", "/absent"):
        assert not is_remote(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_remote_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
