"""What two pipes have said, told apart by the writes: from what is known of them alone."""

from collections.abc import Sequence
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procd.process.writes import MOST_LINES, Piece, counted_off, in_turn

OUT, ERR = 1, 2


def runs(pieces: Sequence[Piece]) -> list[Piece]:
    """What was said, where one is only told from the other."""
    grouped = groupby(pieces, key=lambda piece: piece[0])
    return [(stream, b"".join(data for _, data in run)) for stream, run in grouped]


@st.composite
def _histories(draw: st.DrawFn) -> tuple[list[Piece], list[int]]:
    """What is written, a line at a time, and which pipes end."""
    streams = draw(st.lists(st.sampled_from((OUT, ERR)), min_size=2, max_size=30))
    lines = [(stream, b"%d of %d\n" % (n, stream)) for n, stream in enumerate(streams)]
    return lines, draw(st.permutations((OUT, ERR)).map(lambda both: both[: len(streams) % 3]))


@given(_histories())
def test_any_lines(history: tuple[list[Piece], list[int]]) -> None:
    """Lines are told apart by the writes, whichever of the pipes have ended since."""
    lines, ends = history
    said = {stream: b"" for stream, _ in lines}
    for stream, data in lines:
        said[stream] += data
    if len(said) < 2:
        return
    writes = [stream for stream, _ in lines] + ends
    assert in_turn(writes, said, ends) == runs(lines)


@given(
    st.lists(st.sampled_from((OUT, ERR)), max_size=40),
    st.binary(min_size=1, max_size=40),
    st.binary(min_size=1, max_size=40),
    st.sets(st.sampled_from((OUT, ERR))),
    st.sampled_from((OUT, ERR, None)),
)
def test_nothing_is_lost(
    writes: list[int], out: bytes, err: bytes, ends: set[int], pours: int | None
) -> None:
    """Whatever the signals say: a write may have had anything in it."""
    pieces = in_turn(writes, {OUT: out, ERR: err}, ends, pours)
    if pieces is not None:
        assert b"".join(data for stream, data in pieces if stream == OUT) == out
        assert b"".join(data for stream, data in pieces if stream == ERR) == err
        assert all(data for _, data in pieces)


@given(
    st.lists(st.sampled_from((OUT, ERR)), min_size=1, max_size=30),
    st.integers(1, 4),
    st.integers(1, 4),
)
def test_any_lines_of_several_writes_each(streams: list[int], out: int, err: int) -> None:
    """As of what has no buffer; of one stream each takes as many."""
    lines = [(stream, b"%d\n" % n) for n, stream in enumerate(streams)]
    said = {stream: b"".join(data for of, data in lines if of == stream) for stream, _ in lines}
    writes = [stream for stream in streams for _ in range({OUT: out, ERR: err}[stream])]
    assert in_turn(writes, said) == runs(lines)


def test_lines_of_several_writes_of_which_each_takes_another_number() -> None:
    """They are shared out: each run has one at least, and in proportion."""
    lines = [(OUT, b"%d\n" % n) for n in range(20)] + [(ERR, b"warning\n"), (OUT, b"end\n")]
    said = {stream: b"".join(data for of, data in lines if of == stream) for stream in (OUT, ERR)}
    assert in_turn([OUT] * 80 + [ERR] + [OUT] * 2, said) == runs(lines)
    few = [(OUT, b"1\n"), (ERR, b"warning\n"), (OUT, b"2\n3\n")]
    assert in_turn([OUT] * 40 + [ERR] + [OUT] * 2, {OUT: b"1\n2\n3\n", ERR: b"warning\n"}) != few
    assert in_turn([OUT, ERR, OUT, OUT], {OUT: b"1 ... 2", ERR: b"warning\n"}) is None


def told(*pieces: Piece, pours: int | None = None) -> list[Piece] | None:
    """What these are taken to be, when all is read."""
    said = {OUT: b"", ERR: b""}
    for stream, data in pieces:
        said[stream] += data
    return in_turn([stream for stream, _ in pieces], said, pours=pours)


TRACEBACK = [
    (ERR, b"Traceback (most recent call last):\n"),
    (ERR, b'  File "x.py", line 3, in <module>\n    1/0\n    ~^~\n'),
    (ERR, b"ZeroDivisionError: division by zero\n"),
]
WARNING = (ERR, b"x.py:1: UserWarning: careful\n  warnings.warn('careful')\n")
LOGGED = (ERR, b"ERROR:root:no\nTraceback:\n  File\n    x\n\tand\nZeroDivisionError\n")
SOURCE = (ERR, b"a.c:1: warning\n\t1 | int a\n")
LINE = (OUT, b"step\n")


