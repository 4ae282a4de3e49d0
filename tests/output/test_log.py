"""Log as a state machine: cursors, pace and the end."""

from collections.abc import Callable
from functools import partial

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    precondition,
    rule,
)

from procd.output.budget import LEAST_TAIL_BYTES, Budget
from procd.output.buffer import Buffer
from procd.output.log import Cursor, Log
from tests.allocations import ALLOCATIONS, short

CAP_BYTES = 400
HIGH_BYTES = 100
LOW_BYTES = 25


class Tap:
    """A source that knows whether it runs."""

    def __init__(self) -> None:
        self.running = True
        self.calls: list[str] = []

    def pause(self) -> None:
        self.running = False
        self.calls.append("pause")

    def resume(self) -> None:
        self.running = True
        self.calls.append("resume")


class Reader:
    """A cursor with what it has read, and how often it was woken."""

    def __init__(self, output: Log[Buffer], offset: int) -> None:
        self.began_at = offset
        self.read = b""
        self.woken = 0
        self.cursor = output.attach(offset, self._wake)

    def _wake(self) -> None:
        self.woken += 1


class LogMachine(RuleBasedStateMachine):
    """Appends, and readers that come, read, fall behind and leave, in any order."""

    readers: Bundle[Reader] = Bundle("readers")

    def __init__(self) -> None:
        super().__init__()
        self.output = Log(Buffer(CAP_BYTES), HIGH_BYTES)
        self.taps = [Tap(), Tap()]
        for tap in self.taps:
            self.output.feed_from(tap)
        self.whole = b""
        self.attached: list[Reader] = []
        self.paused = False

    def lag(self) -> int:
        """How far behind the fastest reader is."""
        if not self.attached:
            return 0
        return len(self.whole) - max(reader.cursor.offset for reader in self.attached)

    def repace(self) -> None:
        """What the rule of the two water marks makes of the state now."""
        if self.paused and self.lag() <= LOW_BYTES:
            self.paused = False
        elif not self.paused and self.lag() >= HIGH_BYTES:
            self.paused = True

    @precondition(lambda self: not self.output.sealed)
    # Left to itself hypothesis hardly ever says so much at once that anybody is paused.
    @rule(
        data=st.binary(min_size=1, max_size=150) | st.binary(min_size=HIGH_BYTES, max_size=150),
        stream=st.integers(1, 2),
    )
    def append(self, data: bytes, stream: int) -> None:
        before = [reader.woken for reader in self.attached]
        self.output.append(data, stream)
        self.whole += data
        assert [reader.woken for reader in self.attached] == [count + 1 for count in before]
        self.repace()

    @rule(target=readers, share=st.floats(0, 1))
    def attach(self, share: float) -> Reader:
        store = self.output.store
        offset = store.start + round(share * (store.end - store.start))
        reader = Reader(self.output, offset)
        self.attached.append(reader)
        self.repace()
        return reader

    @rule(reader=readers, most=st.integers(1, 200))
    def read(self, reader: Reader, most: int) -> None:
        cursor = reader.cursor
        fallen = cursor.offset < max(self.output.store.start, 0)
        assert cursor.lost == fallen
        if fallen:
            return
        piece = self.output.store.read(cursor.offset, most)
        reader.read += piece
        cursor.advance(cursor.offset + len(piece))
        if reader in self.attached:
            self.repace()

    @rule(reader=consumes(readers))
    def detach(self, reader: Reader) -> None:
        reader.cursor.close()
        reader.cursor.close()  # a second time does nothing
        self.attached.remove(reader)
        self.repace()

    @precondition(lambda self: self.whole and not self.output.sealed)
    @rule()
    def seal(self) -> None:
        before = [reader.woken for reader in self.attached]
        self.output.seal()
        assert [reader.woken for reader in self.attached] == [count + 1 for count in before]
        self.output.seal()  # a second time does nothing
        assert [reader.woken for reader in self.attached] == [count + 1 for count in before]

    @invariant()
    def each_has_seen_one_slice(self) -> None:
        for reader in self.attached:
            assert reader.cursor.offset == reader.began_at + len(reader.read)
            assert reader.read == self.whole[reader.began_at : reader.cursor.offset]
            at_end = self.output.sealed and reader.cursor.offset == len(self.whole)
            assert reader.cursor.at_end == at_end

    @invariant()
    def lost_is_fallen_off_and_nothing_else(self) -> None:
        for reader in self.attached:
            assert reader.cursor.lost == (reader.cursor.offset < self.output.store.start)
            if not reader.cursor.lost:
                left = len(self.whole) - reader.cursor.offset
                rest = self.output.store.read(reader.cursor.offset, CAP_BYTES * 2)
                assert bool(rest) == bool(left)

    @invariant()
    def the_fastest_sets_the_pace(self) -> None:
        assert self.output.readers == len(self.attached)
        lags = [len(self.whole) - reader.cursor.offset for reader in self.attached]
        assert self.output.unread_bytes == max(lags, default=0)
        if self.output.sealed:  # nobody is held back any more
            assert [tap.running for tap in self.taps] == [True] * 2
        else:
            assert self.output.paused == self.paused
            assert [tap.running for tap in self.taps] == [not self.paused] * 2
            if not self.attached:
                assert not self.output.paused
            if self.output.paused:
                assert self.lag() > LOW_BYTES
            else:
                assert self.lag() < HIGH_BYTES
        for tap in self.taps:
            # The two alternate: nobody is paused or resumed twice.
            assert tap.calls == ["pause", "resume"] * (len(tap.calls) // 2) + (
                ["pause"] * (len(tap.calls) % 2)
            )

    @invariant()
    def memory_is_bounded(self) -> None:
        assert self.output.store.kept_bytes <= CAP_BYTES


