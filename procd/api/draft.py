"""Draft: what a command says as a JSON string, made while it runs.

Who waits for a command's end waits for the encoding of what it has said as well. With a draft most
of that is done by then, in time that the event loop has to spare.
"""

from typing import Any, Final

import orjson

from procd.api.reply import DECODER
from procd.logfile import LogFile
from procd.streams.backlog import Budget
from procd.streams.log import Log

# Encoded at a time; a command that says less is answered as fast without.
STEP_BYTES: Final = 64 << 10
# More isn't kept: a reply so long takes its time to be sent.
MOST_BYTES: Final = 2 << 20


class Draft:
    """The text of a log from its beginning, as long as that is of one stream.

    Args:
        log: of which nothing is written yet.
        memory: what all output in memory is counted in.
    """

    def __init__(self, log: Log[LogFile], memory: Budget) -> None:
        self._log = log
        self._memory = memory
        self._decoder: Any = DECODER("replace")
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._pieces: list[bytes] = []
        self._size = 0
        log.tap = self._said

    def _said(self, data: bytes) -> None:
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes >= STEP_BYTES:
            self._encode(final=False)

    def _encode(self, *, final: bool) -> None:
        text = self._decoder.decode(b"".join(self._waiting), final)
        self._waiting.clear()
        self._waiting_bytes = 0
        piece = orjson.dumps(text)[1:-1]
        self._pieces.append(piece)
        self._size += len(piece)
        self._memory.used_bytes += len(piece)
        if self._size > MOST_BYTES or self._memory.full or not self._whole:
            self.close()

    @property
    def _whole(self) -> bool:
        store = self._log.store
        return store.start == 0 and store.sole_stream != 0

    def finish(self) -> list[bytes] | None:
        """The JSON string in pieces; None if it was given up, or isn't worth it."""
        if self._pieces:
            self._encode(final=True)
        return [b'"', *self._pieces, b'"'] if self._pieces else None

    def close(self) -> None:
        """Forget it."""
        self._log.tap = None
        self._memory.used_bytes -= self._size
        self._size = 0
        self._pieces.clear()
        self._waiting.clear()
