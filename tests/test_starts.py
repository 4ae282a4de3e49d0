"""Starts: processes are started side by side, and each is its caller's or nobody's."""

import asyncio
import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from procd.starts import LONG_S, TOGETHER, Starts, Steps, at_once
from tests.waiting import until


class Story:
    """What happened to processes that are only told of."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.undone: list[str] = []
        self.more: list[bool | None] = []
        self.starts = Starts[str]()

    def process(
        self,
        name: str,
        *,
        fails_at: str = "",
        starting: Callable[[], None] = lambda: None,
    ) -> Steps[str]:
        """Three steps, each of which is told of, and what becomes of them."""

        def step(what: str) -> None:
            self.steps.append(f"{what} {name}")
            if what == fails_at:
                raise ValueError(name)

        try:
            step("ready")
            self.more.append((yield))
            step("start")
            starting()
            yield
            step("see to")
        finally:
            self.steps.append(f"end {name}")
        return name

    def begin(self, steps: Steps[str]) -> asyncio.Task[str]:
        """Have somebody wait for these."""
        return asyncio.create_task(self.starts.start(steps, self.undone.append))


def busy() -> None:
    """Take as long as may be in one turn."""
    late = time.monotonic() + LONG_S
    while time.monotonic() < late:
        pass


async def test_each_step_is_taken_by_all_before_the_next() -> None:
    """What is done beside each other is done by the same code."""
    story = Story()
    tasks = [story.begin(story.process(name)) for name in "abc"]
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
    tasks = [story.begin(story.process(name)) for name in names]
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
    tasks = [story.begin(story.process(name, starting=busy)) for name in "abc"]
    await until(lambda: bool(story.steps))
    assert story.steps == ["ready a", "ready b", "ready c", "start a", "see to a", "end a"]
    assert await asyncio.gather(*tasks) == ["a", "b", "c"]
    assert story.steps[6:] == ["start b", "see to b", "end b", "start c", "see to c", "end c"]


@pytest.mark.parametrize("step", ["ready", "start", "see to"])
async def test_a_failure_is_its_own_caller_s(step: str) -> None:
    """The others are started, in the same turn and in later ones."""
    story = Story()
    first = story.begin(story.process("a"))
    failing = story.begin(story.process("b", fails_at=step))
    last = story.begin(story.process("c"))
    assert await first == "a"
    assert await last == "c"
    with pytest.raises(ValueError, match="b"):
        await failing
    assert "end b" in story.steps
    assert await story.begin(story.process("d")) == "d"
    assert not story.undone


async def test_who_leaves_before_its_turn_starts_nothing() -> None:
    """Not a step is taken for nobody."""
    story = Story()
    leaving = story.begin(story.process("a"))
    staying = story.begin(story.process("b"))
    await asyncio.sleep(0)  # both wait
    leaving.cancel()
    assert await staying == "b"
    assert not [step for step in story.steps if step.endswith("a")]
    assert not story.undone
    with pytest.raises(asyncio.CancelledError):
        await leaving


async def test_who_leaves_when_all_is_ready_gets_it_back() -> None:
    """What was made for the start ends with the wait."""
    story = Story()
    leaving: asyncio.Task[str]

    def last_of_the_turn() -> None:
        busy()
        leaving.cancel()

    first = story.begin(story.process("a", starting=last_of_the_turn))
    leaving = story.begin(story.process("b"))
    assert await first == "a"
    with pytest.raises(asyncio.CancelledError):
        await leaving
    await until(lambda: "end b" in story.steps)
    assert "ready b" in story.steps
    assert "start b" not in story.steps
    assert not story.undone


async def test_who_leaves_in_the_turn_of_the_start_has_it_undone() -> None:
    """A process that nobody hears of any more is not left to itself."""
    story = Story()
    leaving: asyncio.Task[str]

    def leave() -> None:
        asyncio.get_running_loop().call_soon(leaving.cancel)

    leaving = story.begin(story.process("a", starting=leave))
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert story.steps[-1] == "end a"
    assert story.undone == ["a"]


async def test_who_leaves_in_the_turn_of_a_failure_has_nothing_undone() -> None:
    """Nor does the loop complain that nobody heard of the failure."""
    story = Story()
    complaints: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    leaving: asyncio.Task[str]

    def leave() -> None:
        loop.call_soon(leaving.cancel)

    leaving = story.begin(story.process("a", starting=leave, fails_at="see to"))
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert not story.undone
    story.starts = Starts[str]()
    gc.collect()
    assert not complaints


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
    tasks = [story.begin(story.process(name)) for name in "abc"]
    assert await asyncio.gather(*tasks) == ["a", "b", "c"]
    assert [type(report) for report in reports] == [MemoryError]
    assert len(story.steps) == len(set(story.steps)) == 12
    assert await story.begin(story.process("d")) == "d"


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
