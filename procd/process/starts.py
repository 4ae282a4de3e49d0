"""Starts: processes that are to be started, step by step, beside others that are.

While a child becomes its program, procd's own code and data leave the processor's caches: what it
does next takes two to three times as long. So where several wait, all of them get ready, then are
started one right after the other, and then all are seen to, in one turn of the event loop.
"""

import asyncio
import functools
import time
from collections import deque
from collections.abc import Callable, Generator
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
# Gets ready, starts and sees to a process, with a `yield` before the second step and the third. The
# first is given whether more are started right after this one, or None.
Steps = Generator[None, bool | None, T]

# How many of them there are in a turn, and after how long no further one is started, seconds: each
# keeps procd until the child, which has no precedence, has found a processor (vfork).
TOGETHER: Final = 8
LONG_S: Final = 0.001

STARTED: Final = 2
OVER: Final = 3


def at_once(start: Callable[P, Steps[T]]) -> Callable[P, T]:
    """What takes all steps of `start` without waiting for others."""

    @functools.wraps(start)
    def start_at_once(*args: P.args, **kwargs: P.kwargs) -> T:
        steps = start(*args, **kwargs)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                result: T = end.value
                return result

    return start_at_once


class _Start:
    """One that waits, until it has been started or nobody wants it any more.

    Attributes:
        steps_taken: how many; OVER if there are no more, whatever came of it.
    """

    __slots__ = ("_over", "_steps", "steps_taken")

    def __init__(self, steps: Steps[None], over: "asyncio.Future[None]") -> None:
        self._steps = steps
        self._over = over
        self.steps_taken = 0

    def step(self, *, more: bool | None = None) -> None:
        """Take the next step."""
        if self._over.done() and self.steps_taken < STARTED:
            self.steps_taken = OVER
            self._steps.close()
            return
        self.steps_taken += 1
        try:
            self._steps.send(more)
        except StopIteration:
            self.steps_taken = OVER
        except Exception as exc:  # noqa: BLE001 - raised where it is waited for
            self.steps_taken = OVER
            if not self._over.done():
                self._over.set_exception(exc)
            del self._over  # the traceback leads here: or else each would keep the other


class Starts:
    """All that wait to be started, the first come first."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Start] = deque()
        self._together: list[_Start] = []
        self._planned = False

    def begin(self, steps: Steps[None], over: "asyncio.Future[None]") -> None:
        """Take the steps when it is their turn.

        Args:
            over: what is awaited until all is over that is started, so that whoever does so is
                woken once. It gets what a step raises. If it is done before the second step, nobody
                wants that any more; what follows the second is taken in any case.
        """
        self._plan()
        self._waiting.append(_Start(steps, over))

    def _plan(self) -> None:
        if not self._planned:
            self._loop.call_soon(self._turn)
            self._planned = True

    def _turn(self) -> None:
        # Whatever there is no memory for here is tried again: whoever waits stays where it is.
        self._planned = False
        try:
            self._take_steps()
        finally:
            if self._waiting or self._together:
                self._plan()

    def _take_steps(self) -> None:
        together = self._together
        while self._waiting and len(together) < TOGETHER:
            together.append(self._waiting[0])
            self._waiting.popleft()
        for start in together:
            if start.steps_taken == 0:
                start.step()
        late = time.monotonic() + LONG_S
        for following, start in enumerate(together, 1):
            if start.steps_taken == 1:
                start.step(more=following < len(together))
                if time.monotonic() >= late:
                    break
        for start in together:
            if start.steps_taken == STARTED:
                start.step()
        together[:] = [start for start in together if start.steps_taken != OVER]
