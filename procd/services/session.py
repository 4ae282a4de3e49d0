"""ShellSession: one long-lived shell, which runs commands one after another.

The shell reads one short line for each command from its own input: source the script with the
command's FIFOs as its descriptors, then write `$?` into the session's control FIFO, by path. That
is all that it ever sees of procd.
"""

import asyncio
import logging
import os
import shlex
import shutil
import signal
import time
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from procd.config import SessionsConfig
from procd.errors import (
    BadRequest,
    Conflict,
    Exhausted,
    ProcessNotFound,
    SessionEnded,
    SpawnFailed,
)
from procd.logfile import LogStore
from procd.process import STDERR, Process
from procd.processes import Processes
from procd.services.command import Command, CommandRecord
from procd.unix import proctree
from procd.unix.child import ExitStatus
from procd.unix.fd import FdReader, open_fifo

log = logging.getLogger(__name__)

MAX_STATUS_BYTES: Final = 4096
# A command whose processes were all killed may go on in the shell itself, or start others.
TERMINATE_ROUND_S: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRequest:
    """What to create."""

    id: str
    cwd: str = ""
    envs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecRequest:
    """What to run in a session."""

    command: str
    run_async: bool = False
    suppress_input_echo: bool = False
    timeout_s: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRequest:
    """What to type into a command, and whether that is all."""

    data: bytes
    eof: bool = False


