"""What has to be in order before procd serves, for `serve` to insist on and `doctor` to look at."""

import os
from collections.abc import Mapping
from pathlib import Path

from procd.config import Config, ConfigError
from procd.configfile import check_hosts, check_places, networks
from procd.services.credentials import Access
from procd.surroundings import enter_work_dir, state_dir
from procd.unix.cgroup import find_root
from procd.unix.confine import tried


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
    check_places(config)
    find_root(config.process.cgroup)
    check_hosts(config.server.allowed_hosts)
    networks(config.server.trusted_proxies)
    confined = tried(config.process)
    state = Path(state_dir(config.sessions, environ))
    if confined.owner is not None:
        confined.owner.check_path(state, "sessions.state_dir")
        confined.owner.check_lasting(state, "sessions.state_dir")
    enter_work_dir(config.process, {**environ, **confined.environment})
    if config.audit.file:
        _check_file("audit.file", Path(config.audit.file))
    return Access(config, secret, environ.get("CREDENTIALS_DIRECTORY", ""))


def _check_file(key: str, path: Path) -> None:
    """Refuse a file that can't be appended to, without making it."""
    try:
        if path.is_symlink() or path.is_dir() or path.is_socket():
            raise ConfigError(f"{key}: not a file: {path}")
        place, wanted = (path, os.W_OK) if path.exists() else (path.parent, os.W_OK | os.X_OK)
    except OSError as exc:
        raise ConfigError(f"{key}: {exc.strerror}: {path}") from exc
    if not os.access(place, wanted):
        raise ConfigError(f"{key}: can't be written: {path}")
