"""One command of a shell session: its state, its pipes and its log.

What an event does in each state:

| event | QUEUED | OPENING | RUNNING | LEAVING | ENDED |
|---|---|---|---|---|---|
| `run`: its turn has come | OPENING, or ENDED -1 without pipes | | | | |
| the shell opens the script | | RUNNING | | | |
| `status_reported` | | ENDED -1: it can't be opened | ENDED, the status | ENDED 143 | |
| `shell_exited` | never ran | never ran | ENDED, its exit code | as RUNNING | |
| `shell_silent` | | ENDED -1 | ENDED -1 | ENDED -1 | |
| `terminate`, or its time is up | ENDED -1 | LEAVING when it is opened | LEAVING | | refused |
| `cancel`: the session is deleted | never ran | never ran | outcome unknown | same | |
| `send_signal` | refused | to its processes | to its processes | same | refused |
| `send_input` | kept for it | sent | sent | sent | refused |
| `_pipe_ended`: no writer is left | | | | | the log is sealed |

OPENING: the shell was told to run the script and hasn't opened it; a trap of the user's may run
first, and end the shell. LEAVING: bash and zsh were told to leave the script. Other shells can't:
they are signalled as the command's processes are, and the session ends with the command, whose exit
code is then the status or the shell's.

Where a command never ran or its outcome is unknown, `done` fails with SessionEnded and there is no
exit code. The exit code -1 means the same to clients that got an id. A command that was terminated
never has the exit code 0.
"""

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import partial
from shlex import quote
from signal import SIGKILL, SIGTERM
from typing import Final

from procd.errors import BadRequest, CommandCompleted, Conflict, ProcdError, SessionEnded
from procd.output.log import Log
from procd.output.logfile import LogFile
from procd.output.multiplex import MultiplexedFrames
from procd.process.child import ExitStatus
from procd.process.io import LARGE_READ_BYTES, FdReader, FdWriter
from procd.process.process import STDERR, STDOUT
from procd.process.sudo import SudoGrace
from procd.process.tree import KILL_WAIT_S, Tree
from procd.services.shell.dialect import LEAVE, TERMINATED
from procd.services.shell.driver import ShellDriver
from procd.services.shell.proc_path import ChildPath, has_reader, holds_pipe, pipe_name
from procd.suspend import Countdown
from procd.unix.fd import OwnedFd
from procd.unix.pidfd import wait_ended

UNKNOWN: Final = -1
# What an ended command takes in memory beside its text, its log included. [measured, CPython 3.11]
LEAST_BYTES: Final = 3 << 10
# The latest idempotency keys of input are remembered, this many.
MAX_KEYS: Final = 64
ENDED_BEFORE: Final = "session ended before the command's turn"
NOT_OPENED: Final = b"cannot start a command: the shell could not open what it needs\n"
SILENT: Final = b"\nprocd: the shell does not say how this command ended; the session is over\n"
# Pauses between searches for the processes of a command that is to end; each doubles.
FIRST_PAUSE_S: Final = 0.01
LONGEST_PAUSE_S: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecRequest:
    """A command to run; `timeout_s` 0 means no limit."""

    command: str
    run_async: bool = False
    suppress_input_echo: bool = False
    timeout_s: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRequest:
    """Input for a command, and whether its input ends with it.

    Requests with the same key are one request; the key is empty for one like no other.
    """

    data: bytes
    eof: bool = False
    key: str = ""


class State(Enum):
    QUEUED = "queued"
    OPENING = "opening"
    RUNNING = "running"
    LEAVING = "leaving"
    ENDED = "ended"


