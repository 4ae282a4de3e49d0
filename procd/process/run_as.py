"""The user that children run as, and what that user may do with files."""

import ctypes
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from procd.config import ConfigError
from procd.unix.libc import LIBC

# linux/prctl.h
PR_SET_PDEATHSIG: Final = 1
PR_GET_PDEATHSIG: Final = 2
PR_GET_DUMPABLE: Final = 3
PR_SET_DUMPABLE: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAs:
    uid: int
    gid: int
    groups: tuple[int, ...]

    def check_path(self, path: Path, label: str) -> None:
        """Refuse with ConfigError a directory that the user can't enter, or reach."""
        for place in (path, *path.parents):
            if not self._may_execute(place):
                raise ConfigError(f"{label}: uid {self.uid} can't pass through {place}")

    def check_lasting(self, path: Path, label: str) -> None:
        """Refuse with ConfigError a directory that the user could replace by another, or by a link.

        root makes files there, changes their owner and removes them, all by name. The directory,
        its parents and all links on the way are checked.

        Source: sshd_config(5), StrictModes; unlink(2), EPERM, the sticky bit.
        """
        if self.uid in (0, os.geteuid()):
            return
        path = path.absolute()
        for place in (path, *path.parents):
            if place.is_symlink():
                self.check_lasting(place.parent.resolve() / place.readlink(), label)
            found = place.lstat()
            mode = 0 if stat.S_ISLNK(found.st_mode) else found.st_mode
            shared = mode & (stat.S_IWGRP | stat.S_IWOTH) and not mode & stat.S_ISVTX
            if shared or found.st_uid == self.uid:
                named = place.parent.resolve() / place.name
                raise ConfigError(f"{label}: uid {self.uid} could exchange what is in {named}")

    def may_run(self, program: Path) -> bool:
        """Whether the user can reach an existing program and execute it."""
        real = program.resolve()
        return all(map(self._may_execute, (real, *real.parents, *program.parents)))

    @contextmanager
    def acting(self) -> Iterator[None]:
        """Give procd the user's rights to files, without its own capabilities.

        It affects the whole process: await nothing meanwhile. The real and saved ids stay, so that
        the user's processes can't signal procd.

        Source: credentials(7); capabilities(7), "Effect of user ID changes on capabilities".
        """
        gid, groups = os.getegid(), os.getgroups()
        # A change of ids resets these two. Source: prctl(2).
        dumpable, parent_death_signal = LIBC.prctl(PR_GET_DUMPABLE), ctypes.c_int()
        LIBC.prctl(PR_GET_PDEATHSIG, ctypes.byref(parent_death_signal))
        try:
            os.setgroups(self.groups)
            os.setegid(self.gid)
            os.seteuid(self.uid)
            yield
        finally:
            os.seteuid(0)
            os.setegid(gid)
            os.setgroups(groups)
            LIBC.prctl(PR_SET_DUMPABLE, dumpable)
            LIBC.prctl(PR_SET_PDEATHSIG, parent_death_signal.value)

    def _may_execute(self, place: Path) -> bool:
        found = place.stat()
        if found.st_uid == self.uid:
            allowed = found.st_mode & stat.S_IXUSR
        elif found.st_gid in (self.gid, *self.groups):
            allowed = found.st_mode & stat.S_IXGRP
        else:
            allowed = found.st_mode & stat.S_IXOTH
        return self.uid == 0 or bool(allowed)
