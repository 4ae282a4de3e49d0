"""Heap: what was freed stays for a moment, and then goes back to the kernel."""

import asyncio
import subprocess
import sys

import pytest

from procd.unix import malloc
from procd.unix.malloc import MUCH_BYTES, MallocTrimmer
from tests.waiting import until

# Frees much, behind something that is still in use, as what it prints shows; then is quiet.
LARGE = """
import asyncio, resource
from pathlib import Path
from procd.unix.malloc import MallocTrimmer, keep_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 20

async def main():
    heap = MallocTrimmer(asyncio.get_running_loop())
    before = resident()
    pieces = [bytes(range(256)) * 1024 for _ in range(400)]
    taken = resident() - before
    del pieces[:-1]
    freed = resident() - before
    heap.freed(400 << 18)
    async with asyncio.timeout(30):
        while resident() - before > 8:
            await asyncio.sleep(0.01)
    print(taken > 90, freed > 90)

keep_freed_memory()
asyncio.run(main())
"""


def test_what_is_freed_is_kept_and_given_back() -> None:
    command = (sys.executable, "-c", LARGE)
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (said.stdout, said.stderr) == ("True True\n", "")


# Keeps what eight terminals print, and tells by how much more the process has grown.
TERMINALS = """
import asyncio, os, resource, subprocess
from pathlib import Path
from procd.process.process import PTY_BURST_BYTES
from procd.output.buffer import Buffer
from procd.unix.malloc import keep_freed_memory
from procd.process.io import FdReader
from procd.process.tty import open_pty

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

async def main():
    poller = Poller(asyncio.get_running_loop())
    stores = [Buffer(4_000_000) for _ in range(8)]
    before = resident()
    for store in stores:
        ended = asyncio.Event()
        master, path = open_pty(80, 24)
        FdReader(poller, master, store.append, ended.set,
                 burst_bytes=PTY_BURST_BYTES, may_go_on=lambda: False)
        with open(path, "r+b", buffering=0) as slave:
            command = ("sh", "-c", "stty -opost; head -c 4000000 /dev/zero")
            printing = subprocess.Popen(command, stdin=slave, stdout=slave)
        await ended.wait()
        printing.wait()
    kept = sum(store.kept_bytes for store in stores)
    print(kept, (resident() - before) / kept)

keep_freed_memory()
asyncio.run(main())
"""


def test_what_terminals_print_takes_hardly_more_than_its_bytes() -> None:
    command = (sys.executable, "-c", TERMINALS)
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.stderr == ""
    kept, ratio = said.stdout.split()
    assert kept == "32000000"
    assert float(ratio) < 1.25


@pytest.fixture
def given_back(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One for each time that it was."""
    times: list[int] = []

    class Libc:
        """The C library."""

        @staticmethod
        def malloc_trim(pad: int) -> None:
            """Count."""
            times.append(pad)

    monkeypatch.setattr(heap, "LIBC", Libc)
    monkeypatch.setattr(heap, "QUIET_S", 0.05)
    return times


async def test_not_as_long_as_much_is_freed(given_back: list[int]) -> None:
    loop = asyncio.get_running_loop()
    tested = MallocTrimmer(loop)
    end = loop.time() + 0.5
    while loop.time() < end:
        tested.freed(MUCH_BYTES)
        await asyncio.sleep(0)
    assert not given_back
    await until(lambda: given_back == [0])


async def test_little_and_a_closed_one_are_no_reason(given_back: list[int]) -> None:
    """By the time that a later one has given back, they would have."""
    little, closed, later = (MallocTrimmer(asyncio.get_running_loop()) for _ in range(3))
    little.freed(MUCH_BYTES - 1)
    closed.freed(MUCH_BYTES)
    closed.close()
    later.freed(MUCH_BYTES)
    await until(lambda: bool(given_back))
    assert given_back == [0]
    little.freed(1)
    await until(lambda: given_back == [0, 0])
