"""Long text as JSON: what stands between the quotes of a string.

orjson is fast, and takes the process down where an allocation fails: it makes room for eight times
the text, by doubling, and doesn't look whether there was any. So that is looked for first.
"""

import mmap
from collections.abc import Iterator
from typing import Final

import orjson

# Encoded at a time, characters.
SLICE: Final = 256 << 10
# Room for a character of one byte, and for any.
ROOM_BYTES: Final = 16
MOST_ROOM_BYTES: Final = 4 * ROOM_BYTES


def escaped(text: str) -> Iterator[memoryview]:
    """The inside of `text` as a JSON string, in pieces; each holds memory until it is dropped.

    Raises:
        MemoryError: there is none to encode it with.
    """
    for begin in range(0, len(text), SLICE):
        part = text[begin : begin + SLICE]
        look_for_room(len(part) * (ROOM_BYTES if part.isascii() else MOST_ROOM_BYTES))
        yield memoryview(orjson.dumps(part))[1:-1]


def look_for_room(size: int) -> None:
    """See that `size` bytes can be had.

    Raises:
        MemoryError: they can't.
    """
    try:
        mmap.mmap(-1, size).close()
    except OSError as exc:
        raise MemoryError from exc
