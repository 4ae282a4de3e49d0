"""The driver of a session's shell: what is written to the shell, and what it reports.

For each command the shell reads two lines from a pipe: source the script with the command's pipes
as its descriptors; then write the command's number and `$?` into the control pipe, by path. Nothing
else of procd's is in the shell, but a trap on SIGURG in bash and zsh.
"""

import asyncio
import fcntl
import logging
import os
import re
import signal
import struct
import termios
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Final

from procd.output.buffer import Buffer
from procd.output.log import Log
from procd.output.logfile import LogFile
from procd.process import tags
from procd.process.io import FdReader
from procd.process.supervisor import Supervisor
from procd.process.tree import Tree
from procd.services.shell.dialect import Dialect
from procd.services.shell.proc_path import ChildPaths, has_reader
from procd.unix.fd import OwnedFd

log = logging.getLogger(__name__)

PIPE_BYTES: Final = os.sysconf("SC_PAGESIZE")
# How much of the shell's own output is kept, such as that of an EXIT trap.
SHELL_OUTPUT_BYTES: Final = 1 << 20
MAX_REPORT_BYTES: Final = 4096
REPORT: Final = re.compile(rb"^(\d{1,20}) (-?\d{1,20})$", re.MULTILINE)
NONE: Final = 0  # commands are numbered from 1


