"""The directory in which one run of procd keeps its files; those of dead runs are removed.

Each has a lock on a file inside, which ends with its owner, however that ends: flock(2).
"""

import fcntl
import logging
import os
import tempfile
from pathlib import Path
from typing import Final

from procd.unix.fd import OwnedFd
from procd.unix.file import remove_tree

log = logging.getLogger(__name__)

PREFIX: Final = "procd-"
LOCK: Final = "lock"


class StateDirectory:
    """A new private directory below `parent`, after those of dead owners are removed."""

    def __init__(self, parent: str) -> None:
        _remove_abandoned(Path(parent))
        while True:
            # Mode 0700 and an unused name: mkdtemp(3).
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent)).absolute()
            lock = OwnedFd(os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            # Another procd that starts now may have found it unlocked, and removed it.
            if _locked(lock) and os.fstat(lock.number).st_nlink:
                self._lock = lock
                return
            lock.close()

    def remove(self) -> None:
        remove_tree(self.path)
        self._lock.close()

    def problem(self, min_free_bytes: int) -> str:
        """Why no file could be kept in it; empty if one could. Source: statvfs(3); access(2)."""
        directory = self.path if self.path.is_dir() else self.path.parent  # it is made when needed
        try:
            usage = os.statvfs(directory)
        except OSError as exc:
            return f"state directory is not there: {exc.strerror}"
        if not os.access(directory, os.W_OK | os.X_OK):
            return "state directory can't be written"
        if usage.f_bavail * usage.f_frsize < min_free_bytes:
            return f"state directory has less than {min_free_bytes} bytes free"
        if usage.f_files and not usage.f_favail:
            return "state directory has no inode free"
        return ""


def _locked(lock: OwnedFd) -> bool:
    try:
        fcntl.flock(lock.number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove_abandoned(parent: Path) -> None:
    """Remove directories of our user whose lock is free; those without a lock are left."""
    for directory in parent.glob(PREFIX + "*"):
        try:
            if directory.lstat().st_uid != os.geteuid() or directory.is_symlink():
                continue
            flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
            lock = OwnedFd(os.open(directory / LOCK, flags))
        except OSError as exc:
            log.debug("%s is left alone: %s", directory, exc.strerror)
            continue
        try:
            if _locked(lock):
                log.debug("removing %s, whose owner has ended", directory)
                remove_tree(directory)
        finally:
            lock.close()
