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
from typing import Final, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
# Gets ready, starts and sees to a process, with a `yield` before the second step and the third. The
# first is given whether more are started right after this one, or None.
Steps = Generator[None, bool | None, T]

# How many of them there are in a turn, and after how long no further one is started, seconds: each
# keeps procd until the child, which has no precedence, has found a processor (vfork).
TOGETHER: Final = 8
LONG_S: Final = 0.001


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


class _Start(Generic[T]):
    """One that waits, until it has been started or nobody wants it any more."""

    __slots__ = ("done", "steps")

    def __init__(self, steps: Steps[T], done: asyncio.Future[T]) -> None:
        self.steps = steps
        self.done = done

    def step(self, *, more: bool | None = None) -> bool:
        """Take the next step; whether there is a further one."""
        if self.done.done():
            self.steps.close()
            return False
        try:
            self.steps.send(more)
        except StopIteration as end:
            self.done.set_result(end.value)
        except Exception as exc:  # noqa: BLE001 - raised where it is waited for
            self.done.set_exception(exc)
        else:
            return True
        return False


class Starts(Generic[T]):
    """All that wait to be started, the first come first."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Start[T]] = deque()
        self._ready: deque[_Start[T]] = deque()
        self._planned = False

    async def start(self, steps: Steps[T], undo: Callable[[T], None]) -> T:
        """Wait for a turn and take the steps in it.

        Args:
            undo: is given what was started if the caller is cancelled before it hears of that.

        Raises:
            Exception: what a step raises.
        """
        start: _Start[T] = _Start(steps, self._loop.create_future())
        self._waiting.append(start)
        if not self._planned:
            self._planned = True
            self._loop.call_soon(self._turn)
        try:
            return await start.done
        except asyncio.CancelledError:
            if not start.done.cancelled() and start.done.exception() is None:
                undo(start.done.result())
            raise

    def _turn(self) -> None:
        waiting, ready = self._waiting, self._ready
        while waiting and len(ready) < TOGETHER:
            start = waiting.popleft()
            if start.step():
                ready.append(start)
        started = []
        late = time.monotonic() + LONG_S
        while ready:
            start = ready.popleft()
            if start.step(more=bool(ready)):
                started.append(start)
            if time.monotonic() >= late:
                break
        for start in started:
            start.step()
        self._planned = bool(waiting or ready)
        if self._planned:
            self._loop.call_soon(self._turn)
