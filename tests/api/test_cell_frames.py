"""Frames of a cell's output: contract, section 11.2."""

from itertools import cycle

import orjson
import pytest

from procd.api import interpreter_frames as cells
from procd.api.interpreter_frames import BATCH_FRAMES, CellFrames
from procd.output.buffer import Buffer
from procd.output.frames import encode
from procd.process.process import STDERR, STDOUT
from procd.services.interpreter.process import RESULTS


def test_without_memory_for_a_moment_nothing_is_said_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Halves of characters and of displays are as they were."""
    store = Buffer(1 << 20)
    store.append(b'{"a":', RESULTS)
    fresh, frames = CellFrames(store), CellFrames(store)
    offset = store.end
    for each in fresh, frames:
        assert each.at(0) == (b"", offset)
    store.append(b"1}\n", RESULTS)
    store.append("é".encode()[:1].rjust(40_000, b"a"), STDOUT)
    whole = fresh.at(offset)
    left = 2

    def short(kind: int, payload: bytes) -> bytes:
        nonlocal left
        left -= 1
        if not left:
            raise MemoryError
        return encode(kind, payload)

    monkeypatch.setattr(cells, "encode", short)
    with pytest.raises(MemoryError):
        frames.at(offset)
    assert frames.at(offset) == whole
    store.append("é".encode()[1:], STDOUT)
    assert frames.at(whole[1])[0].endswith(
        '"text":"é","name":"","value":"","traceback":""}'.encode()
    )


def _payloads(batch: bytes) -> list[bytes]:
    """Those of short frames."""
    payloads = []
    while batch:
        size, begin = (batch[1], 2) if batch[1] < 126 else (int.from_bytes(batch[2:4]), 4)
        payloads.append(batch[begin : begin + size])
        batch = batch[begin + size :]
    return payloads


@pytest.mark.parametrize("streams", [(STDOUT, STDERR), (RESULTS,), (RESULTS, RESULTS, STDOUT)])
def test_many_short_runs_are_many_batches(streams: tuple[int, ...]) -> None:
    """One turn of the event loop encodes few of them; none is lost between two."""
    store = Buffer(1 << 20)
    said: list[object] = []
    for number, stream in zip(range(5 * BATCH_FRAMES), cycle(streams), strict=False):
        text = f"{number:04}"
        store.append(b'"%b"\n' % text.encode() if stream == RESULTS else text.encode(), stream)
        said.append(text)
    frames = CellFrames(store)
    heard: list[object] = []
    offset = 0
    while offset < store.end:
        batch, offset = frames.at(offset)
        documents = list(map(orjson.loads, _payloads(batch)))
        assert 0 < len(documents) <= 2 * BATCH_FRAMES
        heard += [each["data"] if "data" in each else each["text"] for each in documents]
    assert heard == said
