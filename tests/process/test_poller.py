"""The poller: an epoll under each of the two event loops."""

import asyncio
import errno
import functools
import itertools
import os
import select
import signal
import socket
import tty
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from procd.process import poller as module
from procd.process import reader as reader_module
from procd.process.child import Child, ExitStatus
from procd.process.poller import BATCH, Poller
from procd.process.reader import FdReader
from procd.process.tty import open_pty
from procd.process.writer import FdWriter
from procd.services.interpreter.channel import Channel, channel_pair
from procd.services.shell.feed import Feed
from procd.unix.fd import OwnedFd, pipe
from tests.waiting import until

MEGABYTE = 1 << 20


class Ends:
    """Pipes whose ends are closed at the end of the test."""

    def __init__(self) -> None:
        self.open: list[OwnedFd] = []

    def pipe(self) -> tuple[int, int]:
        reading, writing = pipe()
        self.open += (reading, writing)
        os.set_blocking(reading.number, False)
        return reading.number, writing.number


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    yield made
    for end in made.open:
        end.close()


async def turns(count: int) -> None:
    """Let so many turns of the loop pass, in each of which it looks at its descriptors."""
    loop = asyncio.get_running_loop()
    reading, writing = pipe()
    os.write(writing.number, b"x")
    passed = loop.create_future()
    left = count

    def seen() -> None:
        nonlocal left
        left -= 1
        if not left:
            passed.set_result(None)

    loop.add_reader(reading.number, seen)
    async with asyncio.timeout(10):
        await passed
    loop.remove_reader(reading.number)
    reading.close()
    writing.close()


class CountedLoop:
    """The event loop, with a count of the turns in which a poller had something to do."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.turns = 0
        self.remove_reader = self._loop.remove_reader
        self.add_writer = self._loop.add_writer
        self.remove_writer = self._loop.remove_writer
        self.call_exception_handler = self._loop.call_exception_handler

    def add_reader(self, fd: int, callback: Callable[[], None], /) -> None:
        def counted() -> None:
            self.turns += 1
            callback()

        self._loop.add_reader(fd, counted)


@pytest.mark.parametrize("half", [True, False])
async def test_a_hangup_behind_what_nobody_reads(poller: Poller, half: bool) -> None:
    """What there is to read is of no concern; that the other end has closed is, or half of it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        calls: list[int] = []
        poller.add_hangup(ours.fileno(), lambda: calls.append(len(calls)))
        theirs.send(b"x")
        await turns(3)
        assert calls == []
        if half:
            theirs.shutdown(socket.SHUT_WR)
        else:
            theirs.close()
        await turns(3)
        assert len(calls) >= 2
        assert poller.remove_reader(ours.fileno())
        before = len(calls)
        await turns(3)
        assert len(calls) == before


async def test_calls_as_long_as_there_is_something(poller: Poller, ends: Ends) -> None:
    """A callback that reads nothing is called again, and no more once it is removed."""
    reading, writing = ends.pipe()
    calls: list[int] = []
    poller.add_reader(reading, lambda: calls.append(len(calls)))
    await turns(3)
    assert calls == []
    os.write(writing, b"x")
    await turns(3)
    assert len(calls) >= 2
    assert poller.remove_reader(reading)
    before = len(calls)
    await turns(3)
    assert len(calls) == before
    assert not poller.remove_reader(reading)


async def test_the_end_is_something_to_read(poller: Poller, ends: Ends) -> None:
    """A pipe without a writer is readable."""
    reading, _ = ends.pipe()
    ended = asyncio.get_running_loop().create_future()

    def read() -> None:
        poller.remove_reader(reading)
        ended.set_result(os.read(reading, 1))

    poller.add_reader(reading, read)
    ends.open[1].close()
    async with asyncio.timeout(10):
        assert await ended == b""


class Full:
    """An epoll that has no room `refusals` times. Source: epoll_ctl(2), ENOSPC."""

    def __init__(self, epoll: Any, refusals: int) -> None:
        self._epoll = epoll
        self.refusals = refusals

    def __getattr__(self, name: str) -> Any:
        return getattr(self._epoll, name)

    def register(self, fd: int, mask: int) -> None:
        """As the real one does, if there is room."""
        if self.refusals:
            self.refusals -= 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._epoll.register(fd, mask)


