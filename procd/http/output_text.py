"""OutputText: the output of a process as text, with whole characters and marked gaps."""

from codecs import IncrementalDecoder, getincrementaldecoder
from collections.abc import Iterator
from itertools import dropwhile, islice
from typing import Final, NamedTuple, Protocol

from procd.output.buffer import Run
from procd.output.multiplex import MARKERS

EVERY_STREAM: Final = 0
DECODER: Final = getincrementaldecoder("utf-8")
# The bytes that a character of UTF-8 may have after its first one: RFC 3629, section 3.
CONTINUATION: Final = bytes(range(0x80, 0xC0))
MAX_REST_BYTES: Final = 3
# How far behind a gap to look for the rest of a character that the gap has cut.
LOOK_BYTES: Final = 256 << 10
LOOK_RUNS: Final = 512


class Output(Protocol):
    """Output of a process, in memory or on disk."""

    @property
    def sole_stream(self) -> int:
        """The stream that all bytes belong to; 0 if there are several, or none."""

    def dropped(self, stream: int) -> int:
        """How many bytes of one stream are no longer kept."""

    def runs(self) -> Iterator[Run]:
        """The bytes, oldest first, each run of one stream; a gap shows as a jump of the offset.

        Raises:
            OSError: they can't be read, or were dropped meanwhile.
        """


class OutputText(NamedTuple):
    """Output as text: of one stream, or of all in order of arrival (`EVERY_STREAM`).

    Invalid UTF-8 becomes U+FFFD. A character that arrived in parts is whole.

    Attributes:
        labelled: put the marker of the stream before each of its runs.
        marks_gap: mark a gap in the text with the number of bytes that are missing, including the
            rest of a character that it has cut.
    """

    output: Output
    stream: int = EVERY_STREAM
    labelled: bool = False
    marks_gap: bool = True

    def pieces(self) -> Iterator[str]:
        """The text, a piece for each run of bytes; a piece may be empty.

        Raises:
            OSError: as `Output.runs`.
        """
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
