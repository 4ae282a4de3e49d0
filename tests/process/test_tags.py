"""Tags: set, inherited, and read where prlimit(2) is refused."""

import os
import resource
import subprocess
import sys

import pytest

from procd.process import tags
from procd.process.tags import PART_BITS, TAG_BASE

TAG = TAG_BASE + (5 << PART_BITS)


def test_tag_until_it_is_removed() -> None:
    before = resource.getrlimit(resource.RLIMIT_RTTIME)
    limits = tags.mark(TAG)
    assert tags.tag_of(os.getpid()) == TAG
    assert resource.getrlimit(resource.RLIMIT_RTTIME)[1] == before[1]
    assert tags.retag(os.getpid(), TAG + 1)
    assert tags.tag_of(os.getpid()) == TAG + 1
    tags.unmark(limits)
    assert resource.getrlimit(resource.RLIMIT_RTTIME) == before
    assert tags.tag_of(os.getpid()) == 0


def test_where_prlimit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tag can be read all the same, but not changed."""

    def refuse(*_: object) -> tuple[int, int]:
        raise PermissionError

    monkeypatch.setattr(resource, "prlimit", refuse)
    assert tags.tag_of(os.getpid()) == 0
    limits = tags.mark(TAG)
    assert tags.tag_of(os.getpid()) == TAG
    tags.unmark(limits)
    assert not tags.retag(os.getpid(), TAG)


def test_other_limits_are_no_tags() -> None:
    """A limit that a user has set, a hard limit below the tags, a process that is gone."""
    program = f"""
import os, resource
from procd.process.tags import mark, obstacle, retag, tag_of, unmark
resource.setrlimit(resource.RLIMIT_RTTIME, (1000, 10**9))
limits = mark({TAG})
print(tag_of(os.getpid()), obstacle(), *resource.getrlimit(resource.RLIMIT_RTTIME))
unmark(limits)
print(retag({1 << 30}, {TAG}), tag_of({1 << 30}))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, timeout=20
    )
    assert done.stdout.split() == [b"0", b"1000000000", b"1000", b"1000000000", b"True", b"0"]
