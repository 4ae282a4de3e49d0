"""Channels to a process that may write anything into them, in both loops."""

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from procd.services.interpreter.channel import (
    BURST,
    CHUNK_BYTES,
    KEY_BYTES,
    LAST,
    MAX_UNSENT_BYTES,
    MORE,
    Channel,
    channel_pair,
)
from tests.conftest import passing_can_be_refused

MAX_BYTES = 1 << 20


class Pair:
    """A channel and the child's end of it."""

    def __init__(self, theirs: socket.socket, ours: "Channel", got: asyncio.Queue[bytes]) -> None:
        self.theirs = theirs
        self.ours = ours
        self._got = got
        self.ends = 0
        self.reason = ""
        self.ended = asyncio.Event()

    def end(self, reason: str) -> None:
        """What the channel calls at its end."""
        self.ends += 1
        self.reason = reason
        self.ended.set()

    def write(self, message: bytes, mark: bytes = LAST, key: bytes | None = None) -> None:
        """Write one packet as the child does."""
        self.theirs.send((self.ours.key if key is None else key) + mark + message)

    async def message(self) -> bytes:
        """The next message taken."""
        async with asyncio.timeout(10):
            return await self._got.get()

    def nothing_more(self) -> bool:
        """Whether no message waits."""
        return self._got.empty()


@contextmanager
def paired() -> Iterator[Pair]:
    """A channel with its other end."""
    ours, theirs = channel_pair()
    got: asyncio.Queue[bytes] = asyncio.Queue()
    end = socket.socket(fileno=os.dup(theirs.number))
    theirs.close()
    pair: Pair
    poller = Poller(asyncio.get_running_loop())
    channel = Channel(poller, ours, got.put_nowait, lambda reason: pair.end(reason), MAX_BYTES)
    pair = Pair(end, channel, got)
    try:
        yield pair
    finally:
        channel.close()
        poller.close()
        end.close()


async def test_messages_in_order() -> None:
    with paired() as pair:
        for number in range(3 * BURST):
            pair.write(b"%d" % number)
            if number % BURST == BURST - 1:
                assert await pair.message() == b"%d" % (number - BURST + 1)
                for each in range(number - BURST + 2, number + 1):
                    assert await pair.message() == b"%d" % each
        assert pair.nothing_more()


@pytest.mark.parametrize("paused", [False, True])
async def test_no_memory_to_take_a_message(paused: bool) -> None:
    """It is taken later, before what follows, and once; if nothing follows, too."""
    with paired() as pair:
        failures = [MemoryError(), MemoryError()]

        def short(message: bytes, take: Callable[[bytes], None] = pair.ours._on_message) -> None:
            if failures:
                raise failures.pop()
            take(message)

        pair.ours._on_message = short
        pair.write(b"on", MORE)
        pair.write(b"e")
        pair.ours.drain()
        pair.write(b"two")
        if paused:
            pair.ours.pause()
        assert await pair.message() == b"one"
        pair.ours.resume()
        assert await pair.message() == b"two"
        assert pair.nothing_more()


async def test_neither_end_is_inherited() -> None:
    ours, theirs = channel_pair()
    assert not os.get_inheritable(ours.number)
    assert not os.get_inheritable(theirs.number)
    ours.close()
    theirs.close()


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"x",
        b"{}",
        b".{}",
        bytes(KEY_BYTES) + b".{}",
        os.urandom(KEY_BYTES + 1 + CHUNK_BYTES),
        os.urandom(100_000),
    ],
    ids=lambda garbage: str(len(garbage)),
)
async def test_garbage_is_dropped_whole(garbage: bytes) -> None:
    with paired() as pair:
        pair.write(b"one")
        pair.theirs.send(garbage)
        pair.write(b"two, ", MORE)
        assert await pair.message() == b"one"  # where pages are large, there is room again now
        pair.theirs.send(garbage)
        pair.write(b"in two", LAST)
        assert await pair.message() == b"two, in two"
        assert not pair.ends
        assert pair.nothing_more()


@passing_can_be_refused
async def test_descriptors_are_refused() -> None:
    """With the packet that they are in: to drop them would be to close them."""
    with paired() as pair:
        with pytest.raises(PermissionError):
            socket.send_fds(pair.theirs, [b"junk"], [0])
        pair.write(b"x")
        assert await pair.message() == b"x"
        assert pair.nothing_more()


async def test_a_key_is_not_another_channels() -> None:
    with paired() as pair, paired() as other:
        pair.write(b"forged", key=other.ours.key)
        pair.write(b"x")
        assert await pair.message() == b"x"
        assert other.nothing_more()


async def test_a_flood_of_garbage_leaves_room_for_others() -> None:
    with paired() as flooded, paired() as other:
        flooded.theirs.setblocking(False)
        for _ in range(10_000):
            try:
                flooded.theirs.send(b"")
            except BlockingIOError:
                break
        other.write(b"x")
        assert await other.message() == b"x"
        flooded.theirs.setblocking(True)


