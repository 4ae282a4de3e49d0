"""Buffer against plain bytes."""

import tracemalloc
from collections.abc import Sequence
from functools import partial

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from procd.output.budget import LEAST_TAIL_BYTES, Budget
from procd.output.buffer import LEAST_COST_BYTES, MERGE_BYTES, RUN_COST_BYTES, Buffer, Run
from tests.allocations import ALLOCATIONS, short

# Lengths round the borders of interest; content is made from them, so that shrinking is quick.
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
    """A backlog, and beside it everything that was appended."""

    def __init__(self, cap_bytes: int, head_bytes: int) -> None:
        self.store = Buffer(cap_bytes, head_bytes)
        self.tail_bytes = cap_bytes - head_bytes
        self.head_bytes = head_bytes
        self.whole = b""
        self.streams = b""  # the stream of each byte

    def append(self, length: int, stream: int) -> None:
        data = PATTERN[len(self.whole) : len(self.whole) + length]
        self.store.append(data, stream)
        self.whole += data
        self.streams += bytes([stream]) * length

    def check(self) -> None:
        store, end = self.store, len(self.whole)
        assert store.end == end
        assert store.head_end == min(self.head_bytes, end)
        assert store.head_end <= store.start <= end
        assert store.kept_bytes == store.head_end + end - store.start
        assert store.start >= end - self.tail_bytes, "more than the cap is kept"
        self.check_runs()

    def check_runs(self) -> None:
        """All that is kept, and nothing else, in order and each byte under its stream."""
        store = self.store
        offset = 0
        for run in store.runs():
            if offset == store.head_end:
                offset = store.start  # over the gap
            assert run.offset == offset
            offset += len(run.data)
            assert run.data == self.whole[run.offset : offset]
            assert bytes([run.stream]) * len(run.data) == self.streams[run.offset : offset]
        if offset == store.head_end:
            offset = store.start
        assert offset == store.end
        said = set(self.streams)
        assert store.sole_stream == (said.pop() if len(said) == 1 else 0)
        for stream in 1, 2:
            kept = sum(len(run.data) for run in store.runs() if run.stream == stream)
            assert store.dropped(stream) == self.streams.count(stream) - kept


@st.composite
def models(draw: st.DrawFn, appends: st.SearchStrategy[list[tuple[int, int]]] = APPENDS) -> Model:
    """A backlog of any cap and head that anything was appended to."""
    cap_bytes = draw(CAPS)
    model = Model(cap_bytes, draw(st.one_of(st.just(0), st.integers(0, cap_bytes))))
    for length, stream in draw(appends):
        model.append(length, stream)
    return model


def filled(cap_bytes: int, head_bytes: int, appends: Sequence[tuple[int, int]]) -> Model:
    """A backlog that these lengths and streams were appended to."""
    model = Model(cap_bytes, head_bytes)
    for length, stream in appends:
        model.append(length, stream)
    return model


@UNTIMED
@given(CAPS, st.data(), APPENDS)
def test_keeps_head_and_tail_of_the_whole(
    cap_bytes: int, data: st.DataObject, appends: list[tuple[int, int]]
) -> None:
    """After each append the runs are the head and the tail of all that was said."""
    model = Model(cap_bytes, data.draw(st.integers(0, cap_bytes), label="head_bytes"))
    for length, stream in appends:
        model.append(length, stream)
        model.check()


@UNTIMED
@given(models(), st.floats(0, 1), st.integers(1, 3 * MERGE_BYTES))
@example(filled(10, 10, [(4, 1), (20, 2)]), 0.5, 100)  # no tail at all
@example(filled(100, 50, [(50, 1), (50, 1)]), 0.25, 100)  # full to the byte: no gap
def test_read_at_any_offset(model: Model, share: float, most: int) -> None:
    """A read returns what was said there, never more than asked for, and something if there is."""
    store = model.store
    offset = round(share * store.end)
    if offset < store.start:
        with pytest.raises(LookupError):
            store.read(offset, most)
        return
    read = store.read(offset, most)
    assert read == model.whole[offset : offset + len(read)]
    assert len(read) <= most
    assert bool(read) == (offset < store.end)


