"""Keyboard: what waits of clients that have left is handed over for a while, and is bounded."""

import asyncio
import os
from contextlib import suppress
from itertools import pairwise

import pytest

from procd.process.io import FdWriter
from procd.services.pty.input_queue import MESSAGE_COST_BYTES, MESSAGES_A_TURN, Keyboard, Typist
from procd.tasks import Tasks
from procd.unix.fd import OwnedFd
from tests.waiting import until

# More than a pipe takes.
FILL = b"x" * 100_000
LONG_S = 3600


class Program:
    """A keyboard whose queue has had its last message, and the pipe to read it from."""

    def __init__(self) -> None:
        self._read, write = os.pipe2(os.O_NONBLOCK)
        self._fd = OwnedFd(write)
        self._writer = FdWriter(asyncio.get_running_loop(), self._fd)
        self.keys = Keyboard(Tasks(), 1024)
        self.keys.plug_in(self._writer)
        Typist(self.keys).type(FILL)

    async def reads(self, expected: bytes) -> None:
        """Read what was typed after that."""
        output = bytearray()

        def complete() -> bool:
            try:
                output.extend(os.read(self._read, 1 << 16))
            except BlockingIOError:
                return False
            return len(output) >= len(FILL) + len(expected)

        await until(complete)
        assert output == FILL + expected

    def close(self) -> None:
        """End it."""
        self._writer.abandon()
        self._fd.close()
        os.close(self._read)


async def test_what_was_typed_by_who_has_left_is_handed_over() -> None:
    """In its turn, and nothing that is typed later."""
    program = Program()
    gone, here = Typist(program.keys), Typist(program.keys)
    gone.type(b"1")
    here.type(b"2")
    gone.leave(LONG_S)
    gone.type(b"never")
    gone.leave()  # a second time does nothing
    here.type(b"3")
    await program.reads(b"123")
    program.close()


async def test_a_terminal_that_goes_when_all_have_left(caplog: pytest.LogCaptureFixture) -> None:
    """There is nothing to hand over any more, and nobody to drop it of."""
    program = Program()
    client = Typist(program.keys)
    client.type(b"1")
    await asyncio.sleep(0)
    assert program.keys._writer is not None
    assert program.keys._writer._waiters, "it isn't looked for room in each turn"
    client.leave()
    program.close()
    await until(lambda: not program.keys._hands_over)
    await asyncio.sleep(0)
    assert not caplog.messages


async def test_of_one_at_a_time() -> None:
    """Until that is handed over, others take theirs along; after that, the next may leave some."""
    program = Program()
    clients = [Typist(program.keys) for _ in range(4)]
    for client, data in zip(clients, (b"1", b"2", b"3", b"4"), strict=True):
        client.type(data)
        client.leave(LONG_S)
    assert [client.waiting_bytes > 0 for client in clients] == [True, False, False, False]
    await program.reads(b"1")
    await until(lambda: not program.keys._hands_over)
    Typist(program.keys).type(FILL)
    late = Typist(program.keys)
    late.type(b"5")
    late.leave(LONG_S)
    assert late.waiting_bytes > 0
    await program.reads(b"5")
    program.close()


async def test_the_order_of_many_stays_whoever_leaves() -> None:
    program = Program()
    clients = [Typist(program.keys) for _ in range(5)]
    typed = [(at * 7 % 5, b"%d," % at) for at in range(200)]
    for who, data in typed:
        clients[who].type(data)
    clients[1].leave()
    clients[4].leave()
    clients[0].type(b"end")
    await program.reads(b"".join(data for who, data in typed if who not in (1, 4)) + b"end")
    program.close()


async def test_who_types_when_there_is_room_again_goes_behind_those_who_wait() -> None:
    program = Program()
    first, second = Typist(program.keys), Typist(program.keys)
    first.type(b"1")
    output = bytearray()
    while program._writer.queued_bytes:  # in this turn, in which nothing is handed over
        output += os.read(program._read, 1 << 16)
        program._writer._writable()
    second.type(b"2")
    assert second.waiting_bytes > 0
    await until(lambda: not second.waiting_bytes)
    while len(output) < len(FILL) + 2:
        output += os.read(program._read, 1 << 16)
    assert output == FILL + b"12"
    program.close()


async def test_no_more_is_handed_over_than_there_is_room_for() -> None:
    """In order, whoever leaves meanwhile; who waits for that learns of it."""
    program = Program()
    clients = [Typist(program.keys) for _ in range(3)]
    messages = [bytes([number]) * 100_000 for number in range(4)]
    for client, message in zip((*clients, clients[0]), messages, strict=True):
        client.type(message)
    handed_over = asyncio.ensure_future(clients[0].wait(len(messages[3]) + MESSAGE_COST_BYTES))
    await asyncio.sleep(0)
    assert not handed_over.done()
    output = bytearray()

    def read() -> bool:
        with suppress(BlockingIOError):
            output.extend(os.read(program._read, 1 << 12))
        assert program._writer.queued_bytes <= len(FILL)
        return len(clients[0].waiting) < 2

    await until(read)
    clients[1].leave()
    assert [len(client.waiting) for client in clients] == [1, 0, 1]
    async with asyncio.timeout(10):
        await handed_over
    nothing_waits = asyncio.ensure_future(clients[0].wait(0))
    await asyncio.sleep(0)
    clients[0].type(b"more")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not nothing_waits.done(), "more came, and what was to be handed over wasn't"
    await until(lambda: read() and len(output) == 4 * len(FILL) + 4)
    assert output == FILL + messages[0] + messages[2] + messages[3] + b"more"
    async with asyncio.timeout(10):
        await nothing_waits
    program.close()


@pytest.mark.parametrize("end", [False, True])
async def test_what_waits_goes_in_turns(end: bool) -> None:
    """To the terminal; or, when that has gone, each client's at once, and of one after another."""
    program = Program()
    clients = [Typist(program.keys) for _ in range(3)]
    for _ in range(4 * MESSAGES_A_TURN):
        for client in clients:
            client.type(b"x")

    def waiting() -> list[int]:
        return [len(client.waiting) for client in clients]

    await asyncio.sleep(0)
    if end:
        program.close()
        left = [waiting()]
        while any(left[-1]):
            await asyncio.sleep(0)
            left.append(waiting())
        assert [sum(map(bool, each)) for each in left[-4:]] == [3, 2, 1, 0]
    else:
        reading = asyncio.ensure_future(program.reads(b"x" * sum(waiting())))
        left = [waiting()]
        while not reading.done():
            await asyncio.sleep(0)
            left.append(waiting())
        await reading
        assert max(sum(a) - sum(b) for a, b in pairwise(left)) == MESSAGES_A_TURN
        program.close()
    assert [client.waiting_bytes for client in clients] == [0] * 3


@pytest.mark.parametrize("within_s", [0, 0.01])
async def test_what_nobody_reads_goes(within_s: float) -> None:
    """At once or after a while, with who has typed it."""
    program = Program()
    gone, here = Typist(program.keys), Typist(program.keys)
    gone.type(b"1")
    here.type(b"2")
    gone.leave(within_s)
    await until(lambda: gone.waiting_bytes == 0)
    await program.reads(b"2")
    program.close()
