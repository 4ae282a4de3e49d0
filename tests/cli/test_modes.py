"""What a program has switched on in a terminal."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procd.cli.modes import Modes


def undo(*pieces: bytes) -> bytes:
    modes = Modes()
    for piece in pieces:
        modes.feed(piece)
    return modes.undo()


@pytest.mark.parametrize(
    ("output", "undone"),
    [
        (b"plain \x1b[1;31mtext\x1b[K", b""),
        (b"\x1b[?2004h", b"\x1b[?2004l"),
        (b"\x1b[?2004h\x1b[?2004l", b""),
        (b"\x1b[?1002;1006h", b"\x1b[?1002l\x1b[?1006l"),
        (b"\x1b[?25l", b"\x1b[?25h"),
        (b"\x1b[?1049h\x1b[?1h\x1b=", b"\x1b>\x1b[?1l\x1b[?1049l"),
        (b"\x1b[3;10r", b"\x1b7\x1b[r\x1b8"),
        (b"\x1b[3;10r\x1b[r", b""),
        (b"\x1b[5 q", b"\x1b[0 q"),
        (b"\x1b[5 q\x1b[0 q", b""),
        (b"\x1b[>1u\x1b[>5u\x1b[<u", b"\x1b[<1u"),
        (b"\x1b[?1049h\x1b[?2004h\x1bc", b""),
        (b"\x1b[?1049h\x1b[?2004h\x1b[!p", b"\x1b[?1049l"),
        (b"\x1b[?9999h", b""),
    ],
)
def test_undo(output: bytes, undone: bytes) -> None:
    assert undo(output) == b"\x1b[m" + undone


OUTPUT = b"a\x1b[?1049h\x1b[?25lb\x1b[2;5r\x1b[>1u\x1b=\x1b[5 q\x1b[?1002;1006h\x1b[?1002lz"


@given(st.lists(st.integers(0, len(OUTPUT)), max_size=6))
def test_any_cut(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(OUTPUT)]
    pieces = [OUTPUT[begin:end] for begin, end in pairwise(places)]
    assert undo(*pieces) == undo(OUTPUT)


def test_alternate() -> None:
    modes = Modes()
    modes.feed(b"\x1b[?1049h")
    assert modes.alternate
    modes.feed(b"\x1b[?1049l")
    assert not modes.alternate
