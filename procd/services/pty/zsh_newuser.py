"""Keeps zsh from asking questions that no program could answer.

Without any of four startup files in ZDOTDIR, by default HOME, zsh starts a dialog, but not for
root. So it gets a ZDOTDIR with one of them, which unsets ZDOTDIR again.

Source: zshmodules(1), "The zsh/newuser Module".
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from procd.process.run_as import RunAs
from procd.process.shell import kind_of
from procd.unix.file import is_remote

STARTUP_FILES: Final = (".zshenv", ".zprofile", ".zshrc", ".zlogin")
DIRECTORY: Final = str(Path(__file__).parent / "zsh")
# Where an administrator may set ZDOTDIR. Source: zsh(1), "FILES", and Debian's.
COMMON: Final = ("/etc/zshenv", "/etc/zsh/zshenv")


def skip_newuser(shell: str, env: Mapping[str, str], owner: RunAs | None) -> dict[str, str]:
    """Return `env`, with a ZDOTDIR if `shell` would ask its user: `owner`, or procd's own."""
    home = env.get("HOME", "")
    if (
        (os.geteuid() if owner is None else owner.uid) == 0
        or not kind_of(os.path.realpath(shell)).startswith("zsh")
        or "ZDOTDIR" in env
        or is_remote(home)  # which may not answer procd either
        or any(os.access(f"{home}/{name}", os.F_OK) for name in STARTUP_FILES)
        or any(map(_sets_zdotdir, COMMON))
        or not (owner is None or owner.may_run(Path(DIRECTORY)))
    ):
        return dict(env)
    return {**env, "ZDOTDIR": DIRECTORY}


def _sets_zdotdir(path: str) -> bool:
    try:
        return b"ZDOTDIR" in Path(path).read_bytes()
    except OSError:  # zsh can't read it either
        return False
