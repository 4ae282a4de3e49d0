"""Descriptors: how many are needed, and those that are inherited."""

import os
import subprocess
import sys

import pytest

from procd.unix.fd import RESERVED


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
