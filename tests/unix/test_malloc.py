"""Freed memory is kept for a moment, and then returned to the kernel."""

import asyncio
import subprocess
import sys

import pytest

from procd.unix import libc
from procd.unix.libc import TRIM_AFTER_BYTES, MallocTrimmer
from tests.waiting import until

# Frees much memory below a block in use, and prints whether it was kept at first.
LARGE = """
import asyncio, resource
from pathlib import Path
from procd.unix.libc import MallocTrimmer, keep_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 20

async def main():
    trimmer = MallocTrimmer(asyncio.get_running_loop())
    before = resident()
    pieces = [bytes(range(256)) * 1024 for _ in range(400)]
    taken = resident() - before
    del pieces[:-1]
    freed = resident() - before
    trimmer.freed(400 << 18)
    async with asyncio.timeout(30):
        while resident() - before > 8:
            await asyncio.sleep(0.01)
    print(taken > 90, freed > 90)

keep_freed_memory()
asyncio.run(main())
"""


def test_freed_memory_is_kept_and_returned() -> None:
    done = subprocess.run((sys.executable, "-c", LARGE), capture_output=True, check=False)
    assert (done.stdout, done.stderr) == (b"True True\n", b"")


async def test_trim_waits_until_little_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    trims: list[int] = []

    class Libc:
        """The C library."""

        malloc_trim = trims.append

    monkeypatch.setattr(libc, "LIBC", Libc)
    monkeypatch.setattr(libc, "QUIET_S", 0.01)
    loop = asyncio.get_running_loop()
    trimmer, little, closed = (MallocTrimmer(loop) for _ in range(3))
    little.freed(TRIM_AFTER_BYTES - 1)
    closed.freed(TRIM_AFTER_BYTES)
    closed.close()
    end = loop.time() + 0.1
    while loop.time() < end:
        trimmer.freed(TRIM_AFTER_BYTES)
        await asyncio.sleep(0)
    assert not trims
    await until(lambda: trims == [0])
    little.freed(1)
    await until(lambda: trims == [0, 0])
