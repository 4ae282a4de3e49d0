"""What an execution says, as the text frames of the interpreter's WebSocket.

Source: Process API contract, section 11.2.
"""

from codecs import IncrementalDecoder, getincrementaldecoder
from itertools import groupby
from operator import attrgetter
from typing import Final

from procd.http.responses import dumps
from procd.output.buffer import Buffer
from procd.output.frames import TEXT, encode
from procd.process.process import STDERR, STDOUT
from procd.services.interpreter.process import RESULTS

# Of output in one frame: clients limit a message, and JSON may make six bytes of one.
PIECE_BYTES: Final = 32 << 10
# What is encoded at once: so many bytes, or at most twice so many frames where they are short.
BATCH_BYTES: Final = 256 << 10
BATCH_FRAMES: Final = 256

NAMES: Final = {STDOUT: "stdout", STDERR: "stderr"}
DECODER: Final = getincrementaldecoder("utf-8")


def frame(kind: str, *, text: str = "", error: dict[str, str] | None = None) -> bytes:
    """One frame with the five keys that clients know."""
    error = error or {}
    fields = {
        "type": kind,
        "text": text,
        "name": error.get("name", ""),
        "value": error.get("value", ""),
        "traceback": error.get("traceback", ""),
    }
    return encode(TEXT, dumps(fields))


class CellFrames:
    """The frames of one execution's log, for its one reader, who goes straight through it.

    A character that arrives in parts is sent whole.
    """

    def __init__(self, store: Buffer) -> None:
        self._store = store
        self._decoders: dict[int, IncrementalDecoder] = {
            stream: DECODER("replace") for stream in NAMES
        }
        self._partial = b""

    def at(self, offset: int) -> tuple[bytes, int]:
        """The frames of what lies at `offset`, and the offset after it.

        Raises:
            LookupError: it is no longer kept.
        """
        frames: list[bytes] = []
        end = offset
        for stream, group in groupby(self._store.slices(offset, BATCH_BYTES), attrgetter("stream")):
            if len(frames) >= BATCH_FRAMES:
                break
            data = b"".join([run.data for run in group])
            end += len(data)
            if stream == RESULTS:
                *lines, rest = (self._partial + data).split(b"\n", BATCH_FRAMES)
                frames += [
                    encode(TEXT, b'{"type":"result","data":' + line + b"}") for line in lines
                ]
                if len(lines) == BATCH_FRAMES:
                    self._partial = b""
                    end -= len(rest)
                    break
                self._partial = rest
                continue
            decoder = self._decoders[stream]
            for start in range(0, len(data), PIECE_BYTES):
                if text := decoder.decode(data[start : start + PIECE_BYTES]):
                    frames.append(frame(NAMES[stream], text=text))
        return b"".join(frames), end

    def rest(self) -> bytes:
        """What is left at the end: halves of characters, as U+FFFD."""
        frames: list[bytes] = []
        for stream, decoder in self._decoders.items():
            if text := decoder.decode(b"", final=True):
                frames.append(frame(NAMES[stream], text=text))
        return b"".join(frames)

    def forget(self) -> None:
        """Nothing is shared."""
