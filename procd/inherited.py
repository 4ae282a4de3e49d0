"""What procd inherits from its parent: the environment and the directories that it names."""

import fcntl
import os
import tempfile
from collections.abc import Mapping

from procd.config import ConfigError, ProcessConfig, SessionsConfig


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that children inherit: all but procd's settings and the service manager's.

    Source: systemd.exec(5), "Environment Variables Set or Propagated by the Service Manager".
    """
    private = {
        "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS",
        "LISTEN_FDNAMES", "INVOCATION_ID", "JOURNAL_STREAM", "MAINPID", "CREDENTIALS_DIRECTORY",
        "MEMORY_PRESSURE_WATCH", "MEMORY_PRESSURE_WRITE", "SYSTEMD_EXEC_PID", "FDSTORE",
        "STATE_DIRECTORY", "RUNTIME_DIRECTORY", "LOGS_DIRECTORY", "CONFIGURATION_DIRECTORY",
        "CACHE_DIRECTORY",
    }  # fmt: skip
    return {
        name: value
        for name, value in environ.items()
        if name not in private and not name.startswith("PROCD_")
    }


def work_dir(config: ProcessConfig, environ: Mapping[str, str]) -> str:
    """The default working directory. Source: Process API contract, section 4.2."""
    if config.work_dir:
        return config.work_dir
    if environ.get("DAYTONA_USER_HOME_AS_WORKDIR", "").lower() in ("1", "t", "true"):
        return home_dir(environ)
    return os.getcwd()  # noqa: PTH109 - paths of children are str


def enter_work_dir(config: ProcessConfig, environ: Mapping[str, str]) -> None:
    """Change into the default working directory, to which paths of requests are relative.

    Raises:
        ConfigError: it can't be entered.
    """
    try:
        os.chdir(work_dir(config, environ))
    except OSError as exc:
        where = f": {exc.filename}" if exc.filename else ""
        raise ConfigError(f"process.work_dir: {exc.strerror}{where}") from exc


def state_dir(config: SessionsConfig, environ: Mapping[str, str]) -> str:
    """The directory for logs, after creating a directory with a locked file in it as a test.

    Raises:
        ConfigError: the test failed.
    """
    place = lasting_dir(config, environ)
    try:
        place = place or tempfile.gettempdir()
        # access(2) is not enough: it says that root may write to /proc.
        with (
            tempfile.TemporaryDirectory(dir=place) as tried,
            tempfile.TemporaryFile(dir=tried) as lock,
        ):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        where = f": {place}" if place else ""
        raise ConfigError(f"sessions.state_dir: {exc.strerror}{where}") from exc
    return place


def lasting_dir(config: SessionsConfig, environ: Mapping[str, str]) -> str | None:
    """The directory for what outlives procd, if given. Source: systemd.exec(5), StateDirectory=."""
    return config.state_dir or environ.get("STATE_DIRECTORY", "").split(":")[0] or None


def home_dir(environ: Mapping[str, str]) -> str:
    return environ.get("HOME") or os.path.expanduser("~")  # noqa: PTH111 - paths of children are str
