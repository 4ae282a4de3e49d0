"""Replies: JSON of any size, and the error envelope.

Source: Process API contract, sections 1.2 and 3.2.
"""

import asyncio
import errno
from codecs import getincrementaldecoder
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain, islice
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol

import orjson
from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter

from procd.api.escape import MOST_ROOM_BYTES, escaped, look_for_room
from procd.errors import ProcdError
from procd.streams.backlog import Run
from procd.streams.labels import MARKERS

EVERY_STREAM: Final = 0
CONTENT_TYPE: Final = "application/json; charset=utf-8"
# Output up to this is answered in one piece; more of it is encoded as it is sent.
WHOLE_BYTES: Final = 256 << 10
# Up to this nobody looks for memory first.
SMALL_BYTES: Final = 4 << 10
# What is sent in one turn of the event loop of a longer reply, and the rest of a run.
PIECE_BYTES: Final = 512 << 10
# What of it may wait in the socket's own buffer while the next is encoded.
AHEAD_BYTES: Final = 1 << 20


class Output(Protocol):
    """Output of a process, in memory or on disk."""

    @property
    def kept_bytes(self) -> int:
        """How many bytes there are."""

    @property
    def sole_stream(self) -> int:
        """The stream that all that was ever said is of; 0 if there are several, or none."""

    def claim(self, size: int) -> bool:
        """Whether there is room for `size` more bytes beside it, which are counted as its own."""

    def dropped(self, stream: int) -> int:
        """How many bytes of one stream are gone."""

    def runs(self) -> Iterator[Run]:
        """The bytes, oldest first, each run of one stream; a gap shows as a jump of the offset.

        Raises:
            OSError: they can't be read, or went before they were.
        """


class OutputText(NamedTuple):
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

    @property
    def plainest(self) -> "OutputText":
        """What has the same text, and is equal for all that have."""
        if self.labelled or self.stream != self.output.sole_stream:
            return self
        return self._replace(stream=EVERY_STREAM)

    def texts(self) -> Iterator[str]:
        """The text in pieces."""
        if self.stream and self.output.sole_stream not in (EVERY_STREAM, self.stream):
            return
        runs = self.output.runs()
        first = [*islice(runs, 2)]
        if len(first) == 1 and not first[0].offset and not self.labelled:
            (run,) = first
            if self.stream in (EVERY_STREAM, run.stream):
                yield run.data.decode("utf-8", "replace")  # most commands say a word or two
            return
        decoders: dict[int, Any] = {}
        cut: dict[int, int] = {}
        position = 0
        labelled = 0
        for run in chain(first, runs):
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
            for piece in escaped(text):
                yield bytes(piece)  # which is no longer than it has to be
        yield b'"'


DECODER: Final = getincrementaldecoder("utf-8")
# What a character of UTF-8 may have after its first byte: RFC 3629, section 3.
CONTINUATION: Final = bytes(range(0x80, 0xC0))
MAX_REST_BYTES: Final = 3
# A stream that says nothing for so long after a gap has not been cut in a character there.
LOOK_BYTES: Final = 256 << 10


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
