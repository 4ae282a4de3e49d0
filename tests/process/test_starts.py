"""Starts: processes are started side by side, and each is its caller's or nobody's."""

import asyncio
import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from procd.process.starts import LONG_S, TOGETHER, Starts, Steps, at_once
from tests.waiting import until


class Story:
    """What happened to processes that are only told of."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.more: list[bool | None] = []
        self.starts = Starts()

    def process(
        self,
        name: str,
        *,
        fails_at: str = "",
        starting: Callable[[], None] = lambda: None,
    ) -> asyncio.Task[str]:
        """Have somebody wait for what takes three steps, each of which is told of."""
        over = asyncio.get_running_loop().create_future()

        def step(what: str) -> None:
            self.steps.append(f"{what} {name}")
            if what == fails_at:
                raise ValueError(name)

        def steps() -> Steps[None]:
            try:
                step("ready")
                self.more.append((yield))
                step("start")
                starting()
                yield
                step("see to")
                if not over.done():
                    over.set_result(None)
            finally:
                self.steps.append(f"end {name}")

        async def wait() -> str:
            self.starts.begin(steps(), over)
            await over
            return name

        return asyncio.create_task(wait())


async def rests(starts: Starts) -> None:
    """Check that nothing is left to do, turn after turn, for those who have left."""
    for _ in range(3):
        await asyncio.sleep(0)
    assert not starts._planned


def busy() -> None:
    """Take as long as may be in one turn."""
    late = time.monotonic() + LONG_S
    while time.monotonic() < late:
        pass


async def test_each_step_is_taken_by_all_before_the_next() -> None:
    """What is done beside each other is done by the same code."""
    story = Story()
    tasks = [story.process(name) for name in "abc"]
    assert await asyncio.gather(*tasks) == ["a", "b", "c"]
    assert story.steps == [
        "ready a", "ready b", "ready c",
        "start a", "start b", "start c",
        "see to a", "end a", "see to b", "end b", "see to c", "end c",
    ]  # fmt: skip
    assert story.more == [True, True, False]  # are started right after


async def test_no_more_than_so_many_together_in_order() -> None:
    """Others follow in a later turn; nobody is left out, nobody is started twice."""
    story = Story()
    names = [str(number) for number in range(2 * TOGETHER + 1)]
    tasks = [story.process(name) for name in names]
    await until(lambda: bool(story.steps))
    readied = [step for step in story.steps if step.startswith("ready")]
    assert len(readied) == TOGETHER
    assert await asyncio.gather(*tasks) == names
    for what in ("ready", "start", "see to"):
        taken = [step for step in story.steps if step.startswith(what)]
        assert taken == [f"{what} {name}" for name in names]


async def test_a_turn_ends_when_starts_take_long() -> None:
    """Who is ready by then is started in the next turn, and doesn't get ready twice."""
    story = Story()
    tasks = [story.process(name, starting=busy) for name in "abc"]
    await until(lambda: bool(story.steps))
    assert story.steps == ["ready a", "ready b", "ready c", "start a", "see to a", "end a"]
    assert await asyncio.gather(*tasks) == ["a", "b", "c"]
    assert story.steps[6:] == ["start b", "see to b", "end b", "start c", "see to c", "end c"]


@pytest.mark.parametrize("step", ["ready", "start", "see to"])
async def test_a_failure_is_its_own_caller_s(step: str) -> None:
    """The others are started, in the same turn and in later ones."""
    story = Story()
    first = story.process("a")
    failing = story.process("b", fails_at=step)
    last = story.process("c")
    assert await first == "a"
    assert await last == "c"
    with pytest.raises(ValueError, match="b"):
        await failing
    assert "end b" in story.steps
    assert await story.process("d") == "d"


async def test_who_leaves_before_its_turn_starts_nothing() -> None:
    """Not a step is taken for nobody."""
    story = Story()
    leaving = story.process("a")
    staying = story.process("b")
    await asyncio.sleep(0)  # both wait
    leaving.cancel()
    assert await staying == "b"
    assert not [step for step in story.steps if step.endswith("a")]
    with pytest.raises(asyncio.CancelledError):
        await leaving
    await rests(story.starts)


async def test_who_leaves_when_all_is_ready_gets_it_back() -> None:
    """What was made for the start ends with the wait."""
    story = Story()
    leaving: asyncio.Task[str]

    def last_of_the_turn() -> None:
        busy()
        leaving.cancel()

    first = story.process("a", starting=last_of_the_turn)
    leaving = story.process("b")
    assert await first == "a"
    with pytest.raises(asyncio.CancelledError):
        await leaving
    await until(lambda: "end b" in story.steps)
    assert "ready b" in story.steps
    assert "start b" not in story.steps
    await rests(story.starts)


async def test_who_leaves_amid_the_start_is_not_left_with_it() -> None:
    """What has been started is seen to, whoever hears of it: its maker learns that nobody does."""
    story = Story()
    leaving: asyncio.Task[str]

    def leave() -> None:
        leaving.cancel()

    leaving = story.process("a", starting=leave)
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert story.steps == ["ready a", "start a", "see to a", "end a"]


async def test_who_leaves_in_the_turn_of_a_failure() -> None:
    """The loop does not complain that nobody heard of the failure."""
    story = Story()
    complaints: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    leaving: asyncio.Task[str]

    def leave() -> None:
        loop.call_soon(leaving.cancel)

    leaving = story.process("a", starting=leave, fails_at="see to")
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert story.steps[-1] == "end a"
    story.starts = Starts()
    gc.collect()
    assert not complaints


async def test_a_failure_that_nobody_waits_for() -> None:
    """It is nobody's, and the others are started all the same."""
    story = Story()
    leaving: asyncio.Task[str]

    def leave() -> None:
        leaving.cancel()

    leaving = story.process("a", starting=leave, fails_at="see to")
    assert await story.process("b") == "b"
    assert leaving.cancelled()


class Short(list[Any]):
    """One that there is once no memory to add to, or to go through."""

    def __init__(self, call: str) -> None:
        super().__init__()
        self._call = call

    def _fail_at(self, call: str) -> None:
        if call == self._call:
            self._call = ""
            raise MemoryError

    def append(self, item: Any) -> None:
        self._fail_at("append")
        super().append(item)

    def __iter__(self) -> Iterator[Any]:
        self._fail_at("iter")
        return super().__iter__()

    def __setitem__(self, place: Any, items: Any) -> None:
        self._fail_at("set")
        super().__setitem__(place, items)


@pytest.mark.parametrize("call", ["append", "iter", "set"])
async def test_a_turn_that_there_is_no_memory_for(call: str) -> None:
    """It is taken again; nobody waits for ever, and nothing is done twice."""
    story = Story()
    reports: list[BaseException] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reports.append(context["exception"]))
    story.starts._together = Short(call)
    tasks = [story.process(name) for name in "abc"]
    assert await asyncio.gather(*tasks) == ["a", "b", "c"]
    assert [type(report) for report in reports] == [MemoryError]
    assert len(story.steps) == len(set(story.steps)) == 12
    assert await story.process("d") == "d"


def test_at_once() -> None:
    """Nobody else's steps are waited for, and what a step raises comes out."""

    def steps(name: str) -> Steps[str]:
        yield
        if not name:
            raise ValueError("no name")
        yield
        return name

    start = at_once(steps)
    assert start("a") == "a"
    with pytest.raises(ValueError, match="no name"):
        start("")