@UNTIMED
@given(models(), st.integers(1, 3 * MERGE_BYTES))
def test_reading_on_and_on_gives_the_tail(model: Model, most: int) -> None:
    """Reads that follow each other give everything from the start to the end, once."""
    store = model.store
    offset, joined = store.start, b""
    while piece := store.read(offset, most):
        joined += piece
        offset += len(piece)
    assert offset == store.end
    assert joined == model.whole[store.start :]


@UNTIMED
@given(models())
def test_beyond_the_end_is_no_place(model: Model) -> None:
    """The end itself reads as nothing yet; what lies after it is an error."""
    assert model.store.read(model.store.end, 1) == b""
    with pytest.raises(LookupError):
        model.store.read(model.store.end + 1, 1)


LONG_RUNS = st.lists(
    st.tuples(st.integers(MERGE_BYTES + 1, 3 * MERGE_BYTES), st.just(1)), max_size=12
)


@UNTIMED
@given(st.integers(1, 8 * MERGE_BYTES), LONG_RUNS)
def test_start_is_exact(tail_bytes: int, appends: list[tuple[int, int]]) -> None:
    """Where runs are long, exactly the last `tail` bytes are kept, to the byte."""
    tail_bytes += len(appends) * RUN_COST_BYTES  # so that the number of runs evicts nobody
    model = filled(tail_bytes, 0, appends)
    assert model.store.start == max(0, model.store.end - tail_bytes)


@UNTIMED
@given(st.integers(1, 8 * MERGE_BYTES), LONG_RUNS, st.integers(1, 9 * MERGE_BYTES))
@example(10_000, [(6000, 1)], 3000)
@example(10_000, [(6000, 1)], 5000)
@example(10_000, [(9000, 1)] * 2, 100)
def test_start_is_foretold(tail_bytes: int, appends: list[tuple[int, int]], size: int) -> None:
    tail_bytes += (len(appends) + 1) * RUN_COST_BYTES
    model = filled(tail_bytes, 0, appends)
    foretold = model.store.start_after(size)
    model.append(size, 1)
    assert model.store.start == foretold


@UNTIMED
@given(st.integers(1, 1000), st.lists(st.integers(1, 3), min_size=1, max_size=2000))
def test_start_with_short_runs(runs: int, lengths: list[int]) -> None:
    """Where runs are too many, `start` is that of the oldest run kept: whole runs go."""
    tail_bytes = runs * RUN_COST_BYTES
    most_runs = max(tail_bytes, LEAST_COST_BYTES) // RUN_COST_BYTES
    model = filled(tail_bytes, 0, [(n, 1 + i % 2) for i, n in enumerate(lengths)])
    first_kept = sum(lengths[: max(0, len(lengths) - most_runs - 1)])
    assert model.store.start == max(first_kept, model.store.end - tail_bytes)


def test_two_streams_of_single_bytes_fill_a_small_cap() -> None:
    """Head and tail alike: what so few runs cost is nobody's concern."""
    model = filled(600, 300, [(1, 1 + i % 2) for i in range(700)])
    assert (model.store.kept_bytes, model.store.head_end) == (600, 300)


@pytest.mark.parametrize("head_bytes", [0, 5000])
def test_one_stream_of_single_bytes_fills_the_cap(head_bytes: int) -> None:
    """Short appends to one stream are joined, so they evict by their bytes alone."""
    store = Buffer(10_000, head_bytes)
    for _ in range(25_000):
        store.append(b"x", 1)
    assert (store.kept_bytes, store.head_end) == (10_000, head_bytes)