class Feed:
    """Writes lines to the shell, and reports when it has read all of them.

    The pipe is as small as possible, one page, so that it is writable only when it is empty.
    `on_read` is called in each turn of the event loop when all was read, until `rest` or `write`.

    Source: pipe(7), "Pipe capacity"; fcntl(2), F_SETPIPE_SZ.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, fd: OwnedFd, on_read: Callable[[], None]
    ) -> None:
        os.set_blocking(fd.number, False)
        fcntl.fcntl(fd.number, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._loop = loop
        self._fd = fd
        self._on_read = on_read
        self._unwritten = b""
        self._watching = False
        fd.before_close = self.rest

    def write(self, lines: str) -> None:
        """Add lines; they are dropped if the shell has closed the pipe, as when it ends."""
        self._unwritten += lines.encode()
        if not self._watching:
            self._watching = True
            self._loop.add_writer(self._fd.number, self._writable)
        self._flush()

    def _flush(self) -> None:
        try:
            written = os.write(self._fd.number, self._unwritten)
        except BlockingIOError:
            return
        except BrokenPipeError:
            written = len(self._unwritten)
            self.rest()
        self._unwritten = self._unwritten[written:]

    def _writable(self) -> None:
        if self._unwritten:
            self._flush()
        elif not self._unread_bytes():
            self._on_read()
        elif not has_reader(self._fd):
            self.rest()

    def _unread_bytes(self) -> int:
        """The event may be older than the last write. Source: pipe(7), FIONREAD."""
        (unread,) = struct.unpack("i", fcntl.ioctl(self._fd.number, termios.FIONREAD, bytes(4)))
        return int(unread)

    def rest(self) -> None:
        if self._watching:
            self._watching = False
            self._loop.remove_writer(self._fd.number)


class ShellDriver:
    """Starts a shell, has it run one command at a time, and reads how each ends.

    `on_silent` is called if the shell won't report how the command ended: it reads and does nothing
    (`set -n`), or its builtins mean something else. `status` is `$?` for the next command. Raises
    OSError, SpawnFailed or Exhausted if the shell can't be started; nothing is left then.
    """

    on_status: Callable[[int], None]
    on_silent: Callable[[], None]

    def __init__(
        self,
        supervisor: Supervisor,
        paths: ChildPaths,
        shell: str,
        *,
        cwd: str,
        env: Mapping[str, str],
    ) -> None:
        self.dialect = Dialect(shell)
        self.paths = paths
        self.loop, self.tasks, self.trees = supervisor.loop, supervisor.tasks, supervisor.trees
        self.status = 0
        self.end_reason = ""
        self._running = NONE
        self._failure: int | None = None
        self._asked_again = False
        self._partial = b""
        self._output = Buffer(SHELL_OUTPUT_BYTES)
        self._sourcing = b""
        with ExitStack() as undo:
            self._source, self._lines = paths.input("lines")
            undo.callback(self._source.close)
            undo.callback(self._lines.close)
            self._control = paths.channel("control")
            undo.callback(self._control.close)
            start = self.dialect.start(self._source.path)
            self._argv = b"".join(os.fsencode(word) + b"\0" for word in start.argv)
            self.process = supervisor.spawn(
                start.argv,
                cwd=cwd,
                env=env,
                output=Log(self._output, 0),
                stdin=self._source.fd if start.on_stdin else None,
                long_lived=True,
            )
            self.pid = self.process.record.pid
            undo.callback(self.process.close)
            undo.callback(self.process.kill)
            self._feed = Feed(self.loop, self._lines, self._all_read)
            if start.first_lines:
                self._feed.write(start.first_lines)
            # We have both of its ends, so that the shell never waits and we see no end.
            on_data = self._report_received
            self._reports = FdReader(self.loop, self._control.fd, on_data, lambda: None)
            undo.pop_all()

    @property
    def ended(self) -> bool:
        return not self.process.running

    def is_shell(self) -> bool | None:
        """Whether the process is the shell: not before a wrapper has started it, nor after `exec`.

        None if that can't be read. No more of its arguments is read than necessary: they may be of
        any length. Source: proc_pid_cmdline(5).
        """
        try:
            with open(f"/proc/{self.pid}/cmdline", "rb", buffering=0) as file:  # noqa: PTH123
                return file.read(len(self._argv) + 1) == self._argv
        except (FileNotFoundError, ProcessLookupError):
            return False
        except OSError:
            return None

    def run(self, number: int, text: str, script: str, streams: str) -> None:
        """Have the shell run the user's `text`, at the path `script`, with `streams` redirected."""
        self._running = number
        self._asked_again = False
        self._failure = self.dialect.failure(text)
        self._sourcing = f" . {script}".encode()
        self._output.clear()
        tag = self.process.tag(number)
        retag = "" if self.process.retag(tag) else self.dialect.retag(tag)
        self._feed.write(
            self.dialect.prepare(self.status, retag)
            + self.dialect.sourcing(script, streams)
            + self.dialect.report(number, self._control.path)
        )

    def poll(self) -> None:
        """Read what the shell has reported, and whether it has exited: the loop may be late."""
        self._reports.drain()
        self.process.poll()

    def move_output(self, log: Log[LogFile]) -> None:
        """Move the shell's own output since the command began into a log, but for the trace."""
        self.process.drain()
        for run in self._output.runs():
            lines = run.data.splitlines(keepends=True)
            if output := b"".join(line for line in lines if self._sourcing not in line):
                log.append(output, run.stream)
        self._output.clear()

    def signal(self, number: int) -> None:
        """Send the shell alone a signal, also if it is stopped."""
        self.process.signal(number)
        self.process.signal(signal.SIGCONT)

    def tree(self, number: int, *, with_shell: bool) -> Tree:
        """The processes that a command has started, wherever they are, and perhaps the shell."""
        leader = self.process.record.tree.leader
        tag = self.process.tag(number)
        return Tree(leader if with_shell else 0, tag, tags.EVERY_BIT, host=leader)

    def has_tag(self, number: int) -> bool:
        """Whether the shell carries a command's tag: else `tree` doesn't find its processes."""
        return tags.tag_of(self.pid) == self.process.tag(number)

    def end_of_lines(self) -> None:
        """Have the shell end when it reads on; its command's status doesn't matter any more."""
        self._running = NONE
        if not self._lines.closed:
            self._feed.write(self.dialect.nothing())
        self._source.close()
        self._lines.close()

    def close(self) -> None:
        self._running = NONE
        self._source.close()
        self._lines.close()
        self._reports.close()
        self._control.close()
        self.process.close()

    def _report_received(self, data: bytes) -> None:
        lines, _, partial = (self._partial + data).rpartition(b"\n")
        self._partial = partial[:MAX_REPORT_BYTES]
        # Other lines are of the user's programs, which can find the pipe.
        for number, word in REPORT.findall(lines):
            if self._running != NONE and int(number) == self._running:
                self._running = NONE
                status = int(word)  # some shells report more than eight bits of it
                self.status = 1 if status == self._failure else status & 0xFF
                self.on_status(self.status)

    def _all_read(self) -> None:
        """The shell has read all lines: it has reported the status, is about to, or never will.

        A shell that reads in blocks has read the second line before it executes the first. So one
        more line is written, an empty one: when it is read, the report was executed.
        """
        self._source.close()  # the shell has opened it
        running = self._running
        self._reports.drain()
        if running != self._running:
            return  # that was the report, and the next command's lines may have been written
        if running == NONE:
            self._feed.rest()
        elif not self._asked_again:
            self._asked_again = True
            self._feed.write("\n")
        else:
            self._running = NONE
            self._feed.rest()
            self.on_silent()
