"""Who owns a descriptor, and what descriptors are for."""

import errno
import os
import resource
import socket
import subprocess
import sys

import pytest

from procd.process.tty import open_pty
from procd.unix.fd import RESERVED, OwnedFd, anonymous_file, own_fds, pipe, refuse_passed_fds


def _open(number: int) -> bool:
    return os.path.lexists(f"/proc/self/fd/{number}")


def test_owned_fd_closes_once() -> None:
    """The descriptor is closed, its number is forgotten, and a second close hits no stranger."""
    reading, writing = pipe()
    number = reading.number
    reading.close()
    assert reading.closed
    assert not _open(number)
    stranger = os.dup2(writing.number, number)
    reading.close()
    assert _open(stranger)
    os.close(stranger)
    writing.close()


def test_a_closed_fd_has_no_number() -> None:
    """Its number may be another's by now."""
    reading, writing = pipe()
    assert repr(reading) == f"OwnedFd({reading.number})"
    reading.close()
    writing.close()
    with pytest.raises(AttributeError, match="number"):
        _ = reading.number
    assert repr(reading) == "OwnedFd()"


def test_a_pipe_is_not_inherited(ends: tuple[OwnedFd, OwnedFd]) -> None:
    """Neither end reaches a child unless it is given on purpose; both are blocking."""
    for end in ends:
        assert not os.get_inheritable(end.number)
        assert os.get_blocking(end.number)


def test_the_fewest_are_enough_for_what_lasts() -> None:
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


@pytest.mark.parametrize("shut", [(), (0,), (0, 1, 2), (2,)])
def test_seal_inherited(shut: tuple[int, ...]) -> None:
    """0 to 2 are open, /dev/null if they were not, and nothing else would reach a child."""
    reading, writing = os.pipe()
    extra = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(writing, True)
    os.set_inheritable(extra, True)
    program = f"""
import os
from procd.unix.fd import seal_inherited
def opened():
    return [n for n in range(200) if os.path.lexists(f"/proc/self/fd/{{n}}")]
before = {{*opened(), 0, 1, 2}}
for number in {shut!r}:
    os.close(number)
inherited = os.get_inheritable({extra}) and os.get_inheritable({writing})
seal_inherited()
left = set(opened()) - before
passed_on = [n for n in opened() if os.get_inheritable(n)]
links = [os.readlink(f"/proc/self/fd/{{n}}") for n in {shut!r}]
os.write({writing}, repr((inherited, passed_on, links, left)).encode())
"""
    try:
        subprocess.run([sys.executable, "-c", program], close_fds=False, check=True, timeout=20)
        os.close(writing)
        with open(reading, "rb") as answer:
            said = answer.read().decode()
    finally:
        os.close(extra)
    assert said == repr((True, [0, 1, 2], [os.devnull] * len(shut), set()))


def test_the_last_descriptors_are_not_for_new_work() -> None:
    """Who asks for one is refused as if there were none, and what was given is closed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = set(os.listdir("/proc/self/fd"))
    numbers = os.pipe()
    most = max(numbers) + RESERVED + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        for fd in own_fds(*numbers):
            fd.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (most - 1, hard))
        with pytest.raises(OSError, match="Too many open files"):
            own_fds(*os.pipe())
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(numbers) + RESERVED, hard))
        with pytest.raises(OSError, match="Too many open files"):
            open_pty(80, 24)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert set(os.listdir("/proc/self/fd")) == before


class Filtered(socket.socket):
    """A socket where a seccomp filter lets no option be set."""

    def setsockopt(self, *_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def test_a_filter_in_front_of_the_option_to_take_no_descriptors() -> None:
    """As on a kernel without it: what is refused then is nothing."""
    with Filtered(socket.AF_UNIX) as sock:
        refuse_passed_fds(sock)


def test_a_file_that_there_is_no_room_for() -> None:
    """Nothing is left of it."""
    before = os.listdir("/proc/self/fd")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            anonymous_file("large", b"x" * 11)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir("/proc/self/fd") == before
