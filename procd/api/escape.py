"""Long text as JSON: what stands between the quotes of a string.

orjson is by far the fastest, but for two things. It takes the process down where an allocation
fails: it makes room for eight times the text, by doubling, and doesn't look whether there was any.
So that is looked for first. And it takes long for each character that is to be escaped, so text
full of line ends is left to an encoder that takes as long for any, where that makes the same of it.
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

# What text is like is told by its first characters.
SAMPLE: Final = 2048
# One in so many characters is escaped, or more: Python's own literals are as fast to make, if lines
# are of one length; if not, orjson is twice as fast even then.
MANY: Final = 7


def escaped(text: str) -> Iterator[memoryview]:
    """The inside of `text` as a JSON string, in pieces; each holds memory until it is dropped.

    Raises:
        MemoryError: there is none to encode it with.
    """
    for begin in range(0, len(text), SLICE):
        part = text[begin : begin + SLICE]
        if part.isascii() and (dense := _dense(part)) is not None:
            yield memoryview(dense)
            continue
        look_for_room(len(part) * (ROOM_BYTES if part.isascii() else MOST_ROOM_BYTES))
        yield memoryview(orjson.dumps(part))[1:-1]


def _dense(part: str) -> bytes | None:
    """The same of ASCII text in which much is to be escaped; None if it is nothing like that."""
    sample = part[:SAMPLE]
    escapes = sum(map(sample.count, "\n\\"))
    if escapes * MANY <= len(sample) or '"' in part:
        return None
    literal = part.encode("unicode_escape")
    # JSON's but for quotes and `\x1b`, which is a backslash and an x in other text as well.
    return literal if b"x" not in literal or literal.rfind(b"\\x") < 0 else None


def look_for_room(size: int) -> None:
    """See that `size` bytes can be had.

    Raises:
        MemoryError: they can't.
    """
    try:
        mmap.mmap(-1, size, mmap.MAP_PRIVATE).close()  # a shared one is a file: twice as long
    except OSError as exc:
        raise MemoryError from exc
