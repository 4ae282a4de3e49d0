"""Finds interpreters on the PATH."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from procd.process.limits import ChildLimits
from procd.unix.file import is_remote


class MissingProgramError(Exception):
    """There is no such program; the message names it."""


def find(env: Mapping[str, str], child_limits: ChildLimits, *names: str, cwd: str = "") -> str:
    """Return the absolute path of the first of `names` on the PATH of `env` that can be run.

    Args:
        cwd: what relative directories on the PATH are below, unless it is on a remote file system,
            which may not answer; relative to procd's own.

    Raises:
        MissingProgramError: there is none.
    """
    for name in names:
        for directory in env.get("PATH", os.defpath).split(os.pathsep):
            if not os.path.isabs(directory) and is_remote(cwd):  # noqa: PTH117 - a str
                continue
            path = Path(cwd, directory, name).absolute()
            if shutil.which(path) and child_limits.may_run(path):
                return str(path)
    raise MissingProgramError(f"{names[0]}: not found")
