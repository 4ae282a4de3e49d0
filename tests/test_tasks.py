"""Tasks: held, named, their failures read, and ended with their owner."""

import asyncio
import logging

import pytest

from procd.tasks import Tasks


async def test_a_failure_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """An exception that nobody waits for is logged with the task's name and its traceback."""
    tasks = Tasks()
    failing = asyncio.get_running_loop().create_future()

    async def work() -> None:
        await failing

    with caplog.at_level(logging.ERROR, "procd.tasks"):
        task = tasks.run(work(), "doomed")
        failing.set_exception(RuntimeError("no luck"))
        async with asyncio.timeout(10):
            await asyncio.wait([task])
        await tasks.aclose()
    (record,) = caplog.records
    assert record.getMessage() == "task doomed failed"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], RuntimeError)


async def test_close_cancels_and_waits(caplog: pytest.LogCaptureFixture) -> None:
    """`aclose` returns after each task has cleaned up; being cancelled is no failure."""
    tasks = Tasks()
    loop = asyncio.get_running_loop()
    cleaned: list[str] = []
    began = [loop.create_future(), loop.create_future()]

    async def work(name: str, started: "asyncio.Future[None]") -> None:
        try:
            started.set_result(None)
            await loop.create_future()
        finally:
            turn = loop.create_future()  # cleaning up takes a turn of the loop
            loop.call_soon(turn.set_result, None)
            await turn
            cleaned.append(name)

    for name, started in zip("ab", began, strict=True):
        tasks.start(work(name, started), name)
    async with asyncio.timeout(10):
        await asyncio.wait(began)
        await tasks.aclose()
    assert sorted(cleaned) == ["a", "b"]
    assert caplog.records == []