async def test_long_messages_both_ways() -> None:
    with paired() as pair:
        text = os.urandom(MAX_BYTES)
        loop = asyncio.get_running_loop()
        pair.theirs.setblocking(False)
        for start in range(0, len(text), CHUNK_BYTES):
            more = start + CHUNK_BYTES < len(text)
            chunk = text[start : start + CHUNK_BYTES]
            await loop.sock_sendall(pair.theirs, pair.ours.key + (MORE if more else LAST) + chunk)
        assert await pair.message() == text

        pair.ours.send(text)
        pair.ours.send(b"short")
        parts: list[bytes] = []
        while not parts or parts[-1][:1] != LAST:
            parts.append(await loop.sock_recv(pair.theirs, CHUNK_BYTES + 1))
            assert len(parts[-1]) <= CHUNK_BYTES + 1
        assert b"".join([part[1:] for part in parts]) == text
        assert await loop.sock_recv(pair.theirs, CHUNK_BYTES + 1) == LAST + b"short"
        await asyncio.sleep(0)
        assert pair.ours._fd.number not in pair.ours._poller._writers  # it isn't called in vain


async def test_who_takes_no_answers_is_not_read() -> None:
    with paired() as pair:
        asked = answered = 0

        def answer(_: bytes) -> None:
            nonlocal answered
            answered += 1
            pair.ours.send(bytes(1024))

        pair.ours._on_message = answer
        pair.theirs.setblocking(False)
        loop = asyncio.get_running_loop()
        turns = 0
        while turns < 100:  # until nobody moves any more
            try:
                pair.write(b"question")
            except BlockingIOError:
                turns += 1
                await asyncio.sleep(0)
            else:
                asked, turns = asked + 1, 0
            assert sum(map(len, pair.ours._unsent)) <= MAX_UNSENT_BYTES + 2048
        assert asked > answered
        # Once it takes them, everything is read and answered.
        got = 0
        async with asyncio.timeout(10):
            while got < asked:
                assert await loop.sock_recv(pair.theirs, CHUNK_BYTES + 1) == LAST + bytes(1024)
                got += 1
        assert answered == asked
        assert not pair.ours._unsent_bytes
        assert not pair.ends


async def test_what_is_there_is_taken_without_a_turn() -> None:
    with paired() as pair:
        pair.ours.pause()
        assert pair.ours._fd.number not in pair.ours._poller._readers  # it isn't called in vain
        for number in range(4):
            pair.write(b"%d" % number)
        pair.ours.drain(3)
        assert [await pair.message() for _ in range(3)] == [b"0", b"1", b"2"]
        assert pair.nothing_more()
        pair.ours.resume()
        assert await pair.message() == b"3"


async def test_too_long_a_message_ends_it() -> None:
    with paired() as pair:
        pair.theirs.setblocking(False)
        loop = asyncio.get_running_loop()
        part = pair.ours.key + MORE + bytes(CHUNK_BYTES)
        for _ in range(MAX_BYTES // CHUNK_BYTES):
            await loop.sock_sendall(pair.theirs, part)
        assert not pair.ended.is_set()
        await loop.sock_sendall(pair.theirs, part)
        async with asyncio.timeout(10):
            await pair.ended.wait()
        assert pair.reason == f"sends more than {MAX_BYTES} bytes at once"
        with pytest.raises(BrokenPipeError):
            pair.theirs.send(part)
        assert pair.nothing_more()


@pytest.mark.parametrize("how", ["close", "both", "write"])
async def test_end(how: str) -> None:
    with paired() as pair:
        pair.write(b"last words")
        pair.write(b"half", MORE)
        if how == "close":
            pair.theirs.close()
        else:
            pair.theirs.shutdown(socket.SHUT_RDWR if how == "both" else socket.SHUT_WR)
        async with asyncio.timeout(10):
            await pair.ended.wait()
        assert await pair.message() == b"last words"
        assert pair.nothing_more()
        assert not pair.reason
        pair.ours.send(b"to nobody")
        pair.ours.pause()
        pair.ours.resume()
        pair.ours.close()
        assert pair.ends == 1


async def test_an_end_that_leaves_what_it_was_sent() -> None:
    """Which the kernel tells before it gives what that end has sent itself: all comes."""
    with paired() as pair:
        pair.ours.send(b"never read")
        for number in range(3):
            pair.write(b"%d" % number)
        pair.theirs.close()
        async with asyncio.timeout(10):
            await pair.ended.wait()
        assert [await pair.message() for _ in range(3)] == [b"0", b"1", b"2"]
        assert (pair.ends, pair.reason) == (1, "")


async def test_sending_to_an_end_that_is_gone() -> None:
    with paired() as pair:
        pair.theirs.close()
        pair.ours.send(bytes(MAX_BYTES))
        async with asyncio.timeout(10):
            await pair.ended.wait()
        assert pair.ends == 1


async def test_closing_with_something_unsent() -> None:
    with paired() as pair:
        pair.ours.send(bytes(MAX_BYTES))
        pair.ours.close()
        pair.ours.close()
        assert not pair.ends
