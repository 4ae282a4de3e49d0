"""What a child is allowed less than procd: another user, no new privileges, limits of resources.

All is set by choom(1), prlimit(1) and setpriv(1), which then become the program: from its first
instruction on, and without a fork of the interpreter. Set from outside, after the start, it comes
too late for what a shell forks in its first moments. With nothing set the program is started as it
is, by the same calls as ever.
"""

import errno
import grp
import logging
import os
import pwd
import resource
import shutil
import signal
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from procd.config import ConfigError, ProcessConfig
from procd.errors import SpawnFailed
from procd.process.run_as import RunAs
from procd.process.spawn import ENV, Spec, spawn
from procd.process.tags import TAG_BASE
from procd.unix.fd import OwnedFd

log = logging.getLogger(__name__)

# RLIMIT_RTTIME is missing: it marks process trees (see tags).
RLIMITS: Final = (
    "as", "core", "cpu", "data", "fsize", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss",
    "rtprio", "sigpending", "stack",
)  # fmt: skip
MAX_OOM_SCORE_ADJ: Final = 1000
# So much is read of why a program doesn't start.
MAX_REASON_BYTES: Final = 500
# The one above is -1, which stands for "as it is": setresuid(2), chown(2).
MAX_ID: Final = (1 << 32) - 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildLimits:
    """How children differ from procd.

    Attributes:
        wrappers: what stands before the program in its argument vector.
        run_as: whom they run as; None for procd's own user.
        umask: theirs; None for procd's own.
        environment: what differs in their environment.
    """

    wrappers: tuple[str, ...] = ()
    run_as: RunAs | None = None
    umask: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    def give(self, descriptor_or_path: int | str) -> None:
        """Make a pipe, terminal or file the owner's, so that it can be opened again by name.

        Raises:
            OSError: it can't be.
        """
        if self.run_as is not None:
            follow = isinstance(descriptor_or_path, int)
            os.chown(descriptor_or_path, self.run_as.uid, -1, follow_symlinks=follow)

    def may_run(self, program: Path) -> bool:
        """Whether children can run a program that procd can."""
        return self.run_as is None or self.run_as.may_run(program)


def child_limits(config: ProcessConfig) -> ChildLimits:
    """What the settings ask for.

    Raises:
        ConfigError: there is no such user, group or limit, or no program to set it.
    """
    owner, environment = _owner(config)
    return ChildLimits(
        wrappers=tuple(word for _, words in _steps(config, owner) for word in words),
        run_as=owner,
        umask=_umask(config.umask),
        environment=environment,
    )


def checked_limits(config: ProcessConfig) -> ChildLimits:
    """What the settings ask for, once a program has been started so.

    What can be set depends on more than can be asked for: capabilities, sysctls, security modules.

    Raises:
        ConfigError: as `child_limits`, or it can't be set, or no program starts with it.
    """
    found = child_limits(config)
    wrappers: tuple[str, ...] = ()
    for key, words in _steps(config, found.run_as):
        wrappers += tuple(words)
        if problem := _problem(wrappers):
            if problem.endswith(os.strerror(errno.EAGAIN)):  # of processes, which may pass
                log.warning("%s: %s", key, problem)
                continue
            raise ConfigError(f"{key}: {problem}")
    return found


def _steps(config: ProcessConfig, owner: RunAs | None) -> list[tuple[str, list[str]]]:
    """What the wrappers consist of, each part with the setting that it is for."""
    steps: list[tuple[str, list[str]]] = []
    if config.oom_score_adj:
        own = int(Path("/proc/self/oom_score_adj").read_text())
        score = min(MAX_OOM_SCORE_ADJ, own + config.oom_score_adj)
        key = "process.oom_score_adj"
        steps.append((key, [_program("choom", key), f"--adjust={score}", "--"]))
    if config.rlimits:
        key = "process.rlimits"
        limits = [_rlimit(text) for text in config.rlimits]
        steps.append((key, [_program("prlimit", key), *limits, "--"]))
    privileges: list[str] = []
    if owner is not None:
        groups = ",".join(map(str, owner.groups))
        privileges += [f"--reuid={owner.uid}", f"--regid={owner.gid}"]
        privileges += [f"--groups={groups}" if groups else "--clear-groups"]
    if config.no_new_privs:
        privileges.append("--no-new-privs")
    if privileges:
        key = "process.user" if owner is not None else "process.no_new_privs"
        steps.append((key, [_program("setpriv", key), *privileges, "--"]))
    return steps


