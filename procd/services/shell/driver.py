"""Dialogue: what a session's shell is told, and how it says that a command has ended.

The shell reads two short lines for each command from a pipe of its own: source the script with the
command's pipes as its descriptors; then write `$?` into the session's control pipe, by path. All
else that it ever sees of procd is a trap on SIGURG, which has it leave a script that is to end.
"""

import asyncio
import logging
import re
import shlex
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from procd.process.io import FdReader
from procd.services.shell.dialect import (
    FedShell,
    builtin_word,
    leaving,
    sourcing,
    untraced,
    with_status,
)
from procd.services.shell.feed import Feed
from procd.services.shell.proc_path import Opening, Openings, Paths
from procd.unix.fd import OwnedFd

log = logging.getLogger(__name__)

MAX_STATUS_BYTES: Final = 4096
# A line that tells a command's number and its status, and one that doesn't.
STATUS: Final = re.compile(rb"^(\d{1,20}) (-?\d{1,20})$", re.MULTILINE)
NO_STATUS: Final = re.compile(rb"^(?!\d{1,20} -?\d{1,20}$).*", re.MULTILINE)
# Ignored by a shell without a trap for it, and of no use to programs.
LEAVE: Final = signal.SIGURG
# What a command's status is when it was told to end: 128 + SIGTERM.
TERMINATED: Final = 143
# How long a shell may take to end when it has closed the pipe.
EXIT_S: Final = 1.0
NOTHING: Final = 0  # runs: commands are counted from 1


@dataclass(frozen=True, slots=True)
class Contact:
    """How a shell is reached.

    Attributes:
        shell: what it was started as.
        openings: where it finds what it opens.
        lines: the pipe that it reads: what it opens, and the end that is written.
    """

    shell: FedShell
    openings: Openings
    lines: tuple[Opening, OwnedFd]


class Dialogue:
    """With one shell, about one command at a time.

    Args:
        is_shell: whether its process still is the shell: not so after `exec PROGRAM`, whose exit
            status is the command's.
        on_end: called with a command's exit code when the shell has told it.
        on_silence: called once the shell can't be trusted to say how the command ended: its words
            mean something else by now, it reads and does nothing (`set -n`), or has closed the
            pipe.

    Attributes:
        status: what the next command has in `$?`: what the last one has ended with.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        contact: Contact,
        is_shell: Callable[[], bool | None],
        on_end: Callable[[int], None],
        on_silence: Callable[[], None],
    ) -> None:
        self._shell = contact.shell.path
        self._builtin = builtin_word(self._shell)
        self._is_shell = is_shell
        self._on_end = on_end
        self._on_silence = on_silence
        self._number = NOTHING
        self.status = 0
        self._failure: int | None = None
        self._asked = False
        self._told = False  # whether a line that is no report was logged
        self._source, self._feed_fd = contact.lines
        self._feed = Feed(loop, self._feed_fd, self._lines_read, self._input_closed)
        # Before there is anything that would have to be closed if it fails.
        trap = f"{self._builtin} trap {shlex.quote(leaving(self._shell, TERMINATED))} URG\n"
        self._feed.write(f"{contact.shell.first}{trap}".encode())
        # Both ends are ours, so that the shell never waits and we never see an end.
        self._control = contact.openings.channel("control")
        self._statuses = FdReader(loop, self._control.fd, self._status_received, _never)
        self._partial = b""

    def run(
        self,
        number: int,
        paths: Paths,
        before: str = "",
        failure: int | None = None,
    ) -> None:
        """Have the shell run a command, when it has none.

        Args:
            number: the command's, more than 0.
            paths: what the shell opens for it.
            before: a line for the shell to read first, or none.
            failure: what the shell says where it has failed itself, and `$?` is to be 1.
        """
        quote = shlex.quote
        script, stdin, stdout, stderr = paths
        # `$?` is that of the command before.
        status = with_status(self._shell, self.status) if self.status else ""
        prepare = untraced(f"{before}{status}") + "\n" if before or status else ""
        streams = f"<{quote(stdin)} >{quote(stdout)} 2>{quote(stderr)}"
        # Quoted, the word is no alias either.
        say = f"{self._builtin} 'printf' '{number} %s\\n' \"$?\" >{quote(self._control.path)}"
        source = sourcing(self._shell, script, streams)
        lines = f"{prepare}{source}\n{untraced(say)}\n".encode()
        self._number = number
        self._failure = failure
        self._asked = False
        self._feed.write(lines)

    def hear(self) -> None:
        """Take now what the shell has said by now."""
        self._statuses.drain()

    def end(self) -> None:
        """Have the shell end when it comes to it, and care no more how its command ends.

        A shell that waits for a line, as all but zsh do, comes to a trap that is due when it has
        read one.
        """
        self._number = NOTHING
        if not self._feed_fd.closed:
            self._feed.write(f"{untraced(f'{self._builtin} :')}\n".encode())
        self._source.close()
        self._feed_fd.close()

    def _status_received(self, data: bytes) -> None:
        lines, end, rest = (self._partial + data).rpartition(b"\n")
        told = STATUS.findall(lines) if end else []
        self._partial = rest[:MAX_STATUS_BYTES]  # not before: there may be no memory to go on
        if not end:
            return
        if not self._told and (strange := NO_STATUS.search(lines)) is not None:
            # A trap of the user's, in the moment of a report: the report comes all the same. Once:
            # programs find the pipe, and could fill a disk with procd's log.
            self._told = True
            first, count = strange[0][:80], lines.count(b"\n") + 1 - len(told)
            log.info("shell says %r on %s, the first of %d", first, self._control.path, count)
        for number, word in told:
            if self._number != NOTHING and int(number) == self._number:
                # Some shells say the whole of what `return` was given; the world sees eight bits.
                status = int(word)
                self.status = 1 if status == self._failure else status & 0xFF
                asked, self._number = self._number, NOTHING
                try:
                    self._on_end(self.status)
                except MemoryError:  # all of this comes again
                    if self._number == NOTHING:
                        self._number = asked
                    raise

    def _lines_read(self) -> None:
        """The shell has read all lines: a command's status has come, or is about to, or never will.

        A shell that reads in blocks does so as the command begins. One more line, an empty one,
        tells: when it is read as well, what went before it was done.
        """
        self._source.close()  # it has opened its own
        number = self._number
        self._statuses.drain()
        if number != self._number:
            return  # that was it; the next one's lines have been written
        if number == NOTHING:
            self._feed.rest()
        elif not self._asked:
            self._asked = True
            self._feed.write(b"\n")
        else:
            self._silent()

    def _input_closed(self) -> None:
        """The pipe has no reader: the shell is about to end or has become another program.

        Else it has closed the pipe itself.
        """

        def check(number: int) -> None:
            self.hear()  # where the loop is late, the time is over before its status is read
            if number != NOTHING and number == self._number and self._is_shell():
                self._silent()

        asyncio.get_running_loop().call_later(EXIT_S, check, self._number)

    def _silent(self) -> None:
        self._number = NOTHING
        self._feed.rest()
        self._on_silence()

    def close(self) -> None:
        """Close the pipe that the shell reads, and hear no more."""
        self._number = NOTHING
        self._source.close()
        self._feed_fd.close()
        self._statuses.close()
        self._control.close()


def _never() -> None:
    raise AssertionError("a pipe that is open for writing has no end")
