"""A pseudo-terminal: its master, its slave's path and its winsize.

Source: pts(4), ioctl_tty(2), termios(3).
"""

import fcntl
import os
import struct
import termios
from typing import Final

from procd.unix.fd import OwnedFd, for_work

# asm-generic/ioctls.h; the termios module has no names for them.
TIOCSPTLCK: Final = 0x40045431
TIOCGPTN: Final = 0x80045430
IUTF8: Final = 0x4000


def open_pty(cols: int, rows: int) -> tuple[OwnedFd, str]:
    """Open a PTY of this size: its master, and the path of its slave.

    The slave isn't opened here: the session leader that opens it first gets it as its controlling
    terminal. Erasing in canonical mode removes whole UTF-8 characters.

    Raises:
        OSError: no terminal, or no descriptor, is left, or what there is can't be set up.
    """
    (master,) = for_work(os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    try:
        fcntl.ioctl(master.number, TIOCSPTLCK, struct.pack("i", 0))
        (index,) = struct.unpack("i", fcntl.ioctl(master.number, TIOCGPTN, struct.pack("i", 0)))
        attributes = termios.tcgetattr(master.number)
        attributes[0] |= IUTF8
        termios.tcsetattr(master.number, termios.TCSANOW, attributes)
        set_winsize(master, cols, rows)
    except termios.error as exc:  # which is no OSError
        master.close()
        raise OSError(*exc.args) from exc
    except BaseException:
        master.close()
        raise
    return master, f"/dev/pts/{index}"


def set_winsize(master: OwnedFd, cols: int, rows: int) -> None:
    """Set the size; the kernel sends SIGWINCH to the foreground process group if it changed."""
    fcntl.ioctl(master.number, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))
