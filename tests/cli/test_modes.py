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
        (b"\x1b[?" + b"9" * 5000 + b"h", b""),
        (b"\x1b[?5h", b"\x1b[?5l"),
        (b"\x1b[?8l", b"\x1b[?8h"),
        (b"\x1b[4h", b"\x1b[4l"),
        (b"\x1b[2;4h\x1b[4l", b"\x1b[2l"),
        (b"\x1b[12l", b"\x1b[12h"),
        (b"\x1b[2;9r\x1b[?6h", b"\x1b7\x1b[r\x1b8\x1b[?6l\x1b[999H"),
        (b"\x1b[>4;2m", b"\x1b[>4m"),
        (b"\x1b[>4;2m\x1b[>4;m\x1b[>1;1m\x1b[>1m", b""),
        (b"\x1b[>4;2m\x1b[!p", b"\x1b[>4m"),
        (b"\x1b[>4;2m\x1b[>m", b""),
        (b"\x1b[>4n", b"\x1b[>4m"),
        (b"\x1b[=5u", b"\x1b[=0u"),
        (b"\x1b[=5u\x1b[=0;1u", b""),
        (b"\x1b(0", b"\x1b(B"),
        (b"\x1b(0qqq\x1b(B", b""),
        (b"\x1b)0\x0eqqq", b"\x0f"),
        (b"\x0eqqq\x0f", b""),
        (b"\x1b]11;#ff0000\x07\x1b]4;1;red\x1b\\", b"\x1b]111\x07\x1b]104\x07"),
        (b"\x1b]11;?\x07\x1b]4;1;?\x07\x1b]0;4;title\x07", b""),
    ],
)
def test_undo(output: bytes, undone: bytes) -> None:
    assert undo(output) == b"\x1b[m" + undone


OUTPUT = (
    b"a\x1b[?1049h\x1b[?25lb\x1b[2;5r\x1b[>1u\x1b=\x1b[5 q\x1b[?1002;1006h\x1b[?1002lz\x1b[>4;2m"
    b"\x1b(0\x0e\x1b[4h\x1b[=5u\x1b]4;13;#fff\x07\x1b]11;red\x07\x1b]12;?\x07"
)


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
