"""Files and directories, on file systems that others can write to as well."""

import ctypes
import errno
import logging
import os
import re
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

# Prefixes of the file system types that another machine, or a program of this one, serves.
REMOTE: Final = (
    b"9p", b"afs", b"autofs", b"ceph", b"cifs", b"fuse", b"lustre", b"nfs", b"smb", b"virtiofs",
)  # fmt: skip
ESCAPED: Final = re.compile(rb"\\([0-7]{3})")


def make_directory(path: Path, mode: int = 0o700) -> None:
    """Make a directory and its missing parents, all with `mode`, unless it exists."""
    if not path.parent.is_dir():
        make_directory(path.parent, mode)
    path.mkdir(mode=mode, exist_ok=True)


def remove_tree(path: Path) -> None:
    """Remove a directory and its content, if it exists; log what can't be removed."""
    with suppress(RecursionError):  # before Python 3.13, a tree that is very deep
        shutil.rmtree(path, ignore_errors=True)
    try:
        path.rmdir()
    except FileNotFoundError:
        return  # removed
    except OSError as exc:
        log.warning("%s can't be removed: %s", path, exc.strerror)


def open_regular(path: Path, flags: int) -> OwnedFd:
    """Open a regular file; a new one is private. Never follows a link or waits for a FIFO."""
    flags |= os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    fd = OwnedFd(os.open(path, flags, 0o600))
    try:
        if not stat.S_ISREG(os.fstat(fd.number).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
    except OSError:
        fd.close()
        raise
    return fd


def punch(fd: OwnedFd, upto: int) -> bool:
    """Free the file's blocks before position `upto`: fallocate(2). False if that can't be done."""
    flags = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
    return bool(LIBC.fallocate(fd.number, flags, ctypes.c_int64(0), ctypes.c_int64(upto)) == 0)


def is_remote(path: str) -> bool:
    """Whether a path is on a file system whose server may never answer, such as NFS or FUSE.

    Judged by the text of the absolute path, as resolving links could itself block; the root
    directory doesn't count. Source: proc_pid_mountinfo(5).
    """
    try:
        wanted = os.fsencode(os.path.abspath(path))  # noqa: PTH100 - a str
        with open("/proc/self/mountinfo", "rb", buffering=0) as mounts:  # noqa: PTH123 - as above
            lines = mounts.read().split(b"\n")[:-1]
    except OSError:  # the working directory is deleted, or no descriptor is left
        return False
    wanted = b"/" + wanted.strip(b"/") + b"/"
    longest, kind = b"/", b""
    for line in lines:  # of several mounts at one place, the last one is visible
        before, _, after = line.partition(b" - ")
        place = ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), before.split(b" ")[4]) + b"/"
        if place != b"//" and wanted.startswith(place) and len(place) >= len(longest):
            longest, kind = place, after
    return kind.startswith(REMOTE)
