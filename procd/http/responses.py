"""Replies: JSON of any size, and plain text. A long reply is encoded and sent in pieces.

Source: Process API contract, section 1.2.
"""

import asyncio
import json
import time
from codecs import IncrementalDecoder, getincrementaldecoder
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import chain, dropwhile, islice
from typing import Final, NamedTuple

import orjson
from aiohttp import HttpVersion11, hdrs, web

from procd.output.buffer import Buffer
from procd.output.logfile import Snapshot
from procd.output.multiplex import MARKERS

JSON_TYPE: Final = "application/json; charset=utf-8"
TEXT_TYPE: Final = "text/plain; charset=utf-8"
# A longer string is cut where it is encoded, characters.
LONG_STRING: Final = 256 << 10
# What one turn of the event loop encodes of a reply: so many bytes, or for so long, seconds.
BATCH_BYTES: Final = 512 << 10
BATCH_S: Final = 0.005

EVERY_STREAM: Final = 0
DECODER: Final = getincrementaldecoder("utf-8")
# What may follow the first byte of a character: RFC 3629, section 3.
CONTINUATION: Final = bytes(range(0x80, 0xC0))
MAX_REST_BYTES: Final = 3
# How far after a gap to look for the rest of a character that the gap has cut.
LOOK_BYTES: Final = 256 << 10
LOOK_RUNS: Final = 512

# JSON that is encoded already, as a value for `dumps` and `respond`.
EncodedJson = orjson.Fragment


def dumps(value: object) -> bytes:
    """Encode a value as JSON: a datetime as RFC 3339, and in a path what isn't UTF-8 as U+FFFD."""
    try:
        return orjson.dumps(value, option=orjson.OPT_UTC_Z)  # noqa: TID251 - the one place
    except TypeError:  # it refuses lone surrogates, which stand for such bytes
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=timestamp)
        return text.encode(errors="surrogateescape").decode(errors="replace").encode()


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def json_response(value: object, status: int = 200) -> web.Response:
    """A reply whose body is a short value."""
    return web.Response(body=dumps(value), status=status, headers={hdrs.CONTENT_TYPE: JSON_TYPE})


class OutputText(NamedTuple):
    """Output as text: of one stream, or of all in order of arrival (`EVERY_STREAM`).

    Invalid UTF-8 becomes U+FFFD. A character that arrived in parts is whole.

    Attributes:
        labelled: put the marker of the stream before each of its runs.
        marks_gap: mark a gap in the text with the number of bytes that are missing, including the
            rest of a character that it has cut.
    """

    output: Buffer | Snapshot
    stream: int = EVERY_STREAM
    labelled: bool = False
    marks_gap: bool = True

    def pieces(self) -> Iterator[str]:
        """The text, a piece for each run of bytes; raises OSError if it can't be read."""
        if self.stream and self.output.sole_stream not in (EVERY_STREAM, self.stream):
            return
        decoders: dict[int, IncrementalDecoder] = {}
        cut: dict[int, int] = {}
        position = 0
        labelled = 0
        for run in self.output.runs():
            if run.offset > position:
                missing = run.offset - position
                if self.stream != EVERY_STREAM:
                    missing = self.output.dropped(self.stream)
                for stream in [stream for stream in decoders if self.output.dropped(stream)]:
                    pending, _ = decoders.pop(stream).getstate()
                    missing += len(pending)
                cut = self._cut_characters(run.offset)
                missing += sum(cut.values())
                if missing and self.marks_gap:
                    yield f"\n[... {missing} bytes dropped ...]\n"
            position = run.offset + len(run.data)
            if self.stream not in (EVERY_STREAM, run.stream):
                yield ""
                continue
            data = run.data
            if rest := cut.get(run.stream):
                cut[run.stream] -= min(rest, len(data))
                data = data[rest:]
            decoder = decoders.get(run.stream)
            if decoder is None:
                decoder = decoders[run.stream] = DECODER("replace")
            text = decoder.decode(data)
            if text and self.labelled and run.stream != labelled:
                labelled = run.stream
                text = MARKERS[labelled].decode() + text
            yield text
        for decoder in decoders.values():
            yield decoder.decode(b"", final=True)

    def _cut_characters(self, offset: int) -> dict[int, int]:
        """The bytes of each stream, from `offset` on, of a character that began before the gap."""
        rests: dict[int, int] = {}
        done: set[int] = set()
        after = dropwhile(lambda run: run.offset < offset, self.output.runs())
        for run in islice(after, LOOK_RUNS):
            stream = run.stream
            if stream in done:
                continue
            if run.offset > offset + LOOK_BYTES:
                break
            known = rests.get(stream, 0)
            begin = run.data[: MAX_REST_BYTES - known]
            rest = len(begin) - len(begin.lstrip(CONTINUATION))
            if self.stream in (EVERY_STREAM, stream) and self.output.dropped(stream):
                rests[stream] = known + rest
            if rest < len(run.data) or stream not in rests:
                done.add(stream)
        return rests


