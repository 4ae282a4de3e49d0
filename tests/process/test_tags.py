"""Tags: carried, passed on, and read by whoever may."""

import os
import resource
import subprocess
import sys

import pytest

from procd.process import tags
from procd.process.tags import PART_BITS, TAG_BASE

TAG = TAG_BASE + (5 << PART_BITS)


def test_a_tag_that_may_not_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It can be read all the same, as everybody can read it; and no tag is none."""

    def refused(*_: object) -> tuple[int, int]:
        raise PermissionError

    monkeypatch.setattr(resource, "prlimit", refused)
    assert not tags.retag(os.getpid(), TAG)
    assert tags.tag_of(os.getpid()) == 0
    limits = tags.mark(TAG)
    assert tags.tag_of(os.getpid()) == TAG
    tags.unmark(limits)
    assert tags.tag_of(os.getpid()) == 0


def test_what_is_ours_is_tagged_without_its_help() -> None:
    limits = tags.mark(TAG)
    assert tags.retag(os.getpid(), TAG + 1)
    assert tags.tag_of(os.getpid()) == TAG + 1
    tags.unmark(limits)


def test_the_tag_lasts_until_it_is_taken_off() -> None:
    """Meanwhile it is ours to pass on, afterwards all is as before."""
    before = resource.getrlimit(resource.RLIMIT_RTTIME)
    limits = tags.mark(TAG)
    assert tags.tag_of(os.getpid()) == TAG
    assert resource.getrlimit(resource.RLIMIT_RTTIME)[1] == before[1]
    tags.unmark(limits)
    assert resource.getrlimit(resource.RLIMIT_RTTIME) == before
    assert tags.tag_of(os.getpid()) == 0


def test_a_low_hard_limit_leaves_untagged() -> None:
    """Where the tag is above what may be set, nothing is set and nothing fails."""
    program = f"""
import os, resource
from procd.process.tags import mark, tag_of, unmark
resource.setrlimit(resource.RLIMIT_RTTIME, (1000, 10**9))
limits = mark({TAG})
print(tag_of(os.getpid()), *resource.getrlimit(resource.RLIMIT_RTTIME))
unmark(limits)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, timeout=20
    )
    assert done.stdout.split() == [b"0", b"1000", b"1000000000"]
