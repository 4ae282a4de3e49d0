"""Log as a state machine: cursors, pace and end."""

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

CAP_BYTES = 400
HIGH_BYTES = 100
LOW_BYTES = 25


class FakeSource:
    """A source that records whether it is paused."""

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
    """Appends, and readers that attach, read, lag and detach, in any order."""

    readers: Bundle[Reader] = Bundle("readers")

    def __init__(self) -> None:
        super().__init__()
        self.output = Log(Buffer(CAP_BYTES), HIGH_BYTES)
        self.sources = [FakeSource(), FakeSource()]
        for source in self.sources:
            self.output.feed_from(source)
        self.whole = b""
        self.attached: list[Reader] = []
        self.paused = False

    def lag(self) -> int:
        if not self.attached:
            return 0
        return len(self.whole) - max(reader.cursor.offset for reader in self.attached)

    def repace(self) -> None:
        """Apply the rule of the two limits."""
        if self.paused and self.lag() <= LOW_BYTES:
            self.paused = False
        elif not self.paused and self.lag() >= HIGH_BYTES:
            self.paused = True

    @precondition(lambda self: not self.output.sealed)
    # Without the second strategy a pause would be rare.
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
    def the_fastest_sets_the_pace(self) -> None:
        assert self.output.readers == len(self.attached)
        lags = [len(self.whole) - reader.cursor.offset for reader in self.attached]
        assert self.output.unread_bytes == max(lags, default=0)
        if self.output.sealed:
            assert [source.running for source in self.sources] == [True] * 2
        else:
            assert self.output.paused == self.paused
            assert [source.running for source in self.sources] == [not self.paused] * 2
        for source in self.sources:
            assert source.calls == ["pause", "resume"] * (len(source.calls) // 2) + (
                ["pause"] * (len(source.calls) % 2)
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


def new_log(high_bytes: int = HIGH_BYTES) -> tuple[Log[Buffer], FakeSource]:
    output, source = Log(Buffer(CAP_BYTES), high_bytes), FakeSource()
    output.feed_from(source)
    return output, source


def ignore() -> None:
    return


def test_wake_may_read_and_detach() -> None:
    output, source = new_log()
    calls: list[str] = []
    cursors: list[Cursor] = []

    def leave() -> None:
        calls.append("left")
        cursors[0].close()

    def follow() -> None:
        calls.append("read")
        cursors[1].advance(output.store.end)

    cursors += [output.attach(0, wake) for wake in (leave, follow)]
    output.append(b"x" * HIGH_BYTES)
    output.append(b"x" * HIGH_BYTES)
    assert calls == ["left", "read", "read"]
    assert output.readers == 1
    assert source.running


READ_BYTES = 64 << 10


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(0, 8).map(lambda shift: LEAST_TAIL_BYTES << shift),
    st.lists(
        st.tuples(
            st.sampled_from([1, 100, 5000, READ_BYTES]),  # appended
            st.sampled_from([0, 0, 1, 5000, 100_000, 1 << 20]),  # read
            st.sampled_from([0, 0, 1 << 16, 1 << 24]),  # used by others of the budget, or ...
            st.booleans(),  # ... given back
        ),
        max_size=60,
    ),
)
def test_single_reader_loses_nothing(
    tail_bytes: int, turns: list[tuple[int, int, int, bool]]
) -> None:
    """However slow it is, and however short the tail gets because others use the budget."""
    budget = Budget(1 << 20)
    output, source = Log(Buffer(tail_bytes, budget=budget), 1 << 20), FakeSource()
    output.feed_from(source)
    cursor = output.attach(0, ignore)
    others_bytes = 0
    for appended, read, used, given_back in turns:
        change = -others_bytes if given_back else used
        budget.used_bytes += change
        others_bytes += change
        for _ in range(10):
            if source.running:
                output.append(bytes(appended))
            assert not cursor.lost
        cursor.advance(min(cursor.offset + read, output.store.end))
    budget.used_bytes -= others_bytes
