"""Where the programs are that run other people's code."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path


class MissingProgramError(Exception):
    """There is no such program; the message names it."""


def find(env: Mapping[str, str], *names: str) -> str:
    """The absolute path of the first of `names` that is on the PATH of `env`.

    Raises:
        MissingProgramError: there is none.
    """
    for name in names:
        if path := shutil.which(name, path=env.get("PATH", os.defpath)):
            return str(Path(path).absolute())
    raise MissingProgramError(f"{names[0]}: not found")
