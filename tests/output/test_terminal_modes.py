"""Modes: what is on at each offset, in output cut anywhere."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procd.output.replay import MAX_CHANGES, Modes

SEQUENCES = [
    b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25l", b"\x1b[?25h", b"\x1b[?1000;1006h",
    b"\x1b[?1000;1006l", b"\x1b[?2004h", b"\x1b[?2004l", b"\x1b[?7l", b"\x1bc", b"\x1b[!p",
    b"\x1b=", b"\x1b>", b"\x1b[?66h", b"\x1b[?66l", b"\x1b[?1003h", b"\x1b[?1003l", b"\x1b(", b"=",
    b"\x1b[?12h", b"\x1b[31m", b"\x1b[?1049$p", b"\x1b[?;1h", b"\x1b", b"x", b"\x1b[?1", b"\r\n",
]  # fmt: skip


def read(*pieces: bytes) -> Modes:
    """The modes after these pieces."""
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
        (b"\x1b[?66h", b"\x1b="),  # the same mode; more terminals know ESC =
        (b"\x1b[?66h\x1b>", b""),
        (b"\x1b=\x1b[!p", b""),
        (b"\x1b(=\x1b(>", b""),  # character sets
        (b"\x1b[?1003h\x1b[?1000h", b"\x1b[?1000h"),
        (b"\x1b[?1000;1002;1003h", b"\x1b[?1003h"),
        (b"\x1b[?1003;1000h", b"\x1b[?1000h"),
        (b"\x1b[?1000h\x1b[?1003h\x1b[?1000l", b""),
        (b"\x1b[?1016h\x1b[?1006h", b"\x1b[?1006h"),
        (b"\x1b[?1015h\x1b[?1006h", b"\x1b[?1006h"),
        (b"\x1b[?1006h\x1b[?1015h", b"\x1b[?1006h\x1b[?1015h"),  # which some terminals don't know
        (b"\x1b[?1006h\x1b[?1015h\x1b[?1015l", b"\x1b[?1006h"),
        (b"\x1b[?47h\x1b[?1049h", b"\x1b[?1049h"),
        (b"\x1b[?1049h\x1b[?47l", b""),
        (b"\x1b[?2026h\x1b[?9999h\x1b[4h\x1b[1049h", b""),  # not tracked, or no private mode
    ],
)
def test_sequences_for_a_new_terminal(output: bytes, told: bytes) -> None:
    assert read(output, b"more").at(len(output)) == told
    assert read(*(output[index : index + 1] for index in range(len(output)))).at(99) == told


def test_modes_at_each_offset() -> None:
    modes = read(b"$ vi\r\n\x1b[?1049h", b"text", b"\x1b[?1049l$ ")
    assert [modes.at(offset) for offset in (0, 6, 7, 18, 19, 99)] == [
        b"", b"", b"\x1b[?1049h", b"\x1b[?1049h", b"", b"",
    ]  # fmt: skip


def test_more_changes_than_are_kept() -> None:
    """Before the oldest, the mode was the opposite."""
    modes = read(b"\x1b[?25l", b"x" * 10, *[b"\x1b[?25h", b"\x1b[?25l"] * MAX_CHANGES)
    assert modes.at(16) == b"\x1b[?25l"
    assert modes.at(10**9) == b"\x1b[?25l"


def test_sequence_that_is_too_long() -> None:
    modes = read(b"\x1b[?", *[b"1;" * 20] * 100)
    modes.feed(b"h\x1b[?1049h")
    assert modes.at(10**9) == b"\x1b[?1049h"


def one_by_one(output: bytes) -> dict[int, bool]:
    """The modes, found in a simple way."""
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
def test_like_reading_one_by_one(sequences: list[bytes], data: st.DataObject) -> None:
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
