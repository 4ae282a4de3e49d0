"""Long text as JSON: what stands between the quotes of a string.

orjson is by far the fastest, but for two things. It takes the process down where an allocation
fails: it makes room for eight times the text, by doubling, and doesn't look whether there was any.
So that is looked for first. And it takes long for each character that is to be escaped, so text
full of line ends is left to an encoder of Python's own, where that makes the same of it.
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
# Lines of one length up to this, end included: Python's own literals are made faster. They take as
# long for any text with the like of it, and twice as long as orjson if lengths vary, however short:
# the processor can't foretell where the next line end is.
SHORT_LINE: Final = 10


def escaped(text: str) -> Iterator[bytes]:
    """The inside of `text` as a JSON string, in pieces; each takes no more memory than it must.

    Raises:
        MemoryError: there is none to encode it with.
    """
    for begin in range(0, len(text), SLICE):
        part = text[begin : begin + SLICE]
        if part.isascii() and (literal := _literal(part)) is not None:
            yield literal
            continue
        look_for_room(len(part) * (ROOM_BYTES if part.isascii() else MOST_ROOM_BYTES))
        yield orjson.dumps(part)[1:-1]


def _literal(part: str) -> bytes | None:
    """The same of ASCII text in short lines of one length; None if it is nothing like that."""
    sample = part[:SAMPLE]
    first = sample.find("\n", 0, SHORT_LINE)
    length = sample.find("\n", first + 1, first + 1 + SHORT_LINE) - first
    if first < 0 or length < 1:
        return None
    ends = sample[first::length]
    if not sample.count("\n") == ends.count("\n") == len(ends) or '"' in part:
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
