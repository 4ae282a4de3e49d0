"""ShellSession: one long-lived shell, which runs commands one after another.

The shell reads two short lines for each command from its own input: source the script with the
command's pipes as its descriptors; then write `$?` into the session's control pipe, by path. All
else that it ever sees of procd is a trap on SIGURG, which has it leave a script that is to end.
"""

import asyncio
import logging
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
from procd.services.command import UNKNOWN, Command, CommandRecord
from procd.streams.backlog import Backlog
from procd.unix import proctree
from procd.unix.child import ExitStatus
from procd.unix.fd import OwnedFd
from procd.unix.feed import Feed
from procd.unix.openings import Openings
from procd.unix.reader import FdReader

log = logging.getLogger(__name__)

MAX_STATUS_BYTES: Final = 4096
# Ignored by a shell without a trap for it, and of no use to programs.
LEAVE: Final = signal.SIGURG
# What a command's status is when it was told to end: 128 + SIGTERM.
TERMINATED: Final = 143
# A command whose processes were all killed may go on in the shell itself, or start others.
TERMINATE_ROUND_S: Final = 0.01
# How long to wait for the sight of the shell in a script, which may have redirected itself.
IN_SCRIPT_S: Final = 0.5
# How long a shell may take to end when it has closed its input.
EXIT_S: Final = 1.0
# What the shell says while it runs no command is kept, in case that these are its last words.
LAST_WORDS_BYTES: Final = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRequest:
    """What to create."""

    id: str
    cwd: str = ""
    envs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecRequest:
    """What to run in a session; `timeout_s` 0 means as long as it takes."""

    command: str
    run_async: bool = False
    suppress_input_echo: bool = False
    timeout_s: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRequest:
    """What to type into a command, and whether that is all.

    Attributes:
        key: two requests with the same key are the same request; empty for one like no other.
    """

    data: bytes
    eof: bool = False
    key: str = ""