def test_a_long_run_is_not_copied() -> None:
    """What is read whole from its beginning is the very object that was appended."""
    store = Buffer(1 << 20)
    data = b"x" * (MERGE_BYTES + 1)
    store.append(data)
    assert store.read(0, 1 << 20) is data


def test_read_takes_whole_runs_that_fit() -> None:
    """A run that would not fit is left for the next read, unless it is the first."""
    store = Buffer(1 << 20)
    store.append(b"a" * 5000)
    store.append(b"b" * 5000)
    assert store.read(0, 9999) == b"a" * 5000
    assert store.read(0, 10_000) == b"a" * 5000 + b"b" * 5000
    assert store.read(5000, 100) == b"b" * 100


def test_runs_show_the_gap_as_a_jump() -> None:
    """Head, gap and tail: the first byte after the gap has its own offset."""
    store = Buffer(20, 10)
    store.append(b"0123456789abcdefghij" * 2, 1)
    assert list(store.runs()) == [Run(0, 1, b"0123456789"), Run(30, 1, b"abcdefghij")]
    assert (store.head_end, store.start, store.end, store.kept_bytes) == (10, 30, 40, 20)


def test_memory_of_single_bytes_of_two_streams_is_bounded() -> None:
    """Alternating streams cost an object per byte; their number is bounded all the same."""
    cap_bytes = 256 << 10
    tracemalloc.start()
    try:
        store = Buffer(cap_bytes)
        before, _ = tracemalloc.get_traced_memory()
        for index in range(100_000):
            store.append(b"x", 1 + index % 2)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert store.end == 100_000
    assert after - before <= 2 * cap_bytes


def test_a_head_of_single_bytes_of_two_streams_ends_early() -> None:
    store = Buffer(128 << 10, 64 << 10)
    for index in range(20_000):
        store.append(b"x", 1 + index % 2)
    assert store.held_bytes <= 2 * (128 << 10) + RUN_COST_BYTES


def test_memory_of_long_runs_is_bounded() -> None:
    """What is evicted is freed: the cap, and one run more."""
    cap_bytes, run_bytes = 256 << 10, 64 << 10
    tracemalloc.start()
    try:
        store = Buffer(cap_bytes)
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(1000):
            store.append(bytes(run_bytes))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert store.kept_bytes == cap_bytes
    assert after - before <= 2 * cap_bytes + run_bytes


def test_a_budget_is_shared() -> None:
    """Beyond it heads end and tails get shorter, but never below what each may have."""
    budget = Budget(1 << 20)
    one, other = Buffer(4 << 20, 2 << 20, budget), Buffer(4 << 20, 0, budget)
    block = bytes(32 << 10)
    for _ in range(64):
        one.append(block)
    assert budget.used_bytes == one.held_bytes
    assert one.start > one.head_end > 0
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


def test_a_short_backlog_keeps_no_more_where_a_budget_is_used_up() -> None:
    """Though each may keep the tail that is the least."""
    store = Buffer(1000, 0, Budget(0))
    for _ in range(4):
        store.append(bytes(900))
    assert store.kept_bytes == 1000


class Cached:
    """A cache of so many bytes."""

    def __init__(self, budget: Budget, size: int) -> None:
        self._budget, self._size = budget, size
        budget.used_bytes += size
        budget.caches.add(self)

    def close(self) -> None:
        """Drop it."""
        self._budget.give_back(self._size)


def test_a_head_goes_on_where_others_make_room() -> None:
    budget = Budget(1 << 20)
    Cached(budget, 900_000)
    store = Buffer(400_000, 300_000, budget)
    for _ in range(4):
        store.append(bytes(100_000))
    assert not budget.caches
    assert (store.head_end, store.kept_bytes) == (300_000, 400_000)
    assert budget.used_bytes == store.held_bytes


