"""The shell that runs the user's commands, and how it gets a script."""

import os
import shlex
from typing import Final

from procd.errors import SpawnFailed
from procd.unix.fd import OwnedFd, anonymous_file

PREFERRED: Final = ("/usr/bin/zsh", "/bin/zsh", "/usr/bin/bash", "/bin/bash")
# Login shells that can't run a script written for sh.
NO_SH: Final = ("csh", "fish", "nologin", "tcsh", "false")
# MAX_ARG_STRLEN of execve(2), with the closing NUL.
MAX_ARGUMENT_BYTES: Final = 128 << 10
SCRIPT_FD: Final = 3
# The variable that sets `$0`. Source: bash(1), BASH_ARGV0; zshoptions(1), POSIX_ARGZERO.
NAMES_ITSELF: Final = {"bash": "BASH_ARGV0", "zsh": "0"}


class Shell:
    """The shell of this machine: found once, and searched for again if it is removed.

    `override` is a path to use without a search, or empty. `default` is the user's login shell,
    preferred to sh if it can run scripts for sh. Source: Process API contract, section 4.1.
    """

    def __init__(self, override: str, default: str) -> None:
        self._override = override
        self._default = default
        self._path = ""

    def path(self) -> str:
        """The shell's absolute path; raises SpawnFailed if none can be executed."""
        if not self._path or not os.access(self._path, os.X_OK):
            self._path = self._find()
        return self._path

    def _find(self) -> str:
        if self._override:
            candidates = [self._override]
        else:
            listed = _listed()
            candidates = [path for path in PREFERRED if path in listed]
            default = "" if kind_of(self._default) in NO_SH else self._default
            candidates += [default, "/bin/sh", "/usr/bin/sh"]
        for path in candidates:
            if os.path.isabs(path) and os.path.isfile(path) and os.access(path, os.X_OK):  # noqa: PTH113,PTH117 - str
                return path
        raise SpawnFailed(f"no shell can be executed: tried {', '.join(filter(None, candidates))}")


def _listed() -> set[str]:
    try:
        with open("/etc/shells", encoding="utf-8", errors="replace") as lines:  # noqa: PTH123 - str
            return {line.strip() for line in lines if not line.lstrip().startswith("#")}
    except FileNotFoundError:
        return set()
    except OSError as exc:
        raise SpawnFailed(f"cannot look for a shell: {exc.strerror}") from exc


def kind_of(shell: str) -> str:
    return os.path.basename(shell)  # noqa: PTH119 - a str


def naming(shell: str, kind: str) -> str:
    """A command that sets `$0`, or does nothing where it is read-only (zsh's POSIX_ARGZERO)."""
    assignment = f"{NAMES_ITSELF[kind]}={shlex.quote(shell)}"
    return f"{{ \\builtin eval {shlex.quote(assignment)}; }} 2>/dev/null || \\builtin :"


def script_argv(shell: str, script: str) -> tuple[tuple[str, ...], OwnedFd | None]:
    """The argument vector that runs `script`, and a file to pass to the child as SCRIPT_FD, if any.

    A script too long for an argument is an anonymous file, which the shell opens by name; its
    first line closes the inherited descriptor. Either way standard input is free, and `$0` is the
    shell's path where that can be set.

    Source: execve(2), "Limits on size of arguments and environment".
    """
    text = os.fsencode(script)
    if len(text) < MAX_ARGUMENT_BYTES:
        return (shell, "-c", "--", script), None
    kind = kind_of(os.path.realpath(shell))
    first = f"{naming(shell, kind)};" if kind in NAMES_ITSELF else ""
    try:
        file = anonymous_file("procd-script", f"exec {SCRIPT_FD}<&-;{first}".encode() + text)
    except OSError as exc:
        raise SpawnFailed(f"cannot hold the script: {exc.strerror}") from exc
    return (shell, f"/proc/self/fd/{SCRIPT_FD}"), file
