"""The environment that new processes start with: procd's own at its start, then as changed."""

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from procd.errors import BadRequest, SpawnFailed
from procd.process.limits import ChildLimits
from procd.process.spawn import check_startable
from procd.unix.file import is_remote

NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def check_names(names: Iterable[str]) -> None:
    """Raise BadRequest for a name that no shell could read back (contract, section 4.3)."""
    for name in names:
        if not NAME.fullmatch(name):
            raise BadRequest(f"invalid environment variable name: '{name}'")


def cost_bytes(envs: Mapping[str, str], *texts: str) -> int:
    """What the variables and other texts of a request take in memory."""
    return sum(map(sys.getsizeof, (envs, *envs, *envs.values(), *texts)))


class MissingProgramError(Exception):
    """There is no such program; the message names it."""


def find_program(
    env: Mapping[str, str], child_limits: ChildLimits, *names: str, cwd: str = ""
) -> str:
    """The absolute path of the first of `names` on the PATH of `env` that can be run.

    Relative directories on the PATH are below `cwd`, and skipped if that is on a remote file
    system, which may not answer. Raises MissingProgramError.
    """
    for name in names:
        for directory in env.get("PATH", os.defpath).split(os.pathsep):
            if not os.path.isabs(directory) and is_remote(cwd):  # noqa: PTH117 - a str
                continue
            path = Path(cwd, directory, name).absolute()
            if shutil.which(path) and child_limits.may_run(path):
                return str(path)
    raise MissingProgramError(f"{names[0]}: not found")


def find_python(
    env: Mapping[str, str], child_limits: ChildLimits, *, cwd: str, setting: str
) -> str:
    """As `find_program` for the user's Python; the error names the setting that can name one."""
    try:
        return find_program(env, child_limits, "python3", "python", cwd=cwd)
    except MissingProgramError as exc:
        raise MissingProgramError(f"{exc}: install it, or set {setting}") from exc


class Environment:
    """Variables for processes to come; `on_change` is for those that were started in advance.

    Those of a sandbox (`services.sandbox`) lie over the others and can be taken back.
    """

    def __init__(self, initial: Mapping[str, str]) -> None:
        self._variables = dict(initial)
        self._of_sandbox: dict[str, str] = {}
        self.on_change: Callable[[], None] | None = None

    def merged(self, envs: Mapping[str, str]) -> dict[str, str]:
        """These variables, overridden by `envs`."""
        return {**self._variables, **self._of_sandbox, **envs}

    def update(
        self, *, assign: Mapping[str, str], unset: Iterable[str], unset_value_prefix: str
    ) -> None:
        """Drop by value prefix, except what is assigned; then drop by name; then assign.

        Raises BadRequest, and changes nothing, if a name to assign is invalid or no program could
        be started with all that. Source: Process API contract, section 12 (POST /env).
        """
        check_names(assign)
        variables, of_sandbox = (
            {
                name: value
                for name, value in layer.items()
                if name in assign
                or not (unset_value_prefix and value.startswith(unset_value_prefix))
            }
            for layer in (self._variables, self._of_sandbox)
        )
        for name in unset:
            variables.pop(name, None)
            of_sandbox.pop(name, None)
        for name in assign:
            of_sandbox.pop(name, None)
        variables.update(assign)
        self._replace(variables, of_sandbox)

    def set_of_sandbox(self, envs: Mapping[str, str]) -> None:
        """Replace the variables of the sandbox; raises as `update`."""
        check_names(envs)
        self._replace(self._variables, dict(envs))

    def _replace(self, variables: dict[str, str], of_sandbox: dict[str, str]) -> None:
        if (variables, of_sandbox) == (self._variables, self._of_sandbox):
            return
        try:
            check_startable("", {**variables, **of_sandbox})
        except SpawnFailed as exc:
            raise BadRequest(exc.message) from exc
        self._variables, self._of_sandbox = variables, of_sandbox
        if self.on_change is not None:
            self.on_change()
