"""StateDirectory: what it leaves alone."""

import os
from pathlib import Path

from procd.output.statedir import LOCK, StateDirectory


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
