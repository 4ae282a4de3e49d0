"""Replies: JSON of any size, and the error envelope.

Source: Process API contract, sections 1.2 and 3.2.
"""

from codecs import getincrementaldecoder
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from aiohttp import web

from procd.errors import ProcdError
from procd.streams.backlog import Backlog

CONTENT_TYPE: Final = "application/json; charset=utf-8"
# Output up to this is answered in one piece; more of it is encoded as it is sent.
WHOLE_BYTES: Final = 256 << 10


@dataclass(frozen=True, slots=True)
class OutputText:
    """Output as a JSON string: of one stream, or of all in order of arrival (`stream` 0).

    Invalid UTF-8 becomes U+FFFD, and a character that arrived in parts is whole. A gap is marked
    in the text with the number of bytes that are missing.
    """

    output: Backlog
    stream: int = 0

    def pieces(self) -> Iterator[bytes]:
        """The JSON string in pieces."""
        yield b'"'
        decoders: dict[int, Any] = {}
        position = 0
        for run in self.output.runs():
            if run.offset > position:
                yield from self._flush(decoders)
                yield _escaped(f"\n[... {run.offset - position} bytes dropped ...]\n")
            position = run.offset + len(run.data)
            if self.stream not in (0, run.stream):
                continue
            decoder = decoders.get(run.stream)
            if decoder is None:
                decoder = decoders[run.stream] = DECODER("replace")
            if text := decoder.decode(run.data):
                yield _escaped(text)
        yield from self._flush(decoders)
        yield b'"'

    @staticmethod
    def _flush(decoders: dict[int, Any]) -> Iterator[bytes]:
        for decoder in decoders.values():
            if text := decoder.decode(b"", final=True):
                yield _escaped(text)


DECODER: Final = getincrementaldecoder("utf-8")


def _escaped(text: str) -> bytes:
    return orjson.dumps(text)[1:-1]


def json_response(value: object, status: int = 200) -> web.Response:
    """A reply whose body is `value`."""
    return web.Response(
        status=status, body=orjson.dumps(value), headers={"Content-Type": CONTENT_TYPE}
    )


async def respond(
    request: web.Request, fields: Mapping[str, object], status: int = 200
) -> web.StreamResponse:
    """A reply whose fields may be OutputText: in one piece if it is small, else streamed."""
    sizes = [value.output.kept_bytes for value in fields.values() if isinstance(value, OutputText)]
    if sum(sizes) <= WHOLE_BYTES:
        return web.Response(
            status=status, body=b"".join(_document(fields)), headers={"Content-Type": CONTENT_TYPE}
        )
    response = web.StreamResponse(status=status, headers={"Content-Type": CONTENT_TYPE})
    await response.prepare(request)
    batch: list[bytes] = []
    size = 0
    for piece in _document(fields):
        batch.append(piece)
        size += len(piece)
        if size >= WHOLE_BYTES:
            await response.write(b"".join(batch))
            batch.clear()
            size = 0
    await response.write(b"".join(batch))
    await response.write_eof()
    return response


def _document(fields: Mapping[str, object]) -> Iterator[bytes]:
    separator = b"{"
    for name, value in fields.items():
        yield separator + orjson.dumps(name) + b":"
        separator = b","
        if isinstance(value, OutputText):
            yield from value.pieces()
        else:
            yield orjson.dumps(value)
    yield b"}"


def envelope(request: web.Request, error: ProcdError) -> dict[str, object]:
    """The body of an error reply."""
    fields: dict[str, object] = {
        "statusCode": error.status,
        "message": error.message,
        "source": "DAYTONA_DAEMON",
        "code": error.code,
        "timestamp": timestamp(datetime.now(UTC)),
        "path": request.path,
        "method": request.method,
    }
    if request.path.startswith("/process/pty") or "/process/pty" in request.path:
        fields["error"] = error.message  # what clients before 0.226 read (contract, section 3.2)
    return fields | error.extra


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
