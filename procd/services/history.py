"""History: the commands that a session remembers, and what they may take."""

import asyncio
import sys
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from procd.errors import Exhausted, ProcessNotFound, SpawnFailed
from procd.logstore import LogStore
from procd.services.command import LEAST_BYTES, Command, CommandRecord
from procd.streams.backlog import Budget
from procd.unix.file import remove_tree
from procd.unix.openings import Openings
from procd.unix.poller import Poller

# Commands forgotten in one turn of the event loop, each with its files.
TURN_COMMANDS: Final = 128


class History:
    """The commands of one session, from their acceptance until they are forgotten.

    Args:
        directory: where their logs are; it goes with the session.
        texts: what all sessions' commands may take, mostly by their texts.
        openings: where the shell finds what it opens.
        most: commands remembered; the oldest that are over go first.

    Attributes:
        commands: by id, oldest first.
    """

    def __init__(
        self, directory: Path, store: LogStore, texts: Budget, openings: Openings, poller: Poller,
        most: int,
    ) -> None:  # fmt: skip
        self.commands: dict[str, Command] = {}
        self._directory = directory
        self._store = store
        self._texts = texts
        self._openings = openings
        self._poller = poller
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
            command = Command(record, file, self._openings, self._poller)
        except OSError as exc:
            self._texts.give_back(LEAST_BYTES + size)
            raise SpawnFailed(f"cannot start a command: {exc.strerror}") from exc
        self.commands[record.id] = command
        return command

    def _make_room(self, size: int) -> None:
        """Count `size` bytes of one more; for it go the oldest that are over, if that will do."""
        texts = self._texts
        number = len(self.commands) + 1
        used = texts.used_bytes + size
        over = (command for command in self.commands.values() if command.log.sealed)
        going: list[Command] = []
        while number > self._most or used >= texts.most_bytes:
            command = next(over, None)
            if command is None and number > self._most:
                raise Exhausted(f"limit of {self._most} commands is reached")
            if command is None:
                raise Exhausted(f"limit of {texts.most_bytes} bytes of commands' texts is reached")
            going.append(command)
            number -= 1
            used -= command.cost_bytes
        for command in going:
            del self.commands[command.record.id]
            self._remove(command)
        texts.used_bytes += size

    def _remove(self, command: Command) -> None:
        command.remove()
        self._texts.give_back(command.cost_bytes)

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
        while len(self.commands) > TURN_COMMANDS:
            self._forget(TURN_COMMANDS)
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
