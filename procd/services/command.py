"""One command of a shell session: its pipes while it runs, its log for as long as it is known.

The shell sources the user's script with the command's own FIFOs as its three descriptors: nothing
of procd's is in the shell's namespace, and no output is ever searched for a status.
"""

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from procd.errors import BadRequest, CommandCompleted, SessionEnded
from procd.logfile import LogFile, LogStore
from procd.process import PIPE_BURST_BYTES, STDERR, STDOUT
from procd.processes import Processes
from procd.streams.labels import LabelledFrames
from procd.streams.log import Log
from procd.tasks import Tasks
from procd.unix.fd import FdReader, FdWriter, OwnedFd, open_fifo

FIFO_MODE: Final = 0o600
# How often, and how many times, to see whether the shell has opened a command's input.
OPEN_CHECK_S: Final = 0.005
OPEN_CHECKS: Final = 200


@dataclass(slots=True)
class CommandRecord:
    """What is true of a command whoever looks after it.

    Attributes:
        number: its place among the session's commands, from 1.
        interactive: whether it has an input that can be sent; else that is /dev/null.
        echoes: whether input sent is shown in its log.
        started_at, ended_at: seconds since the epoch.
        exit_code: None until it has ended, and for ever if it never ran.
    """

    id: str
    text: str
    number: int
    interactive: bool
    echoes: bool
    started_at: float | None = None
    ended_at: float | None = None
    exit_code: int | None = None


