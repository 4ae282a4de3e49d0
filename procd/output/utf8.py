"""Characters of UTF-8 that are cut at the end of a piece of data."""


def incomplete_bytes(data: bytes) -> int:
    """How many bytes at the end of `data` are the beginning of a character.

    Source: RFC 3629, section 3.
    """
    for size in range(1, min(3, len(data)) + 1):
        byte = data[-size]
        if byte & 0xC0 != 0x80:
            whole = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC2 else 1
            return size if size < whole and byte < 0xF5 else 0
    return 0
