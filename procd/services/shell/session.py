"""A shell session: one long-lived shell, the commands that it runs one by one, and their memory."""

import asyncio
import logging
import sys
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGTERM

from procd.config import SessionsConfig
from procd.errors import BadRequest, Exhausted, ProcessNotFound, SessionEnded, SpawnFailed
from procd.output.budget import Budget
from procd.output.logfile import LogStore
from procd.process.child import ExitStatus
from procd.process.process import STDERR
from procd.services.shell.command import ENDED_BEFORE, LEAST_BYTES, Command, ExecRequest
from procd.services.shell.driver import ShellDriver
from procd.unix.file import remove_tree

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRequest:
    id: str
    cwd: str = ""
    envs: Mapping[str, str] = field(default_factory=dict)


class CommandStore:
    """The commands of one session by id, oldest first, until they are forgotten.

    `memory` is what the commands of all sessions may take, mostly by their texts. Of `stores`,
    those of all sessions, the one that takes the most loses its oldest commands first.
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

        Raises Exhausted if too many haven't ended, or SpawnFailed if no descriptor is left.
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
        """The command of this id; raises ProcessNotFound."""
        command = self.commands.get(command_id)
        if command is None:
            raise ProcessNotFound("command not found")
        return command

    def _cost_bytes(self) -> int:
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
        going: list[tuple[CommandStore, Command]] = []
        used = self._memory.used_bytes + size
        for store in sorted(self._stores(), key=CommandStore._cost_bytes, reverse=True):
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
        for command in [*self.commands.values()]:
            self.forget(command)
        remove_tree(self._directory)


def no_memory(memory: Budget) -> Exhausted:
    return Exhausted(f"limit of {memory.most_bytes} bytes of commands' texts is reached")


class ShellSession:
    """One shell and its commands, from its creation until it is deleted."""

    def __init__(
        self,
        session_id: str,
        driver: ShellDriver,
        commands: CommandStore,
        config: SessionsConfig,
    ) -> None:
        self.id = session_id
        self.commands = commands
        self.driver = driver
        self._config = config
        self._queue: deque[Command] = deque()
        self._current: Command | None = None
        self._over = False  # it is deleted, or its shell is silent
        driver.on_status = self._status_reported
        driver.on_silent = self._shell_silent
        driver.process.done.add_done_callback(self._shell_exited)

    @property
    def _closed(self) -> bool:
        return self.driver.ended or self._over or bool(self.driver.end_reason)

    def exec(self, request: ExecRequest, command_id: str = "") -> Command:
        """Accept a command; it runs when those before it have ended.

        Raises BadRequest: it is blank; SessionEnded; Exhausted: too many wait, or are remembered;
        SpawnFailed: there is no descriptor for its input.
        """
        if not request.command.strip():
            raise BadRequest("command cannot be empty")
        if self._closed:
            reason = self.driver.end_reason or "its shell has exited"
            raise SessionEnded(f"session has ended: {reason}")
        if len(self._queue) >= self._config.max_queued:
            raise Exhausted(f"limit of {self._config.max_queued} queued commands is reached")
        command = self.commands.add(command_id, request, self.driver, self._free)
        self._queue.append(command)
        self._run_next()
        return command

    def _run_next(self) -> None:
        """Run the next command, unless the shell isn't free.

        Nothing is started while a command is being ended: until the shell has its own tag, its
        processes would be taken for those of that command.
        """
        while self._current is None and self._queue and not self._closed:
            command = self._queue.popleft()
            command.run()
            if not command.done.done():
                self._current = command

    def _free(self, command: Command) -> None:
        if command is self._current:
            self._current = None
        elif command in self._queue:
            self._queue.remove(command)
        self._run_next()

    def _status_reported(self, status: int) -> None:
        if self._current is not None:
            self._current.status_reported(status)

    def _shell_silent(self) -> None:
        log.warning("shell does not report how commands end", extra={"session": self.id})
        self._over = True
        self.driver.process.kill()
        if self._current is not None:
            self._current.shell_silent()

    def _shell_exited(self, done: "asyncio.Future[ExitStatus]") -> None:
        if done.cancelled():
            return
        self.driver.poll()  # the status of a command may have come before the exit
        exit_status = done.result()
        if self._current is not None and not self._current.done.done():
            self._current.shell_exited(exit_status)
        while self._queue:
            command = self._queue.popleft()
            reason = ENDED_BEFORE
            if self.driver.end_reason:
                reason += f": {self.driver.end_reason}"
                command.log.append(f"procd: {reason}\n".encode(), STDERR)
            command.cancel(reason)
        self.driver.close()
        log.info("session ended", extra={"session": self.id, "exit_code": exit_status.shell_code})

    async def delete(self) -> None:
        self._over = True
        process = self.driver.process
        try:
            await self.driver.trees.turns.take()
            while self._queue:
                self._queue.popleft().cancel("session was deleted")
            current, self._current = self._current, None  # however it ends from now on
            # Before its input ends: half of that must not be taken for all of it.
            signalled = await process.send_signal(SIGTERM)
            self.driver.end_of_lines()
            if current is not None:
                current.cancel("session was deleted")
            await process.wait_then_kill(signalled, self._config.grace_s)
            await self.commands.clear()
        finally:
            self.close()

    def close(self) -> None:
        self._current = None  # the shell's exit may be about to be reported
        self.driver.close()
        self.commands.close()