async def test_who_rests_waits_for_room(
    poller: Poller, ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And keeps nobody else from going on; one that is removed meanwhile doesn't come back."""
    monkeypatch.setattr(module, "MEMORY_REST_S", 0.001)
    called: set[int] = set()
    numbers = []
    for _ in range(3):
        reading, writing = ends.pipe()
        os.write(writing, b"x")
        poller.add_reader(reading, functools.partial(called.add, reading))
        poller.rest(reading)
        numbers.append(reading)
    full = Full(poller._epoll, 2)
    monkeypatch.setattr(poller, "_epoll", full)
    assert poller.remove_reader(numbers.pop(0))
    await until(lambda: called == set(numbers))
    assert not full.refusals
    for number in numbers:
        assert poller.remove_reader(number)


async def test_who_waits_for_room_has_a_time_of_its_own(
    poller: Poller, ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It isn't tried whenever somebody else has rested, who may do so thousands of times."""
    monkeypatch.setattr(module, "MEMORY_REST_S", 0.001)
    full = Full(poller._epoll, 2)
    monkeypatch.setattr(poller, "_epoll", full)
    (waiting, _), (resting, said) = ends.pipe(), ends.pipe()
    poller.go_on(waiting, lambda: None)
    monkeypatch.setattr(module, "MEMORY_REST_S", 1000)
    await until(lambda: not full.refusals)
    rests: list[None] = []

    def rest() -> None:
        rests.append(None)
        poller.rest(resting)

    poller.add_reader(resting, rest)
    os.write(said, b"x")
    await until(lambda: len(rests) == 3)
    assert waiting in poller._put_off
    for number in (waiting, resting):
        assert poller.remove_reader(number)


async def test_who_was_paused_waits_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe, and a terminal that nobody has open by then: it is idle as soon as there is room."""
    monkeypatch.setattr(module, "MEMORY_REST_S", 0.001)
    loop = CountedLoop()
    poller = Poller(loop)
    full = Full(poller._epoll, 0)
    monkeypatch.setattr(poller, "_epoll", full)
    reading, writing = pipe()
    master, path = open_pty(80, 24)
    os.close(os.open(path, os.O_RDWR | os.O_NOCTTY))
    got: list[bytes] = []
    ended: list[None] = []
    reader = FdReader(poller, reading, got.append, lambda: ended.append(None))
    terminal = FdReader(poller, master, got.append, lambda: None, may_go_on=lambda: True)
    for each in reader, terminal:
        each.pause()
    os.write(writing.number, b"said")
    full.refusals = 4
    for each in terminal, reader:
        each.resume()
    terminal.drain()
    await until(lambda: got == [b"said"])
    assert not full.refusals
    await until(lambda: terminal._asleep)
    await idle(loop)
    slave = os.open(path, os.O_RDWR | os.O_NOCTTY)
    os.write(slave, b" again")
    await until(lambda: b"".join(got) == b"said again")
    os.close(slave)
    writing.close()
    await until(lambda: bool(ended))
    terminal.close()
    poller.close()


async def test_who_writes_waits_for_room(poller: Poller, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was accepted arrives, by whatever writes; one that is abandoned doesn't come back."""
    monkeypatch.setattr(module, "MEMORY_REST_S", 0.001)
    full = Full(poller._epoll, 0)
    monkeypatch.setattr(poller, "_epoll", full)
    (reading, writing), (lines, feeding), (unread, dropped) = pipe(), pipe(), pipe()
    ours, theirs = channel_pair()
    channel = Channel(poller, ours, lambda _: None, lambda _: None, 1)
    fed: list[None] = []

    def read() -> None:
        fed.append(None)
        feed.rest()

    feed = Feed(poller, feeding, read, lambda: None)
    writer = FdWriter(poller, writing)
    given_up = FdWriter(poller, dropped)
    full.refusals = 8
    for each in writer, given_up:
        each.write(b"x" * MEGABYTE)
    feed.write(b"line\n")
    channel.send(b"y" * MEGABYTE)
    given_up.abandon()
    for end in reading, theirs:
        os.set_blocking(end.number, False)
    assert os.read(lines.number, 100) == b"line\n"
    got = {reading: 0, theirs: 0}

    def all_read() -> bool:
        for end in got:
            with suppress(BlockingIOError):
                data = os.read(end.number, MEGABYTE)
                got[end] += data.count(b"x") + data.count(b"y")
        return all(size == MEGABYTE for size in got.values())

    await until(all_read)
    await until(lambda: bool(fed))
    assert not full.refusals
    assert not poller.remove_writer(dropped.number)
    channel.close()
    for end in reading, writing, lines, feeding, unread, dropped, theirs:
        end.close()


async def test_a_channel_that_was_paused_waits_for_room(
    poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MEMORY_REST_S", 0.001)
    full = Full(poller._epoll, 0)
    monkeypatch.setattr(poller, "_epoll", full)
    ours, theirs = channel_pair()
    got: list[bytes] = []
    channel = Channel(poller, ours, got.append, lambda _: None, 10)
    channel.pause()
    full.refusals = 2
    channel.resume()
    os.write(theirs.number, channel.key + b".said")
    await until(lambda: got == [b"said"])
    assert not full.refusals
    channel.close()
    theirs.close()


async def test_a_terminal_waits_for_room_to_be_written_and_read(
    poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are of one descriptor."""
    monkeypatch.setattr(module, "MEMORY_REST_S", 0.001)
    full = Full(poller._epoll, 0)
    monkeypatch.setattr(poller, "_epoll", full)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        seen: set[str] = set()
        full.refusals = 4
        poller.add_writer(ours.fileno(), functools.partial(seen.add, "room"))
        poller.go_on(ours.fileno(), functools.partial(seen.add, "data"))
        theirs.send(b"x")
        await until(lambda: seen == {"room", "data"})
        assert poller.remove_writer(ours.fileno())
        assert poller.remove_reader(ours.fileno())


async def test_both_directions_of_one_descriptor(poller: Poller) -> None:
    """A descriptor that is read and written has one registration for both."""
    master, slave = os.openpty()
    os.set_blocking(master, False)
    seen: list[str] = []
    poller.add_writer(master, lambda: seen.append("room"))
    poller.add_reader(master, lambda: seen.append("data"))
    await turns(2)
    assert set(seen) == {"room"}
    os.write(slave, b"x")
    await turns(2)
    assert set(seen) == {"room", "data"}
    assert poller.remove_writer(master)
    seen.clear()
    await turns(2)
    assert set(seen) == {"data"}
    poller.add_writer(master, lambda: seen.append("room"))
    assert poller.remove_reader(master)
    seen.clear()
    await turns(2)
    assert set(seen) == {"room"}
    assert poller.remove_writer(master)
    assert not poller.remove_writer(master)
    os.close(slave)
    os.close(master)


async def test_a_second_callback_takes_the_place_of_the_first(poller: Poller, ends: Ends) -> None:
    """As with the loop's own."""
    reading, writing = ends.pipe()
    seen: list[str] = []
    poller.add_reader(reading, lambda: seen.append("first"))
    poller.add_reader(reading, lambda: seen.append("second"))
    poller.add_writer(writing, lambda: seen.append("third"))
    poller.add_writer(writing, lambda: seen.append("fourth"))
    os.write(writing, b"x")
    await turns(2)
    assert set(seen) == {"second", "fourth"}
    poller.remove_reader(reading)
    poller.remove_writer(writing)


async def test_what_a_callback_raises_harms_no_other(poller: Poller, ends: Ends) -> None:
    """It is reported, and the others are called."""
    loop = asyncio.get_running_loop()
    reports: list[object] = []
    loop.set_exception_handler(lambda _, context: reports.append(context["exception"]))
    numbers = [ends.pipe() for _ in range(3)]
    seen: list[int] = []

    def fail() -> None:
        raise OSError("broken")

    poller.add_reader(numbers[0][0], fail)
    for reading, _ in numbers[1:]:
        poller.add_reader(reading, lambda reading=reading: seen.append(reading))  # type: ignore[misc]
    for _, writing in numbers:
        os.write(writing, b"x")
    await turns(1)
    for reading, _ in numbers:
        poller.remove_reader(reading)
    assert set(seen) == {reading for reading, _ in numbers[1:]}
    assert reports
    assert all(isinstance(report, OSError) for report in reports)


async def test_what_fails_is_called_again_after_a_while(
    poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in each turn, which would fill the log; one that is removed isn't called at all."""
    monkeypatch.setattr(module, "MEMORY_REST_S", 1000)
    loop = asyncio.get_running_loop()
    reports: list[object] = []
    loop.set_exception_handler(lambda _, context: reports.append(context["exception"]))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        seen: set[str] = set()

        def fail() -> None:
            raise OSError("broken")

        poller.add_reader(ours.fileno(), fail)
        poller.add_writer(ours.fileno(), fail)
        theirs.send(b"x")
        await turns(5)
        assert len(reports) == 2
        assert poller.remove_reader(ours.fileno())
        assert poller.remove_writer(ours.fileno())
        monkeypatch.setattr(module, "MEMORY_REST_S", 0.001)

        def fail_once(what: str) -> None:
            if len(reports) < 4:
                raise OSError("broken")
            seen.add(what)

        poller.add_reader(ours.fileno(), functools.partial(fail_once, "data"))
        poller.add_writer(ours.fileno(), functools.partial(fail_once, "room"))
        await until(lambda: seen == {"data", "room"})
        assert len(reports) == 4
        assert poller.remove_reader(ours.fileno())
        assert poller.remove_writer(ours.fileno())


async def test_a_callback_may_stop_another_of_the_same_turn(poller: Poller, ends: Ends) -> None:
    """Who was stopped is not called, though its event had been taken already."""
    (one, write_one), (two, write_two) = ends.pipe(), ends.pipe()
    seen: list[int] = []

    def stop(mine: int, other: int) -> None:
        seen.append(mine)
        poller.remove_reader(mine)
        poller.remove_reader(other)

    poller.add_reader(one, lambda: stop(one, two))
    poller.add_reader(two, lambda: stop(two, one))
    os.write(write_one, b"x")
    os.write(write_two, b"x")
    await turns(2)
    assert len(seen) == 1


async def test_a_turn_has_an_end(
    poller: Poller, ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the time is up the loop goes on with others; everyone gets their turn all the same."""
    monkeypatch.setattr(module, "TURN_S", 0.0)
    loop = asyncio.get_running_loop()
    count = BATCH * 3
    calls = dict.fromkeys(range(count), 0)
    numbers = [ends.pipe() for _ in range(count)]
    per_turn: list[int] = []

    def called(index: int) -> None:
        calls[index] += 1

    for index, (reading, writing) in enumerate(numbers):
        poller.add_reader(reading, lambda index=index: called(index))  # type: ignore[misc]
        os.write(writing, b"x")
    other, write_other = ends.pipe()
    os.write(write_other, b"x")
    passed = loop.create_future()

    def another() -> None:
        per_turn.append(sum(calls.values()))
        if len(per_turn) == 12:
            loop.remove_reader(other)
            passed.set_result(None)

    loop.add_reader(other, another)
    async with asyncio.timeout(10):
        await passed
    for reading, _ in numbers:
        poller.remove_reader(reading)
    assert all(later - earlier <= BATCH for earlier, later in itertools.pairwise(per_turn))
    assert min(calls.values()) >= 2
    assert max(calls.values()) - min(calls.values()) <= 2


async def test_a_closed_poller_calls_nobody(ends: Ends) -> None:
    """Whatever is asked of it; a second close does nothing."""
    poller = Poller(asyncio.get_running_loop())
    reading, writing = ends.pipe()
    seen: list[int] = []
    poller.add_reader(reading, lambda: seen.append(1))
    os.write(writing, b"x")
    poller.close()
    poller.close()
    poller.add_reader(reading, lambda: seen.append(2))
    poller.add_writer(writing, lambda: seen.append(3))
    assert not poller.remove_reader(reading)
    assert not poller.remove_writer(writing)
    await turns(3)
    assert seen == []


async def test_closing_from_within_a_callback(ends: Ends) -> None:
    """What else was ready in that turn is nobody's concern any more."""
    poller = Poller(asyncio.get_running_loop())
    seen: list[int] = []
    for number in range(BATCH * 2):
        reading, writing = ends.pipe()
        os.write(writing, b"x")

        def close(number: int = number) -> None:
            seen.append(number)
            poller.close()

        poller.add_reader(reading, close)
    await turns(3)
    assert len(seen) == 1


async def test_readers_writers_and_children(poller: Poller) -> None:
    """All that is made for it works on it: a megabyte through `cat`, and its exit."""
    loop = asyncio.get_running_loop()
    (read_in, write_in), (read_out, write_out) = pipe(), pipe()
    pid = os.posix_spawn(
        "/bin/cat", ("cat",), {}, setsigdef=(signal.SIGPIPE,),
        file_actions=[
            (os.POSIX_SPAWN_DUP2, read_in.number, 0),
            (os.POSIX_SPAWN_DUP2, write_out.number, 1),
        ],
    )  # fmt: skip
    read_in.close()
    write_out.close()
    exited: asyncio.Future[ExitStatus] = loop.create_future()
    ended = loop.create_future()
    got: list[bytes] = []
    Child(poller, pid, exited.set_result)
    FdReader(poller, read_out, got.append, lambda: ended.set_result(None))
    writer = FdWriter(poller, write_in)
    sent = bytes(range(256)) * (MEGABYTE // 256)
    writer.write(sent)
    async with asyncio.timeout(10):
        await writer.drain(0)
        writer.abandon()
        write_in.close()
        await ended
        assert await exited == ExitStatus(code=0)
    assert b"".join(got) == sent


@pytest.mark.parametrize("beside", [False, True])
async def test_news_only_until_the_reader_comes_back(poller: Poller, *, beside: bool) -> None:
    """Another callback in its place changes nothing about that, whether or not it is written to."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        number = ours.fileno()
        calls: list[int] = []

        def read() -> None:
            calls.append(len(calls))

        if beside:
            poller.add_writer(number, lambda: None)
        poller.add_reader(number, read)
        poller.only_news(number)
        theirs.send(b"x")
        await turns(5)
        poller.add_reader(number, read)
        await turns(5)
        assert 1 <= len(calls) <= 2
        poller.remove_reader(number)
        calls.clear()
        poller.add_reader(number, read)
        await turns(5)
        assert len(calls) >= 4
        poller.remove_reader(number)
        poller.remove_writer(number)


async def idle(loop: CountedLoop) -> None:
    """Make sure that a poller has nothing more to do."""
    await turns(20)  # what the kernel has still to tell
    before = loop.turns
    await turns(200)
    assert loop.turns - before < 10


async def test_a_terminal_that_nobody_has_open_and_no_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever reads it rests for a moment, and is idle after that as before."""
    monkeypatch.setattr(reader_module, "MEMORY_REST_S", 0.0)
    loop = CountedLoop()
    poller = Poller(loop)
    master, path = open_pty(80, 24)
    reader = FdReader(poller, master, lambda _: None, lambda: None, may_go_on=lambda: True)
    os.close(os.open(path, os.O_RDWR | os.O_NOCTTY))
    await until(lambda: reader._asleep)
    failures: list[int] = []

    def fail(number: int, size: int) -> bytes:
        failures.append(number)
        raise MemoryError

    monkeypatch.setattr("os.read", fail)
    os.close(os.open(path, os.O_RDWR | os.O_NOCTTY))
    await until(lambda: bool(failures))
    monkeypatch.undo()
    await until(lambda: reader._asleep)
    await idle(loop)
    reader.close()
    poller.close()


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("before", [True, False])
async def test_a_full_terminal_that_nobody_has_open(*, paused: bool, before: bool) -> None:
    """It costs nothing, and is written and read as soon as somebody opens it again."""
    loop = CountedLoop()
    poller = Poller(loop)
    master, path = open_pty(80, 24)
    slave = os.open(path, os.O_RDWR | os.O_NOCTTY)
    tty.setraw(slave)
    got: list[bytes] = []
    ended: list[None] = []
    running = True
    reader = FdReader(
        poller, master, got.append, lambda: ended.append(None), may_go_on=lambda: running
    )
    writer = FdWriter(poller, master)
    typed = bytes(range(256)) * 1024
    if paused:
        reader.pause()
    os.write(slave, b"said")
    if before:
        writer.write(typed)
        await turns(5)
    os.close(slave)
    if not paused:
        await until(lambda: reader._asleep)
    if not before:
        writer.write(typed)
    assert writer.queued_bytes > 0

    await idle(loop)
    if paused:
        assert got == []
        reader.resume()
        await until(lambda: reader._asleep)
        await idle(loop)
    assert b"".join(got) == b"said"
    slave = os.open(path, os.O_RDWR | os.O_NOCTTY)
    read = b""
    while len(read) < len(typed):
        await until(lambda: bool(select.select([slave], [], [], 0)[0]))
        read += os.read(slave, 4096)
    assert read == typed
    assert writer.queued_bytes == 0
    os.write(slave, b" again")
    await until(lambda: b"".join(got) == b"said again")
    running = False
    os.close(slave)
    await until(lambda: bool(ended))
    poller.close()