@pytest.mark.parametrize("block", [TRACEBACK, [WARNING], [LOGGED], [SOURCE]])
def test_several_lines_in_a_write(block: list[Piece]) -> None:
    """Which lines are one is told from how they begin, and how many there are."""
    pieces = [LINE, *block, LINE, *block, LINE]
    assert told(*pieces) == runs(pieces)


@pytest.mark.parametrize("indent", [b" ", b"  ", b"\t", b" \n\t"])
def test_several_lines_in_writes_that_begin_differently(indent: bytes) -> None:
    """As warnings about several files do."""
    first, second = (b"%d.py:1: careful\n%bmore\n" % (number, indent) for number in (1, 2))
    pieces = [LINE, (ERR, first), LINE, (ERR, second), LINE]
    assert told(*pieces) == pieces


def test_the_end_of_a_pipe_is_no_write() -> None:
    """What was written before it may be several lines."""
    pieces = [(OUT, b"1\n1\n"), (ERR, b"x\n")]
    assert in_turn([OUT, ERR, OUT], dict(pieces), [OUT]) == pieces


def test_no_telling_which_lines_are_a_write() -> None:
    """Where they begin alike, or not as often as there are writes."""
    for text in (b"a\na\n", b"b\nc\n", b"a\nb\na\n"):
        assert told(LINE, (ERR, text), LINE, (ERR, b"a\n"), LINE) is None


ROWS = b"".join(b"row %d\n" % number for number in range(10, 99))


@pytest.mark.parametrize("is_told", [False, True])
def test_last_lines_of_a_pour(is_told: bool) -> None:
    """They are told from the rest of it, whether or not what there is of it is told of as well."""
    last = [(ERR, b"bad\n"), (OUT, b"done\n"), (ERR, b"worse\n"), (OUT, b"ended\n")]
    pieces = [(OUT, ROWS), *last]
    writes = [stream for stream, _ in pieces][not is_told :]
    said = {OUT: ROWS + b"done\nended\n", ERR: b"bad\nworse\n"}
    assert in_turn(writes, said, pours=OUT) == pieces
    assert in_turn(writes, said) is None


def test_too_many_lines_to_look_at() -> None:
    """What is one write isn't looked for, which would keep others waiting."""
    few = b"warning\n" + b"  more\n" * (MOST_LINES - 2)
    for text, is_told in ((few, True), (few + b"  more\n", False)):
        pieces = [(ERR, text), LINE, (ERR, b"warning\n"), LINE]
        assert told(*pieces) == (pieces if is_told else None)


@pytest.mark.parametrize("rest", [b"", b"no end"])
def test_last_lines_of_a_long_pour(rest: bytes) -> None:
    """However many lines it has."""
    pieces = [(OUT, b"row\n" * (4 * MOST_LINES)), (ERR, b"bad\n"), (OUT, rest or b"done\n")]
    assert told(*pieces, pours=OUT) == pieces


def test_a_pour_that_had_ended() -> None:
    """What is here was all written after it."""
    pieces = [(ERR, b"bad\n"), (OUT, b"done\n")]
    assert told(*pieces, pours=OUT) == pieces


def test_a_pour_that_goes_on() -> None:
    """It is left whole."""
    assert told((OUT, ROWS), (ERR, b"bad\n"), (OUT, ROWS), pours=OUT) is None


@given(_histories(), st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))
def test_any_lines_that_are_read_in_part(
    history: tuple[list[Piece], list[int]], out: int, err: int, told: int
) -> None:
    """Those that come next are told from those that are behind one that isn't read."""
    lines, _ = history
    read = {OUT: out, ERR: err}
    said: dict[int, list[bytes]] = {OUT: [], ERR: []}
    for stream, data in lines:
        if len(said[stream]) < read[stream]:
            said[stream].append(data)
    writes = [stream for stream, _ in lines][: len(lines) - min(told, len(lines))]
    counted = counted_off(writes, {stream: b"".join(each) for stream, each in said.items()})
    if any(len(each) > writes.count(stream) for stream, each in said.items()):
        assert counted is None
        return
    assert counted is not None
    first = next(
        (
            index
            for index, stream in enumerate(writes)
            if writes[: index + 1].count(stream) > len(said[stream])
        ),
        len(writes),
    )
    assert counted.pieces == runs(lines[:first])
    assert counted.left == writes[first:]
    behind = {
        stream: b"".join(each[writes[:first].count(stream) :]) for stream, each in said.items()
    }
    assert [*filter(None, behind.values())] == ([counted.behind[1]] if counted.behind else [])
    assert counted.behind is None or behind[counted.behind[0]] == counted.behind[1]


def test_no_line() -> None:
    """Nothing is counted off of what may go on."""
    assert counted_off([OUT, ERR], {OUT: b"a", ERR: b"b\n"}) is None
