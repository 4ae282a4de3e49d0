"""The checks that `procd serve` makes before it serves, and that `procd doctor` reports."""

import os
import re
import signal
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from procd.config import Config, ConfigError
from procd.config_file import networks
from procd.inherited import enter_work_dir, state_dir
from procd.process.cgroup import find_root
from procd.process.limits import checked_limits
from procd.process.tags import TAG_BASE, mark, tag_of, unmark
from procd.process.tree import become_subreaper
from procd.services.access import Access
from procd.unix.fd import OwnedFd, anonymous_file
from procd.unix.procfs import own_children

# A host as browsers send it. Source: RFC 3986, section 3.2.2.
HOST: Final = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")


def missing_features() -> list[str]:
    """The kernel's features that procd lacks: each with the Linux version, and the error.

    Each is tried. Afterwards this process is the subreaper of its descendants.
    """
    missing: list[str] = []

    @contextmanager
    def needed(feature: str) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            missing.append(f"{feature}: {exc.strerror}")
        except (ValueError, AttributeError) as exc:  # of `resource`; a Python built without it
            missing.append(f"{feature}: {exc}")

    with needed("pidfd_open (Linux 5.3)"):
        pidfd = OwnedFd(os.pidfd_open(os.getpid()))
        with needed("pidfd_send_signal (Linux 5.1)"):
            signal.pidfd_send_signal(pidfd.number, 0)
        with needed("waitid for a pidfd (Linux 5.4)"), suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, pidfd.number, os.WEXITED | os.WNOHANG)
        pidfd.close()
    # It is also missing in the /proc of another PID namespace.
    with needed("/proc/PID/task/TID/children of this PID namespace (CONFIG_PROC_CHILDREN)"):
        own_children()
    with needed("RLIMIT_RTTIME (Linux 2.6.25)"):
        unmark(mark(TAG_BASE))
    with needed("prlimit (Linux 2.6.36)"):
        tag_of(os.getpid())
    with needed("PR_SET_CHILD_SUBREAPER (Linux 3.4)"):
        become_subreaper()
    with needed("memfd_create (Linux 3.17)"):
        anonymous_file("procd", b"").close()
    return missing


def prepared(config: Config, environ: Mapping[str, str], secret: str | None) -> Access:
    """Check the settings against this machine, and change into the working directory.

    Args:
        secret: the token from the environment; None if there is none.

    Raises:
        ConfigError: procd can't serve with these settings; the message names the key.
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
    """Refuse entries that no Host header can match."""
    for entry in allowed:
        if entry != "*" and not HOST.fullmatch(entry):
            raise ConfigError(
                f"server.allowed_hosts: must be a name, without scheme, port or path: {entry}"
            )


def _check_places(config: Config) -> None:
    """Refuse directories and programs that would make every command fail."""
    work_dir = config.process.work_dir
    # Path.is_dir() raises if a parent directory can't be searched.
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
    """Refuse a path that can't be appended to; the file is not created."""
    place, wanted = path, os.W_OK
    try:
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