async def respond(request: web.Request, value: object, status: int = 200) -> web.StreamResponse:
    """Reply with a value of any size, in which an OutputText is a string and an iterator an array.

    Raises:
        OSError: an OutputText can't be read, and nothing was sent yet.
        ConnectionError: the client has gone, or an OutputText can't be read to its end.
    """
    return await _send(request, json_pieces(value), status, JSON_TYPE)


async def respond_text(request: web.Request, text: OutputText) -> web.StreamResponse:
    """Reply with plain text; raises as `respond`."""
    return await _send(request, (piece.encode() for piece in text.pieces()), 200, TEXT_TYPE)


def json_pieces(value: object) -> Iterator[bytes]:
    """The JSON of a value, as `respond` takes it, in pieces."""
    match value:
        case OutputText():
            yield from _string_pieces(value.pieces())
        case str() if len(value) > LONG_STRING:
            starts = range(0, len(value), LONG_STRING)
            yield from _string_pieces(value[start : start + LONG_STRING] for start in starts)
        case Mapping() if not all(map(_is_short, value.values())):
            separator = b"{"
            for name, member in value.items():
                yield separator + dumps(name) + b":"
                yield from json_pieces(member)
                separator = b","
            yield b"}"
        case Iterator():
            separator = b"["
            for item in value:
                yield separator
                yield from json_pieces(item)
                separator = b","
            yield b"]" if separator == b"," else b"[]"
        case _:
            yield dumps(value)


def _is_short(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= LONG_STRING
    return value is None or isinstance(value, int | float | datetime)


def _string_pieces(texts: Iterator[str]) -> Iterator[bytes]:
    yield b'"'
    for text in texts:
        yield dumps(text)[1:-1]
    yield b'"'


async def _send(
    request: web.Request, pieces: Iterator[bytes], status: int, content_type: str
) -> web.StreamResponse:
    batches = _batches(pieces)
    first, second = next(batches, b""), next(batches, None)
    headers = {hdrs.CONTENT_TYPE: content_type}
    if second is None:
        return web.Response(body=first, status=status, headers=headers)
    response = web.StreamResponse(status=status, headers=headers)
    if request.version < HttpVersion11:  # which has no chunks: the end of the connection is the end
        response.force_close()
    await response.prepare(request)
    if request.method == hdrs.METH_HEAD:
        return response
    try:
        for batch in chain((first, second), batches):
            await response.write(batch)
            await asyncio.sleep(0)  # it doesn't wait for a client that keeps up
    except OSError as exc:
        if request.transport is not None:
            request.transport.abort()  # which says that the reply isn't whole
        raise ConnectionResetError("the reply can't be sent to its end") from exc
    await response.write_eof()
    return response


def _batches(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Join the pieces to what one turn of the event loop encodes and sends."""
    batch: list[bytes] = []
    size = 0
    end_s = time.perf_counter() + BATCH_S
    for piece in pieces:
        batch.append(piece)
        size += len(piece)
        if size >= BATCH_BYTES or time.perf_counter() > end_s:
            yield b"".join(batch)
            batch.clear()
            size = 0
            end_s = time.perf_counter() + BATCH_S
    if batch:
        yield b"".join(batch)
