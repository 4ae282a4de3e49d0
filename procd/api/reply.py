"""Replies: JSON of any size.

Source: Process API contract, section 1.2.
"""

import asyncio
import errno
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

import orjson
from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter

from procd.api.escape import MOST_ROOM_BYTES, look_for_room
from procd.api.output_text import EVERY_STREAM, Output, OutputText

CONTENT_TYPE: Final = "application/json; charset=utf-8"
# Output up to this is answered in one piece; more of it is encoded as it is sent.
WHOLE_BYTES: Final = 256 << 10
# Up to this nobody looks for memory first.
SMALL_BYTES: Final = 4 << 10
# What is sent in one turn of the event loop of a longer reply, and the rest of a run.
PIECE_BYTES: Final = 512 << 10
# What of it may wait in the socket's own buffer while the next is encoded.
AHEAD_BYTES: Final = 1 << 20

Piece = bytes | memoryview
# Texts that are there as JSON strings, in pieces.
Drafts = Mapping[OutputText, Sequence[Piece]]
NO_DRAFTS: Final[Drafts] = MappingProxyType({})


def json_response(value: object, status: int = 200) -> web.Response:
    """A reply whose body is `value`; of a moment in UTC, what `timestamp` makes."""
    body = orjson.dumps(value, option=orjson.OPT_UTC_Z)
    return web.Response(status=status, body=body, headers={"Content-Type": CONTENT_TYPE})


def encodable(value: object) -> bool:
    """Whether `value` can be part of a reply."""
    try:
        orjson.dumps(value)
    except TypeError:  # lone surrogates, huge integers, too deep a nesting
        return False
    return True


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


async def respond(
    request: web.Request,
    fields: Mapping[str, object],
    status: int = 200,
    drafts: Drafts = NO_DRAFTS,
) -> web.StreamResponse:
    """A reply whose fields may be OutputText: in one piece if it is small, else streamed."""
    whole: dict[str, object] = {}
    size = kept_bytes = 0
    output: Output | None = None  # which most of the texts share
    for name, value in fields.items():
        if isinstance(value, OutputText):
            if value.output is not output:
                output = value.output
                kept_bytes = output.kept_bytes
            size += kept_bytes
            if size > WHOLE_BYTES:
                return await _stream(request, _document(fields, drafts), status, CONTENT_TYPE)
            whole[name] = "".join(value.texts()) if kept_bytes else ""
        else:
            whole[name] = value
    if size > SMALL_BYTES:
        look_for_room(size * MOST_ROOM_BYTES)
    return json_response(whole, status)


async def respond_text(request: web.Request, text: OutputText) -> web.StreamResponse:
    """A reply of plain text."""
    pieces = (piece.encode() for piece in text.texts())
    return await _stream(request, pieces, 200, "text/plain; charset=utf-8")


async def _stream(
    request: web.Request, pieces: Iterator[Piece], status: int, content_type: str
) -> web.StreamResponse:
    batches = _batches(pieces)
    first = next(batches, [])  # what can't be read at all is an error like any other
    response = web.StreamResponse(status=status, headers={"Content-Type": content_type})
    chunked = request.version >= HttpVersion11
    if chunked:
        response.enable_chunked_encoding()
    else:
        response.force_close()  # there are no chunks in it, so only the end says where the end is
    await response.prepare(request)
    if request.transport is not None:
        request.transport.set_write_buffer_limits(AHEAD_BYTES, PIECE_BYTES)
    try:
        await response.write(b"".join(first))
        for batch in batches:
            # A client that takes in all that there is would keep the event loop from all others.
            await asyncio.sleep(0)
            await _write(request.writer, batch, chunked=chunked)
    except (OSError, MemoryError) as exc:
        # Half a reply is out: to break it off is the only way to say that it isn't whole.
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("output can't be read to its end") from exc
    await response.write_eof()
    return response


async def _write(writer: AbstractStreamWriter, batch: list[Piece], *, chunked: bool) -> None:
    """Write a chunk that is in pieces; aiohttp's own way is to copy it, twice.

    Source: RFC 9112, section 7.1.
    """
    transport = writer.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client is gone")
    size = sum(map(len, batch))
    if chunked:
        batch = [b"%x\r\n" % size, *batch, b"\r\n"]
    transport.writelines(batch)
    writer.output_size += size
    await writer.drain()


def _batches(pieces: Iterator[Piece]) -> Iterator[list[Piece]]:
    batch: list[Piece] = []
    size = 0
    for piece in pieces:
        batch.append(piece)
        size += len(piece)
        if size >= PIECE_BYTES:
            yield batch
            batch = []
            size = 0
    if batch:
        yield batch


class _Strings:
    """JSON strings of `texts`: what is in there twice is encoded once, if there is room for it."""

    def __init__(self, texts: Iterable[OutputText], drafts: Drafts) -> None:
        self._left = Counter(text.plainest for text in texts)
        self._dropped = {text.output: text.output.dropped(EVERY_STREAM) for text in self._left}
        self._kept = {text.plainest: pieces for text, pieces in drafts.items()}

    def json(self, text: OutputText) -> Iterator[Piece]:
        """One of them in pieces.

        Raises:
            OSError: output has gone since the first of them, and the text would not say so.
        """
        text = text.plainest
        self._left[text] -= 1
        if text in self._kept:
            yield from self._kept[text] if self._left[text] else self._kept.pop(text)
            return
        if not text.marks_gap and text.output.dropped(EVERY_STREAM) > self._dropped[text.output]:
            raise OSError(errno.ENODATA, "output was dropped while it was sent")
        kept: list[Piece] | None = [] if self._left[text] else None
        for piece in text.json():
            if kept is not None:
                if text.output.claim(len(piece)):
                    kept.append(piece)
                else:
                    kept = None
            yield piece
        if kept is not None:
            self._kept[text] = kept


def _document(fields: Mapping[str, object], drafts: Drafts) -> Iterator[Piece]:
    """The JSON object of `fields`."""
    texts = [value for value in fields.values() if isinstance(value, OutputText)]
    strings = _Strings(texts, drafts)
    separator = b"{"
    for name, value in fields.items():
        yield separator + orjson.dumps(name) + b":"
        separator = b","
        if isinstance(value, OutputText):
            yield from strings.json(value)
        else:
            yield orjson.dumps(value)
    yield b"}"