class Command:
    """A command, from its acceptance until it is forgotten.

    `done` is set when it has ended and everything that it wrote itself is in the log; it fails with
    SessionEnded if the session ends before its turn. Background children may go on writing to the
    log: it is sealed when the last of them has closed it.
    """

    def __init__(
        self,
        record: CommandRecord,
        directory: Path,
        store: LogStore,
        processes: Processes,
    ) -> None:
        self.record = record
        self._processes = processes
        self._directory = directory
        self._loop = asyncio.get_running_loop()
        self.file: LogFile = store.create(self._path("log"))
        self.log: Log[LogFile] = Log(self.file, high_bytes=0)
        self.labelled = LabelledFrames(self.file, labelled=True)
        self.plain = LabelledFrames(self.file, labelled=False)
        self.done: asyncio.Future[None] = self._loop.create_future()
        self._input_fd: OwnedFd | None = None
        self._input: FdWriter | None = None
        self._input_closing = False
        self._opening: asyncio.Future[None] = self._loop.create_future()
        self._writing_ends: list[OwnedFd] = []
        self._readers: list[FdReader] = []
        if record.interactive:
            self._input_fd = self._fifo("in", os.O_RDWR)
            self._input = FdWriter(processes.poller, self._input_fd)

    def _path(self, kind: str) -> Path:
        return self._directory / f"{self.record.number}.{kind}"

    def path(self, kind: str) -> str:
        """Where the shell finds the FIFO of this kind: script, in, out or err."""
        return str(self._path(kind))

    def _fifo(self, kind: str, flags: int) -> OwnedFd:
        path = self.path(kind)
        if not os.path.exists(path):  # noqa: PTH110 - a str, as the shell is told
            os.mkfifo(path, FIFO_MODE)
            self._processes.confinement.give(path)
        return open_fifo(path, flags)

    @property
    def running(self) -> bool:
        """Whether the shell is at it."""
        return self.record.started_at is not None and not self.done.done()

    def open(self) -> None:
        """Write the script and make the pipes that the shell is about to use.

        Raises:
            OSError: no descriptor, or no room on the disk, is left; nothing has changed then.
        """
        try:
            self._open()
        except OSError:
            self._close_pipes()
            self._unlink("script", "out", "err")
            raise
        self.record.started_at = time.time()
        self._opening.set_result(None)

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        script = OwnedFd(os.open(self.path("script"), flags, FIFO_MODE))
        try:
            self._processes.confinement.give(script.number)
            remaining = memoryview(self.record.text.encode())
            while remaining:
                remaining = remaining[os.write(script.number, remaining) :]
        finally:
            script.close()
        for kind, stream in (("out", STDOUT), ("err", STDERR)):
            reading = self._fifo(kind, os.O_RDONLY)
            self._readers.append(
                FdReader(
                    self._processes.poller,
                    reading,
                    _appender(self.log, stream),
                    self._one_ended,
                    burst_bytes=PIPE_BURST_BYTES,
                )
            )
            # Held until the command ends: no redirection within it may look like its end.
            self._writing_ends.append(self._fifo(kind, os.O_WRONLY))

    def _close_pipes(self) -> None:
        for end in self._writing_ends:
            end.close()
        self._writing_ends.clear()
        for reader in self._readers:
            reader.close()
        self._readers.clear()

    def take_pending(self) -> None:
        """Move what the pipes hold into the log."""
        for reader in self._readers:
            reader.drain()

    async def type(
        self, data: bytes, *, eof: bool, queue_bytes: int, shell: int, tasks: Tasks
    ) -> None:
        """Send input, and wait until at most `queue_bytes` of it are unread.

        Raises:
            BadRequest: it has no input, or that was closed.
            CommandCompleted: it has ended.
            SessionEnded: its session has ended before its turn.
        """
        self._check_input()
        assert self._input is not None
        while self._input.queued_bytes > queue_bytes:
            await self._input.drain(queue_bytes)
            self._check_input()
        if data:
            if self.record.echoes:
                self.take_pending()  # what was said before comes before
                for position in range(0, len(data), PIPE_BURST_BYTES):
                    self.log.append(data[position : position + PIPE_BURST_BYTES], STDOUT)
            self._input.write(data)
        if eof:
            self.end_input(shell, tasks)
        elif self._input.queued_bytes > queue_bytes:
            await self._input.drain(queue_bytes)
            self.raise_if_never_run()
            self.check_not_ended()

    def check_not_ended(self) -> None:
        """Raise CommandCompleted if it has ended."""
        if self.record.ended_at is not None:
            code = self.record.exit_code
            how = "before its turn" if code is None else f"with exit code {code}"
            raise CommandCompleted(f"command has already completed {how}")

    def _check_input(self) -> None:
        self.raise_if_never_run()
        self.check_not_ended()
        if not self.record.interactive:
            raise BadRequest("command takes no input: it was not started with runAsync")
        if self._input_closing:
            raise BadRequest("the command's input is closed")

    def raise_if_never_run(self) -> None:
        """Raise SessionEnded if the session ended before the command's turn."""
        if self.done.done() and not self.done.cancelled() and self.record.ended_at is None:
            raise SessionEnded("session ended before the command's turn")

    def end_input(self, shell: int, tasks: Tasks) -> None:
        """Let the command see the end of its input after what was sent.

        Args:
            shell: pid of the session's shell.
        """
        if self._input is not None and not self._input_closing:
            self._input_closing = True
            tasks.start(self._end_input(self._input, shell), f"end of input {self.record.id}")

    async def _end_input(self, writer: FdWriter, shell: int) -> None:
        await writer.drain(0)
        await self._opening
        # Closed before the shell has opened its end, the FIFO would forget all and block the shell,
        # which opens it in the next microseconds; nothing but its descriptor tells when. One that
        # is not there after a second was redirected by the script.
        for _ in range(OPEN_CHECKS):
            if self.done.done() or _reads(shell, self.path("in")):
                break
            await asyncio.sleep(OPEN_CHECK_S)
        self._close_input()

    def _close_input(self) -> None:
        if self._input is not None and self._input_fd is not None:
            self._input.abandon()
            self._input_fd.close()
            self._input = None

    def complete(self, exit_code: int) -> None:
        """It has ended: take in all that it wrote, and only then say so."""
        self._close_input()
        for end in self._writing_ends:
            end.close()
        self._writing_ends.clear()
        self.take_pending()
        self._unlink()
        self.record.exit_code = exit_code
        self.record.ended_at = time.time()
        self.done.set_result(None)
        self._one_ended()

    def cancel_queued(self) -> None:
        """It is not to run: whoever waits for it is told."""
        self.record.ended_at = time.time()
        self.cancel("command was terminated before its turn")

    def cancel(self, reason: str) -> None:
        """It will never run, or nobody will learn how it ends."""
        self._close_input()
        self._unlink()
        self._opening.cancel()
        if not self.done.done():
            self.done.set_exception(SessionEnded(reason))
            # Whoever waits is told; if nobody does, that is no failure.
            self.done.add_done_callback(lambda done: done.exception())
            self.done.exception()
        self._one_ended()

    def _unlink(self, *kinds: str) -> None:
        for kind in kinds or ("script", "in", "out", "err"):
            try:
                os.unlink(self.path(kind))  # noqa: PTH108 - a str, as the shell is told
            except FileNotFoundError:
                continue

    def _one_ended(self) -> None:
        if self.done.done() and all(reader.ended for reader in self._readers):
            self._seal()

    def _seal(self) -> None:
        if not self.log.sealed:
            self.file.finish()
            self.log.seal()

    def remove(self) -> None:
        """Stop listening and delete the log; who reads it now may read to its end."""
        for end in self._writing_ends:
            end.close()
        self._writing_ends.clear()
        for reader in self._readers:
            reader.drain()
            reader.close()
        self._close_input()
        self._unlink()
        if self.log.readers:
            self.log.on_idle = self.file.finish
        self.file.remove(keep_readable=bool(self.log.readers))
        if not self.log.sealed:
            self.log.seal()


def _reads(pid: int, path: str) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/fd/0") == path  # noqa: PTH115 - a str
    except OSError:
        return False


def _appender(log: Log[LogFile], stream: int) -> Callable[[bytes], None]:
    def append(data: bytes) -> None:
        log.append(data, stream)

    return append
