"""Replies: JSON of any size.

Source: Process API contract, section 1.2.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Final

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter

from procd.errors import ProcdError
from procd.http.encoder import SHORT_BYTES, encoded, most_bytes
from procd.http.escape import SLICE, escaped
from procd.http.output_text import Output, OutputText
from procd.http.whole import CONTENT_TYPE, WholeResponse

# A reply up to this is answered in one piece; more of it is encoded as it is sent.
WHOLE_BYTES: Final = 256 << 10
# An object with no more text than this is short; of such in a list, so many are encoded at once.
OBJECT_BYTES: Final = 1 << 10
GROUP: Final = 128
# What is sent in one turn of the event loop of a longer reply, and the rest of a run.
PIECE_BYTES: Final = 512 << 10
# What of it may wait in the socket's own buffer while the next is encoded.
AHEAD_BYTES: Final = 1 << 20
# What a longer reply takes besides what it tells, while its client takes it: by measurement.
ROOM_ON_THE_WAY_BYTES: Final = AHEAD_BYTES + 3 * PIECE_BYTES

NO_MEMORY: Final = "no memory for the reply"

Piece = bytes | memoryview
# A short object, or the JSON of anything, made as it is sent.
Item = dict[str, object] | Iterator[Piece]


def json_response(value: object, status: int = 200) -> web.Response:
    """A reply whose body is `value`, all of which is known to be short."""
    return WholeResponse(encoded(value), status)


def string_json(source: Callable[[], str]) -> Iterator[Piece]:
    """The JSON string of a text that may go while it is sent: it is asked for each time anew.

    Raises:
        ProcdError: it has gone, as `source` says.
    """
    yield b'"'
    begin, length = 0, SLICE
    while length == SLICE:  # or else that was the end, and what goes now matters no more
        part = source()[begin : begin + SLICE]
        length = len(part)
        begin += length
        yield from escaped(part)
    yield b'"'


def object_json(fields: Mapping[str, object]) -> Iterator[Piece]:
    """The JSON object of `fields`; a value that is an iterator is JSON in pieces."""
    separator = b"{"
    for name, value in fields.items():
        yield separator + encoded(name, most_bytes(name)) + b":"
        separator = b","
        if isinstance(value, Iterator):
            yield from value
        else:
            yield encoded(value)
    yield b"}" if fields else b"{}"


def array_json(items: Iterable[Item]) -> Iterator[Piece]:
    """The JSON array of `items`, which are taken in as they are sent."""
    separator = b"["
    for pieces in _grouped(items):
        for piece in pieces:
            yield separator + piece
            separator = b""
        separator = b","
    yield b"[]" if separator == b"[" else b"]"


def _grouped(items: Iterable[Item]) -> Iterator[Iterable[Piece]]:
    """The JSON of each of them, or of several with the commas between them."""
    group: list[dict[str, object]] = []
    for item in items:
        if isinstance(item, dict):
            group.append(item)
            if len(group) == GROUP:
                yield _joined(group)
                group = []
            continue
        if group:
            yield _joined(group)
            group = []
        yield item
    if group:
        yield _joined(group)


def _joined(group: Sequence[dict[str, object]]) -> Iterable[Piece]:
    return (encoded(group, len(group) * SHORT_BYTES)[1:-1],)


async def respond(request: web.Request, fields: Mapping[str, object]) -> web.StreamResponse:
    """A reply whose fields may be OutputText: in one piece if it is small, else streamed.

    They may be iterators as well, JSON in pieces; it is streamed then.

    Raises:
        ProcdError: there is no memory for it; what is known and short is told.
    """
    try:
        return await answer(request, fields)
    except MemoryError as exc:
        raise ProcdError(NO_MEMORY, short_ones(fields)) from exc


def short_ones(fields: Mapping[str, object]) -> dict[str, object]:
    """Those of the fields that take no memory to speak of."""
    return {
        name: value
        for name, value in fields.items()
        if not (
            isinstance(value, OutputText | Iterator)
            or (isinstance(value, str) and len(value) > OBJECT_BYTES)
        )
    }


async def answer(
    request: web.Request,
    fields: Mapping[str, object],
    status: int = 200,
) -> web.StreamResponse:
    """As `respond`.

    Raises:
        MemoryError: there is none for it; nothing of it is out.
    """
    whole = whole_json(fields)
    if whole is None:
        return await _stream(request, _document(fields), status, CONTENT_TYPE)
    return WholeResponse(whole, status)


def whole_json(fields: Mapping[str, object]) -> bytes | None:
    """The JSON of the fields with their texts; None if they are to be streamed."""
    whole = dict(fields)
    size = kept_bytes = text_bytes = 0
    output: Output | None = None  # which most of the texts share
    for name, value in fields.items():
        if isinstance(value, OutputText):
            if value.output is not output:
                output = value.output
                kept_bytes = output.kept_bytes
            text: str | None = ""
            if kept_bytes:
                size += kept_bytes
                text = _short(value) if size <= WHOLE_BYTES else None
            if text is None:
                output.claim(ROOM_ON_THE_WAY_BYTES)  # where there is none, nothing more begins
                return None
            whole[name] = text
            text_bytes += most_bytes(text)
        elif isinstance(value, Iterator):
            return None
        elif isinstance(value, str):  # such as a message that quotes what it was asked
            size += len(value)
            if size > WHOLE_BYTES:
                return None
            text_bytes += most_bytes(value)
        elif not isinstance(value, int):
            text_bytes += SHORT_BYTES
    return encoded(whole, text_bytes)  # by far most often next to nothing


def _short(text: OutputText) -> str | None:
    """All of it, if one turn of the event loop has time for that."""
    parts: list[str] = []
    for part in text.texts():
        if not part:
            return None
        parts.append(part)
    return "".join(parts)


async def respond_json(request: web.Request, item: Item) -> web.StreamResponse:
    """A reply of any length: in one piece if it is small, else made as it is sent.

    A client takes its time: what an iterator holds meanwhile should be little, or counted.

    Raises:
        ProcdError: what was to be sent has gone.
    """
    if isinstance(item, dict):
        return json_response(item)
    begin: list[Piece] = []
    size = 0
    for piece in item:
        begin.append(piece)
        size += len(piece)
        if size > WHOLE_BYTES:
            return await _stream(request, chain(begin, item), 200, CONTENT_TYPE)
    return WholeResponse(b"".join(begin))


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
    except (OSError, MemoryError, ProcdError) as exc:
        # Half a reply is out: to break it off is the only way to say that it isn't whole.
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("what was to be sent can't be had to its end") from exc
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
    if not size:
        return  # a chunk of nothing is the end
    if chunked:
        batch = [b"%x\r\n" % size, *batch, b"\r\n"]
    transport.writelines(batch)
    # To set them again tells us to wait where asyncio's `writelines` forgets to: CVE-2024-12254, in
    # Python 3.12 before 3.12.9 and 3.13 before 3.13.2.
    transport.set_write_buffer_limits(AHEAD_BYTES, PIECE_BYTES)
    writer.output_size += size
    await writer.drain()


def _batches(pieces: Iterator[Piece]) -> Iterator[list[Piece]]:
    """What is made and sent in one turn of the event loop; an empty piece is the last of it."""
    batch: list[Piece] = []
    size = 0
    for piece in pieces:
        batch.append(piece)
        size += len(piece)
        if size >= PIECE_BYTES or not piece:
            yield batch
            batch = []
            size = 0
    if batch:
        yield batch


class _Strings:
    """JSON strings of `texts`: what is in there twice is encoded once, if there is room for it."""

    def __init__(self, texts: Iterable[OutputText]) -> None:
        self._left = Counter(text.plainest for text in texts)
        self._kept: dict[OutputText, Sequence[Piece]] = {}

    def json(self, text: OutputText) -> Iterator[Piece]:
        """One of them in pieces."""
        text = text.plainest
        self._left[text] -= 1
        if text in self._kept:
            yield from self._kept[text] if self._left[text] else self._kept.pop(text)
            return
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


def _document(fields: Mapping[str, object]) -> Iterator[Piece]:
    """The JSON object of `fields`."""
    texts = [value for value in fields.values() if isinstance(value, OutputText)]
    strings = _Strings(texts)
    pieces = dict(fields)
    for name, value in fields.items():
        if isinstance(value, OutputText):
            pieces[name] = strings.json(value)
        elif isinstance(value, str) and most_bytes(value) > SHORT_BYTES:
            pieces[name] = string_json(partial(str, value))
    return object_json(pieces)
