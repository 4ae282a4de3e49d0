"""What a child opens by path."""

import os
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from procd.unix.confine import Confinement
from procd.unix.fd import RESERVED
from procd.unix.openings import Openings
from procd.unix.owner import Owner
from tests.api.clients import descriptors_exhausted


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("kind", ["pipe", "source", "channel", "file"])
def test_without_descriptors_there_is_all_or_nothing(
    tmp_path: Path, kind: str, named: bool
) -> None:
    """However many are left, what can't be made leaves none open."""
    owner = Owner(uid=os.geteuid(), gid=os.getegid(), groups=()) if named else None
    openings = Openings(Confinement(owner=owner), tmp_path)
    make = partial(openings.file, content=b"x") if kind == "file" else getattr(openings, kind)
    before = set(os.listdir("/proc/self/fd"))
    made = None
    for spare in range(RESERVED + 10):
        with descriptors_exhausted(but=spare), suppress(OSError):
            made = make(str(spare))
        if made is not None:
            break
        assert set(os.listdir("/proc/self/fd")) == before
    assert made is not None
    for one in made if isinstance(made, tuple) else (made,):
        one.close()
    assert set(os.listdir("/proc/self/fd")) == before
