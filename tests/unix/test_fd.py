"""Descriptors: their owners, those that are reserved, and those that are inherited."""

import os
import resource
import subprocess
import sys

import pytest

from procd.process.tty import open_terminal
from procd.unix.fd import RESERVED, OwnedFd, anonymous_file, own_fds, pipe


def test_owned_fd_closes_once() -> None:
    """Then it has no number, which may be another file's."""
    reading, writing = pipe()
    number = reading.number
    assert repr(reading) == f"OwnedFd({number})"
    reading.close()
    assert (reading.closed, repr(reading)) == (True, "OwnedFd()")
    other = os.dup2(writing.number, number)
    reading.close()
    os.fstat(other)
    with pytest.raises(AttributeError, match="number"):
        _ = reading.number
    os.close(other)
    writing.close()


def test_pipe_is_blocking_and_not_inheritable(ends: tuple[OwnedFd, OwnedFd]) -> None:
    for end in ends:
        assert not os.get_inheritable(end.number)
        assert os.get_blocking(end.number)


def test_fewest_descriptors_have_room_for_long_lived_work() -> None:
    """procd has some 26 open by itself, and starts with 36 for work (`server.LEAST_FILES`)."""
    program = f"""
import os, resource
from procd.unix.fd import has_room_for_long_lived
resource.setrlimit(resource.RLIMIT_NOFILE, ({RESERVED + 36}, {RESERVED + 36}))
while os.open(os.devnull, os.O_RDONLY) < 26:
    pass
raise SystemExit(not has_room_for_long_lived())
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=20)


@pytest.mark.parametrize("closed", [(), (0,), (0, 1, 2), (2,)])
def test_seal_inherited(closed: tuple[int, ...]) -> None:
    """0 to 2 are open and inheritable, nothing else is."""
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    program = f"""
import os
from procd.unix.fd import seal_inherited
def opened():
    return [n for n in range(200) if os.path.lexists(f"/proc/self/fd/{{n}}")]
before = {{*opened(), 0, 1, 2}}
for number in {closed!r}:
    os.close(number)
inherited = os.get_inheritable({writing})
seal_inherited()
left = set(opened()) - before
inheritable = [n for n in opened() if os.get_inheritable(n)]
links = [os.readlink(f"/proc/self/fd/{{n}}") for n in {closed!r}]
os.write({writing}, repr((inherited, inheritable, links, left)).encode())
"""
    subprocess.run([sys.executable, "-c", program], close_fds=False, check=True, timeout=20)
    os.close(writing)
    with open(reading, "rb") as answer:
        expected = (True, [0, 1, 2], [os.devnull] * len(closed), set[int]())
        assert answer.read().decode() == repr(expected)


def test_last_descriptors_are_reserved() -> None:
    """What would take one fails as if there were none, and leaves none open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = os.listdir("/proc/self/fd")
    numbers = os.pipe()
    most = max(numbers) + RESERVED + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        for fd in own_fds(*numbers):
            fd.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (most - 1, hard))
        with pytest.raises(OSError, match="Too many open files"):
            pipe()
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(numbers) + RESERVED, hard))
        with pytest.raises(OSError, match="Too many open files"):
            open_terminal(80, 24)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert os.listdir("/proc/self/fd") == before


def test_anonymous_file_without_room() -> None:
    before = os.listdir("/proc/self/fd")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            anonymous_file("large", b"x" * 11)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir("/proc/self/fd") == before
