"""History: the commands that a session remembers, and what they may take."""

import asyncio
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from operator import attrgetter
from pathlib import Path
from typing import Final

from procd.errors import Exhausted, ProcessNotFound, SpawnFailed
from procd.output.budget import Budget
from procd.output.logstore import LogStore
from procd.services.shell.command import LEAST_BYTES, Command, CommandRecord
from procd.services.shell.proc_path import Openings
from procd.unix.file import remove_tree

# Commands forgotten in one turn of the event loop, each with its files.
TURN_COMMANDS: Final = 128
# What of their logs is deleted in one turn: the kernel frees some 8 GB a second.
TURN_BYTES: Final = 32 << 20


class History:
    """The commands of one session, from their acceptance until they are forgotten.

    Args:
        directory: where their logs are; it goes with the session.
        texts: what all sessions' commands may take, mostly by their texts.
        histories: those of all sessions; the one that takes the most gives way first.
        openings: where the shell finds what it opens.
        most: commands remembered; the oldest that are over go first.

    Attributes:
        commands: by id, oldest first.
        cost_bytes: what they take in memory.
    """

    def __init__(
        self, directory: Path, store: LogStore, texts: Budget,
        histories: Callable[[], Iterable["History"]], openings: Openings,
        loop: asyncio.AbstractEventLoop, most: int,
    ) -> None:  # fmt: skip
        self.commands: dict[str, Command] = {}
        self.cost_bytes = 0
        self._directory = directory
        self._store = store
        self._texts = texts
        self._histories = histories
        self._openings = openings
        self._loop = loop
        self._most = most
        self._numbers = 0

    def add(self, text: str, command_id: str, *, interactive: bool, echoes: bool) -> Command:
        """A new command, of this id or one of its own if that is empty.

        Raises:
            Exhausted: too many are remembered that aren't over; nothing is forgotten then.
            SpawnFailed: there is no descriptor for its input.
        """
        size = sys.getsizeof(text)
        self._make_room(LEAST_BYTES + size)
        self._numbers += 1
        record = CommandRecord(
            id=command_id or str(uuid.uuid4()),
            text=text,
            size=size,
            number=self._numbers,
            interactive=interactive,
            echoes=echoes,
        )
        file = self._store.create(self._directory / f"{record.number}.log")
        try:
            command = Command(record, file, self._openings, self._loop)
        except OSError as exc:
            self._give_back(LEAST_BYTES + size)
            raise SpawnFailed(f"cannot start a command: {exc.strerror}") from exc
        self.commands[record.id] = command
        return command

    def over(self) -> Iterator[Command]:
        """The commands that are over, oldest first."""
        return (command for command in self.commands.values() if command.log.sealed)

    def _make_room(self, size: int) -> None:
        """Count `size` bytes of one more; for it go the oldest that are over, if that will do."""
        texts = self._texts
        number = len(self.commands) + 1
        used = texts.used_bytes + size
        candidates = self._candidates()
        going: list[tuple[History, Command]] = []
        while number > self._most or used >= texts.most_bytes:
            history, command = next(candidates, (None, None))
            if number > self._most and history is not self:
                raise Exhausted(f"limit of {self._most} commands is reached")
            if history is None or command is None:
                raise no_room(texts)
            going.append((history, command))
            number -= 1
            used -= command.cost_bytes
        for history, command in going:
            history.forget(command)
        texts.used_bytes += size
        self.cost_bytes += size

    def _candidates(self) -> Iterator[tuple["History", Command]]:
        """What may go for one more, of the histories that take the most first.

        Where this one has as many as it may, its own go before.
        """
        full = len(self.commands) >= self._most
        if full:
            for command in self.over():
                yield self, command
        for history in sorted(self._histories(), key=attrgetter("cost_bytes"), reverse=True):
            if not (full and history is self):
                for command in history.over():
                    yield history, command

    def forget(self, command: Command) -> None:
        """Forget one that is over."""
        del self.commands[command.record.id]
        self._remove(command)

    def _remove(self, command: Command) -> None:
        command.remove()
        self._give_back(command.cost_bytes)

    def _give_back(self, size: int) -> None:
        self.cost_bytes -= size
        self._texts.give_back(size)

    def get(self, command_id: str) -> Command:
        """The command of this id.

        Raises:
            ProcessNotFound: there is none.
        """
        command = self.commands.get(command_id)
        if command is None:
            raise ProcessNotFound("command not found")
        return command

    async def clear(self) -> None:
        """Forget all of them, whatever still runs, and leave turns of the event loop to others."""
        number = size = 0
        while self.commands:
            command = next(reversed(self.commands.values()))
            while command.file.kept_bytes > TURN_BYTES and not command.log.readers:
                command.file.drop(TURN_BYTES)
                await asyncio.sleep(0)
            number += 1
            size += command.file.kept_bytes
            self._forget(1)
            if number == TURN_COMMANDS or size > TURN_BYTES:
                number = size = 0
                await asyncio.sleep(0)
        self.close()

    def close(self) -> None:
        """Forget all of them at once, whatever still runs."""
        with ExitStack() as each:
            each.callback(remove_tree, self._directory)
            each.callback(self._forget, len(self.commands))

    def _forget(self, number: int) -> None:
        """Forget the latest."""
        with ExitStack() as each:  # whatever one of them raises, the others go
            for _ in range(min(number, len(self.commands))):
                _, command = self.commands.popitem()
                each.callback(self._remove, command)
                each.callback(command.cancel, "session was deleted")


def no_room(texts: Budget) -> Exhausted:
    """What takes memory isn't over."""
    return Exhausted(f"limit of {texts.most_bytes} bytes of commands' texts is reached")
