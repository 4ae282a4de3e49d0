"""StateDirectory: whose one is, and what happens to those of the dead."""

import os
import stat
from pathlib import Path

from procd.output.statedir import LOCK, StateDirectory


def test_private_and_gone_after(tmp_path: Path) -> None:
    """Only its owner can look into it, and `remove` takes all that is in it."""
    state = StateDirectory(str(tmp_path))
    assert state.path.parent == tmp_path
    assert stat.S_IMODE(state.path.stat().st_mode) == 0o700
    (state.path / "1").mkdir()
    (state.path / "1" / "log").write_text("x")
    state.remove()
    assert list(tmp_path.iterdir()) == []


def test_living_ones_are_left_alone(tmp_path: Path) -> None:
    """Each run has its own beside the others'."""
    one = StateDirectory(str(tmp_path))
    other = StateDirectory(str(tmp_path))
    assert one.path != other.path
    assert one.path.is_dir()
    one.remove()
    other.remove()


def test_abandoned_ones_are_removed(tmp_path: Path) -> None:
    """One whose owner has died: its lock is free."""
    abandoned = tmp_path / "procd-abandoned"
    abandoned.mkdir()
    (abandoned / LOCK).touch()
    (abandoned / "1.log").write_text("x")
    state = StateDirectory(str(tmp_path))
    assert not abandoned.exists()
    state.remove()


def test_what_is_not_known_to_be_ours_is_left_alone(tmp_path: Path) -> None:
    """Without a lock, behind a link, of another user, or no directory at all."""
    target = tmp_path / "target"
    target.mkdir()
    (target / LOCK).touch()
    (tmp_path / "procd-link").symlink_to(target)
    (tmp_path / "procd-bare").mkdir()
    (tmp_path / "procd-file").touch()
    (tmp_path / "procd-linked-lock").mkdir()
    (tmp_path / "procd-linked-lock" / LOCK).symlink_to(target / LOCK)
    if os.geteuid() == 0:
        foreign = tmp_path / "procd-foreign"
        foreign.mkdir()
        (foreign / LOCK).touch()
        os.chown(foreign, 65534, 65534)
    before = sorted(tmp_path.iterdir())
    state = StateDirectory(str(tmp_path))
    state.remove()
    assert sorted(tmp_path.iterdir()) == before
    assert (target / LOCK).exists()
