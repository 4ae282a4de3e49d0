"""A real terminal with a program in it."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.daemon.daemon import PATIENCE_S


class Screen:
    """A program that runs in a terminal of its own.

    Attributes:
        seen: all that was printed.
        before: the attributes of the terminal before the program started.
    """

    def __init__(
        self, arguments: Sequence[str], env: Mapping[str, str], *, cols: int = 80, rows: int = 24
    ) -> None:
        self._master, self._slave = pty.openpty()
        self.resize(cols, rows)
        self.before = self.attributes()
        self.seen = b""
        self._position = 0
        self._open = True
        self.process = subprocess.Popen(
            arguments,
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            env=dict(env),
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def attributes(self) -> list[Any]:
        """Its attributes: termios(3)."""
        return termios.tcgetattr(self._slave)

    @property
    def raw(self) -> bool:
        """Whether keys come as they are."""
        local: int = self.attributes()[3]
        return not local & (termios.ICANON | termios.ECHO | termios.ISIG)

    def resize(self, cols: int, rows: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def read(self, within_s: float = 0.1) -> bool:
        """Take in what is printed; False if nothing was."""
        if not select.select([self._master], [], [], within_s)[0]:
            return False
        self.seen += os.read(self._master, 65536)
        return True

    def until(self, pattern: bytes) -> "re.Match[bytes]":
        """Read until this is printed, behind what was found before."""
        deadline = time.monotonic() + PATIENCE_S
        while (found := re.compile(pattern).search(self.seen, self._position)) is None:
            assert time.monotonic() < deadline, (pattern, self.seen[-2000:])
            self.read()
        self._position = found.end()
        return found

    def wait(self) -> int:
        """The exit code of the program, once it has ended and all is read."""
        deadline = time.monotonic() + PATIENCE_S
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.seen[-2000:]
            self.read()
        while self.read():
            continue
        return self.process.returncode

    def restored(self) -> bool:
        """Whether the terminal is as it was before."""
        return self.attributes() == self.before

    def state(self) -> str:
        """The state of the program: proc_pid_stat(5)."""
        return Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0]

    def suspended(self) -> bool:
        """Whether the terminal is restored and the program stopped; SIGCONT before that is lost."""
        return self.state() == "T" and self.restored()

    def hang_up(self) -> None:
        """Close its window."""
        os.close(self._slave)
        os.close(self._master)
        self._open = False

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        if self._open:
            self.hang_up()
