"""InputQueue: what waits is served round robin, and bounded when clients have gone."""

import asyncio
import os
from collections.abc import AsyncIterator

import pytest

from procd.process.io import FdWriter
from procd.services.pty.input_queue import InputQueue, TerminalInput
from procd.tasks import Tasks
from procd.unix.fd import OwnedFd
from tests.waiting import until

# More than a pipe takes.
FILL = b"x" * 100_000
LONG_S = 3600


class Terminal:
    """The input of a terminal that has as much as it takes, and the pipe to read it from."""

    def __init__(self) -> None:
        self._read, write = os.pipe2(os.O_NONBLOCK)
        self._fd = OwnedFd(write)
        self._writer = FdWriter(asyncio.get_running_loop(), self._fd)
        self.tasks = Tasks()
        self.input = TerminalInput(self.tasks, 1024)
        self.input.connect(self._writer)
        InputQueue(self.input).put(FILL)

    async def reads(self, expected: bytes) -> None:
        """Read what came after that."""
        output = bytearray()

        def complete() -> bool:
            try:
                output.extend(os.read(self._read, 1 << 16))
            except BlockingIOError:
                return False
            return len(output) >= len(FILL) + len(expected)

        await until(complete)
        assert output == FILL + expected

    async def close(self) -> None:
        """End it."""
        self._writer.abandon()
        self._fd.close()
        os.close(self._read)
        await self.tasks.aclose(10)


@pytest.fixture
async def terminal() -> AsyncIterator[Terminal]:
    made = Terminal()
    yield made
    await made.close()


async def test_clients_are_served_in_turn(terminal: Terminal) -> None:
    first, second = InputQueue(terminal.input), InputQueue(terminal.input)
    for number in range(300):
        first.put(b"%03d" % number)
    for text in (b"a", b"b"):
        second.put(text)
    rest = b"".join(b"%03d" % number for number in range(2, 300))
    await terminal.reads(b"000a001b" + rest)
    assert (first.waiting_bytes, second.waiting_bytes) == (0, 0)


async def test_a_client_waits_until_there_is_room(terminal: Terminal) -> None:
    client = InputQueue(terminal.input)
    client.put(FILL)
    waiting = asyncio.ensure_future(client.wait(0))
    await asyncio.sleep(0)
    assert not waiting.done()
    await terminal.reads(FILL)
    async with asyncio.timeout(10):
        await waiting


async def test_input_of_one_closed_client_may_linger(terminal: Terminal) -> None:
    clients = [InputQueue(terminal.input) for _ in range(4)]
    for client, data in zip(clients, (b"1", b"2", b"3", b"4"), strict=True):
        client.put(data)
    for client in clients[:3]:
        client.close(LONG_S)
        client.put(b"never")
        client.close()  # a second time does nothing
    assert [client.waiting_bytes > 0 for client in clients] == [True, False, False, True]
    await terminal.reads(b"14")
    # The next one may then.
    InputQueue(terminal.input).put(FILL)
    late = InputQueue(terminal.input)
    late.put(b"5")
    late.close(0.01)
    await until(lambda: not late.waiting_bytes)


async def test_a_terminal_that_is_closed_frees_its_clients(terminal: Terminal) -> None:
    client = InputQueue(terminal.input)
    client.put(b"1")
    waiting = asyncio.ensure_future(client.wait(0))
    await asyncio.sleep(0)
    terminal._writer.abandon()
    terminal._fd.close()
    async with asyncio.timeout(10):
        await waiting
