"""Arena: copies of what it is given, in memory that goes with the last of them."""

import random
from pathlib import Path

from procd.unix.arena import FIRST_BYTES, MOST_BYTES, Arena


def resident_bytes() -> int:
    """Memory of this process."""
    (line,) = (
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmRSS:")
    )
    return int(line.split()[1]) << 10


def test_pieces_of_all_sizes() -> None:
    """Each is as it was, whatever came after it."""
    dice = random.Random(1)
    sizes = [0, 1, FIRST_BYTES, FIRST_BYTES + 1, MOST_BYTES - 1, 3 * MOST_BYTES]
    sizes += [dice.randrange(1, 1 << dice.randrange(1, 20)) for _ in range(200)]
    originals = [dice.randbytes(size) for size in sizes]
    arena = Arena()
    kept = [arena.keep(memoryview(bytearray(original))) for original in originals]
    assert kept == originals


def test_memory_goes_with_the_pieces() -> None:
    data = memoryview(bytes(1 << 20))
    before = resident_bytes()
    arena = Arena()
    pieces = [arena.keep(data) for _ in range(64)]
    assert resident_bytes() - before > 60 << 20
    del arena, pieces[1:]
    assert resident_bytes() - before < 8 << 20
    assert pieces == [data]
