"""Files and directories, and which of them are on a remote file system."""

import errno
import os
import stat
import sys
from pathlib import Path

import pytest

from procd.unix import file
from procd.unix.file import is_remote, make_directory, open_regular, remove_tree
from tests.daemon.stalled import stalled_at


def test_new_directories_are_private(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    inner = tmp_path / "outer" / "inner"
    for _ in range(2):
        make_directory(inner)
        modes = [stat.S_IMODE(path.stat().st_mode) for path in (inner, inner.parent, tmp_path)]
        assert modes == [0o700, 0o700, 0o755]


def test_remove_tree(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tree = tmp_path / "tree"
    (tree / "inner").mkdir(parents=True)
    (tree / "inner" / "file").touch()
    (tree / "link").symlink_to(tmp_path)
    for _ in range(2):
        remove_tree(tree)
        assert not tree.exists()
    assert not caplog.records
    tree.touch()
    remove_tree(tree)
    assert f"{tree} can't be removed: Not a directory" in caplog.text


def test_remove_tree_that_is_too_deep(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Python 3.13 that is logged; nothing fails."""
    tree = tmp_path / "tree"
    tree.mkdir()
    monkeypatch.chdir(tree)
    depth = sys.getrecursionlimit()
    for _ in range(depth):
        os.mkdir("inner")
        os.chdir("inner")
    remove_tree(tree)
    left = tree.exists()
    assert ("can't be removed: Directory not empty" in caplog.text) is left
    for _ in range(depth * left):  # pytest couldn't remove it
        os.chdir("..")
        os.rmdir("inner")


def test_open_regular(tmp_path: Path) -> None:
    """Neither a link is followed, nor a FIFO's other end waited for."""
    path, link, fifo = tmp_path / "file", tmp_path / "link", tmp_path / "fifo"
    fd = open_regular(path, os.O_RDWR | os.O_CREAT)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not os.get_inheritable(fd.number)
    fd.close()
    link.symlink_to(path)
    os.mkfifo(fifo)
    for other, error in ((link, errno.ELOOP), (fifo, errno.EINVAL), (tmp_path, errno.EINVAL)):
        with pytest.raises(OSError) as caught:  # noqa: PT011 - by its number
            open_regular(other, os.O_RDONLY)
        assert caught.value.errno == error


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
