"""Modes: what was on where, in output cut anywhere."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procd.output.terminal_modes import MAX_CHANGES, MOST_BYTES, Modes

SEQUENCES = [
    b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25l", b"\x1b[?25h", b"\x1b[?1000;1006h",
    b"\x1b[?1000;1006l", b"\x1b[?2004h", b"\x1b[?2004l", b"\x1b[?7l", b"\x1bc", b"\x1b[!p",
    b"\x1b=", b"\x1b>", b"\x1b[?66h", b"\x1b[?66l", b"\x1b[?1003h", b"\x1b[?1003l", b"\x1b(", b"=",
    b"\x1b[?12h", b"\x1b[31m", b"\x1b[?1049$p", b"\x1b[?;1h", b"\x1b", b"x", b"\x1b[?1", b"\r\n",
]  # fmt: skip


def read(*pieces: bytes) -> Modes:
    """What is known after these."""
    modes = Modes()
    for piece in pieces:
        modes.feed(piece)
    return modes


@pytest.mark.parametrize(
    ("output", "told"),
    [
        (b"", b""),
        (b"\x1b[?1049h\x1b[?25l", b"\x1b[?1049h\x1b[?25l"),
        (b"\x1b[?25l\x1b[?1049h", b"\x1b[?1049h\x1b[?25l"),  # the screen comes first
        (b"\x1b[?1006;1000h", b"\x1b[?1000h\x1b[?1006h"),
        (b"\x1b[?1049h\x1b[?1049l", b""),
        (b"\x1b[?25h\x1b[?7h", b""),
        (b"\x1b[?1049h\x1b[?2004h\x1b[?1h\x1b[?25l\x1b[!p", b"\x1b[?1049h\x1b[?2004h"),
        (b"\x1b[?1049h\x1b[?2004h\x1b[?25l\x1bc", b""),
        (b"\x1b[?1h\x1b=", b"\x1b[?1h\x1b="),
        (b"\x1b[?66h", b"\x1b="),  # the same, and told as what more terminals know
        (b"\x1b[?66h\x1b>", b""),
        (b"\x1b=\x1b[!p", b""),
        (b"\x1b(=\x1b(>", b""),  # character sets
        (b"\x1b[?1003h\x1b[?1000h", b"\x1b[?1000h"),
        (b"\x1b[?1000;1002;1003h", b"\x1b[?1003h"),
        (b"\x1b[?1003;1000h", b"\x1b[?1000h"),
        (b"\x1b[?1000h\x1b[?1003h\x1b[?1000l", b""),
        (b"\x1b[?1016h\x1b[?1006h", b"\x1b[?1006h"),
        (b"\x1b[?1015h\x1b[?1006h", b"\x1b[?1006h"),
        (b"\x1b[?1006h\x1b[?1015h", b"\x1b[?1006h\x1b[?1015h"),  # which not all know
        (b"\x1b[?1006h\x1b[?1015h\x1b[?1015l", b"\x1b[?1006h"),
        (b"\x1b[?47h\x1b[?1049h", b"\x1b[?1049h"),
        (b"\x1b[?1049h\x1b[?47l", b""),
        (b"\x1b[?2026h\x1b[?9999h\x1b[4h\x1b[1049h", b""),  # not to be told, or none of these
    ],
)
def test_what_is_told(output: bytes, told: bytes) -> None:
    assert read(output, b"more").at(len(output)) == told
    assert read(*(output[index : index + 1] for index in range(len(output)))).at(99) == told


def test_each_place_has_its_own() -> None:
    modes = read(b"$ vi\r\n\x1b[?1049h", b"text", b"\x1b[?1049l$ ")
    assert [modes.at(offset) for offset in (0, 6, 7, 18, 19, 99)] == [
        b"", b"", b"\x1b[?1049h", b"\x1b[?1049h", b"", b"",
    ]  # fmt: skip


def test_who_has_the_screen() -> None:
    modes = read(b"$ vi\r\n", b"\x1b[?1049h", b"text")
    assert (modes.full_screen(6), modes.full_screen(7)) == (False, True)
    modes.feed(b"\x1b[?47h")
    assert modes.full_screen(7)
    modes.feed(b"\x1b[?1049l$ ")
    assert not modes.full_screen(7)


def test_long_ago_is_the_opposite_of_the_oldest_change() -> None:
    """Of a program that shows and hides the cursor at each key."""
    modes = read(b"\x1b[?25l", b"x" * 10, *[b"\x1b[?25h", b"\x1b[?25l"] * MAX_CHANGES)
    assert modes.at(16) == b"\x1b[?25l"
    assert modes.at(10**9) == b"\x1b[?25l"


def test_what_is_in_a_piece_again_counts_where_it_is_last() -> None:
    modes = read(b"\x1b[?1049h", b"\x1b[?1049h\x1b[?1049l\x1b[?1049h")
    assert modes.at(10**9) == b"\x1b[?1049h"


def test_no_more_is_kept_than_is_told() -> None:
    """However much there is of what nobody asks for."""
    modes = read(*[b"\x1b[?%dh" % mode for mode in range(3000, 4000)])
    assert not modes._changes
    for _ in range(10):
        modes.feed(b"\x1b[?25l" + b"x" * 1000 + b"\x1b[?")
        assert len(modes._begun) <= MOST_BYTES


def test_a_sequence_that_never_ends_is_not_kept() -> None:
    modes = read(b"\x1b[?", *[b"1;" * 20] * 100)
    modes.feed(b"h\x1b[?1049h")
    assert modes.at(10**9) == b"\x1b[?1049h"


def one_by_one(output: bytes) -> dict[int, bool]:
    """The same, told the slow way."""
    on: dict[int, bool] = {}
    for match in re.finditer(rb"\x1b(?:\[\?([0-9;]+)([hl])|[c=>]|\[!p)", output):
        if match[0] == b"\x1bc":
            on = {}
        elif match[0] == b"\x1b[!p":
            on = {mode: state for mode, state in on.items() if mode not in (1, 7, 25, 66)}
        elif match[1] is None:
            on[66] = match[0] == b"\x1b="
        else:
            for mode in map(int, filter(None, match[1].split(b";"))):
                if mode in (1000, 1003):
                    on[1000] = on[1003] = False
                on[mode] = match[2] == b"h"
    return on


@given(st.lists(st.sampled_from(SEQUENCES), max_size=MAX_CHANGES), st.data())
def test_is_as_if_read_one_by_one(sequences: list[bytes], data: st.DataObject) -> None:
    output = b"".join(sequences)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(output)), max_size=4)))
    places = [0, *cuts, len(output)]
    modes = read(*(output[begin:end] for begin, end in pairwise(places)))
    on = one_by_one(output)
    told = [
        b"\x1b=" if mode == 66 else b"\x1b[?%d%c" % (mode, b"l" if usual else b"h")
        for mode, usual in ((1049, False), (1, False), (7, True), (25, True), (66, False),
                            (1000, False), (1003, False), (1006, False), (2004, False))
        if on.get(mode, usual) != usual
    ]  # fmt: skip
    assert modes.at(len(output)) == b"".join(told)
