"""Replies: JSON of any size, and the error envelope.

Source: Process API contract, sections 1.2 and 3.2.
"""

import asyncio
from codecs import getincrementaldecoder
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import orjson
from aiohttp import HttpVersion11, web

from procd.errors import ProcdError
from procd.streams.backlog import Run
from procd.streams.labels import MARKERS

CONTENT_TYPE: Final = "application/json; charset=utf-8"
# Output up to this is answered in one piece; more of it is encoded as it is sent.
WHOLE_BYTES: Final = 256 << 10
# What is sent in one turn of the event loop of a longer reply, and the rest of a run.
PIECE_BYTES: Final = 256 << 10


EVERY_STREAM: Final = 0


class Output(Protocol):
    """Output of a process, in memory or on disk."""

    @property
    def kept_bytes(self) -> int:
        """How many bytes there are."""

    def dropped(self, stream: int) -> int:
        """How many bytes of one stream are gone."""

    def runs(self) -> Iterator[Run]:
        """The bytes, oldest first, each run of one stream; a gap shows as a jump of the offset."""


@dataclass(frozen=True, slots=True)
class OutputText:
    """Output as text: of one stream, or of all in order of arrival (`EVERY_STREAM`).

    Invalid UTF-8 becomes U+FFFD, and a character that arrived in parts is whole.

    Attributes:
        labelled: with the marker of the stream before each of its runs.
        marks_gap: a gap is marked in the text with the number of bytes that are missing, the rest
            of a character that it has cut among them.
    """

    output: Output
    stream: int = EVERY_STREAM
    labelled: bool = False
    marks_gap: bool = True

    def texts(self) -> Iterator[str]:
        """The text in pieces."""
        decoders: dict[int, Any] = {}
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
                cut = self._cut(run.offset)
                missing += sum(cut.values())
                if missing and self.marks_gap:
                    yield f"\n[... {missing} bytes dropped ...]\n"
            position = run.offset + len(run.data)
            if self.stream not in (EVERY_STREAM, run.stream):
                continue
            data = run.data
            if rest := cut.get(run.stream):
                cut[run.stream] -= min(rest, len(data))
                data = data[rest:]
            decoder = decoders.get(run.stream)
            if decoder is None:
                decoder = decoders[run.stream] = DECODER("replace")
            if text := decoder.decode(data):
                if self.labelled and run.stream != labelled:
                    labelled = run.stream
                    yield MARKERS[labelled].decode()
                yield text
        for decoder in decoders.values():
            if text := decoder.decode(b"", final=True):
                yield text

    def _cut(self, offset: int) -> dict[int, int]:
        """How many bytes of each stream from `offset` on are of a character before the gap."""
        rests: dict[int, int] = {}
        done: set[int] = set()
        for run in self.output.runs():
            stream = run.stream
            if run.offset < offset or stream in done:
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

    def json(self) -> Iterator[bytes]:
        """The text as a JSON string, in pieces."""
        yield b'"'
        for text in self.texts():
            yield orjson.dumps(text)[1:-1]
        yield b'"'


DECODER: Final = getincrementaldecoder("utf-8")
# What a character of UTF-8 may have after its first byte: RFC 3629, section 3.
CONTINUATION: Final = bytes(range(0x80, 0xC0))
MAX_REST_BYTES: Final = 3
# A stream that says nothing for so long after a gap has not been cut in a character there.
LOOK_BYTES: Final = 256 << 10


def json_response(value: object, status: int = 200) -> web.Response:
    """A reply whose body is `value`."""
    return web.Response(
        status=status, body=orjson.dumps(value), headers={"Content-Type": CONTENT_TYPE}
    )


def encodable(value: object) -> bool:
    """Whether `value` can be part of a reply."""
    try:
        orjson.dumps(value)
    except TypeError:  # lone surrogates, huge integers, too deep a nesting
        return False
    return True


async def respond(
    request: web.Request, fields: Mapping[str, object], status: int = 200
) -> web.StreamResponse:
    """A reply whose fields may be OutputText: in one piece if it is small, else streamed."""
    whole: dict[str, object] = {}
    size = 0
    for name, value in fields.items():
        if isinstance(value, OutputText):
            kept_bytes = value.output.kept_bytes
            size += kept_bytes
            if size > WHOLE_BYTES:
                return await _stream(request, _document(fields), status, CONTENT_TYPE)
            whole[name] = "".join(value.texts()) if kept_bytes else ""
        else:
            whole[name] = value
    return json_response(whole, status)


async def respond_text(request: web.Request, text: OutputText) -> web.StreamResponse:
    """A reply of plain text."""
    pieces = (piece.encode() for piece in text.texts())
    return await _stream(request, pieces, 200, "text/plain; charset=utf-8")


async def _stream(
    request: web.Request, pieces: Iterator[bytes], status: int, content_type: str
) -> web.StreamResponse:
    batches = _batches(pieces)
    first = next(batches, b"")  # what can't be read at all is an error like any other
    response = web.StreamResponse(status=status, headers={"Content-Type": content_type})
    if request.version < HttpVersion11:
        response.force_close()  # there are no chunks in it, so only the end says where the end is
    await response.prepare(request)
    try:
        await response.write(first)
        for batch in batches:
            # A client that takes in all that there is would keep the event loop from all others.
            await asyncio.sleep(0)
            await response.write(batch)
    except OSError as exc:
        # Half a reply is out: to break it off is the only way to say that it isn't whole.
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("output can't be read to its end") from exc
    await response.write_eof()
    return response


def _batches(pieces: Iterator[bytes]) -> Iterator[bytes]:
    batch: list[bytes] = []
    size = 0
    for piece in pieces:
        batch.append(piece)
        size += len(piece)
        if size >= PIECE_BYTES:
            yield b"".join(batch)
            batch.clear()
            size = 0
    if batch:
        yield b"".join(batch)


def _document(fields: Mapping[str, object]) -> Iterator[bytes]:
    """The JSON object of `fields`."""
    separator = b"{"
    for name, value in fields.items():
        yield separator + orjson.dumps(name) + b":"
        separator = b","
        if isinstance(value, OutputText):
            yield from value.json()
        else:
            yield orjson.dumps(value)
    yield b"}"


def envelope(request: web.BaseRequest | None, error: ProcdError) -> dict[str, object]:
    """The body of an error reply; `request` is None for what could not be parsed as one."""
    path = "" if request is None else request.path
    fields: dict[str, object] = {
        "statusCode": error.status,
        "message": error.message,
        "source": "DAYTONA_DAEMON",
        "code": error.code,
        "timestamp": timestamp(datetime.now(UTC)),
        "path": path,
    }
    if request is not None:
        fields["method"] = request.method
    if "/process/pty" in path:
        fields["error"] = error.message  # what clients before 0.226 read (contract, section 3.2)
    return fields | error.extra


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