class ShellSession:
    """One shell and its commands, from its creation until it is deleted.

    Args:
        process: the shell, whose output is kept in `words`.
        feed: the writing end of its standard input.
        builtin: the shell's word that finds a builtin whatever functions there are.
    """

    def __init__(
        self, session_id: str, process: Process, words: Backlog, feed: OwnedFd, *, builtin: str,
        directory: Path, store: LogStore, config: SessionsConfig, processes: Processes,
    ) -> None:  # fmt: skip
        self.id = session_id
        self.commands: dict[str, Command] = {}
        self._process = process
        self._processes = processes
        self._words = words
        self._builtin = builtin
        self._directory = directory
        self._store = store
        self._config = config
        self._openings = Openings(processes.confinement, directory)
        self._queue: deque[Command] = deque()
        self._current: Command | None = None
        self._numbers = 0
        self._status = 0
        self._asked = False
        self._over = False
        self._feed_fd = feed
        self._feed = Feed(processes.poller, feed, self._lines_read, self._input_closed)
        # Both ends are ours, so that the shell never waits and we never see an end.
        self._control = self._openings.channel("control")
        self._statuses = FdReader(processes.poller, self._control.fd, self._status_received, _never)
        self._partial = b""
        self._feed.write(f"{builtin} trap 'return {TERMINATED}' URG\n".encode())
        process.done.add_done_callback(self._shell_ended)

    def usage(self) -> dict[str, int] | None:
        """What all in it use, as far as it is known (see `Process.usage`)."""
        return self._process.usage()

    @property
    def pid(self) -> int:
        """The shell's."""
        return self._process.record.pid

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
            SpawnFailed: there is no descriptor for its input.
        """
        if not request.command.strip():
            raise BadRequest("command cannot be empty")
        if self.ended or self._over:
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
        file = self._store.create(self._directory / f"{record.number}.log")
        try:
            command = Command(record, file, self._openings, self._processes.poller)
        except OSError as exc:
            raise SpawnFailed(f"cannot start a command: {exc.strerror}") from exc
        self.commands[record.id] = command
        self._queue.append(command)
        if request.timeout_s:
            timer = asyncio.get_running_loop().call_later(request.timeout_s, self._time_up, command)
            command.done.add_done_callback(lambda _: timer.cancel())
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
                paths = command.open()
            except OSError as exc:
                command.log.append(f"cannot start a command: {exc.strerror}".encode(), STDERR)
                command.complete(UNKNOWN)
                continue
            self._current = command
            self._asked = False
            self._words.clear()
            tag = self._process.tag(command.record.number)
            retag = "" if self._process.retag(tag) else proctree.retag_in_shell(tag)
            self._feed.write(retag.encode() + self._lines(command, *paths))

    def _lines(self, command: Command, script: str, stdin: str, stdout: str, stderr: str) -> bytes:
        quote = shlex.quote
        # `$?` is that of the command before. Not last in its list, it ends no `set -e` shell.
        before = f"(exit {self._status}) && :\n" if self._status else ""
        streams = f"<{quote(stdin)} >{quote(stdout)} 2>{quote(stderr)}"
        # Quoted, the word is no alias either.
        say = f"{self._builtin} 'printf' '{command.record.number} %s\\n' \"$?\""
        return (
            f"{before}{self._builtin} . {quote(script)} {streams}\n"
            f"{say} >{quote(self._control.path)}\n"
        ).encode()

    def _status_received(self, data: bytes) -> None:
        *lines, self._partial = (self._partial + data).split(b"\n")
        self._partial = self._partial[:MAX_STATUS_BYTES]
        for line in lines:
            number, _, word = line.partition(b" ")
            command = self._current
            if not (number.isdigit() and word.isdigit()):
                log.warning("shell says %r", line[:80], extra={"session": self.id})
                self._never_says()
            elif command is not None and int(number) == command.record.number:
                self._completed(command, int(word))

    def _lines_read(self) -> None:
        """The shell has read all lines: a command's status has come, or is about to, or never will.

        A shell that reads in blocks does so as the command begins. One more line, an empty one,
        tells: when it is read as well, what went before it was done.
        """
        command = self._current
        self._statuses.drain()
        if command is not self._current:
            return  # that was it; the next one's lines have been written
        if command is None:
            self._feed.rest()
        elif not self._asked:
            self._asked = True
            self._feed.write(b"\n")
        else:
            self._never_says()

    def _input_closed(self) -> None:
        """The shell's input has no reader: it is about to end, unless it has closed it itself."""

        def check(command: Command | None) -> None:
            if command is not None and command is self._current:
                self._never_says()

        asyncio.get_running_loop().call_later(EXIT_S, check, self._current)

    def _never_says(self) -> None:
        """The shell can't be trusted to say how commands end: its words mean something else by now,
        it reads and does nothing (`set -n`), or has closed its input. Its session is over.
        """
        command, self._current = self._current, None
        self._over = True
        self._feed.rest()
        self._process.kill()
        if command is not None:
            command.log.append(
                b"\nprocd: the shell does not say how this command ended; the session is over\n",
                STDERR,
            )
            command.complete(UNKNOWN)

    def _completed(self, command: Command, exit_code: int) -> None:
        self._current = None
        self._status = exit_code & 0xFF
        command.complete(exit_code or (TERMINATED if command.terminated else 0))
        self._next()

    def _shell_ended(self, done: "asyncio.Future[ExitStatus]") -> None:
        if done.cancelled():
            return
        self._statuses.drain()  # the status of a command may have come before the end
        exit_status = self._process.record.exit
        assert exit_status is not None
        if self._current is not None:
            command, self._current = self._current, None
            command.take_pending()
            # What the shell said at its end, in a trap for instance, went to its own streams.
            for run in self._words.runs():
                command.log.append(run.data, run.stream)
            command.complete(exit_status.shell_code)
            if exit_status.signal is not None:
                command.seal()  # what it waited for is nobody's background child
        self._words.clear()
        while self._queue:
            self._queue.popleft().cancel("session ended before the command's turn")
        self._close()
        log.info("session ended", extra={"session": self.id, "exit_code": exit_status.shell_code})

    def _close(self) -> None:
        self._feed_fd.close()
        self._statuses.close()
        self._control.close()
        self._process.hang_up()

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
            key=wanted.key,
            queue_bytes=self._config.input_queue_bytes,
            shell=self.pid,
            tasks=self._processes.tasks,
        )

    def tree(self, command: Command) -> proctree.Tree:
        """The processes that a command has started, wherever they are, but not the shell."""
        shell = self._process.record.tree.leader
        tag = self._process.tag(command.record.number)
        return proctree.Tree(0, tag, proctree.EVERY_BIT, host=shell)

    def signal(self, command: Command, number: int) -> None:
        """Send a signal to all processes of a command, which the shell isn't one of.

        Raises:
            CommandCompleted: it has ended, or its turn has not come.
        """
        command.raise_if_never_run()
        command.check_not_ended()
        if not command.running:
            raise Conflict("command is waiting for its turn")
        for pidfd in proctree.signal_tree(self.tree(command), number, self._processes.pids):
            pidfd.close()

    async def terminate(self, command: Command) -> bool:
        """End one command and keep the shell; those before it keep their background jobs.

        Its processes are sent SIGTERM, after `sessions.grace_s` SIGKILL; the shell leaves the
        script. Where it doesn't, the shell has to be ended: False is returned then. All this is
        done whatever becomes of the caller.

        Raises:
            CommandCompleted: it has ended.
        """
        command.raise_if_never_run()
        command.check_not_ended()
        ending = self._ending(command, self._config.grace_s)
        return await self._processes.tasks.finish(ending, f"terminate {command.record.id}")

    def _time_up(self, command: Command) -> None:
        command.timed_out = True
        self._processes.tasks.start(self._ending(command, 0), f"time up {command.record.id}")

    async def _ending(self, command: Command, grace_s: float) -> bool:
        command.terminated = True
        if command in self._queue:
            self._queue.remove(command)
            command.complete(UNKNOWN)
            return True
        if command.record.interactive:
            # A `read` of the shell's own ends so.
            command.end_input(self.pid, self._processes.tasks)
        tree, supervised = self.tree(command), self._processes.pids
        number, round_s = (signal.SIGTERM, grace_s) if grace_s else (signal.SIGKILL, 0.0)
        begin = time.monotonic()
        deadline = begin + grace_s + proctree.KILL_WAIT_S
        while not command.done.done() and time.monotonic() < deadline:
            self._leave(command, blindly=time.monotonic() > begin + IN_SCRIPT_S)
            reached = proctree.signal_tree(tree, number, supervised)
            await proctree.ended(reached, round_s or proctree.KILL_WAIT_S)
            await asyncio.wait([command.done], timeout=TERMINATE_ROUND_S)
            number, round_s = signal.SIGKILL, 0.0
        if command.done.done():
            # Its background children are part of it.
            reached = proctree.signal_tree(tree, signal.SIGKILL, supervised)
            await proctree.finish_kill(tree, reached, supervised)
            return True
        self._process.kill()
        await self._process.killed()
        await asyncio.wait([command.done], timeout=proctree.KILL_WAIT_S)
        return False

    def _leave(self, command: Command, *, blindly: bool) -> None:
        """Have the shell leave a script as soon as what it waits for has ended.

        Some shells would take it for the end of their input before the script and after it.
        """
        self._statuses.drain()
        if command is self._current and (blindly or command.entered_by(self.pid)):
            self._process.signal(LEAVE)

    async def delete(self) -> None:
        """End all that runs in it, then forget everything about it."""
        self._over = True
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
        self._close()
        for command in self.commands.values():
            command.cancel("session was deleted")
            command.remove()
        shutil.rmtree(self._directory, ignore_errors=True)


def _never() -> None:
    raise AssertionError("a pipe that is open for writing has no end")