LogMachine.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestLog = LogMachine.TestCase


def _log(high_bytes: int = HIGH_BYTES) -> tuple[Log[Buffer], Tap]:
    output, tap = Log(Buffer(CAP_BYTES), high_bytes), Tap()
    output.feed_from(tap)
    return output, tap


def _nothing() -> None:
    return


def test_nobody_reads_nobody_is_paused() -> None:
    """Without a cursor, output of any length pauses nothing."""
    output, tap = _log()
    for _ in range(20):
        output.append(b"x" * HIGH_BYTES)
    assert tap.calls == []


def test_who_reads_hears_of_what_there_was_no_memory_to_tap() -> None:
    """And sets the pace."""
    output, source = _log()
    reader = Reader(output, 0)

    def short(data: bytes) -> None:
        raise MemoryError

    output.tap = short
    output.append(b"x" * HIGH_BYTES)
    assert reader.woken == 1
    assert source.calls == ["pause"]


def test_who_has_no_memory_to_read_with_keeps_nobody_else_from_it() -> None:
    """Nor has whoever brought the bytes to bring them again."""
    output, _ = _log()

    def short() -> None:
        raise MemoryError

    output.attach(0, short)
    reader = Reader(output, 0)
    output.append(b"x")
    assert reader.woken == 1
    output.seal()
    assert reader.woken == 2


def test_no_memory_to_append_with() -> None:
    """All of it is in, and who reads hears of it in time, or nothing is and it can come again."""
    failed = 0
    for number in ALLOCATIONS:
        output, _ = _log()
        reader = Reader(output, 0)
        if short(number, partial(output.append, b"x" * 10)):
            failed += 1
            assert output.store.end == 0
            output.append(b"x" * 10)
        output.append(b"y")
        assert output.store.read(0, 100) == b"xxxxxxxxxxy"
        assert reader.woken
    assert failed


def test_a_slow_one_beside_a_fast_one_falls_off() -> None:
    """The fast one keeps the source running; the slow one is lost, and nobody else."""
    output, tap = _log()
    slow = output.attach(0, _nothing)
    fast = output.attach(0, _nothing)
    for _ in range(10):
        output.append(b"x" * (HIGH_BYTES - 1))
        fast.advance(output.store.end)
    assert tap.calls == []
    assert slow.lost
    assert not fast.lost


def test_the_water_marks_are_exact() -> None:
    """Paused at `high` and no byte sooner, resumed at a quarter of it and no byte sooner."""
    output, tap = _log()
    cursor = output.attach(0, _nothing)
    output.append(b"x" * (HIGH_BYTES - 1))
    assert tap.calls == []
    output.append(b"x")
    assert tap.calls == ["pause"]
    cursor.advance(HIGH_BYTES - LOW_BYTES - 1)
    assert tap.calls == ["pause"]
    cursor.advance(HIGH_BYTES - LOW_BYTES)
    assert tap.calls == ["pause", "resume"]


