"""Which shell runs the user's commands, and how a script of any length is handed to it."""

import os
from typing import Final

from procd.errors import SpawnFailed
from procd.unix.fd import OwnedFd, anonymous_file

PREFERRED: Final = ("/usr/bin/zsh", "/bin/zsh", "/usr/bin/bash", "/bin/bash")
# MAX_ARG_STRLEN of execve(2), the closing NUL included.
MAX_ARGUMENT_BYTES: Final = 128 << 10
SCRIPT_FD: Final = 3


class Shell:
    """The shell of this machine: found once, looked for again when it has gone.

    Args:
        override: absolute path that wins over the search; empty for none.

    Source: Process API contract, section 4.1.
    """

    def __init__(self, override: str, default: str) -> None:
        self._override = override
        self._default = default
        self._path = ""

    def path(self) -> str:
        """The shell's absolute path.

        Raises:
            SpawnFailed: none can be executed.
        """
        if not self._path or not os.access(self._path, os.X_OK):
            self._path = self._find()
        return self._path

    def _find(self) -> str:
        if self._override:
            candidates = [self._override]
        else:
            listed = _listed()
            candidates = [path for path in PREFERRED if path in listed]
            candidates += [self._default, "/bin/sh", "/usr/bin/sh"]
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


def builtin_word(shell: str) -> str:
    """What stands before a builtin's name to mean that one, whatever functions and aliases say.

    `command` besides keeps an error of a special builtin from ending the shell, where one would.

    Source: bash(1), zshbuiltins(1); POSIX.1-2024, "command".
    """
    return "\\builtin" if os.path.basename(shell) in ("bash", "zsh") else "\\command"  # noqa: PTH119 - str


def script_argv(shell: str, script: str) -> tuple[tuple[str, ...], OwnedFd | None]:
    """The argument vector that runs `script`, and a file to give the child as SCRIPT_FD, if any.

    A script that fits one argument is one. A longer one is an anonymous file, which the shell opens
    by name and whose inherited descriptor the script's own first words close again, so that no
    command of the user's ever sees it. Either way standard input is free.

    Raises:
        SpawnFailed: there is no descriptor or no memory for the file.

    Source: execve(2), "Limits on size of arguments and environment".
    """
    text = os.fsencode(script)
    if len(text) < MAX_ARGUMENT_BYTES:
        return (shell, "-c", "--", script), None
    try:
        file = anonymous_file("procd-script", f"exec {SCRIPT_FD}<&-;".encode() + text)
    except OSError as exc:
        raise SpawnFailed(f"cannot hold the script: {exc.strerror}") from exc
    return (shell, f"/proc/self/fd/{SCRIPT_FD}"), file
