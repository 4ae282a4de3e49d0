"""Terminals: size, controlling terminal, job control, hang-up."""

import fcntl
import os
import signal
import struct
import sys
import termios
from contextlib import ExitStack

from procd.process.spawn import Spec, spawn
from procd.process.tags import TAG_BASE
from procd.process.tty import IUTF8, open_terminal, set_window_size
from procd.unix.fd import seal_inherited

ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin", "PS1": "prompt> ", "TERM": "dumb"}
PROMPT = b"prompt> "


class Screen:
    """A program on a terminal, and the person in front of it."""

    def __init__(self, closing: ExitStack, *argv: str, cols: int = 80, rows: int = 24) -> None:
        terminal = open_terminal(cols, rows)
        self.master, self.path = terminal.master, terminal.path
        spec = Spec(argv=argv, cwd="/", env=ENV, stdio=(self.path, 0, 0))
        self.pid = spawn(spec, TAG_BASE + 2)
        terminal.slave.close()
        self.seen = b""
        closing.callback(self.close)

    def type(self, text: bytes) -> None:
        os.write(self.master.number, text)

    def until(self, text: bytes) -> bytes:
        """Everything before `text`."""
        while text not in self.seen:
            self.seen += os.read(self.master.number, 4096)
        before, _, self.seen = self.seen.partition(text)
        return before

    def rest(self) -> bytes:
        """Everything to the end."""
        while True:
            try:
                self.seen += os.read(self.master.number, 4096)
            except OSError:  # EIO: the last slave is closed
                return self.seen

    def exit_code(self) -> int:
        """Hang up; the exit code of the program."""
        self.master.close()
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        self.master.close()


def window_size(number: int) -> tuple[int, ...]:
    return struct.unpack("HHHH", fcntl.ioctl(number, termios.TIOCGWINSZ, bytes(8)))


def test_open_terminal(closing: ExitStack) -> None:
    terminal, other = open_terminal(132, 43), open_terminal(80, 24)
    closing.callback(terminal.close)
    closing.callback(other.close)
    assert terminal.path != other.path
    for end in (terminal.master, terminal.slave):
        assert not os.get_inheritable(end.number)
        assert window_size(end.number) == (43, 132, 0, 0)
    assert os.ttyname(terminal.slave.number) == terminal.path
    assert termios.tcgetattr(terminal.slave.number)[0] & IUTF8
    set_window_size(terminal.master, 1, 1000)
    assert window_size(terminal.slave.number) == (1000, 1, 0, 0)


def test_controlling_terminal(closing: ExitStack) -> None:
    seal_inherited()
    script = "tty; tty <&1; tty <&2; echo through >/dev/tty; ls /proc/self/fd"
    screen = Screen(closing, "/bin/sh", "-c", script)
    lines = screen.rest().decode().split()
    assert lines == [screen.path, screen.path, screen.path, "through", "0", "1", "2", "3"]
    assert screen.exit_code() == 0


def test_job_control(closing: ExitStack) -> None:
    """Ctrl+Z stops a job, fg continues it, Ctrl+C interrupts it."""
    screen = Screen(closing, "/bin/bash", "--norc", "--noprofile", "-i")
    assert b"no job control" not in screen.until(PROMPT)
    screen.type(b"sh -c 'echo job-$((2+1)); read x; echo got-$x'\n")
    screen.until(b"job-3\r\n")
    screen.type(b"\x1a")
    assert b"Stopped" in screen.until(PROMPT)
    screen.type(b"fg\n")
    screen.until(b"sh -c")
    screen.type(b"line\n")
    screen.until(b"got-line\r\n" + PROMPT)
    screen.type(b"sh -c 'echo job-$((3+1)); exec cat'\n")
    screen.until(b"job-4\r\n")
    screen.type(b"\x03")
    screen.until(PROMPT)
    screen.type(b"echo after-$?\n")
    screen.until(b"after-130\r\n" + PROMPT)
    screen.type(b"exit 7\n")
    screen.rest()
    assert screen.exit_code() == 7


def test_change_of_the_size_is_sigwinch(closing: ExitStack) -> None:
    """The same size again is no change."""
    program = """
import os, signal, subprocess
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGWINCH})
subprocess.run(["stty", "size"])
print("ready", flush=True)
input()
print(signal.SIGWINCH in signal.sigpending(), flush=True)
signal.sigwait({signal.SIGWINCH})
subprocess.run(["stty", "size"])
"""
    screen = Screen(closing, sys.executable, "-c", program, cols=100, rows=30)
    assert screen.until(b"ready\r\n") == b"30 100\r\n"
    set_window_size(screen.master, 100, 30)
    screen.type(b"\n")
    screen.until(b"False\r\n")
    set_window_size(screen.master, 90, 20)
    screen.until(b"20 90\r\n")
    screen.rest()
    assert screen.exit_code() == 0


def test_hang_up_is_sighup(closing: ExitStack) -> None:
    screen = Screen(closing, "/bin/sh", "-c", "echo ready; read x")
    screen.until(b"ready")
    assert screen.exit_code() == -signal.SIGHUP
