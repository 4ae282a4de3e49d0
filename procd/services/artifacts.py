"""Artifacts: the charts that a program shows, as the runner writes them to a pipe of its own.

The program can write to that pipe as well. A chart is a line that begins with a key which the
runner alone is told; what comes without it is dropped.

Source: Process API contract, section 7.4.
"""

import secrets
from collections.abc import Callable

KEY_BYTES = 16


class Artifacts:
    """Collects the charts of a program.

    Attributes:
        cap_bytes: what comes beyond is dropped, with the line that it is a part of.
        claim: counts memory; returns whether there is room for so many bytes.
        overflown: whether anything was dropped for want of room.
    """

    def __init__(self, cap_bytes: int) -> None:
        self.key = secrets.token_hex(KEY_BYTES)
        self.cap_bytes = cap_bytes
        self.claim: Callable[[int], bool] = lambda _: True
        self.overflown = False
        self.charts: list[bytes] = []
        self._left_bytes = cap_bytes
        self._partial = bytearray()

    def feed(self, data: bytes) -> None:
        """Read what the program wrote."""
        kept = data[: self._left_bytes]
        if kept and not self.claim(2 * len(kept)):  # the reply takes a copy
            self.cap_bytes -= self._left_bytes
            self._left_bytes = 0
            kept = b""
        self._left_bytes -= len(kept)
        self.overflown |= len(kept) < len(data)
        self._partial += kept
        if b"\n" in kept:
            *lines, partial = self._partial.split(b"\n")
            self._partial = partial
            key = self.key.encode()
            self.charts += [bytes(line[len(key) :]) for line in lines if line.startswith(key)]