class ShellSession:
    """One shell and its commands, from its creation until it is deleted."""

    def __init__(
        self, session_id: str, process: Process, shell: str, directory: Path, store: LogStore,
        config: SessionsConfig, processes: Processes,
    ) -> None:  # fmt: skip
        self.id = session_id
        self.commands: dict[str, Command] = {}
        self._process = process
        self._processes = processes
        self._directory = directory
        self._store = store
        self._config = config
        self._queue: deque[Command] = deque()
        self._current: Command | None = None
        self._numbers = 0
        self._status = 0
        self._deleted = False
        # A function or an alias of the user's may have the name of either; neither is then meant.
        self._word = "\\builtin" if os.path.basename(shell) == "zsh" else "\\command"  # noqa: PTH119 - str
        self._control_path = str(directory / "control")
        os.mkfifo(self._control_path, 0o600)
        processes.confinement.give(self._control_path)
        # Both ends are ours, so that the shell never waits and we never see an end.
        self._control = FdReader(
            processes.poller,
            open_fifo(self._control_path, os.O_RDWR),
            self._status_received,
            _never,
        )
        self._partial = b""
        process.done.add_done_callback(self._shell_ended)

    def usage(self) -> dict[str, int] | None:
        """What all in it use, as far as it is known (see `Process.usage`)."""
        return self._process.usage()

    @property
    def ended(self) -> bool:
        """Whether its shell has exited."""
        return not self._process.running

    def exec(self, request: ExecRequest, command_id: str = "") -> Command:
        """Accept a command; it runs when those before it have ended.

        Raises:
            BadRequest: it is blank.
            SessionEnded: the shell has exited.
            Exhausted: `sessions.max_queued` commands are waiting.
        """
        if not request.command.strip():
            raise BadRequest("command cannot be empty")
        if self.ended or self._deleted:
            raise SessionEnded("session has ended: its shell has exited")
        if len(self._queue) >= self._config.max_queued:
            raise Exhausted(f"limit of {self._config.max_queued} queued commands is reached")
        self._forget_old()
        self._numbers += 1
        record = CommandRecord(
            id=command_id or str(uuid.uuid4()),
            text=request.command,
            number=self._numbers,
            interactive=request.run_async,
            echoes=not request.suppress_input_echo,
        )
        try:
            command = Command(record, self._directory, self._store, self._processes)
        except OSError as exc:
            raise SpawnFailed(f"cannot start a command: {exc.strerror}") from exc
        self.commands[record.id] = command
        self._queue.append(command)
        self._next()
        return command

    def _forget_old(self) -> None:
        if len(self.commands) < self._config.max_commands:
            return
        for command in self.commands.values():
            if command.log.sealed:
                del self.commands[command.record.id]
                command.remove()
                return
        raise Exhausted(f"limit of {self._config.max_commands} commands is reached")

    def _next(self) -> None:
        """Start the next command, if there is one and its turn has come."""
        while self._current is None and self._queue and not self.ended:
            command = self._queue.popleft()
            try:
                self._store.make_room(command.file, len(command.record.text))
                command.open()
            except OSError as exc:
                command.log.append(f"cannot start a command: {exc.strerror}".encode(), STDERR)
                command.complete(-1)
                continue
            self._current = command
            tree = self._process.record.tree
            proctree.retag(tree.leader, self._tag(command))
            assert self._process.stdin is not None
            self._process.stdin.write(self._line(command))

    def _tag(self, command: Command) -> int:
        """What marks the processes of one command: what they start bears it too."""
        part = command.record.number & ((1 << proctree.PART_BITS) - 1)
        return self._process.record.tree.tag + part

    def _line(self, command: Command) -> bytes:
        def quoted(kind: str) -> str:
            return shlex.quote(command.path(kind))

        # `$?` is that of the command before. Not last in its list, it ends no `set -e` shell.
        before = f"(exit {self._status}) && :\n" if self._status else ""
        stdin = quoted("in") if command.record.interactive else "/dev/null"
        streams = f"<{stdin} >{quoted('out')} 2>{quoted('err')}"
        # Quoted, the word is no alias either.
        say = f"{self._word} 'printf' '{command.record.number} %s\\n' \"$?\""
        return (
            f"{before}{self._word} . {quoted('script')} {streams}\n"
            f"{say} >{shlex.quote(self._control_path)}\n"
        ).encode()

    def _status_received(self, data: bytes) -> None:
        *lines, self._partial = (self._partial + data).split(b"\n")
        self._partial = self._partial[:MAX_STATUS_BYTES]
        for line in lines:
            number, _, word = line.partition(b" ")
            command = self._current
            if not (number.isdigit() and word.isdigit()):
                # Not what the shell was told to say: its own words mean something else by now, so
                # that it can't be trusted with another command, nor with the end of this one.
                log.warning("shell says %r", line[:80], extra={"session": self.id})
                self._process.kill()
            elif command is not None and int(number) == command.record.number:
                self._completed(command, int(word))

    def _completed(self, command: Command, exit_code: int) -> None:
        self._current = None
        self._status = exit_code & 0xFF
        command.complete(exit_code)
        self._next()

    def _shell_ended(self, done: "asyncio.Future[ExitStatus]") -> None:
        if done.cancelled():
            return
        self._control.drain()  # the status of a command may have come before the end
        exit_status = self._process.record.exit
        assert exit_status is not None
        if self._current is not None:
            command, self._current = self._current, None
            command.complete(exit_status.shell_code)
        while self._queue:
            self._queue.popleft().cancel("session ended before the command's turn")
        self._control.close()
        self._process.hang_up()
        log.info("session ended", extra={"session": self.id, "exit_code": exit_status.shell_code})

    def command(self, command_id: str) -> Command:
        """The command of this id.

        Raises:
            ProcessNotFound: there is none.
        """
        command = self.commands.get(command_id)
        if command is None:
            raise ProcessNotFound("command not found")
        return command

    async def type(self, command: Command, wanted: InputRequest) -> None:
        """Send input to a command. Source: contract, section 8.6.

        Raises:
            BadRequest, CommandCompleted, SessionEnded: as `Command.type`.
        """
        if self.ended and not command.done.done():
            raise SessionEnded("session process has exited")
        await command.type(
            wanted.data,
            eof=wanted.eof,
            queue_bytes=self._config.input_queue_bytes,
            shell=self._process.record.pid,
            tasks=self._processes.tasks,
        )

    def tree(self, command: Command) -> proctree.Tree:
        """The processes that a command has started, wherever they are, but not the shell."""
        shell = self._process.record.tree.leader
        return proctree.Tree(0, self._tag(command), proctree.EVERY_BIT, host=shell)

    def signal(self, command: Command, number: int) -> None:
        """Send a signal to all processes of a command, which the shell isn't one of.

        Raises:
            CommandCompleted: it has ended, or its turn has not come.
        """
        self._check_running(command)
        for pidfd in proctree.signal_tree(self.tree(command), number, self._processes.pids):
            pidfd.close()

    def _check_running(self, command: Command) -> None:
        command.raise_if_never_run()
        command.check_not_ended()
        if not command.running:
            raise Conflict("command is waiting for its turn")

    async def terminate(self, command: Command, *, grace_s: float) -> bool:
        """End one command and keep the shell; those before it keep their background jobs.

        Its processes are sent SIGTERM, after `grace_s` SIGKILL, and so are those that the rest of
        the script starts. What the shell itself does can't be ended without ending the shell: that
        is the last resort, and False is returned then.

        Raises:
            CommandCompleted: it has ended.
        """
        command.raise_if_never_run()
        command.check_not_ended()
        if not command.running:
            self._queue.remove(command)
            command.cancel_queued()
            return True
        if command.record.interactive:
            # A `read` of the shell's own ends so.
            command.end_input(self._process.record.pid, self._processes.tasks)
        tree, supervised = self.tree(command), self._processes.pids
        if grace_s:
            reached = proctree.signal_tree(tree, signal.SIGTERM, supervised)
            await proctree.ended(reached, grace_s)
        deadline = time.monotonic() + proctree.KILL_WAIT_S
        while not command.done.done() and time.monotonic() < deadline:
            reached = proctree.signal_tree(tree, signal.SIGKILL, supervised)
            await proctree.ended(reached, proctree.KILL_WAIT_S)
            await asyncio.wait([command.done], timeout=TERMINATE_ROUND_S)
        if command.done.done():
            # Its background children are part of it.
            await proctree.finish_kill(
                tree, proctree.signal_tree(tree, signal.SIGKILL, supervised), supervised
            )
            return True
        self._process.kill()
        await self._process.killed()
        await asyncio.wait([command.done], timeout=proctree.KILL_WAIT_S)
        return False

    async def delete(self) -> None:
        """End all that runs in it, then forget everything about it."""
        self._deleted = True
        while self._queue:
            self._queue.popleft().cancel("session was deleted")
        if self._current is not None:
            command, self._current = self._current, None
            command.cancel("session was deleted")
        try:
            await self._process.end(signal.SIGTERM, self._config.grace_s)
        finally:
            self.close()

    def close(self) -> None:
        """Forget everything about it, whatever still runs."""
        self._control.close()
        self._process.hang_up()
        for command in self.commands.values():
            command.cancel("session was deleted")
            command.remove()
        shutil.rmtree(self._directory, ignore_errors=True)


def _never() -> None:
    raise AssertionError("a FIFO that is open for writing has no end")
