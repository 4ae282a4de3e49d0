"""Buffer against plain bytes."""

import tracemalloc

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from procd.output.budget import LEAST_TAIL_BYTES, Budget
from procd.output.buffer import FEW_RUNS, MERGE_BYTES, RUN_COST_BYTES, Buffer

# Lengths around the limits; the content is made from them, so that shrinking is quick.
LENGTHS = st.one_of(
    st.integers(0, 40),
    st.sampled_from((MERGE_BYTES - 1, MERGE_BYTES, MERGE_BYTES + 1, 3 * MERGE_BYTES)),
)
APPENDS = st.lists(st.tuples(LENGTHS, st.integers(1, 2)), max_size=60)
CAPS = st.one_of(st.integers(1, 300), st.sampled_from((MERGE_BYTES, 2 * MERGE_BYTES + 1, 1 << 20)))
# Bytes that differ from their neighbours, near and far.
PATTERN = bytes((position * 7 + position // 251) % 256 for position in range(1 << 20))
UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Model:
    """A buffer, and beside it everything that was appended."""

    def __init__(self, cap_bytes: int, head_bytes: int, budget: Budget | None = None) -> None:
        self.buffer = Buffer(cap_bytes, head_bytes, budget)
        self.tail_bytes = cap_bytes - head_bytes
        self.head_bytes = head_bytes
        self.whole = b""
        self.streams = b""  # the stream of each byte

    def append(self, length: int, stream: int) -> None:
        data = PATTERN[len(self.whole) : len(self.whole) + length]
        self.buffer.append(data, stream)
        self.whole += data
        self.streams += bytes([stream]) * length

    def kept(self) -> set[int]:
        """The offsets of all bytes that are kept, each with its content and its stream."""
        kept: set[int] = set()
        for run in self.buffer.runs():
            end = run.offset + len(run.data)
            assert run.data == self.whole[run.offset : end]
            assert bytes([run.stream]) * len(run.data) == self.streams[run.offset : end]
            assert kept.isdisjoint(range(run.offset, end))
            kept.update(range(run.offset, end))
        assert len(kept) == self.buffer.kept_bytes
        streams = set(self.streams)
        assert self.buffer.sole_stream == (streams.pop() if len(streams) == 1 else 0)
        for stream in 1, 2:
            of_stream = sum(self.streams[offset] == stream for offset in kept)
            assert self.buffer.dropped(stream) == self.streams.count(stream) - of_stream
        return kept


@st.composite
def models(draw: st.DrawFn) -> Model:
    """A buffer of any cap and head that anything was appended to."""
    cap_bytes = draw(CAPS)
    return filled(cap_bytes, draw(st.integers(0, cap_bytes)), draw(APPENDS))


def filled(cap_bytes: int, head_bytes: int, appends: list[tuple[int, int]]) -> Model:
    """A buffer that these lengths and streams were appended to."""
    model = Model(cap_bytes, head_bytes)
    for length, stream in appends:
        model.append(length, stream)
    return model


@UNTIMED
@given(CAPS, st.data(), APPENDS)
def test_keeps_head_and_tail(
    cap_bytes: int, data: st.DataObject, appends: list[tuple[int, int]]
) -> None:
    model = Model(cap_bytes, data.draw(st.integers(0, cap_bytes), label="head_bytes"))
    for length, stream in appends:
        model.append(length, stream)
        buffer, end = model.buffer, len(model.whole)
        head = min(model.head_bytes, end)
        assert buffer.end == end
        assert max(head, end - model.tail_bytes) <= buffer.start <= end
        assert model.kept() == {*range(head), *range(buffer.start, end)}


@UNTIMED
@given(models(), st.floats(0, 1), st.integers(1, 3 * MERGE_BYTES))
@example(filled(10, 10, [(4, 1), (20, 2)]), 0.5, 100)  # no tail
@example(filled(100, 50, [(50, 1), (50, 1)]), 0.25, 100)  # full, without a gap
def test_read(model: Model, share: float, most: int) -> None:
    buffer = model.buffer
    offset = round(share * buffer.end)
    if offset < buffer.start:
        with pytest.raises(LookupError):
            buffer.read(offset, most)
        offset = buffer.start
    joined = b""
    while piece := buffer.read(offset + len(joined), most):
        assert len(piece) <= most
        joined += piece
    assert joined == model.whole[offset:]
    slices = list(buffer.slices(offset, most))
    assert b"".join(run.data for run in slices) == model.whole[offset : offset + most]
    for run in slices:
        end = run.offset + len(run.data)
        assert bytes([run.stream]) * len(run.data) == model.streams[run.offset : end]
    with pytest.raises(LookupError):
        buffer.read(buffer.end + 1, 1)


def test_alternating_single_bytes() -> None:
    """A small cap is filled; of a large one the number of runs is the limit, and the memory."""
    assert filled(600, 300, [(1, 1 + i % 2) for i in range(700)]).buffer.kept_bytes == 600
    cap_bytes = 64 << 10
    tracemalloc.start()
    try:
        buffer = Buffer(cap_bytes, cap_bytes // 2)
        before, _ = tracemalloc.get_traced_memory()
        for index in range(20_000):
            buffer.append(b"x", 1 + index % 2)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert buffer.end == 20_000
    assert FEW_RUNS < buffer.kept_bytes < 20_000
    assert after - before <= 2 * cap_bytes


def test_budget_is_shared() -> None:
    """When it is used up, heads end and tails shrink, down to what each may have."""
    budget = Budget(1 << 20)
    one, other = Buffer(4 << 20, 2 << 20, budget), Buffer(4 << 20, 0, budget)
    block = bytes(32 << 10)
    for _ in range(64):
        one.append(block)
    assert budget.used_bytes == one.held_bytes
    assert one.kept_bytes < one.end
    assert not budget.has_room()
    for _ in range(64):
        other.append(block)
    assert other.kept_bytes == LEAST_TAIL_BYTES
    assert other.read(other.start, 1 << 20) == bytes(LEAST_TAIL_BYTES)
    assert budget.used_bytes == one.held_bytes + other.held_bytes
    assert budget.used_bytes <= budget.most_bytes + 2 * LEAST_TAIL_BYTES + len(block)
    one.clear()
    assert (one.kept_bytes, one.start, list(one.runs())) == (0, one.end, [])
    assert budget.used_bytes == other.held_bytes
    for _ in range(16):
        other.append(block)
    assert other.kept_bytes > LEAST_TAIL_BYTES, "there is room again"
    del other
    assert budget.used_bytes == 0
    one.append(b"x")
    assert one.read(one.start, 10) == b"x"
    assert budget.used_bytes == 1 + RUN_COST_BYTES


def test_budget_evicts_before_a_head_ends() -> None:
    budget = Budget(1 << 20)
    assert budget.take(900_000)

    def evict() -> bool:
        budget.give_back(900_000)
        budget.evict = lambda: False
        return True

    budget.evict = evict
    buffer = Buffer(400_000, 300_000, budget)
    for _ in range(4):
        buffer.append(bytes(100_000))
    assert buffer.kept_bytes == 400_000
    assert budget.used_bytes == buffer.held_bytes


def test_shorten() -> None:
    budget = Budget(1 << 20)
    buffer = Buffer(64_000, 0, budget)
    for _ in range(20):
        buffer.append(bytes(4000))
    for least_bytes, kept_bytes in (10_000, 32_000), (20_000, 20_000):
        assert buffer.shorten(least_bytes)
        assert buffer.kept_bytes == kept_bytes
        assert budget.used_bytes == buffer.held_bytes
    assert not buffer.shorten(20_000)
    for _ in range(20):
        buffer.append(bytes(4000))
    assert buffer.kept_bytes == 64_000, "it grows again"
    assert not Buffer(64_000).shorten(0)


@UNTIMED
@given(APPENDS, CAPS, st.integers(2, 3 * MERGE_BYTES))
@example([(10, 1)], 100, 4)
@example([(5, 1)], 100, 5)
def test_cut(appends: list[tuple[int, int]], cap_bytes: int, most_bytes: int) -> None:
    budget = Budget(1 << 30)
    model = Model(cap_bytes, cap_bytes // 2, budget)
    for length, stream in appends:
        model.append(length, stream)
    before, half, end = model.kept(), most_bytes // 2, len(model.whole)
    fits = len(before) <= most_bytes
    model.buffer.cut(most_bytes)
    assert model.kept() == {
        offset for offset in before if fits or offset < half or offset >= end - half
    }
    assert budget.used_bytes == model.buffer.held_bytes
