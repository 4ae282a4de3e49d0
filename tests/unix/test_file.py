"""Files and directories of our own."""

import errno
import logging
import os
import stat
import sys
from pathlib import Path

import pytest

from procd.unix.file import make_directory, open_regular, remove_tree


def test_directories_are_private(tmp_path: Path) -> None:
    """Those above that are missing as well; one that is there stays as it is."""
    tmp_path.chmod(0o755)
    inner = tmp_path / "outer" / "inner"
    for _ in range(2):
        make_directory(inner)
        assert [stat.S_IMODE(path.stat().st_mode) for path in (inner, inner.parent, tmp_path)] == [
            0o700,
            0o700,
            0o755,
        ]


def test_a_tree_is_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And if it has gone, that is as good."""
    tree = tmp_path / "tree"
    (tree / "inner").mkdir(parents=True)
    (tree / "inner" / "file").touch()
    (tree / "link").symlink_to(tmp_path)
    for _ in range(2):
        remove_tree(tree)
        assert not tree.exists()
    assert tmp_path.exists()
    assert not caplog.records


def test_what_cannot_be_removed_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Here because somebody has put a file in its place."""
    path = tmp_path / "tree"
    path.touch()
    with caplog.at_level(logging.WARNING):
        remove_tree(path)
    assert path.exists()
    assert [record.getMessage() for record in caplog.records] == [
        f"{path} can't be removed: Not a directory"
    ]


def test_a_tree_that_is_too_deep_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For Python before 3.13: whoever has made it must not make anything else fail."""
    tree = tmp_path / "tree"
    tree.mkdir()
    monkeypatch.chdir(tree)
    depth = sys.getrecursionlimit()
    for _ in range(depth):
        os.mkdir("inner")
        os.chdir("inner")
    with caplog.at_level(logging.WARNING):
        remove_tree(tree)
    left = tree.exists()
    assert [record.getMessage() for record in caplog.records] == [
        f"{tree} can't be removed: Directory not empty"
    ] * left
    for _ in range(depth * left):  # lest pytest fail at it
        os.chdir("..")
        os.rmdir("inner")


def test_only_a_regular_file_is_opened(tmp_path: Path) -> None:
    """Not a FIFO, which would keep us until somebody opens it too, nor where a link leads to."""
    file, link, fifo = tmp_path / "file", tmp_path / "link", tmp_path / "fifo"
    fd = open_regular(file, os.O_RDWR | os.O_CREAT)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not os.get_inheritable(fd.number)
    fd.close()
    link.symlink_to(file)
    os.mkfifo(fifo)
    for path, flags, error in (
        (link, os.O_RDWR, errno.ELOOP),
        (fifo, os.O_RDONLY, errno.EINVAL),
        (fifo, os.O_RDWR, errno.EINVAL),
        (tmp_path, os.O_RDONLY, errno.EINVAL),
    ):
        with pytest.raises(OSError) as caught:  # noqa: PT011 - by its number
            open_regular(path, flags)
        assert caught.value.errno == error
