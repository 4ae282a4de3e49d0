"""Freed memory is kept for a moment, and then returned to the kernel."""

import subprocess
import sys

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
