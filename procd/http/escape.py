"""Long text as JSON: what stands between the quotes of a string.

orjson takes long for each character that is to be escaped, so text full of line ends is left to an
encoder of Python's own, where that makes the same of it.
"""

from collections.abc import Iterator
from typing import Final

from procd.http.encoder import encoded, most_bytes

# Encoded at a time, characters.
SLICE: Final = 256 << 10
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
        yield encoded(part, most_bytes(part))[1:-1]


def _literal(part: str) -> bytes | None:
    """The same of ASCII text in short lines of one length; None if it is nothing like that."""
    sample = part[:SAMPLE]
    first = sample.find("\n", 0, SHORT_LINE)
    length = sample.find("\n", first + 1, first + 1 + SHORT_LINE) - first
    if length < 1:
        return None
    ends = sample[first::length]
    if not sample.count("\n") == ends.count("\n") == len(ends) or '"' in part:
        return None
    literal = part.encode("unicode_escape")
    # JSON's but for quotes and `\x1b`, which is a backslash and an x in other text as well.
    return literal if b"x" not in literal or literal.rfind(b"\\x") < 0 else None
