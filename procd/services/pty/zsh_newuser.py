"""zsh's questions for users who have no startup files of it: no program could answer them.

zsh asks where it finds none of four files in ZDOTDIR, by default HOME, and takes what is typed for
answers. So it gets a directory with one of them, which unsets ZDOTDIR: zsh goes on as if that had
never been set. It never asks root.

Source: zshmodules(1), "The zsh/newuser Module".
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from procd.process.run_as import Owner
from procd.process.shell import kind_of
from procd.unix.mounts import is_remote

STARTUP_FILES: Final = (".zshenv", ".zprofile", ".zshrc", ".zlogin")
DIRECTORY: Final = str(Path(__file__).parent / "zsh")
# Where an administrator may have said where the files are. Source: zsh(1), "FILES", and Debian's.
COMMON: Final = ("/etc/zshenv", "/etc/zsh/zshenv")


def unasked(shell: str, env: Mapping[str, str], owner: Owner | None) -> dict[str, str]:
    """`env` for an interactive `shell` of `owner`, or of procd's user: one that asks nothing."""
    home = env.get("HOME", "")
    if (
        (os.geteuid() if owner is None else owner.uid) == 0
        or not kind_of(os.path.realpath(shell)).startswith("zsh")
        or "ZDOTDIR" in env
        or is_remote(home)  # where nobody may answer procd either
        or any(os.access(f"{home}/{name}", os.F_OK) for name in STARTUP_FILES)
        or any(map(_says_where, COMMON))
        or not (owner is None or owner.may_run(Path(DIRECTORY)))
    ):
        return dict(env)
    return {**env, "ZDOTDIR": DIRECTORY}


def _says_where(path: str) -> bool:
    try:
        return b"ZDOTDIR" in Path(path).read_bytes()
    except OSError:  # zsh can't read it either
        return False