class Command:
    """A command, from its acceptance until it is forgotten; OSError if its input has no descriptor.

    `done` is set when it has ended and everything that it wrote itself is in the log. Background
    children may write to the log until the last of them has closed it; then it is sealed. `on_free`
    is called when the shell may run the next command.
    """

    def __init__(
        self,
        command_id: str,
        number: int,
        request: ExecRequest,
        file: LogFile,
        driver: ShellDriver,
        on_free: Callable[["Command"], None],
    ) -> None:
        self.id = command_id
        self.text = request.command
        self.text_bytes = sys.getsizeof(self.text)
        self.file = file
        self.log: Log[LogFile] = Log(file, high_bytes=0)
        self.started_at: datetime | None = None
        self.ended_at: datetime | None = None
        self.exit_code: int | None = None
        self.timed_out = False
        self.done: asyncio.Future[None] = driver.loop.create_future()
        self._number = number  # among the session's commands, from 1
        self._state = State.QUEUED
        self._echoes = not request.suppress_input_echo
        self._driver = driver
        self._on_free = on_free
        self._terminated = False
        self._ending: asyncio.Task[None] | None = None  # by `terminate`
        self._timer: asyncio.TimerHandle | None = None
        self._script: ChildPath | None = None
        # Kept open until it has ended: a script that closes its own must not end the readers.
        self._outputs: list[ChildPath] = []
        self._readers: list[FdReader] = []
        self._pipe_names: list[str] = []
        self._frames: dict[bool, MultiplexedFrames] = {}
        self._keys: list[str] = []  # of input, the latest last
        self._input_ended = False
        self._input: ChildPath | None = None
        self._typing: OwnedFd | None = None  # the writing end of the input
        self._writer: FdWriter | None = None
        if request.run_async:  # input can be sent to it
            self._input, self._typing = driver.paths.input(f"{number}.in")
            self._writer = FdWriter(driver.loop, self._typing)
            self._typing.before_close = self._writer.abandon
        if request.timeout_s:  # its time in the queue is included
            self._timer = driver.loop.call_later(request.timeout_s, self._time_up)

    @property
    def state(self) -> State:
        if self._state is State.OPENING and self._script is not None and self._script.opened:
            self._state = State.RUNNING
        return self._state

    @property
    def cost_bytes(self) -> int:
        """What it takes in memory when it has ended."""
        return LEAST_BYTES + self.text_bytes + self.file.index.size

    def check_not_ended(self) -> None:
        """Raise CommandCompleted if it has ended; else as `check_outcome`."""
        self.check_outcome()
        if self._state is State.ENDED:
            raise CommandCompleted(f"command has already completed with exit code {self.exit_code}")

    def check_outcome(self) -> None:
        """Raise SessionEnded if it never ran, or its outcome is unknown."""
        if self.done.done() and (failure := self.done.exception()) is not None:
            raise SessionEnded(str(failure)) from failure

    def run(self) -> None:
        """Its turn has come: have the shell run it."""
        try:
            script, streams = self._open()
        except OSError as exc:
            for reader in self._readers:
                reader.close()
            self._fail(f"cannot start a command: {exc.strerror}".encode())
            return
        self._state = State.OPENING
        self.started_at = datetime.now(UTC)
        self._driver.run(self._number, self.text, script, streams)

    def _open(self) -> tuple[str, str]:
        driver = self._driver
        text = driver.dialect.script(self.text.encode())
        script = self._script = driver.paths.file(f"{self._number}.script", text)
        for kind, stream in (("out", STDOUT), ("err", STDERR)):
            writing, reading = driver.paths.output(f"{self._number}.{kind}")
            self._outputs.append(writing)
            append = partial(self.log.append, stream=stream)
            self._readers.append(FdReader(driver.loop, reading, append, self._pipe_ended))
            self._pipe_names.append(pipe_name(reading.number))
        self._readers[0].pair_with(self._readers[1])
        stdin = "/dev/null" if self._input is None else self._input.path
        paths = map(quote, (stdin, *[output.path for output in self._outputs]))
        return script.path, "<{} >{} 2>{}".format(*paths)

    def status_reported(self, status: int) -> None:
        """The shell has finished the script, or failed to open it."""
        if self.state is State.OPENING:
            self._driver.move_output(self.log)
            self._fail(NOT_OPENED)
        else:
            left = self._state is State.LEAVING and self._driver.dialect.can_leave
            self._end(TERMINATED if left else status)
            self._driver.status = self.exit_code or 0
        if not self.log.sealed and self._shell_holds_pipes():
            self._driver.tasks.start(self._seal_without_shell(), f"log of {self.id}")
        if self._ending is None:
            self._on_free(self)

    def _shell_holds_pipes(self) -> bool:  # as by `exec 3>&1`
        try:
            return holds_pipe(self._driver.pid, self._pipe_names)
        except PermissionError:  # perhaps; its tag is needed to wait for its children
            return self._driver.has_tag(self._number)

    async def _seal_without_shell(self) -> None:
        await self._driver.trees.emptied(self._tree())
        self.seal()

    def shell_exited(self, exit_status: ExitStatus) -> None:
        opening = self.state is State.OPENING
        self._drain()
        self._driver.move_output(self.log)
        if opening:
            self.cancel(ENDED_BEFORE)
        else:
            self._end(exit_status.shell_code)
        if exit_status.signal is not None and not self._terminated:
            self.seal()  # what it waited for is no background child

    def shell_silent(self) -> None:
        self._fail(SILENT)

    def cancel(self, reason: str) -> None:
        """It will never run, or its outcome won't be known; if it has ended, do nothing."""
        if self.done.done():
            return
        self._close()
        self.done.set_exception(SessionEnded(reason))
        self.done.exception()  # so that asyncio doesn't report it if nothing waits for `done`
        self._pipe_ended()

    def _time_up(self) -> None:
        if not self._is_over():
            self.timed_out = True
            self._begin_to_end(0)

    async def terminate(self, grace_s: float) -> None:
        """End it with all that it has started, even if the caller is cancelled.

        Its processes are sent SIGTERM, and after `grace_s` SIGKILL; the shell leaves the script, or
        has to be ended. Raises as `check_not_ended`, or SessionEnded if the session had to be ended
        with it.
        """
        if self._is_over():
            await asyncio.wait([self.done])
        self.check_not_ended()
        self._begin_to_end(grace_s)
        if self._ending is not None:
            await asyncio.wait([self._ending])
        self.check_outcome()
        if reason := self._driver.end_reason:
            raise SessionEnded(f"the session was ended with the command: {reason}")

    async def send_signal(self, number: int) -> None:
        """Send a signal to all processes that it has started.

        Raises as `check_not_ended`; Conflict: its turn has not come; ProcdError: no descriptor is
        left.
        """
        self.check_not_ended()
        if self._state is State.QUEUED:
            raise Conflict("command is waiting for its turn")
        try:
            await self._driver.trees.signal(self._tree(), number)
        except OSError as exc:
            raise ProcdError(f"the processes can't be looked for: {exc.strerror}") from exc

    async def send_input(self, request: InputRequest, queue_bytes: int) -> None:
        """Send input, and wait until at most `queue_bytes` of it are unread.

        Raises as `check_not_ended`; SessionEnded: the shell has exited; BadRequest: it has no
        input, or its input has ended.
        """
        if request.key in self._keys:
            return
        if self._driver.ended and not self.done.done():
            raise SessionEnded("session process has exited")
        writer = self._open_input()
        while writer.queued_bytes > queue_bytes:
            await writer.drain(queue_bytes)
            if request.key in self._keys:
                return
            self._open_input()
        if self._echoes:
            self._drain()  # the log shows earlier output first
            for position in range(0, len(request.data), LARGE_READ_BYTES):
                self.log.append(request.data[position : position + LARGE_READ_BYTES], STDOUT)
        writer.write(request.data)
        if request.key:
            self._keys.append(request.key)
            del self._keys[:-MAX_KEYS]
        if request.eof:
            self._end_input()
        elif writer.queued_bytes > queue_bytes:
            await writer.drain(queue_bytes)
            self.check_not_ended()

    def _open_input(self) -> FdWriter:
        self.check_not_ended()
        if self._writer is None:
            raise BadRequest("command takes no input: it was not started with runAsync")
        if self._input_ended:
            raise BadRequest("the command's input is closed")
        return self._writer

    def _pipe_ended(self) -> None:
        if self.done.done() and all(reader.ended for reader in self._readers):
            self.seal()

    def _is_over(self) -> bool:
        """Whether it has ended, or its shell has, even if the event loop hasn't reported it yet."""
        if self._state in (State.QUEUED, State.ENDED):
            return self.done.done()
        self._driver.poll()
        return self.done.done() or self._driver.ended

    def _end(self, exit_code: int) -> None:
        """Move all that it wrote into the log, and only then set `done`."""
        if self.done.done():
            return
        self._close()
        self._drain()
        self.exit_code = TERMINATED if self._terminated and exit_code == 0 else exit_code
        now = datetime.now(UTC)
        self.ended_at = max(now, self.started_at or now)
        self.done.set_result(None)
        self._pipe_ended()

    def _fail(self, message: bytes) -> None:
        self.log.append(message, STDERR)
        self._end(UNKNOWN)

    def _close(self) -> None:
        """Close all pipes but the ends that are read."""
        self._state = State.ENDED
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._close_input()
        if self._script is not None:
            self._script.close()
            self._script = None
        while self._outputs:
            self._outputs.pop().close()

    def _drain(self) -> None:
        for reader in self._readers:
            reader.drain()

    def _begin_to_end(self, grace_s: float) -> None:
        self._terminated = True
        if self._state is State.QUEUED:
            self._end(UNKNOWN)
            self._on_free(self)
        elif self._ending is None:
            self._ending = self._driver.tasks.run(self._terminate(grace_s), f"terminate {self.id}")

    async def _terminate(self, grace_s: float) -> None:
        driver = self._driver
        begin = driver.loop.time()
        try:
            if grace_s:
                signalled = await self._signal_until_over(SIGTERM, grace_s)
                # What it had in the background has the rest of the time, though the shell goes on.
                signalled |= await driver.trees.try_signal(
                    self._tree(), SIGTERM, lambda pid: pid not in signalled, wake=True
                )
                await wait_ended(signalled, begin + grace_s - driver.loop.time())
            await self._signal_until_over(SIGKILL, KILL_WAIT_S)
            if not self._is_over():
                driver.end_reason = "its shell did not leave a command that was terminated"
            if driver.end_reason:
                driver.signal(SIGKILL)
                await asyncio.wait([driver.process.done], timeout=KILL_WAIT_S)
            else:
                await asyncio.wait([self.done])
            await driver.trees.kill(self._tree())  # with what it has left in the background
        finally:
            self._ending = None
        self._on_free(self)

    async def _signal_until_over(self, number: int, within_s: float) -> dict[int, int]:
        """Have the shell leave the script, and signal what the command has started, once each.

        Repeated, for the script goes on until the shell has left it, and may start more. After the
        first time its input ends as well, in case the shell reads it; before, half could be taken
        for all. Returns the start times of those that got the signal by pid, unless it is SIGKILL.
        """
        signalled: dict[int, int] = {}
        sudo = SudoGrace() if number == SIGKILL else None
        time_up = self._driver.loop.create_future()
        countdown = Countdown(within_s, partial(time_up.set_result, None))
        pause_s = FIRST_PAUSE_S

        def is_new(pid: int) -> bool:
            if pid in signalled:
                return False
            # The shell must leave before it notices the end of this one, which may be the subshell
            # by which bash was to send itself the signal again.
            self._leave(number)
            return True

        try:
            while not (self._is_over() or time_up.done()):
                await self._driver.trees.turns.take()
                was_leaving = self.state is State.LEAVING
                self._leave(number)
                reached = await self._driver.trees.try_signal(
                    self._tree(), number, is_new, wake=sudo is None, sudo=sudo
                )
                if sudo is None:
                    signalled.update(reached)
                if was_leaving:
                    self._end_input()
                await asyncio.wait(
                    [self.done, time_up], timeout=pause_s, return_when=asyncio.FIRST_COMPLETED
                )
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        finally:
            countdown.cancel()
        return signalled

    def _leave(self, number: int) -> None:
        """Have the shell leave the script once it has opened it; end a shell that can't."""
        if self.state not in (State.RUNNING, State.LEAVING):
            return
        driver = self._driver
        if driver.dialect.can_leave:
            driver.signal(LEAVE)
        elif driver.is_shell() is not False and (self._state is State.RUNNING or number == SIGKILL):
            driver.end_reason = f"{driver.dialect.kind} can't leave a command that is terminated"
            driver.signal(number)
        self._state = State.LEAVING

    def _tree(self) -> Tree:
        """A program that has replaced the shell (`exec`) is part of it.

        Before the script is opened, the process may be a wrapper that is about to become the shell.
        """
        running = self.state in (State.RUNNING, State.LEAVING)
        replaced = running and self._driver.is_shell() is False
        return self._driver.tree(self._number, with_shell=replaced)

    def _end_input(self) -> None:
        if self._writer is not None and not self._input_ended:
            self._input_ended = True
            self._driver.tasks.start(self._finish_input(self._writer), f"end of input {self.id}")

    async def _finish_input(self, writer: FdWriter) -> None:
        await writer.drain(0)
        if self._input is not None and self._input.name:
            # A FIFO without a writer can't be opened for reading: wait until the shell has it.
            self._input.fd.close()
            pause_s = FIRST_PAUSE_S
            while self._typing is not None and not has_reader(self._typing):
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        if self._typing is not None:
            self._typing.close()

    def _close_input(self) -> None:
        if self._input is not None and self._typing is not None:
            self._typing.close()
            self._input.close()
            self._input = self._typing = self._writer = None

    def frames(self, *, labelled: bool) -> MultiplexedFrames:
        if labelled not in self._frames:
            self._frames[labelled] = MultiplexedFrames(self.log, labelled=labelled)
        return self._frames[labelled]

    def seal(self) -> None:
        """End the log; what background children write from now on is read and dropped."""
        for reader in self._readers:
            if not reader.ended:
                reader.drain()
                reader.discard()
        self._readers = [reader for reader in self._readers if not reader.ended]
        self._pipe_names.clear()
        self.file.finish()
        self.log.seal()

    def remove(self) -> None:
        """Delete its log, and close its pipes; while the log is held, it can be read to its end."""
        self._close()
        for reader in self._readers:
            reader.drain()
            reader.close()
        self.file.remove()
        self.log.seal()
