"""What a child opens by path."""

import os
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from procd.process.limits import Confinement
from procd.process.run_as import Owner
from procd.services.shell.proc_path import Openings
from procd.unix.fd import RESERVED
from tests.api.clients import descriptors_exhausted


def _openings(directory: Path, *, named: bool) -> Openings:
    owner = Owner(uid=os.geteuid(), gid=os.getegid(), groups=()) if named else None
    return Openings(Confinement(owner=owner), directory)


@pytest.mark.parametrize("named", [False, True])
def test_who_inherits_a_reading_end_waits_for_what_comes(tmp_path: Path, named: bool) -> None:
    """As programs expect of their input; whoever opens it by path does by itself."""
    opening, writing = _openings(tmp_path, named=named).source("in")
    assert os.get_blocking(opening.fd.number)
    opening.close()
    writing.close()


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("kind", ["pipe", "source", "channel", "file"])
def test_without_descriptors_there_is_all_or_nothing(
    tmp_path: Path, kind: str, named: bool
) -> None:
    """However many are left, what can't be made leaves none open."""
    openings = _openings(tmp_path, named=named)
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
