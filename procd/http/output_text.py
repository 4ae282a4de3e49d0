"""OutputText: output of a process as text, in which characters are whole and gaps are marked."""

from codecs import IncrementalDecoder, getincrementaldecoder
from collections.abc import Iterator
from itertools import chain, dropwhile, islice
from typing import Final, NamedTuple, Protocol

from procd.http.escape import escaped
from procd.output.buffer import Run
from procd.output.multiplex import MARKERS

EVERY_STREAM: Final = 0
DECODER: Final = getincrementaldecoder("utf-8")
# What a character of UTF-8 may have after its first byte: RFC 3629, section 3.
CONTINUATION: Final = bytes(range(0x80, 0xC0))
MAX_REST_BYTES: Final = 3
# How far behind a gap is looked for the rest of a character that it has cut: a stream that says
# nothing for so many bytes, or so many runs, has none.
LOOK_BYTES: Final = 256 << 10
LOOK_RUNS: Final = 512
# Runs that one turn of the event loop has time for, however short they are. Their text is joined to
# pieces of about so many characters, as each piece takes time of its own.
TURN_RUNS: Final = 256
JOINED: Final = 16 << 10


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
        """The text in pieces; an empty one says that it is time for another turn of the loop."""
        parts: list[str] = []
        size = 0
        for count, text in enumerate(self._runs(), 1):
            parts.append(text)
            size += len(text)
            turned = not count % TURN_RUNS
            if size >= JOINED or (size and turned):
                yield "".join(parts)
                parts.clear()
                size = 0
            if turned:
                yield ""
        if size:
            yield "".join(parts)

    def _runs(self) -> Iterator[str]:
        """The text of each run, and what is said of a gap; empty where there is none."""
        if self.stream and self.output.sole_stream not in (EVERY_STREAM, self.stream):
            return
        runs = self.output.runs()
        first = [*islice(runs, 2)]
        if len(first) == 1 and not first[0].offset and not self.labelled:
            (run,) = first
            if self.stream in (EVERY_STREAM, run.stream):
                yield run.data.decode("utf-8", "replace")  # most commands say a word or two
            return
        decoders: dict[int, IncrementalDecoder] = {}
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

    def _cut(self, offset: int) -> dict[int, int]:
        """How many bytes of each stream from `offset` on are of a character before the gap."""
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

    def json(self) -> Iterator[bytes]:
        """The text as a JSON string, in pieces; they are empty where `texts` has it so."""
        yield b'"'
        for text in self.texts():
            if not text:
                yield b""
            yield from escaped(text)
        yield b'"'
