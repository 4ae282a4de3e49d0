"""What was said by two pipes, put in the order in which they were written to.

How often, and which of them when, is known; what was said at a time is told from the lines.
"""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from itertools import groupby, islice
from typing import Final, NamedTuple

Piece = tuple[int, bytes]  # of which pipe, by its descriptor

# With more, it isn't told which of them are one write: to look at each takes 0.3 µs.
MOST_LINES: Final = 1024


class Counted(NamedTuple):
    """Lines, counted off against the writes.

    Attributes:
        pieces: in the order of the writes.
        left: the writes whose lines are yet to be read.
        behind: lines that come after the first of these.
    """

    pieces: list[Piece]
    left: list[int]
    behind: Piece | None


def counted_off(writes: Sequence[int], said: Mapping[int, bytes]) -> Counted | None:
    """The lines of two pipes, each of which is a write; None if one isn't whole, or isn't told.

    Args:
        writes: which was written to, one for each write.
        said: what was read from each.
    """
    lines: dict[int, list[bytes]] = {}
    for number, data in said.items():
        *whole, rest = data.split(b"\n")
        if rest or len(whole) > writes.count(number):
            return None
        lines[number] = whole
    counts = dict.fromkeys(said, 0)
    for index, number in enumerate(writes):
        if counts[number] == len(lines[number]):
            left = [*writes[index:]]
            break
        counts[number] += 1
    else:
        left = []
    waiting = {number: iter(each) for number, each in lines.items()}
    runs = groupby(writes[: len(writes) - len(left)])
    pieces = [
        (number, b"".join(next(waiting[number]) + b"\n" for _ in run)) for number, run in runs
    ]
    behind = None
    for number, rest_lines in waiting.items():
        if rest := b"".join(line + b"\n" for line in rest_lines):
            behind = number, rest
    return Counted(pieces, left, behind)


def in_turn(
    writes: Sequence[int],
    said: Mapping[int, bytes],
    ends: Container[int] = (),
    pours: int | None = None,
) -> list[Piece] | None:
    """What was said by two pipes in pieces, in the order of the writes; None if they don't tell it.

    They do where nothing is written to one pipe between the first and the last write to the other,
    and where each write is a line. Where a line takes several, as of Python's `print` without a
    buffer, the lines are shared out among the runs of writes. Where there are more lines than
    writes, which of them are one is told from how they begin, as of warnings and
    tracebacks of Python's, if that makes as many as there are writes.

    Args:
        writes: which was written to, one for each write.
        said: what was read from each, not empty.
        ends: those whose last write was their end.
        pours: one that much has come from just now: its first lines are likely to be the rest of
            that.
    """
    if (
        pours is not None
        and writes[:1] != [pours]
        and said[pours].count(b"\n") > writes.count(pours)
    ):
        writes = [pours, *writes]  # that of which the rest is here was told of before
    runs = [(number, len([*run])) for number, run in groupby(writes)]
    pieces: dict[int, Iterator[bytes]] = {}
    for number, data in said.items():
        counts = [count for written, count in runs if written == number]
        if number in ends and counts:
            counts[-1:] = [counts[-1] - 1] if counts[-1] > 1 else []
        parts = _parts(data, counts, pours=number == pours)
        if parts is None:
            return None
        pieces[number] = iter(parts)
    in_order = ((number, next(pieces[number], b"")) for number, _ in runs)
    return [(number, piece) for number, piece in in_order if piece]


def _parts(data: bytes, counts: Sequence[int], *, pours: bool) -> list[bytes] | None:
    """What was written in each of some runs, given the number of writes in each."""
    if len(counts) < 2:
        return [data] if counts else None
    written = sum(counts)
    lines = data.count(b"\n") + (not data.endswith(b"\n"))
    if lines <= written:
        pieces = _lines(data)
    elif pours:
        pieces = _last_lines(data, written)
    else:
        pieces = _blocks(_lines(data), written) if lines <= MOST_LINES else []
    if len(pieces) == written:
        waiting = iter(pieces)
        return [b"".join(islice(waiting, count)) for count in counts]
    return _shares(pieces, counts) if len(counts) <= lines < written else None


def _shares(lines: Sequence[bytes], counts: Sequence[int]) -> list[bytes]:
    """Lines that took several writes each: for each run its share of them, and at least one."""
    written = sum(counts)
    shares: list[bytes] = []
    begin = told = 0
    for left, count in zip(reversed(range(len(counts))), counts, strict=True):
        told += count
        end = max(begin + 1, min(round(told * len(lines) / written), len(lines) - left))
        shares.append(b"".join(lines[begin:end]))
        begin = end
    return shares


def _lines(data: bytes) -> list[bytes]:
    *lines, rest = data.split(b"\n")
    return [line + b"\n" for line in lines] + [rest] * bool(rest)


def _last_lines(data: bytes, number: int) -> list[bytes]:
    """So many blocks, all but the first of a line; none if those are alike.

    Where what follows is more of the same, that is no line a write either.
    """
    end = b"\n" if data.endswith(b"\n") else b""
    first, *last = data.removesuffix(b"\n").rsplit(b"\n", number - 1)
    size = len(first) - first.rfind(b"\n") - 1
    if any(len(line) == size for line in last):
        return []
    return [block + b"\n" for block in (first, *last[:-1])] + [last[-1] + end]


def _blocks(lines: list[bytes], number: int) -> list[bytes]:
    """So many blocks; the lines as they are if nothing tells which of them begin one."""
    mark = lines[0][:1]
    tests: list[Callable[[bytes], bool]] = [
        lambda line: not line.startswith((b"    ", b"\t")),
        lambda line: not line.startswith((b" ", b"\t")),
        lambda line: line.startswith(mark),
    ]
    for is_first in tests:
        begins = [at for at, line in enumerate(lines) if not at or is_first(line)]
        if len(begins) == number:
            ends = [*begins[1:], None]
            return [b"".join(lines[at:end]) for at, end in zip(begins, ends, strict=True)]
    return lines
