"""Replies: JSON of any size, and plain text. A long reply is encoded and sent in pieces.

Source: Process API contract, section 1.2.
"""

import asyncio
import json
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import chain
from typing import Final

import orjson
from aiohttp import hdrs, web

from procd.http.output_text import OutputText

JSON_TYPE: Final = "application/json; charset=utf-8"
TEXT_TYPE: Final = "text/plain; charset=utf-8"
# A longer string is cut where it is encoded, characters.
LONG_STRING: Final = 256 << 10
# What one turn of the event loop encodes of a reply: so many bytes, or for so long, seconds.
BATCH_BYTES: Final = 512 << 10
BATCH_S: Final = 0.005

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


async def respond(request: web.Request, value: object, status: int = 200) -> web.StreamResponse:
    """Reply with a value of any size, in which an OutputText is a string and an iterator an array.

    Raises:
        OSError: an OutputText can't be read, and nothing was sent yet.
        ConnectionError: the client has gone, or an OutputText can't be read to its end.
    """
    return await _send(request, json_pieces(value), status, JSON_TYPE)


async def respond_text(request: web.Request, text: OutputText) -> web.StreamResponse:
    """Reply with plain text.

    Raises:
        OSError, ConnectionError: as `respond`.
    """
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
    await response.prepare(request)
    try:
        for batch in chain((first, second), batches):
            await response.write(batch)
            await asyncio.sleep(0)  # it doesn't wait for a client that keeps up
    except OSError as exc:
        # Only an aborted connection says that the reply isn't whole.
        if request.transport is not None:
            request.transport.abort()
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
