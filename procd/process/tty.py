"""A pseudo-terminal and its window size. Source: pts(4), pty(7), ioctl_tty(2), termios(3)."""

import fcntl
import os
import struct
import termios
from dataclasses import dataclass
from typing import Final

from procd.unix.fd import OwnedFd, own_fds

IUTF8: Final = 0x4000  # asm-generic/termbits-common.h


@dataclass(frozen=True, slots=True)
class Terminal:
    """Both ends of a terminal, and the path of the slave.

    The slave is kept open until the program has ended: else reading the master would fail with EIO
    when the program itself closes its terminal for a while.
    """

    master: OwnedFd
    slave: OwnedFd
    path: str

    def close(self) -> None:
        self.master.close()
        self.slave.close()


def open_terminal(cols: int, rows: int) -> Terminal:
    """Open a terminal; erasing in canonical mode removes whole UTF-8 characters.

    It becomes the controlling terminal of the first session leader that opens the slave's path.
    """
    master, slave = own_fds(*os.openpty())
    attributes = termios.tcgetattr(slave.number)
    attributes[0] |= IUTF8
    termios.tcsetattr(slave.number, termios.TCSANOW, attributes)
    set_window_size(master, cols, rows)
    return Terminal(master, slave, os.ttyname(slave.number))


def set_window_size(master: OwnedFd, cols: int, rows: int) -> None:
    """Set the size. If it changes, the kernel sends SIGWINCH to the foreground process group."""
    fcntl.ioctl(master.number, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))
