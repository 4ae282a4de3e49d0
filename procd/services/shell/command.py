"""One command of a shell session: its pipes while it runs, its log for as long as it is known.

The shell sources the user's script with the command's own pipes as its three descriptors, and no
output is ever searched for a status.
"""

import asyncio
import errno
import os
from array import array
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import blake2b
from typing import Final

from procd.errors import BadRequest, CommandCompleted, SessionEnded
from procd.output.log import Cursor, Log
from procd.output.logfile import LogFile
from procd.output.multiplex import LabelledFrames
from procd.process.io import LARGE_READ_BYTES, FdReader, FdWriter
from procd.process.process import STDERR, STDOUT
from procd.services.shell.dialect import sourced
from procd.services.shell.proc_path import Opening, Openings, Paths, name_of
from procd.tasks import Tasks
from procd.unix.fd import OwnedFd

# The exit code of what never ran, or whose end nobody can know (contract, section 6.3).
UNKNOWN: Final = -1
# How often, and how many times, to see whether the shell has opened a command's input.
OPEN_CHECK_S: Final = 0.005
OPEN_CHECKS: Final = 200
# What one that is over takes beside its text, its log included: measured with CPython 3.11.
LEAST_BYTES: Final = 3 << 10
# Descriptors of the shell looked at in one turn of the event loop.
TURN_DESCRIPTORS: Final = 256
# So many requests that typed last are remembered by their keys.
MAX_KEYS: Final = 64


@dataclass(slots=True)
class CommandRecord:
    """What is true of a command whoever looks after it.

    Attributes:
        size: what the text took in memory when it was accepted, bytes; it takes more once Python
            keeps its UTF-8 as well, and what is given back is to be what was taken.
        number: its place among the session's commands, from 1.
        interactive: whether it has an input that can be sent; else that is /dev/null.
        echoes: whether input sent is shown in its log.
        started_at, ended_at: as lists show them, since to make them takes longer than to show them.
        exit_code: None until it has ended, and for ever if its session ended before its turn.
    """

    id: str
    text: str
    size: int
    number: int
    interactive: bool
    echoes: bool
    started_at: datetime | None = None
    ended_at: datetime | None = None
    exit_code: int | None = None