def test_the_last_reader_leaving_lets_the_source_go_on() -> None:
    """A reader that leaves while it holds the source back holds it no longer."""
    output, tap = _log()
    cursor = output.attach(0, _nothing)
    output.append(b"x" * HIGH_BYTES)
    cursor.close()
    assert tap.calls == ["pause", "resume"]


def test_a_late_reader_may_pause_at_once() -> None:
    """Attaching far behind counts as lagging."""
    output, tap = _log()
    output.append(b"x" * HIGH_BYTES)
    output.attach(0, _nothing)
    assert tap.calls == ["pause"]


def test_wake_may_read_and_leave() -> None:
    """A reader may move, or detach, from within its own call."""
    output, tap = _log()
    calls: list[str] = []
    cursors: list[Cursor] = []

    def leave() -> None:
        calls.append("left")
        cursors[0].close()

    def follow() -> None:
        calls.append("read")
        cursors[1].advance(output.store.end)

    wakes: list[Callable[[], None]] = [leave, follow]
    cursors += [output.attach(0, wake) for wake in wakes]
    output.append(b"x" * HIGH_BYTES)
    output.append(b"x" * HIGH_BYTES)
    assert calls == ["left", "read", "read"]
    assert output.readers == 1
    assert tap.running


def test_a_seal_wakes_and_ends() -> None:
    """After the seal a reader that has read all is at the end, and not before."""
    output, _ = _log()
    woken: list[bool] = []
    cursor = output.attach(0, lambda: woken.append(output.sealed))
    output.append(b"last")
    output.seal()
    assert woken == [False, True]
    assert not cursor.at_end
    cursor.advance(4)
    assert cursor.at_end


def test_a_seal_holds_nobody_back() -> None:
    """What was paused goes on, whoever has still to read, or comes to read, what there was."""
    output, tap = _log()
    output.attach(0, _nothing)
    output.append(b"x" * HIGH_BYTES)
    output.seal()
    assert tap.calls == ["pause", "resume"]
    output.attach(0, _nothing)
    assert tap.calls == ["pause", "resume"]


def test_no_mark_pauses_nothing() -> None:
    """With a high mark of 0 no lag pauses the source: the store has room for all."""
    output, tap = _log(high_bytes=0)
    output.attach(0, _nothing)
    output.append(b"x" * 10 * CAP_BYTES)
    assert tap.calls == []


def test_the_last_to_leave_is_told() -> None:
    """`on_idle` is called when nobody is left, once, and not before."""
    output, _ = _log()
    idle: list[int] = []
    output.on_idle = lambda: idle.append(output.readers)
    first, second = output.attach(0, _nothing), output.attach(0, _nothing)
    first.close()
    assert idle == []
    second.close()
    second.close()
    assert idle == [0]


BURST_BYTES = 64 << 10  # what a terminal brings in one turn, at the most


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(0, 8).map(lambda shift: LEAST_TAIL_BYTES << shift),
    st.lists(
        st.tuples(
            st.sampled_from([1, 100, 5000, BURST_BYTES]),  # what comes
            st.sampled_from([0, 0, 1, 5000, 100_000, 1 << 20]),  # what is read
            st.sampled_from([0, 0, 1 << 16, 1 << 24]),  # what others take of the budget, or ...
            st.booleans(),  # ... give back
        ),
        max_size=60,
    ),
)
def test_a_lone_reader_loses_nothing(
    tail_bytes: int, turns: list[tuple[int, int, int, bool]]
) -> None:
    """However slow it is, and however short the tail gets because others keep much."""
    budget = Budget(1 << 20)
    output, tap = Log(Buffer(tail_bytes, budget=budget), 1 << 20), Tap()
    output.feed_from(tap)
    reader = Reader(output, 0)
    taken = 0
    for comes, reads, takes, gives_back in turns:
        if gives_back:
            takes = -taken
        budget.used_bytes += takes
        taken += takes
        for _ in range(10):
            if tap.running:
                output.append(bytes(comes))
            assert not reader.cursor.lost
        reader.cursor.advance(min(reader.cursor.offset + reads, output.store.end))
    budget.used_bytes -= taken
