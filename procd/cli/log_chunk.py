"""A piece of a command's output, as a message of its log brings it.

Source: Process API contract, section 9.1; the README, "What procd adds to the contract".
"""

import json
from typing import Final, NamedTuple

from procd.cli.io import STDERR
from procd.cli.websocket import TEXT, Message

LABEL_BYTES: Final = 3


class Piece(NamedTuple):
    """A piece.

    Attributes:
        stream: its number, which is that of the descriptor that it was written to.
        begin: its offset; what lies between it and the piece before is gone.
    """

    stream: int
    begin: int
    data: bytes

    @property
    def end(self) -> int:
        """The offset of what comes next."""
        return self.begin + len(self.data)


def piece_of(message: Message, offset: int) -> Piece:
    """The piece that a message brings when all before `offset` has come; empty for a gap.

    A message has one label, at its begin, and whatever bytes follow it.
    """
    if message.opcode == TEXT:
        return Piece(STDERR, int(json.loads(message.payload)["firstAvailableOffset"]), b"")
    return Piece(message.payload[0], offset, message.payload[LABEL_BYTES:])
