"""Frames of a cell's output: contract, section 11.2."""

import pytest

from procd.api import cells
from procd.api.cells import CellFrames
from procd.process import STDOUT
from procd.services.repl import RESULTS
from procd.streams.backlog import Backlog
from procd.streams.frames import encode


def test_without_memory_for_a_moment_nothing_is_said_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Halves of characters and of displays are as they were."""
    store = Backlog(1 << 20)
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
