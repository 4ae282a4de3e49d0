"""Files and directories of our own."""

import logging
from pathlib import Path

import pytest

from procd.unix.file import remove_tree


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
