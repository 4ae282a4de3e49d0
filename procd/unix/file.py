"""Files of our own, in directories where others may put something else in their place."""

import ctypes
import errno
import logging
import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from procd.unix.fd import OwnedFd
from procd.unix.libc import LIBC

log = logging.getLogger(__name__)

# linux/falloc.h
FALLOC_FL_KEEP_SIZE: Final = 1
FALLOC_FL_PUNCH_HOLE: Final = 2


def make_directory(path: Path, mode: int = 0o700) -> None:
    """Make a directory, unless it is there; those above it that are missing get the same mode.

    Raises:
        OSError: it can't be made.
    """
    if not path.parent.is_dir():
        make_directory(path.parent, mode)
    path.mkdir(mode=mode, exist_ok=True)


def remove_tree(path: Path) -> None:
    """Remove a directory, if it is there, and all in it; what can't be removed is left, and logged.

    Somebody may still write there, such as a program that is being killed.
    """
    with suppress(RecursionError):  # it is too deep for that, before Python 3.13
        shutil.rmtree(path, ignore_errors=True)  # goes on after what can't be
    try:
        path.rmdir()
    except FileNotFoundError:
        return  # as it should be
    except OSError as exc:
        log.warning("%s can't be removed: %s", path, exc.strerror)


def open_regular(path: Path, flags: int) -> OwnedFd:
    """Open a regular file, which is private if it is new.

    A FIFO in its place would keep us until somebody opens it too, and a link lead elsewhere.

    Raises:
        OSError: it can't be opened, or is something else.
    """
    flags |= os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    fd = OwnedFd(os.open(path, flags, 0o600))
    try:
        if not stat.S_ISREG(os.fstat(fd.number).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
    except OSError:
        fd.close()
        raise
    return fd


def size_of(path: Path) -> int:
    """How long a regular file is; 0 if there is none, whatever else is there.

    Raises:
        OSError: nobody can tell.
    """
    try:
        found = path.stat(follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def punch(fd: OwnedFd, upto: int) -> bool:
    """Give the file's blocks before position `upto` back to the file system, if it can do that.

    Source: fallocate(2). From the file's beginning: what was punched before is a hole already.
    """
    flags = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
    return bool(LIBC.fallocate(fd.number, flags, ctypes.c_int64(0), ctypes.c_int64(upto)) == 0)
