"""Encoder: values as JSON, or MemoryError where there is no memory for that.

orjson is by far the fastest, but takes the process down where an allocation fails: it makes room
for eight times each text, by doubling, and doesn't look whether there was any. So that is looked
for first; nobody else takes it meanwhile. Where there is less, Python's own encoder is asked, which
takes no more than it must.
"""

import json
import mmap
from datetime import UTC, datetime
from typing import Final

import orjson

# Of a character.
MOST_UTF8_BYTES: Final = 4
# Room for a byte of text, and for what else there is of a value.
ROOM_BYTES: Final = 16
LEAST_ROOM_BYTES: Final = 8 << 10
# What the texts of a value that is known to be short take together, such as one of a list.
SHORT_BYTES: Final = 4 << 10
# To clear so many bytes of the heap takes a tenth of what it takes to map them; with more it takes
# longer.
CLEARED_BYTES: Final = 128 << 10


def encoded(value: object, text_bytes: int = SHORT_BYTES) -> bytes:
    """The JSON of `value`, whose texts take no more than that as UTF-8; moments by `timestamp`.

    What of a path isn't UTF-8 becomes U+FFFD.

    Raises:
        MemoryError: there is none for it.

    Source: Process API contract, section 17.
    """
    try:
        look_for_room(LEAST_ROOM_BYTES + text_bytes * ROOM_BYTES)
        return orjson.dumps(value, option=orjson.OPT_UTC_Z)  # noqa: TID251 - the one place
    except (MemoryError, TypeError):  # of lone surrogates, which Python has for such bytes
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=timestamp)
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="surrogateescape").decode(errors="replace").encode()


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def most_bytes(text: str) -> int:
    """How many bytes of UTF-8 `text` takes at the most."""
    return len(text) if text.isascii() else len(text) * MOST_UTF8_BYTES


def look_for_room(size: int) -> None:
    """See that `size` bytes can be had.

    Raises:
        MemoryError: they can't.
    """
    if size <= CLEARED_BYTES:
        bytearray(size)
        return
    try:
        mmap.mmap(-1, size, mmap.MAP_PRIVATE).close()  # a shared one is a file: twice as long
    except OSError as exc:
        raise MemoryError from exc
