"""The environment that keeps zsh from asking questions."""

from pathlib import Path

import pytest

from procd.process.run_as import RunAs
from procd.services.pty import sessions
from procd.services.pty.sessions import ZSH_FILES, skip_newuser
from tests.passable import let_pass

USER = RunAs(uid=54321, gid=54321, groups=())
ROOT = RunAs(uid=0, gid=0, groups=())


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The ZDOTDIR that zsh gets, and no settings of this machine."""
    for name in ("zsh", "bash"):
        (tmp_path / name).touch()
    let_pass(tmp_path)
    directory = tmp_path / "given"
    directory.mkdir(mode=0o755)
    monkeypatch.setattr(sessions, "ZSH_COMMON", (str(tmp_path / "zshenv"),))
    monkeypatch.setattr(sessions, "ZSH_DIRECTORY", str(directory))
    return directory


def test_a_user_without_startup_files(tmp_path: Path, directory: Path) -> None:
    env = {"HOME": str(tmp_path), "A": "b"}
    assert skip_newuser(f"{tmp_path}/zsh", env, USER) == {**env, "ZDOTDIR": str(directory)}
    assert "ZDOTDIR" not in env


def test_users_who_would_not_be_asked(tmp_path: Path) -> None:
    """root, users of other shells, and users with a ZDOTDIR."""
    env = {"HOME": str(tmp_path)}
    assert skip_newuser(f"{tmp_path}/zsh", env, ROOT) == env
    assert skip_newuser(f"{tmp_path}/bash", env, USER) == env
    env["ZDOTDIR"] = "/elsewhere"
    assert skip_newuser(f"{tmp_path}/zsh", env, USER) == env


@pytest.mark.parametrize("name", ZSH_FILES)
def test_a_user_with_a_startup_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    env = {"HOME": str(tmp_path)}
    assert skip_newuser(f"{tmp_path}/zsh", env, USER) == env


def test_a_zdotdir_of_the_administrator(tmp_path: Path) -> None:
    (tmp_path / "zshenv").write_text(": ${ZDOTDIR:=$HOME/.config/zsh}\n")
    env = {"HOME": str(tmp_path)}
    assert skip_newuser(f"{tmp_path}/zsh", env, USER) == env


def test_a_user_who_could_not_read_the_directory(tmp_path: Path, directory: Path) -> None:
    """The variable would stay set."""
    directory.chmod(0o700)
    env = {"HOME": str(tmp_path)}
    assert skip_newuser(f"{tmp_path}/zsh", env, USER) == env
