"""The limits of children: another user, no new privileges, resource limits, umask.

choom(1), prlimit(1) and setpriv(1) set them and then execute the program, so that they hold from
its first instruction on and need no fork of the interpreter. Without settings there is no wrapper.
"""

import errno
import grp
import logging
import os
import pwd
import re
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

# Without RLIMIT_RTTIME, which holds the tags of process trees.
RLIMITS: Final = (
    "as", "core", "cpu", "data", "fsize", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss",
    "rtprio", "sigpending", "stack",
)  # fmt: skip
RLIMIT_VALUES: Final = re.compile(r"([0-9]+|unlimited)(:([0-9]+|unlimited))?")
MAX_OOM_SCORE_ADJ: Final = 1000
# How much is read of the error output of a wrapper.
MAX_REASON_BYTES: Final = 500
# The next number is -1, which means "unchanged": setresuid(2), chown(2).
MAX_ID: Final = (1 << 32) - 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildLimits:
    """How children differ from procd; None for procd's own."""

    wrappers: tuple[str, ...] = ()
    run_as: RunAs | None = None
    umask: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    def give(self, descriptor_or_path: int | str) -> None:
        """Make the user the owner of a pipe, terminal or file, so that they can open it by name."""
        if self.run_as is not None:
            follow = isinstance(descriptor_or_path, int)
            os.chown(descriptor_or_path, self.run_as.uid, -1, follow_symlinks=follow)

    def may_run(self, program: Path) -> bool:
        return self.run_as is None or self.run_as.may_run(program)


def child_limits(config: ProcessConfig) -> ChildLimits:
    """The limits that the settings ask for; raises ConfigError if there are no such."""
    run_as, environment = _run_as(config)
    return ChildLimits(
        wrappers=tuple(word for _, words in _wrappers(config, run_as) for word in words),
        run_as=run_as,
        umask=_umask(config.umask),
        environment=environment,
    )


def checked_limits(config: ProcessConfig) -> ChildLimits:
    """As `child_limits`, but also raises ConfigError if no program starts with them."""
    found = child_limits(config)
    wrappers: tuple[str, ...] = ()
    for key, words in _wrappers(config, found.run_as):
        wrappers += tuple(words)
        if problem := _problem(wrappers):
            if problem.endswith(os.strerror(errno.EAGAIN)):  # too many processes, at the moment
                log.warning("%s: %s", key, problem)
                continue
            raise ConfigError(f"{key}: {problem}")
    return found


def _wrappers(config: ProcessConfig, run_as: RunAs | None) -> list[tuple[str, list[str]]]:
    """The wrappers, each with the setting that it is for."""
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
    if run_as is not None:
        groups = ",".join(map(str, run_as.groups))
        privileges += [f"--reuid={run_as.uid}", f"--regid={run_as.gid}"]
        privileges += [f"--groups={groups}" if groups else "--clear-groups"]
    if config.no_new_privs:
        privileges.append("--no-new-privs")
    if privileges:
        key = "process.user" if run_as is not None else "process.no_new_privs"
        steps.append((key, [_program("setpriv", key), *privileges, "--"]))
    return steps


def _problem(wrappers: tuple[str, ...]) -> str:
    """Why no program starts with these wrappers; empty if one does."""
    reading, writing = map(OwnedFd, os.pipe())  # before procd raises its limit
    with closing(reading), closing(writing):
        stdio = (os.devnull, os.devnull, writing.number)
        # env(1) is the last wrapper of every command anyway.
        spec = Spec(argv=(ENV,), cwd="/", env={}, stdio=stdio, wrappers=wrappers)
        # If procd was started with it ignored, the kernel keeps no exit status.
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
        message = os.read(reading.number, MAX_REASON_BYTES).decode(errors="replace")
    how = f"exit code {code}" if code > 0 else signal.strsignal(-code)
    return " ".join(message.split()) or f"every program ends at its start: {how}"


def _run_as(config: ProcessConfig) -> tuple[RunAs | None, dict[str, str]]:
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
    run_as = RunAs(uid=uid, gid=gid, groups=tuple(groups))
    return run_as, {"HOME": home, "USER": name, "LOGNAME": name}


def _gid(key: str, text: str) -> int:
    number = _number(text)
    try:
        return grp.getgrnam(text).gr_gid if number is None else number
    except KeyError:
        raise ConfigError(f"{key}: no such group: {text}") from None


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and int(text) <= MAX_ID else None


def _rlimit(text: str) -> str:
    name, _, values = text.partition("=")
    if name not in RLIMITS:
        raise ConfigError(f"process.rlimits: no such limit, or not to be set: {text}")
    if RLIMIT_VALUES.fullmatch(values) is None:
        raise ConfigError(f"process.rlimits: must be NAME=SOFT:HARD or NAME=BOTH: {text}")
    return f"--{name}={values}"


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
