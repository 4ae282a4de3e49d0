"""What has to be in order before procd serves, for `serve` to insist on and `doctor` to look at."""

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from procd.config import Config, ConfigError
from procd.config_file import networks
from procd.inherited import enter_work_dir, state_dir
from procd.process.cgroup import find_root
from procd.process.limits import checked_limits
from procd.services.credentials import Access

# Source: RFC 3986, section 3.2.2, without what no browser sends.
HOST: Final = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")


def prepared(config: Config, environ: Mapping[str, str], secret: str | None) -> Access:
    """Check all that can be checked of the settings, and change into the working directory.

    Nothing else is changed.

    Args:
        secret: a token from the environment; None if there is none.

    Returns:
        Who may call.

    Raises:
        ConfigError: procd can't serve so; the message names the key.
    """
    _check_places(config)
    find_root(config.process.cgroup)
    _check_hosts(config.server.allowed_hosts)
    networks(config.server.trusted_proxies)
    confined = checked_limits(config.process)
    state = Path(state_dir(config.sessions, environ))
    if confined.run_as is not None:
        confined.run_as.check_path(state, "sessions.state_dir")
        confined.run_as.check_lasting(state, "sessions.state_dir")
    enter_work_dir(config.process, {**environ, **confined.environment})
    if config.audit.file:
        _check_audit_file(Path(config.audit.file))
    return Access(config, secret, environ.get("CREDENTIALS_DIRECTORY", ""))


def _check_hosts(allowed: tuple[str, ...]) -> None:
    """Refuse what no Host header is like, whose port doesn't count."""
    for entry in allowed:
        if entry != "*" and not HOST.fullmatch(entry):
            raise ConfigError(
                f"server.allowed_hosts: must be a name, without scheme, port or path: {entry}"
            )


def _check_places(config: Config) -> None:
    """Refuse settings that every command, or every cell, would fail by."""
    work_dir = config.process.work_dir
    # Path's own is_dir() and is_file() raise, where a path can't be looked at.
    if work_dir and not os.path.isdir(work_dir):  # noqa: PTH112
        raise ConfigError(f"process.work_dir: not a directory: {work_dir}")
    for key, program in (
        ("process.shell", config.process.shell),
        ("interpreter.python", config.interpreter.python),
        ("code_run.python", config.code_run.python),
    ):
        path = Path(program)
        if program and not (path.is_absolute() and os.access(path, os.X_OK) and path.is_file()):
            raise ConfigError(f"{key}: not the absolute path of a program: {program}")


def _check_audit_file(path: Path) -> None:
    """Refuse a file that can't be appended to, without making it."""
    place, wanted = path, os.W_OK
    try:
        # Path's own is_symlink() and so on raise nothing since Python 3.14.
        kind = stat.S_IFMT(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        place, wanted = path.parent, os.W_OK | os.X_OK
    except OSError as exc:
        raise ConfigError(f"audit.file: {exc.strerror}: {path}") from exc
    else:
        if kind in (stat.S_IFLNK, stat.S_IFDIR, stat.S_IFSOCK):
            raise ConfigError(f"audit.file: not a file: {path}")
    if not os.access(place, wanted):
        raise ConfigError(f"audit.file: can't be written: {path}")
