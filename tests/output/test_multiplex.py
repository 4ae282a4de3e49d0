"""Messages of stdout and stderr for followers: contract, section 9.2."""

import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procd.output.budget import Budget
from procd.output.log import Log
from procd.output.logfile import LogFile, LogStore
from procd.output.multiplex import (
    BATCH_BYTES,
    BATCH_MESSAGES,
    HOLD_S,
    MARKER_PARTS,
    MARKERS,
    PAYLOAD_BYTES,
    MultiplexedFrames,
    cut_before,
)

STREAM_OF = {marker: stream for stream, marker in MARKERS.items()}


def messages(batch: bytes) -> list[bytes]:
    """The payloads of unmasked binary frames."""
    found = []
    while batch:
        first, size = batch[:2]
        assert first == 0x82
        batch = batch[2:]
        if size == 126:
            (size,) = struct.unpack("!H", batch[:2])
            batch = batch[2:]
        found.append(batch[:size])
        batch = batch[size:]
    return found


@contextmanager
def log_of(pieces: list[tuple[int, bytes]]) -> Iterator[Log[LogFile]]:
    with tempfile.TemporaryDirectory() as directory:
        file = LogStore(1 << 40, 1 << 40, Budget(1 << 40)).create(Path(directory) / "log")
        for stream, data in pieces:
            file.append(data, stream)
        try:
            yield Log(file, 0)
        finally:
            file.remove()


def all_of(log: Log[LogFile], *, labelled: bool = True) -> list[bytes]:
    frames = MultiplexedFrames(log, labelled=labelled)
    found: list[bytes] = []
    offset = 0
    while offset < log.store.end:
        batch, offset = frames.at(offset)
        found += messages(batch)
    return found


PIECES = st.lists(
    st.tuples(
        st.sampled_from([1, 2]),
        st.one_of(
            st.binary(min_size=1, max_size=20),
            st.text(alphabet="\x01\x02aé€😀", min_size=1, max_size=9).map(str.encode),
            st.tuples(
                st.sampled_from(["é€", "\x01\x02", "x😀", "\x01"]), st.integers(1, 30_000)
            ).map(lambda pair: (pair[0] * pair[1]).encode()),
        ),
    ),
    min_size=1,
    max_size=8,
)


@given(PIECES)
@settings(deadline=None, max_examples=60)
def test_every_message_has_one_stream_and_nothing_is_lost(pieces: list[tuple[int, bytes]]) -> None:
    with log_of(pieces) as log:
        found = all_of(log)
        got: list[tuple[int, bytes]] = [(STREAM_OF[message[:3]], message[3:]) for message in found]
        assert all(1 <= len(payload) <= PAYLOAD_BYTES for _, payload in got)
        for stream in (1, 2):
            assert b"".join(data for of, data in got if of == stream) == b"".join(
                data for of, data in pieces if of == stream
            )
        whole = b"".join(data for _, data in pieces)
        assert b"".join(payload for _, payload in got) == whole
        assert b"".join(all_of(log, labelled=False)) == whole


@given(
    st.text(alphabet=st.characters(min_codepoint=0x20, exclude_categories=["Cs"]), min_size=1),
    st.integers(0, 40),
    st.integers(4, 40),
)
def test_cut_is_between_characters(text: str, position: int, size: int) -> None:
    data = text.encode()
    while position < len(data) and data[position] & 0xC0 == 0x80:
        position += 1
    if position >= len(data):
        return
    cut = cut_before(data, position, position + size)
    assert position < cut <= min(len(data), position + size)
    data[position:cut].decode()  # raises if it is cut in a character


@pytest.mark.parametrize("tail", [b"\x01", b"\x02", b"\x01\x01", b"\x02\x02", b"\x01\x02\x01"])
def test_no_message_ends_with_the_beginning_of_a_marker(tail: bytes) -> None:
    data = b"a" * (PAYLOAD_BYTES - len(tail)) + tail + b"b" * 100
    with log_of([(1, data)]) as log:
        first, second = all_of(log)
        assert first[3:] + second[3:] == data
        assert first[-1:] == b"a"


@pytest.mark.parametrize("lead", range(4))
def test_no_character_is_cut_where_there_is_more(lead: int) -> None:
    """Not at the end of a batch either; nor is there a small rest."""
    data = b"a" * lead + "€".encode() * (BATCH_BYTES // 2)
    with log_of([(1, data)]) as log:
        found = [message[3:] for message in all_of(log)]
    assert b"".join(found) == data
    for payload in found[:-1]:
        payload.decode()  # raises if it is cut in a character
        assert len(payload) > PAYLOAD_BYTES - 4


def test_a_batch_of_short_messages_has_so_many() -> None:
    """However few bytes they are: no turn of the event loop has to encode all of them."""
    pieces = [(1 + number % 2, b"%d" % number) for number in range(3 * BATCH_MESSAGES)]
    with log_of(pieces) as log:
        frames = MultiplexedFrames(log, labelled=True)
        found: list[bytes] = []
        offset = batches = 0
        while offset < log.store.end:
            batch, offset = frames.at(offset)
            found += messages(batch)
            batches += 1
    assert found == [MARKERS[stream] + data for stream, data in pieces]
    assert batches == 3


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that messages are held back by: the list's only element."""
    now = [1000.0]
    monkeypatch.setattr("procd.output.multiplex.time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


@pytest.mark.parametrize("part", sorted(MARKER_PARTS))
@pytest.mark.parametrize("then", ["more", "time", "end"])
def test_part_of_a_marker_is_held_back(clock: list[float], part: bytes, then: str) -> None:
    """Until more comes, or a moment has passed since the last byte, or nothing can follow."""
    with log_of([(1, part)]) as log:
        frames = MultiplexedFrames(log, labelled=True)
        assert frames.at(0) == (b"", 0)
        clock[0] += HOLD_S / 2
        match then:
            case "more":
                log.append(b"x", 1)
                part += b"x"
            case "time":
                clock[0] += HOLD_S / 2
            case _:
                log.seal()
        batch, end = frames.at(0)
        assert (messages(batch), end) == ([MARKERS[1] + part], len(part))
