"""Turns: so many pieces of work in one turn of the event loop, in order, whoever leaves."""

import asyncio
import os

from procd.tasks import Turns, loop_lag_s
from tests.waiting import until


class Clock:
    """Counts the turns of the loop."""

    def __init__(self) -> None:
        self.now = 0
        self._stopped = False
        self._tick()

    def _tick(self) -> None:
        self.now += 1
        if not self._stopped:
            asyncio.get_running_loop().call_soon(self._tick)

    def stop(self) -> None:
        self._stopped = True


async def test_many_are_spread_in_order() -> None:
    """No turn has more than its number; first come, first served; none is left out."""
    turns = Turns(3)
    clock = Clock()
    began: list[tuple[int, int]] = []

    async def work(number: int) -> None:
        await turns.take()
        began.append((clock.now, number))

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(work(number))
    clock.stop()
    assert [number for _, number in began] == list(range(20))
    when = [turn for turn, _ in began]
    assert max(when.count(turn) for turn in when) <= 3
    assert len(set(when)) >= 6


async def test_who_gives_up_takes_no_place() -> None:
    """A cancelled one lets the next in, in the same turn."""
    turns = Turns(1)
    began: list[int] = []

    async def work(number: int) -> None:
        await turns.take()
        began.append(number)

    tasks = [asyncio.get_running_loop().create_task(work(number)) for number in range(5)]
    await asyncio.sleep(0)
    for task in tasks[1:4]:
        task.cancel()
    async with asyncio.timeout(10):
        await asyncio.wait(tasks)
    assert began == [0, 4]


async def test_after_a_rest_it_begins_anew() -> None:
    """When all is done nothing is left in the loop, and the next ones begin at once."""
    turns = Turns(2)
    for _ in range(3):
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(turns.take())
        for _ in range(3):
            await asyncio.sleep(0)
        await until(lambda: not turns._begun and not turns._waiting)


async def test_the_lag_is_that_of_who_waits_for_a_descriptor() -> None:
    """All that is ready by then has had its turn: callbacks and descriptors alike."""
    loop = asyncio.get_running_loop()
    reading, writing = os.pipe()
    called: list[str] = []
    loop.add_reader(reading, called.append, "descriptor")
    os.write(writing, b"x")
    loop.call_soon(called.append, "callback")
    assert await loop_lag_s() > 0
    loop.remove_reader(reading)
    os.close(reading)
    os.close(writing)
    assert set(called) == {"descriptor", "callback"}