def _problem(wrappers: tuple[str, ...]) -> str:
    """Why no program starts behind these; empty if one does."""
    reading, writing = map(OwnedFd, os.pipe())  # procd has yet to raise its limit of descriptors
    with closing(reading), closing(writing):
        stdio = (os.devnull, os.devnull, writing.number)
        # Env is at the end of each chain anyway.
        spec = Spec(argv=(ENV,), cwd="/", env={}, stdio=stdio, wrappers=wrappers)
        # Where whoever started procd ignores it, no exit code is kept.
        before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        try:
            _, status = os.waitpid(spawn(spec, TAG_BASE), 0)
        except SpawnFailed as exc:
            return exc.message
        finally:
            signal.signal(signal.SIGCHLD, before)
        code = os.waitstatus_to_exitcode(status)
        if code == 0:
            return ""
        writing.close()
        said = os.read(reading.number, MAX_REASON_BYTES).decode(errors="replace")
    how = f"exit code {code}" if code > 0 else signal.strsignal(-code)
    return " ".join(said.split()) or f"every program ends at its start: {how}"


def _owner(config: ProcessConfig) -> tuple[RunAs | None, dict[str, str]]:
    if not config.user:
        for key in ("group", "groups"):
            if getattr(config, key):
                raise ConfigError(f"process.{key}: takes process.user as well")
        return None, {}
    number = _number(config.user)
    try:
        user = pwd.getpwnam(config.user) if number is None else pwd.getpwuid(number)
        uid, gid, name, home = user.pw_uid, user.pw_gid, user.pw_name, user.pw_dir
    except KeyError:
        if number is None:
            raise ConfigError(f"process.user: no such user: {config.user}") from None
        uid = gid = number
        name, home = config.user, "/"
        groups = []
    else:
        groups = os.getgrouplist(name, gid)
    if config.group:
        gid = _gid("process.group", config.group)
    if config.groups:
        groups = [_gid("process.groups", group) for group in config.groups]
    if os.geteuid() != 0:
        raise ConfigError("process.user: only root can run processes as another user")
    owner = RunAs(uid=uid, gid=gid, groups=tuple(groups))
    return owner, {"HOME": home, "USER": name, "LOGNAME": name}


def _gid(key: str, text: str) -> int:
    number = _number(text)
    try:
        return grp.getgrnam(text).gr_gid if number is None else number
    except KeyError:
        raise ConfigError(f"{key}: no such group: {text}") from None


def _number(text: str) -> int | None:
    """The id that `text` is; None if it can only be a name."""
    return int(text) if text.isascii() and text.isdecimal() and int(text) <= MAX_ID else None


def _rlimit(text: str) -> str:
    """NAME=SOFT:HARD or NAME=BOTH as prlimit(1) takes it."""
    name, _, values = text.partition("=")
    if name not in RLIMITS:
        raise ConfigError(f"process.rlimits: no such limit, or not to be set: {text}")
    bounds = values.split(":")
    if len(bounds) > 2 or not all(bound.isdecimal() or bound == "unlimited" for bound in bounds):
        raise ConfigError(f"process.rlimits: must be NAME=SOFT:HARD or NAME=BOTH: {text}")
    soft, hard = (_bound(bound) for bound in (bounds * 2)[:2])
    if soft > hard:
        raise ConfigError(f"process.rlimits: soft limit above the hard one: {text}")
    _, ours = resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))
    if os.geteuid() != 0 and ours != resource.RLIM_INFINITY and hard > ours:
        raise ConfigError(f"process.rlimits: above procd's own hard limit of {ours}: {text}")
    return f"--{name}={values}"


def _bound(text: str) -> float:
    return float("inf") if text == "unlimited" else int(text)


def _umask(text: str) -> int | None:
    if not text:
        return None
    try:
        umask = int(text.encode("ascii"), 8)
    except ValueError:
        umask = -1
    if not 0 <= umask <= 0o777:
        raise ConfigError(f"process.umask: must be an octal number from 000 to 777: {text}")
    return umask


def _program(name: str, key: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise ConfigError(f"{key}: {name} of util-linux is not installed")
    return path
