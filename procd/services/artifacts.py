"""Artifacts: the charts that a program shows, as it tells them by a pipe of its own.

What `worker/artifacts` writes is a line of JSON for each. But the program has the pipe as well, so
nothing is taken on trust.

Source: Process API contract, section 7.4.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Final, NoReturn

from procd.throttle import Turns

# How the line of a chart begins, after the one before it, and ends. Source: worker/pyplot_hook.py.
CHART_BEGIN: Final = b'\n{"type":"chart","value":'
CHART_END: Final = b"}"
# The more of these, the longer it takes to read a chart; its points and other numbers in lists are
# left out before, if it is large.
MARKS: Final = (b",", b":", b"[", b"{")
MOST_MARKS: Final = 256 << 10
# A larger one is looked at in turns of the event loop, a run of numbers or points in a step.
TURN_BYTES: Final = 256 << 10
# Possessive: what looks like a very long number, and is none, is not gone back over.
NUMBER: Final = rb"-?(?:0|[1-9][0-9]{0,200}+)(?:\.[0-9]++)?+(?:[eE][-+]?[0-9]++)?+"
RUN: Final = re.compile(rb"(?:(?:%b|\[%b,%b\]),){1,64}(?=[-0-9\[])" % (NUMBER, NUMBER, NUMBER))


class Artifacts:
    """Lines of JSON from a program, each a chart or nothing that counts.

    A line is looked at as soon as it is there: in the turn of the event loop that it came in; a
    large one by `check`.

    Attributes:
        cap_bytes: what comes beyond is dropped, and so is the line that reaches beyond. The runner
            knows it, but its forks may write as well. Less where memory runs out.
        claim: whether there is room in memory for so many bytes, which are then counted.
        overflown: whether anything was dropped.
        unread: whether any was dropped because to look at it takes too much.
        charts: the JSON of those of all whole lines; of the large, before `check`, all.
    """

    def __init__(self, cap_bytes: int) -> None:
        self.cap_bytes = cap_bytes
        self.overflown = False
        self.unread = False
        self.charts: list[bytes] = []
        self._unchecked: list[int] = []  # of `charts`, by index
        self._over = False
        self.claim: Callable[[int], bool] = bool  # true of every size, until somebody counts
        self._left = cap_bytes
        self._begun = bytearray(b"\n")  # the line that isn't whole yet, after the end of another

    def feed(self, data: bytes) -> None:
        """Take what the program wrote, until `check`."""
        if self._over:
            return
        kept = data[: self._left]
        if kept and not self.claim(2 * len(kept)):  # a reply takes a copy
            self.cap_bytes -= self._left
            self._left = 0
            kept = b""
        self._left -= len(kept)
        self.overflown |= len(kept) < len(data)
        self._begun += kept
        if (end := kept.rfind(b"\n")) >= 0:
            lines = bytes(self._begun)
            self._begun = bytearray(kept[end:])
            self._take(lines)

    def _take(self, lines: bytes) -> None:
        begin = lines.find(CHART_BEGIN)
        while begin >= 0 and (end := lines.find(b"\n", begin + 1)) >= 0:
            value_end = end - len(CHART_END)
            value = lines[begin + len(CHART_BEGIN) : value_end]
            if lines[value_end:end] == CHART_END:
                if len(value) > TURN_BYTES:
                    self._unchecked.append(len(self.charts))
                    self.charts.append(value)
                elif self._is_chart(value):
                    self.charts.append(value)
            begin = lines.find(CHART_BEGIN, end)

    async def check(self, turns: Turns) -> None:
        """Take no more, and drop of the large ones what is no chart, or can't be looked at."""
        self._over = True  # whose time is up may write on until it is killed
        while self._unchecked:
            index = self._unchecked.pop()
            await turns.take()
            rest = bytearray()
            try:
                await turns.spread(_without_runs(self.charts[index], rest))
                is_chart = self._is_chart(rest)
            except MemoryError:
                self.unread, is_chart = True, False
            if not is_chart:
                del self.charts[index]

    def _is_chart(self, value: bytes | bytearray) -> bool:
        """Whether it is a JSON object, as what a program writes to descriptors by chance is not."""
        if value[:1] != b"{":
            return False
        if sum(map(value.count, MARKS)) > MOST_MARKS:
            self.unread = True
            return False
        try:
            DECODER.decode(value.decode())
        except (ValueError, OverflowError, RecursionError):
            return False
        except MemoryError:  # what the program has said is worth more
            self.unread = True
            return False
        return True


def _without_runs(value: bytes, rest: bytearray) -> Iterator[None]:
    """Put all into `rest` but the numbers and points of lists that another follows.

    That is JSON if `value` is.
    """
    begin = position = 0
    for _ in range(MOST_MARKS):
        if (position := value.find(b"[", position) + 1) == 0:
            break
        rest += value[begin:position]
        begin = position
        while run := RUN.match(value, begin):
            begin = run.end()
            yield
        position = begin
        yield
    rest += value[begin:]


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


# What it makes is of no use. `fromhex` is fast, and refuses what has more digits than most clients
# take of a number.
DECODER: Final = json.JSONDecoder(
    object_pairs_hook=len,
    parse_int=float.fromhex,
    parse_float=len,
    parse_constant=_refuse_constant,
)