def test_what_is_claimed_is_counted_until_the_bytes_are_gone() -> None:
    freed: list[int] = []
    budget = Budget(1000, freed.append)
    store = Buffer(500, 0, budget)
    assert store.claim(600)
    assert not store.claim(600)
    assert store.claim(100)
    assert budget.used_bytes == 700
    store.clear()
    assert (budget.used_bytes, freed) == (0, [700])
    assert not Buffer(500).claim(1)


def test_only_where_there_is_a_budget_one_may_lag_too_far() -> None:
    assert Buffer(4000).safe_lag_bytes > 4000
    assert Buffer(4000, 0, Budget(1 << 20)).safe_lag_bytes == 1000


def test_nothing_is_of_no_stream() -> None:
    store = Buffer(100)
    store.append(b"", 1)
    assert (store.sole_stream, list(store.runs())) == (0, [])


def test_a_tail_is_shortened_by_half() -> None:
    freed: list[int] = []
    budget = Budget(1 << 20, freed.append)
    store = Buffer(64_000, 0, budget)
    for _ in range(20):
        store.append(bytes(4000))
    assert store.shorten(10_000)
    assert store.kept_bytes == 32_000
    assert (budget.used_bytes, freed) == (store.held_bytes, [64_000 - 32_000 + 8 * RUN_COST_BYTES])
    assert store.shorten(20_000)
    assert store.kept_bytes == 20_000
    assert not store.shorten(20_000)
    assert budget.used_bytes == store.held_bytes
    for _ in range(20):
        store.append(bytes(4000))
    assert store.kept_bytes == 64_000, "it gets longer again"
    assert budget.used_bytes == store.held_bytes
    assert not Buffer(64_000).shorten(0)


def kept(store: Buffer) -> set[int]:
    """The offsets of what is kept."""
    return {
        offset for run in store.runs() for offset in range(run.offset, run.offset + len(run.data))
    }


