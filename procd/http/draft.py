"""Draft: what a command says as a JSON string, made while it runs.

Who waits for a command's end waits for the encoding of what it has said as well. With a draft most
of that is done by then, in time that the event loop has to spare.
"""

import sys
from codecs import IncrementalDecoder
from typing import Final

from procd.http.escape import escaped
from procd.http.output_text import DECODER, OutputText
from procd.http.responses import NO_DRAFTS, Drafts
from procd.output.budget import Budget
from procd.output.buffer import Backlog
from procd.output.log import Log
from procd.output.logfile import LogFile

# Encoded at a time; a command that says less is answered as fast without.
STEP_BYTES: Final = 256 << 10


class Draft:
    """The text of a log from its beginning, as long as that is of one stream and all kept.

    Args:
        memory: what all output in memory is counted in, this too; it goes first.
        most_bytes: it is given up when it gets longer.
    """

    def __init__(self, memory: Budget, most_bytes: int = sys.maxsize) -> None:
        self._memory = memory
        self._most_bytes = most_bytes
        self._log: Log[Backlog] | Log[LogFile] | None = None
        self._decoder: IncrementalDecoder | None = None  # most commands say too little for a draft
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._pieces: list[bytes] = []
        self._size = 0

    def follow(self, log: Log[Backlog] | Log[LogFile]) -> None:
        """Encode what is written to `log`, of which nothing is written yet."""
        self._log = log
        log.tap = self._said

    def _said(self, data: bytes) -> None:
        try:
            self._waiting.append(data)
            self._waiting_bytes += len(data)
            if self._waiting_bytes >= STEP_BYTES:
                self._encode(final=False)
        except MemoryError:
            self.close()

    def _encode(self, *, final: bool) -> None:
        if self._decoder is None:
            self._decoder = DECODER("replace")
            self._memory.caches.add(self)
        try:
            text = self._decoder.decode(b"".join(self._waiting), final)
            pieces = [*escaped(text)]
        except MemoryError:
            self.close()
            return
        self._waiting.clear()
        self._waiting_bytes = 0
        self._pieces += pieces
        size = sum(map(len, pieces))
        self._size += size
        self._memory.used_bytes += size
        if self._size > self._most_bytes or not (self._memory.has_room() and self._whole):
            self.close()

    @property
    def _whole(self) -> bool:
        assert self._log is not None
        store = self._log.store
        return store.start <= store.head_end and store.sole_stream != 0

    def of(self, text: OutputText) -> Drafts:
        """What `respond` takes for the text of the log, all of which has been written.

        Nothing if the draft was given up, or was never worth it.
        """
        if not self._pieces:
            return NO_DRAFTS
        self._encode(final=True)
        self._memory.caches.discard(self)  # from now on it is needed
        return {text: [b'"', *self._pieces, b'"']} if self._pieces else NO_DRAFTS

    def close(self) -> None:
        """Forget it."""
        if self._log is not None:
            self._log.tap = None
        self._waiting.clear()
        if self._decoder is not None:
            self._memory.caches.discard(self)
            self._memory.give_back(self._size)
            self._size = 0
            self._pieces.clear()
