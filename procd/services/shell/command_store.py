"""The commands that a session remembers, and the memory that those of all sessions may take."""

import asyncio
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from procd.errors import Exhausted, ProcessNotFound, SpawnFailed
from procd.output.budget import Budget
from procd.output.logfile import LogStore
from procd.services.shell.command import LEAST_BYTES, Command, ExecRequest
from procd.services.shell.driver import ShellDriver
from procd.unix.file import remove_tree


class CommandStore:
    """The commands of one session, from their acceptance until they are forgotten.

    Args:
        directory: where their logs are; it goes with the session.
        logs: makes the logs.
        memory: what the commands of all sessions may take, mostly by their texts.
        stores: those of all sessions; the one that takes the most loses its oldest commands first.
        max_commands: commands remembered; the oldest that have ended go first.

    Attributes:
        commands: by id, oldest first.
    """

    def __init__(
        self,
        directory: Path,
        logs: LogStore,
        memory: Budget,
        stores: Callable[[], Iterable["CommandStore"]],
        max_commands: int,
    ) -> None:
        self.commands: dict[str, Command] = {}
        self._directory = directory
        self._logs = logs
        self._memory = memory
        self._stores = stores
        self._max_commands = max_commands
        self._last_number = 0

    def add(
        self,
        command_id: str,
        request: ExecRequest,
        driver: ShellDriver,
        on_free: Callable[[Command], None],
    ) -> Command:
        """A new command; its id is made if `command_id` is empty.

        Raises:
            Exhausted: too many are remembered that haven't ended; none is forgotten then.
            SpawnFailed: there is no descriptor for its input.
        """
        size = LEAST_BYTES + sys.getsizeof(request.command)
        self._make_room(size)
        self._last_number += 1
        number = self._last_number
        file = self._logs.create(self._directory / f"{number}.log")
        try:
            command_id = command_id or str(uuid.uuid4())
            command = Command(command_id, number, request, file, driver, on_free)
        except OSError as exc:
            self._memory.give_back(size)
            raise SpawnFailed(f"cannot start a command: {exc.strerror}") from exc
        self.commands[command.id] = command
        return command

    def get(self, command_id: str) -> Command:
        """The command of this id.

        Raises:
            ProcessNotFound: there is none.
        """
        command = self.commands.get(command_id)
        if command is None:
            raise ProcessNotFound("command not found")
        return command

    @property
    def cost_bytes(self) -> int:
        """What they take in memory."""
        return sum(command.cost_bytes for command in self.commands.values())

    def ended(self) -> Iterator[Command]:
        """The commands that can be forgotten, oldest first."""
        return (command for command in self.commands.values() if command.log.sealed)

    def _make_room(self, size: int) -> None:
        """Count one more command of `size` bytes, and forget others if that is necessary."""
        if len(self.commands) >= self._max_commands:
            if (oldest := next(self.ended(), None)) is None:
                raise Exhausted(f"limit of {self._max_commands} commands is reached")
            self.forget(oldest)
        if self._memory.used_bytes + size >= self._memory.most_bytes:
            self._free_memory(size)
        self._memory.used_bytes += size

    def _free_memory(self, size: int) -> None:
        """Forget commands until `size` bytes are free: of the sessions that take the most first."""
        going: list[tuple[CommandStore, Command]] = []
        used = self._memory.used_bytes + size
        for store in sorted(self._stores(), key=lambda each: each.cost_bytes, reverse=True):
            for command in store.ended():
                if used < self._memory.most_bytes:
                    break
                going.append((store, command))
                used -= command.cost_bytes
        if used >= self._memory.most_bytes:
            raise no_memory(self._memory)
        for store, command in going:
            store.forget(command)

    def forget(self, command: Command) -> None:
        """Forget a command, whatever it does, and delete its log."""
        del self.commands[command.id]
        command.cancel("session was deleted")
        command.remove()
        self._memory.give_back(LEAST_BYTES + command.text_bytes)

    async def clear(self) -> None:
        """Forget all of them, one in each turn of the event loop."""
        while self.commands:
            self.forget(next(reversed(self.commands.values())))
            await asyncio.sleep(0)
        self.close()

    def close(self) -> None:
        """Forget all of them at once."""
        for command in [*self.commands.values()]:
            self.forget(command)
        remove_tree(self._directory)


def no_memory(memory: Budget) -> Exhausted:
    """The commands that take the memory haven't ended."""
    return Exhausted(f"limit of {memory.most_bytes} bytes of commands' texts is reached")