@UNTIMED
@given(APPENDS, CAPS, st.integers(2, 3 * MERGE_BYTES))
@example([(10, 1)], 100, 4)
@example([(5, 1)], 100, 5)
def test_cut_leaves_the_first_and_the_last(
    appends: list[tuple[int, int]], cap_bytes: int, most_bytes: int
) -> None:
    budget = Budget(1 << 30)
    model = Model(cap_bytes, cap_bytes // 2)
    model.store = Buffer(cap_bytes, cap_bytes // 2, budget)
    for length, stream in appends:
        model.append(length, stream)
    before, half, end = kept(model.store), most_bytes // 2, len(model.whole)
    fits = model.store.kept_bytes <= most_bytes
    model.store.cut(most_bytes)
    wanted = {offset for offset in before if fits or offset < half or offset >= end - half}
    assert kept(model.store) == wanted
    assert model.store.kept_bytes == len(wanted)
    model.check_runs()
    assert budget.used_bytes == model.store.held_bytes


def test_cut_of_a_tail_that_was_shortened_and_may_be_longer_again() -> None:
    """It has a gap before it, and less than half of what is to be left."""
    budget = Budget(1 << 20)
    model = Model(1 << 20, 300 << 10)
    model.store = Buffer(1 << 20, 300 << 10, budget)
    for others_bytes, appends in ((0, 30), (1 << 20, 13), (0, 3)):
        budget.used_bytes += others_bytes
        for number in range(appends):
            model.append(16 << 10, 1 + number % 2)
        budget.used_bytes -= others_bytes
    before, half = kept(model.store), 190 << 10
    first = model.store.start
    assert model.store.head_end < first > len(model.whole) - half
    model.store.cut(2 * half)
    assert kept(model.store) == {offset for offset in before if offset < half or offset >= first}
    assert model.store.kept_bytes == len(kept(model.store))
    model.check_runs()
    assert budget.used_bytes == model.store.held_bytes


def test_a_budget_that_is_not_reached_changes_nothing() -> None:
    """The same is kept as without one."""
    budget = Budget(1 << 30)
    with_budget, without = Buffer(1000, 500, budget), Buffer(1000, 500)
    for number in range(500):
        for store in (with_budget, without):
            store.append(str(number).encode(), number % 2)
    assert list(with_budget.runs()) == list(without.runs())
    assert budget.used_bytes == without.held_bytes


def test_what_is_forgotten_is_said_to_be_free() -> None:
    freed: list[int] = []
    budget = Budget(1 << 20, freed.append)
    store = Buffer(1000, 0, budget)
    store.append(bytes(600))
    store.clear()
    store.append(bytes(300))
    del store
    assert (freed, budget.used_bytes) == ([600 + RUN_COST_BYTES, 300 + RUN_COST_BYTES], 0)


def test_short_runs_are_counted_with_what_they_take() -> None:
    budget = Budget(1 << 20)
    store = Buffer(4 << 20, 2 << 20, budget)
    for number in range(20_000):
        store.append(b"x", number % 2)
    assert budget.used_bytes == store.held_bytes
    assert budget.used_bytes <= budget.most_bytes + 2 * LEAST_TAIL_BYTES


class TooMuch(bytes):
    """What there is no memory for, together with anything else."""

    def __radd__(self, other: bytes) -> bytes:
        raise MemoryError


def test_what_there_is_no_memory_for_leaves_no_gap() -> None:
    backlog = Buffer(100)
    backlog.append(b"a", 1)
    with pytest.raises(MemoryError):
        backlog.append(TooMuch(b"b"), 1)
    backlog.append(b"c", 1)
    assert backlog.read(0, 10) == b"ac"
    assert backlog.end == 2


@pytest.mark.parametrize(
    ("cap_bytes", "head_bytes", "appends"),
    [
        pytest.param(1 << 20, 0, [(5000, 1), (5000, 1)], id="a run of its own"),
        pytest.param(1 << 20, 0, [(10, 1), (10, 1)], id="joined"),
        pytest.param(1 << 20, 0, [(10, 1), (10, 2)], id="another stream"),
        pytest.param(9000, 0, [(5000, 1), (5000, 2), (5000, 1)], id="in the place of another"),
        pytest.param(1000, 0, [(100, 1)] * 20 + [(5000, 2), (5000, 1)], id="of more than one"),
        pytest.param(90000, 0, [(1500, n % 2 + 1) for n in range(600)], id="the list is cut"),
        pytest.param(90000, 80000, [(5000, 1), (5000, 2)], id="in the head"),
        pytest.param(90000, 80000, [(50, 1), (50, 1)], id="joined in the head"),
        pytest.param(90000, 100, [(50, 1), (5000, 1)], id="in head and tail, joined"),
        pytest.param(90000, 100, [(50, 1), (5000, 2)], id="in head and tail"),
        pytest.param(4 << 20, 2 << 20, [(1, n % 2 + 1) for n in range(400)], id="a head of many"),
    ],
)
def test_no_memory_to_append_with(
    cap_bytes: int, head_bytes: int, appends: list[tuple[int, int]]
) -> None:
    """Nothing has changed, or all is as if there had been enough; and so it goes on."""
    *before, (length, stream) = appends
    failed = 0
    for number in ALLOCATIONS:
        budget = Budget(1 << 30)
        model = Model(cap_bytes, head_bytes)
        model.store = store = Buffer(cap_bytes, head_bytes, budget)
        for each in before:
            model.append(*each)
        data = PATTERN[len(model.whole) : len(model.whole) + length]
        if short(number, partial(store.append, data, stream)):
            failed += 1
            model.check()
        else:  # to let others go for it may have to wait for the next
            model.whole += data
            model.streams += bytes([stream]) * length
        model.append(length, stream)
        model.append(7, 1)
        model.check()
        store.clear()
        assert [store.dropped(each) for each in (1, 2)] == [*map(model.streams.count, b"\1\2")]
        del model, store
        assert budget.used_bytes == 0
    assert failed