class Command:
    """A command, from its acceptance until it is forgotten; one that is over takes little.

    `done` is set when it has ended and everything that it wrote itself is in the log; it fails with
    SessionEnded if the session ends before its turn. Background children may go on writing to the
    log: it is sealed when the last of them has closed it.

    Attributes:
        timed_out: whether it was ended because its time was up.
        terminated: whether it was told to end; its exit code is then not 0.
        left: whether the shell was told to leave its script.

    Raises:
        OSError: there is no descriptor for its input.
    """

    __slots__ = (
        "__weakref__",
        "_frames",
        "_input",
        "_input_closing",
        "_input_keys",
        "_loop",
        "_openings",
        "_outputs",
        "_pipes",
        "_readers",
        "_script",
        "_started",
        "_typing",
        "_writer",
        "done",
        "file",
        "left",
        "log",
        "record",
        "terminated",
        "timed_out",
    )  # fmt: skip

    def __init__(
        self,
        record: CommandRecord,
        file: LogFile,
        openings: Openings,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.record = record
        self.file = file
        self.log: Log[LogFile] = Log(file, high_bytes=0)
        self.timed_out = False
        self.terminated = False
        self.left = False
        self.done: asyncio.Future[None] = loop.create_future()
        self._openings = openings
        self._loop = loop
        self._started: asyncio.Future[None] = loop.create_future()
        self._script: Opening | None = None
        # Writing ends that we hold until it ends: no redirection within it may look like its end.
        self._outputs: list[Opening] = []
        self._readers: list[FdReader] = []
        self._pipes: tuple[str, ...] = ()  # what the kernel calls each
        self._frames: dict[bool, LabelledFrames] = {}  # with and without markers
        self._input: Opening | None = None
        self._typing: OwnedFd | None = None  # the writing end of it
        self._writer: FdWriter | None = None
        self._input_closing = False
        self._input_keys = array("Q")  # digests, the latest last
        if record.interactive:
            self._input, self._typing = openings.source(f"{record.number}.in")
            self._writer = FdWriter(loop, self._typing)
            self._typing.before_close = self._writer.abandon

    @property
    def cost_bytes(self) -> int:
        """What it takes in memory when it is over."""
        return LEAST_BYTES + self.record.size

    @property
    def running(self) -> bool:
        """Whether the shell is at it."""
        return self.record.started_at is not None and not self.done.done()

    def open(self, shell: str) -> Paths:
        """Make what the shell is about to open.

        Args:
            shell: its path.

        Raises:
            OSError: no descriptor or no memory is left; it can't be run any more, its input is
                closed.
        """
        name = str(self.record.number)
        try:
            script = self._openings.file(
                f"{name}.script", sourced(shell, self.record.text.encode())
            )
            self._script = script
            readings = []
            for kind, stream in (("out", STDOUT), ("err", STDERR)):
                reading, writing = self._openings.pipe(f"{name}.{kind}")
                readings.append(reading)
                self._outputs.append(writing)
                self._readers.append(
                    FdReader(
                        self._loop,
                        reading,
                        partial(self.log.append, stream=stream),
                        self._one_ended,
                    )
                )
                self._pipes += (name_of(reading.number),)
            out, err = self._readers
            out.pair_with(err)
        except BaseException as exc:
            self._close()
            for reader in self._readers:
                reader.close()
            if isinstance(exc, MemoryError):
                raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)) from exc
            raise
        self.record.started_at = datetime.now(UTC)
        self._started.set_result(None)
        stdin = "/dev/null" if self._input is None else self._input.path
        stdout, stderr = (output.path for output in self._outputs)
        return Paths(script.path, stdin, stdout, stderr)

    @property
    def entered(self) -> bool:
        """Whether the shell has come to the script, or nobody can know.

        To be asked before the command is complete. Where the shell's descriptors lead says less: a
        script may redirect them.
        """
        return self._script is None or self._script.opened

    async def held_by(self, shell: int) -> bool | None:
        """Whether the shell has the command's outputs open, under whatever number.

        Meanwhile the shell is to do nothing: it might move them past the look. None if it may not
        be looked at.
        """
        try:
            numbers = os.listdir(f"/proc/{shell}/fd")  # noqa: PTH208 - a str
            # Without CAP_SYS_PTRACE root gets the list, but not where each leads, nor this.
            os.readlink(f"/proc/{shell}/cwd")  # noqa: PTH115 - as above
        except PermissionError:  # it is another user's
            return None
        except OSError:  # it has gone
            return False
        for count, number in enumerate(numbers, 1):
            if count % TURN_DESCRIPTORS == 0:
                await asyncio.sleep(0)
            if name_of(int(number), shell) in self._pipes:
                return True
        return False

    def _close(self) -> None:
        """Close all but the ends that are read."""
        self._close_input()
        if self._script is not None:
            self._script.close()
            self._script = None
        while self._outputs:
            self._outputs.pop().close()

    def take_pending(self) -> None:
        """Move what the pipes hold into the log."""
        for reader in self._readers:
            reader.drain()

    async def type(
        self, data: bytes, *, eof: bool, key: str, queue_bytes: int, shell: int, tasks: Tasks
    ) -> None:
        """Send input, and wait until at most `queue_bytes` of it are unread.

        Args:
            key: of a request that may come a second time, its client not knowing what has become of
                it; it is done once. Empty for none.

        Raises:
            BadRequest: it has no input, or that was closed.
            CommandCompleted: it has ended.
            SessionEnded: its session has ended before its turn.
        """
        digest = _digest(key)
        if key and digest in self._input_keys:
            return
        writer = self._checked_input()
        while writer.queued_bytes > queue_bytes:
            await writer.drain(queue_bytes)
            if key and digest in self._input_keys:
                return
            self._checked_input()
        if data:
            if self.record.echoes:
                self.take_pending()  # what was said before comes before
                for position in range(0, len(data), LARGE_READ_BYTES):
                    self.log.append(data[position : position + LARGE_READ_BYTES], STDOUT)
            writer.write(data)
        if key:
            self._input_keys.append(digest)
            del self._input_keys[:-MAX_KEYS]
        if eof:
            self.end_input(shell, tasks)
        elif writer.queued_bytes > queue_bytes:
            await writer.drain(queue_bytes)
            self.raise_if_never_run()
            self.check_not_ended()

    def check_not_ended(self) -> None:
        """Raise CommandCompleted if it has ended."""
        if self.record.ended_at is not None:
            code = self.record.exit_code
            raise CommandCompleted(f"command has already completed with exit code {code}")

    def _checked_input(self) -> FdWriter:
        self.raise_if_never_run()
        self.check_not_ended()
        if not self.record.interactive:
            raise BadRequest("command takes no input: it was not started with runAsync")
        if self._input_closing or self._writer is None:
            raise BadRequest("the command's input is closed")
        return self._writer

    def raise_if_never_run(self) -> None:
        """Raise SessionEnded if the session ended before the command did."""
        if self.done.done() and (failure := self.done.exception()) is not None:
            raise SessionEnded(str(failure)) from failure

    def end_input(self, shell: int, tasks: Tasks) -> None:
        """Let the command see the end of its input after what was sent.

        Args:
            shell: pid of the session's shell.
        """
        if self._writer is not None and not self._input_closing:
            self._input_closing = True
            tasks.start(self._end_input(self._writer, shell), f"end of input {self.record.id}")

    async def _end_input(self, writer: FdWriter, shell: int) -> None:
        await writer.drain(0)
        source, typing = self._input, self._typing
        if source is None or typing is None:
            return
        if source.named:
            # A FIFO that nobody writes to any more can't be opened; the shell opens it in the next
            # microseconds, and nothing but its descriptor tells when. One that is not there after a
            # second was redirected by the script.
            await self._started
            for _ in range(OPEN_CHECKS):
                if self.done.done() or source.opened_by(shell, 0):
                    break
                await asyncio.sleep(OPEN_CHECK_S)
            self._close_input()
        typing.close()

    def _close_input(self) -> None:
        if self._input is not None and self._typing is not None:
            self._typing.close()
            self._input.close()
            self._input = self._typing = self._writer = None

    def complete(self, exit_code: int) -> None:
        """It has ended: take in all that it wrote, and only then say so; once.

        Raises:
            MemoryError: there was none to say so with; it may be called again.
        """
        if self.done.done():
            return
        self._close()
        try:
            self.take_pending()
        finally:
            self.record.exit_code = exit_code
            now = datetime.now(UTC)
            self.record.ended_at = max(now, self.record.started_at or now)
            self.done.set_result(None)
            self._started.cancel()
        self._one_ended()

    def fail(self, words: bytes) -> None:
        """It has ended, or can't begin, and nobody knows how: say so in its log."""
        self.log.append(words, STDERR)
        self.complete(UNKNOWN)

    def cancel(self, reason: str) -> None:
        """It will never run, or nobody will learn how it ends; if it has ended, do nothing."""
        if self.done.done():
            return
        self._close()
        self._started.cancel()
        self.done.set_exception(SessionEnded(reason))
        self.done.exception()  # whoever waits is told; if nobody does, that is no failure
        self._one_ended()

    def _one_ended(self) -> None:
        if self.done.done() and all(reader.ended for reader in self._readers):
            self.seal()

    def seal(self) -> None:
        """Take no more into the log; what background children still write is read and dropped."""
        for reader in self._readers:
            if not reader.ended:
                reader.drain()
                reader.discard()
        self._readers = [reader for reader in self._readers if not reader.ended]
        self._pipes = ()
        if not self.log.sealed:
            self.file.finish()
            self.log.seal()

    def frames(self, *, labelled: bool) -> LabelledFrames:
        """The messages of the log, which all who follow it share."""
        if labelled not in self._frames:
            self._frames[labelled] = LabelledFrames(self.log, labelled=labelled)
        return self._frames[labelled]

    def reading(self) -> "closing[Cursor]":
        """While it lasts, all of the log can be read, though the command is removed."""
        return closing(self.log.attach(self.log.store.end, _nothing))

    def remove(self) -> None:
        """Stop listening and delete the log; who reads it now may read to its end."""
        self._close()
        for reader in self._readers:
            reader.drain()
            reader.close()
        if self.log.readers:
            self.log.on_idle = self.file.finish
        self.file.remove(keep_readable=bool(self.log.readers))
        self.log.seal()


def _digest(key: str) -> int:
    data = key.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(data, digest_size=8).digest())


def _nothing() -> None:
    """What a cursor calls that only holds the log."""
