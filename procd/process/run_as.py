"""RunAs: whom children run as, and what is theirs to do."""

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
    """Whom children run as, by number."""

    uid: int
    gid: int
    groups: tuple[int, ...]

    def check_path(self, path: Path, label: str) -> None:
        """Refuse a directory that the owner can't enter, or whose parents it can't pass through.

        Raises:
            ConfigError: it is such a one.
        """
        for place in (path, *path.parents):
            if not self._may_execute(place):
                raise ConfigError(f"{label}: uid {self.uid} can't pass through {place}")

    def check_lasting(self, path: Path, label: str) -> None:
        """Refuse a directory that the owner could put another, or a link, in the place of.

        All links that lead there are looked at as well, and the parents of each. What is then made,
        given away or removed there by name is somebody else's. Who else may write to it or its
        parents isn't looked at closely; root has no need of such means.

        Raises:
            ConfigError: it is such a one.

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
        """Whether the owner can get to a program that is there, and execute it."""
        real = program.resolve()
        return all(map(self._may_execute, (real, *real.parents, *program.parents)))

    @contextmanager
    def acting(self) -> Iterator[None]:
        """Have the kernel judge procd as it would the owner, whom no capability helps.

        All of procd: it has one thread, and nothing is to be awaited meanwhile. Its real and saved
        ids stay, so that the owner's processes have no more power over it than ever.

        Source: credentials(7); capabilities(7), "Effect of user ID changes on capabilities".
        """
        gid, groups = os.getegid(), os.getgroups()
        # Whoever changes ids may be traced no more, and outlives its parent after all: prctl(2).
        dumpable, signal_of_end = LIBC.prctl(PR_GET_DUMPABLE), ctypes.c_int()
        LIBC.prctl(PR_GET_PDEATHSIG, ctypes.byref(signal_of_end))
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
            LIBC.prctl(PR_SET_PDEATHSIG, signal_of_end.value)

    def _may_execute(self, place: Path) -> bool:
        """Whether the mode says so; for a directory, whether it can be passed through."""
        found = place.stat()
        if found.st_uid == self.uid:
            allowed = found.st_mode & stat.S_IXUSR
        elif found.st_gid in (self.gid, *self.groups):
            allowed = found.st_mode & stat.S_IXGRP
        else:
            allowed = found.st_mode & stat.S_IXOTH
        return self.uid == 0 or bool(allowed)
