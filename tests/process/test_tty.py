"""Terminals: size, controlling terminal, job control."""

import errno
import fcntl
import os
import signal
import struct
import sys
import termios
from contextlib import ExitStack

import pytest

from procd.process.spawn import Spec, spawn
from procd.process.tags import TAG_BASE
from procd.process.tty import IUTF8, open_pty, set_winsize
from procd.unix.fd import OwnedFd, seal_inherited

ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin", "PS1": "prompt> ", "TERM": "dumb"}
PROMPT = b"prompt> "


class Terminal:
    """A program on a terminal of its own, as seen by who sits before it."""

    def __init__(self, *argv: str, cols: int = 80, rows: int = 24) -> None:
        self.master, self.path = open_pty(cols, rows)
        spec = Spec(argv=argv, cwd="/", env=ENV, stdio=(self.path, 0, 0))
        self.pid = spawn(spec, TAG_BASE + 2)
        self.seen = b""

    def type(self, text: bytes) -> None:
        os.write(self.master.number, text)

    def until(self, text: bytes) -> bytes:
        """Everything up to `text`, which is taken off as well."""
        while text not in self.seen:
            self.seen += os.read(self.master.number, 4096)
        before, _, self.seen = self.seen.partition(text)
        return before

    def rest(self) -> bytes:
        """Everything up to the end."""
        while True:
            try:
                data = os.read(self.master.number, 4096)
            except OSError:  # EIO: the last slave is closed
                return self.seen
            self.seen += data

    def status(self) -> int:
        """How its program ended."""
        self.master.close()
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        self.master.close()


def terminal(closing: ExitStack, *argv: str, cols: int = 80, rows: int = 24) -> Terminal:
    """Start a program on a terminal; it is ended with the test."""
    made = Terminal(*argv, cols=cols, rows=rows)
    closing.callback(made.close)
    return made


def _winsize(number: int) -> tuple[int, int, int, int]:
    rows, cols, x, y = struct.unpack("HHHH", fcntl.ioctl(number, termios.TIOCGWINSZ, bytes(8)))
    return rows, cols, x, y


def test_a_terminal_that_cannot_be_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is told as every failure of the system is, and no descriptor is left."""

    def refused(number: int) -> None:
        raise termios.error(errno.EPERM, os.strerror(errno.EPERM))

    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr("termios.tcgetattr", refused)
    with pytest.raises(OSError, match="Operation not permitted") as caught:
        open_pty(80, 24)
    assert caught.value.errno == errno.EPERM
    assert os.listdir("/proc/self/fd") == before


def test_a_terminal_of_a_size(closing: ExitStack) -> None:
    """Master and slave agree on the size; the slave is not opened and nothing is inherited."""
    master, path = open_pty(132, 43)
    closing.callback(master.close)
    assert not os.get_inheritable(master.number)
    slave = OwnedFd(os.open(path, os.O_RDWR | os.O_NOCTTY))
    closing.callback(slave.close)
    assert os.isatty(slave.number)
    assert _winsize(slave.number) == (43, 132, 0, 0)
    assert termios.tcgetattr(slave.number)[0] & IUTF8
    set_winsize(master, 1, 1000)
    assert _winsize(slave.number) == (1000, 1, 0, 0)


def test_two_terminals_are_two(closing: ExitStack) -> None:
    """Each has a slave of its own."""
    paths = set()
    for _ in range(5):
        master, path = open_pty(80, 24)
        closing.callback(master.close)
        paths.add(path)
    assert len(paths) == 5


def test_a_failure_leaves_nothing() -> None:
    """A size that fits no winsize is an error, and the master is closed again."""
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(struct.error):
        open_pty(1 << 16, 24)
    assert len(os.listdir("/proc/self/fd")) == before


def test_it_is_the_controlling_terminal(closing: ExitStack) -> None:
    """All three descriptors are the terminal, and so is /dev/tty; there is no other."""
    seal_inherited()
    it = terminal(
        closing, "/bin/sh", "-c",
        "tty; tty <&1; tty <&2; echo through >/dev/tty; ls /proc/self/fd",
    )  # fmt: skip
    lines = it.rest().decode().split()
    assert lines == [it.path, it.path, it.path, "through", "0", "1", "2", "3"]
    assert it.status() == 0


def _shell(closing: ExitStack) -> Terminal:
    """An interactive shell that has said its first prompt."""
    it = terminal(closing, "/bin/bash", "--norc", "--noprofile", "-i")
    assert b"no job control" not in it.until(PROMPT)
    return it


def test_job_control(closing: ExitStack) -> None:
    """`set -m` works: jobs have process groups, Ctrl+Z stops one and fg goes on with it."""
    it = _shell(closing)
    it.type(b"set -m && echo on-$((1+1))\n")
    it.until(b"on-2\r\n" + PROMPT)
    it.type(b"sh -c 'echo job-$((2+1)); read x; echo got-$x'\n")
    it.until(b"job-3\r\n")
    it.type(b"\x1a")
    assert b"Stopped" in it.until(PROMPT)
    it.type(b"jobs %1\n")
    assert b"Stopped" in it.until(PROMPT)
    it.type(b"fg\n")
    it.until(b"sh -c")
    it.type(b"line\n")
    it.until(b"got-line\r\n" + PROMPT)
    it.type(b"exit 7\n")
    it.rest()
    assert it.status() == 7


def test_ctrl_c_reaches_the_foreground(closing: ExitStack) -> None:
    """The interrupt character is a signal to the job in front, and the shell lives on."""
    it = _shell(closing)
    it.type(b"sh -c 'echo job-$((2+1)); exec cat'\n")
    it.until(b"job-3\r\n")
    it.type(b"\x03")
    it.until(PROMPT)
    it.type(b"echo after-$?\n")
    it.until(b"after-130\r\n" + PROMPT)
    it.type(b"exit 0\n")
    it.rest()
    assert it.status() == 0


def test_its_size_and_its_change(closing: ExitStack) -> None:
    """`stty size` tells the size; a change of it is a SIGWINCH to the foreground."""
    program = """
import os, signal, subprocess
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGWINCH})
subprocess.run(["stty", "size"])
print("ready", flush=True)
signal.sigwait({signal.SIGWINCH})
subprocess.run(["stty", "size"])
"""
    it = terminal(closing, sys.executable, "-c", program, cols=100, rows=30)
    assert it.until(b"ready\r\n") == b"30 100\r\n"
    set_winsize(it.master, 90, 20)
    it.until(b"20 90\r\n")
    it.rest()
    assert it.status() == 0


def test_the_same_size_is_no_news(closing: ExitStack) -> None:
    """Setting the size it has sends no signal."""
    it = terminal(
        closing, "/bin/bash", "-c", 'trap "echo news" WINCH; echo ready; read x; echo end'
    )
    it.until(b"ready\r\n")
    set_winsize(it.master, 80, 24)
    it.type(b"\n")
    assert b"news" not in it.until(b"end")
    it.rest()
    assert it.status() == 0


def test_hanging_up(closing: ExitStack) -> None:
    """Closing the master is SIGHUP to the session's leader."""
    it = terminal(closing, "/bin/sh", "-c", "echo ready; read x")
    it.until(b"ready")
    assert it.status() == -signal.SIGHUP
