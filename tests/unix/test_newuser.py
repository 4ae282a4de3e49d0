"""What zsh is started with, so that it asks nobody anything."""

import os
from pathlib import Path

import pytest

from procd.unix import newuser
from procd.unix.newuser import DIRECTORY, STARTUP_FILES, unasked

UID = 1000


@pytest.fixture(autouse=True)
def shells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No zsh of this machine, nor what its administrator has set."""
    for name in ("zsh", "bash"):
        (tmp_path / name).touch()
    monkeypatch.setattr(newuser, "COMMON", (str(tmp_path / "zshenv"),))


def test_who_would_be_asked(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path), "A": "b"}
    assert unasked(f"{tmp_path}/zsh", env, UID) == {**env, "ZDOTDIR": DIRECTORY}
    assert os.listdir(DIRECTORY) == [".zshenv"]
    assert "ZDOTDIR" not in env


def test_who_would_not_be_asked(tmp_path: Path) -> None:
    """root, users of other shells, and who has said where the files are."""
    env = {"HOME": str(tmp_path)}
    assert unasked(f"{tmp_path}/zsh", env, 0) == env
    assert unasked(f"{tmp_path}/bash", env, UID) == env
    env["ZDOTDIR"] = "/elsewhere"
    assert unasked(f"{tmp_path}/zsh", env, UID) == env


@pytest.mark.parametrize("name", STARTUP_FILES)
def test_who_has_a_startup_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    env = {"HOME": str(tmp_path)}
    assert unasked(f"{tmp_path}/zsh", env, UID) == env


def test_files_that_the_administrator_has_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "zshenv").write_text(": ${ZDOTDIR:=$HOME/.config/zsh}\n")
    env = {"HOME": str(tmp_path)}
    assert unasked(f"{tmp_path}/zsh", env, UID) == env
