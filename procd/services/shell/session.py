"""ShellSession: one long-lived shell, which runs commands one after another."""

import asyncio
import logging
import signal
import time
from collections import deque
from typing import Final

from procd.config import SessionsConfig
from procd.errors import BadRequest, Conflict, Exhausted, ProcdError, SessionEnded
from procd.output.buffer import Buffer
from procd.process import tags
from procd.process import tree as proctree
from procd.process.child import ExitStatus
from procd.process.process import Process
from procd.process.sudo import SudoGrace
from procd.process.supervisor import Supervisor
from procd.services.shell.backoff import Pauses
from procd.services.shell.command import UNKNOWN, Command
from procd.services.shell.command_store import History
from procd.services.shell.dialect import failure_of, is_running, retag_in_shell
from procd.services.shell.driver import LEAVE, TERMINATED, Contact, Dialogue
from procd.services.shell.requests import ExecRequest, InputRequest
from procd.services.shell.shell_output import Words

log = logging.getLogger(__name__)

ENDED_BEFORE: Final = "session ended before the command's turn"


class ShellSession:
    """One shell and its commands, from its creation until it is deleted.

    Args:
        process: the shell, whose output is kept in `words`, of which nothing is lost at once.
        contact: how it is reached.

    Attributes:
        history: its commands.
    """

    def __init__(
        self,
        session_id: str,
        process: Process,
        words: Buffer,
        contact: Contact,
        history: History,
        config: SessionsConfig,
        processes: Supervisor,
    ) -> None:
        self.id = session_id
        self.history = history
        self._process = process
        self._processes = processes
        self._trees = processes.trees
        self._words = Words(words)
        self._shell = contact.shell
        self._config = config
        self._queue: deque[Command] = deque()
        self._current: Command | None = None
        self._endings = 0  # of commands, under way or just over
        self._over = False
        self._dialogue = Dialogue(
            processes.loop, contact, self._is_shell, self._command_ended, self._silent
        )
        process.log.attach(0, self._spoken)
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
            Exhausted: `sessions.max_queued` commands are waiting, or too many are remembered.
            SpawnFailed: there is no descriptor for its input.
        """
        if not request.command.strip():
            raise BadRequest("command cannot be empty")
        if self.ended or self._over:
            raise SessionEnded("session has ended: its shell has exited")
        if len(self._queue) >= self._config.max_queued:
            raise Exhausted(f"limit of {self._config.max_queued} queued commands is reached")
        command = self.history.add(
            request.command,
            command_id,
            interactive=request.run_async,
            echoes=not request.suppress_input_echo,
        )
        self._queue.append(command)
        if request.timeout_s:
            timer = asyncio.get_running_loop().call_later(request.timeout_s, self._time_up, command)
            command.done.add_done_callback(lambda _: timer.cancel())
        self._next()
        return command

    def _next(self) -> None:
        """Start the next command, if there is one and its turn has come.

        Nothing is started beside what is being ended: until the shell is told apart from the
        command before, by a program it may have to start for that, it would be taken for its own.
        """
        while not (self._current or self._endings or self.ended) and self._queue:
            command = self._queue.popleft()
            try:
                paths = command.open(self._shell.path)
            except OSError as exc:
                command.fail(f"cannot start a command: {exc.strerror}".encode())
                continue
            self._current = command
            try:
                self._words.begin(paths.script)
                tag = self._process.tag(command.record.number)
                retag = "" if self._process.retag(tag) else retag_in_shell(self._shell.path, tag)
                failure = failure_of(self._shell.path, command.record.text)
                self._dialogue.run(command.record.number, paths, retag, failure)
            except MemoryError:
                self._current = None
                command.fail(b"cannot start a command: no memory")

    def _spoken(self) -> None:
        """The shell has said something itself."""
        if self._words.many:
            self._take_words()

    def _take_words(self) -> None:
        if self._current is not None:
            self._words.move_to(self._current.log)
        self._words.clear()

    def _silent(self) -> None:
        """The shell can't be trusted to say how commands end: the session is over."""
        log.warning("shell does not say how commands end", extra={"session": self.id})
        command, self._current = self._current, None
        self._over = True
        self._process.kill()
        if command is not None:
            command.fail(
                b"\nprocd: the shell does not say how this command ended; the session is over\n"
            )

    def _command_ended(self, exit_code: int) -> None:
        command, self._current = self._current, None
        try:
            if command is None:
                return
            if not command.entered:  # nor its streams, perhaps: the status is of that failure
                self._process.drain()
                self._words.move_to(command.log)
                command.fail(b"cannot start a command: the shell could not open what it needs\n")
                return
            # The status of what is left by LEAVE may be that of what it was at.
            if command.left or (command.terminated and exit_code == 0):
                self._dialogue.status = exit_code = TERMINATED
            command.complete(exit_code)
            if not command.log.sealed:
                self._processes.tasks.start(self._let_go(command), f"end {command.record.id}")
                self._endings += 1
        except MemoryError:  # its end is told again
            self._current = command
            raise
        finally:
            self._next()

    async def _let_go(self, command: Command) -> None:
        """End the log of a command whose pipes the shell keeps (`exec 3>&1`) with its children."""
        try:
            held = await command.held_by(self.pid)
            if held is None:  # perhaps; but to wait for its children, the tag has to tell them
                held = tags.tag_of(self.pid) == self._process.tag(command.record.number)
        finally:
            self._endings -= 1
            self._next()
        if held:
            await self._trees.emptied(self.tree(command))
            command.seal()

    def _shell_ended(self, done: "asyncio.Future[ExitStatus]") -> None:
        if done.cancelled():
            return
        self._dialogue.hear()  # the status of a command may have come before the end
        exit_status = self._process.record.exit
        assert exit_status is not None
        try:
            if self._current is not None:
                self._end_with_shell(self._current, exit_status)
        finally:
            self._words.clear()
            while self._queue:
                self._queue.popleft().cancel(ENDED_BEFORE)
            self._close()
        log.info("session ended", extra={"session": self.id, "exit_code": exit_status.shell_code})

    def _end_with_shell(self, command: Command, exit_status: ExitStatus) -> None:
        entered = command.entered
        try:
            command.take_pending()
            # What the shell said at its end, in a trap for instance, went to its own streams.
            self._take_words()
        finally:
            self._current = None
            if not entered:  # it ended, in a trap for instance, before it came to the command
                command.cancel(ENDED_BEFORE)
            else:
                code = exit_status.shell_code
                command.complete(code or (TERMINATED if command.terminated else 0))
        if exit_status.signal is not None:
            command.seal()  # what it waited for is nobody's background child

    def _close(self) -> None:
        self._dialogue.close()
        self._process.close()

    async def type(self, command: Command, wanted: InputRequest) -> None:
        """Send input to a command. Source: contract, section 8.6.

        Raises:
            BadRequest, CommandCompleted, SessionEnded: as `Command.type`.
        """
        if self.ended and not command.done.done():
            raise SessionEnded("session process has exited")
        await command.type(
            wanted.data, eof=wanted.eof, key=wanted.key, shell=self.pid,
            queue_bytes=self._config.input_queue_bytes, tasks=self._processes.tasks,
        )  # fmt: skip

    def _is_shell(self) -> bool | None:
        """Whether the shell is one, no wrapper and no `exec PROGRAM`; None if nobody can look."""
        return is_running(self.pid, self._shell.argv)

    def tree(self, command: Command) -> proctree.Tree:
        """The processes that a command has started, wherever they are, but not the shell.

        A program in the shell's place is one of them, if it got there from within the script:
        before that, what has the place is a wrapper, which is about to become the shell.
        """
        shell = self._process.record.tree.leader
        replaced = command is self._current and command.entered and self._is_shell() is False
        leader = shell if replaced else 0
        tag = self._process.tag(command.record.number)
        return proctree.Tree(leader, tag, tags.EVERY_BIT, host=shell)

    async def signal(self, command: Command, number: int) -> None:
        """Send a signal to all processes of a command, which the shell isn't one of.

        Raises:
            CommandCompleted: it has ended.
            SessionEnded: its session has ended before its turn.
            Conflict: its turn has not come.
            ProcdError: there is no descriptor, or no memory, to look for them with.
        """
        command.raise_if_never_run()
        command.check_not_ended()
        if not command.running:
            raise Conflict("command is waiting for its turn")
        try:
            await self._trees.signal(self.tree(command), number)
        except (OSError, MemoryError) as exc:  # who asked can ask again; nobody else is to get it
            reason = getattr(exc, "strerror", "no memory")
            raise ProcdError(f"the processes can't be looked for: {reason}") from exc

    async def terminate(self, command: Command) -> bool:
        """End one command and keep the shell; those before it keep their background jobs.

        Its processes are sent SIGTERM, after `sessions.grace_s` SIGKILL; the shell leaves the
        script. Where it doesn't, the shell has to be ended: False is returned then. All this is
        done whatever becomes of the caller.

        Raises:
            CommandCompleted: it has ended.
            SessionEnded: its session has ended before its turn.
        """
        if self._has_ended(command):
            await asyncio.wait([command.done])
        command.raise_if_never_run()
        command.check_not_ended()
        command.terminated = True
        ending = self._ending(command, self._config.grace_s)
        kept = await self._processes.tasks.finish(ending, f"terminate {command.record.id}")
        command.raise_if_never_run()  # the shell has ended before it came to it
        return kept

    def _has_ended(self, command: Command) -> bool:
        """Whether a command has ended, though the loop be too late to have heard of it.

        `done` is set by then, or is about to be: with the end of a shell that took it along.
        """
        if command is self._current:
            self._dialogue.hear()
            self._process.poll()
        return command.done.done() or (command is self._current and self.ended)

    def _time_up(self, command: Command) -> None:
        if self._has_ended(command):
            return
        command.timed_out = command.terminated = True
        self._processes.tasks.start(self._ending(command, 0), f"time up {command.record.id}")

    async def _ending(self, command: Command, grace_s: float) -> bool:
        if command in self._queue:
            self._queue.remove(command)
            command.complete(UNKNOWN)
            return True
        self._endings += 1
        try:
            await self._press(command, signal.SIGTERM, grace_s)
            # However late the loop is, there is time left for SIGKILL.
            await self._press(command, signal.SIGKILL, proctree.KILL_WAIT_S)
            kept = self._has_ended(command)
            if kept:
                await asyncio.wait([command.done])
                await self._trees.kill(self.tree(command))  # its background is part of it
            else:
                self._process.kill()
                await self._process.wait_killed()
                await asyncio.wait([command.done], timeout=proctree.KILL_WAIT_S)
        finally:
            self._endings -= 1
        self._next()
        return kept

    async def _press(self, command: Command, number: int, within_s: float) -> None:
        """Have the shell leave a script as soon as what it waits for has ended, and signal that.

        Again and again, for the script may go on until the shell is out of it; each process is told
        once. Not before the shell has come to the script, which some would take for the end of
        their input. What is stopped is continued, to hear. Then its input ends, for a `read` of the
        shell's; not before, lest half of it be taken for all.
        """
        told: set[int] = set()
        relays = SudoGrace() if number == signal.SIGKILL else None

        def untold(pid: int) -> bool:
            if pid in told:
                return False
            # The shell has just come to it, or this may be what was to tell it again (`leaving`).
            if not command.left or is_running(pid, self._shell.argv):
                self._leave(command)
            return True

        pauses = Pauses(within_s)
        while not self._has_ended(command) and pauses.left_s > 0:
            await self._trees.turns.take()
            begin, was_told = time.monotonic(), command.left
            self._leave(command)
            reached = await self._trees.try_signal(
                self.tree(command), number, untold, wake=relays is None, sudo=relays
            )
            told.update(reached if relays is None else ())
            if was_told:
                command.end_input(self.pid, self._processes.tasks)
            await pauses.pause(command.done, time.monotonic() - begin)

    def _leave(self, command: Command) -> None:
        if command is self._current and command.entered:
            command.left = True
            self._process.signal(LEAVE)
            self._process.signal(signal.SIGCONT)

    async def delete(self) -> None:
        """End all that runs in it, then forget everything about it."""
        self._over = True
        try:
            await self._trees.turns.take()
            while self._queue:
                self._queue.popleft().cancel("session was deleted")
            command, self._current = self._current, None  # however it ends from now on
            # Before its input ends: half of that isn't to be taken for all of it.
            told = await self._process.send_signal(signal.SIGTERM)
            self._dialogue.end()
            if command is not None:
                command.cancel("session was deleted")
            await self._process.wait_then_kill(told, self._config.grace_s)
            await self.history.clear()
        except BaseException:  # for want of memory, say
            self._process.kill()
            raise
        finally:
            self.close()

    def close(self) -> None:
        """Forget everything about it, whatever still runs."""
        self._current = None  # the news of the shell's end may be under way
        self._close()
        self.history.close()
