"""Start a program: one function over `posix_spawn`, never a fork of the interpreter.

glibc and musl spawn with vfork semantics: the cost doesn't grow with procd's memory, and a failure
to execute comes back as an error here.
"""

import errno
import logging
import os
import resource
import signal
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Final

from procd.errors import SpawnFailed
from procd.process.arrivals import PENDING_SIGNALS
from procd.process.run_as import Owner
from procd.process.shell import kind_of
from procd.process.tags import mark, unmark
from procd.unix.libc import LIBC
from procd.unix.mounts import is_remote

log = logging.getLogger(__name__)

# A redirection of the child: a descriptor of ours to duplicate, or a path that the child opens.
Source = int | str
Action = tuple[int, int, str, int, int] | tuple[int, int, int]
OPEN: Final = os.POSIX_SPAWN_OPEN
DUP2: Final = os.POSIX_SPAWN_DUP2

# Source: env(1) of GNU coreutils, --split-string, --chdir.
ENV: Final = "/usr/bin/env"

# The soft limit of descriptors that children get: the one that procd was started with, though it
# raises its own. With a huge one, programs that close all they might have are slow, and those that
# use select(2) may fail. musl's posix_spawn makes a pipe in procd, which has to find room below the
# limit: there children get procd's own.
OPEN_FILES: Final = (
    resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if hasattr(LIBC, "gnu_get_libc_version")
    else sys.maxsize
)

# Signals that procd ignores, as Python does these, or was started with: execve(2) leaves them so,
# and resets those that are handled. Each costs a system call while the event loop waits.
DEFAULTED: Final = {
    number for number in signal.valid_signals() if signal.getsignal(number) == signal.SIG_IGN
} | {signal.SIGPIPE, signal.SIGXFSZ}


@dataclass(slots=True, kw_only=True)
class Spec:
    """What to start and in what surroundings.

    Attributes:
        argv: the program's absolute path and its arguments.
        cwd: existing directory; relative to procd's own.
        owner: who has to be able to enter it; None for procd's own user.
        stdio: what becomes descriptor 0, 1, 2 and so on; nothing else is inherited.
        umask: the child's; None for procd's own.
        wrappers: programs and their arguments that run first, each becoming the next. `env` is the
            program's alone: what a caller sets (LD_PRELOAD) must not reach what may do more.
    """

    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]
    stdio: tuple[Source, ...]
    owner: Owner | None = None
    umask: int | None = None
    wrappers: tuple[str, ...] = ()


def spawn(spec: Spec, tag: int, *, real_time: int = 0) -> int:
    """Start `spec` as the leader of a new session and return its pid.

    All signals have their default disposition and none is blocked. The child and all that descend
    from it carry `tag` (see tags).

    `cwd` is procd's own for the length of the call, which is sound because procd has one thread.
    Where that of before can't be entered any more, it is `/` from then on. A directory that may
    keep whoever enters it (`is_remote`) is left to the child, which then says if it isn't there.

    Args:
        real_time: the priority that it gives itself as a real-time task, before anything else; 0 to
            be what procd is.

    Raises:
        SpawnFailed: the directory, the program or the machine is at fault; the message says which.
    """
    actions: list[Action] = [
        (OPEN, target, source, os.O_RDWR, 0) if isinstance(source, str) else (DUP2, source, target)
        for target, source in enumerate(spec.stdio)
    ]
    env = dict(spec.env)
    if spec.cwd.startswith("/"):
        env["PWD"] = spec.cwd  # so that a shell keeps the name the caller used; chdir(2) has none
    here = _here()
    options: list[str] = []  # of env(1)
    if spec.cwd != here and is_remote(spec.cwd) and kind_of(os.path.realpath(ENV)) != "busybox":
        options.append(f"--chdir={spec.cwd}")  # which BusyBox's can't
        spec = replace(spec, cwd=here)
    if spec.wrappers:
        hiding, env = _hidden(env)
        options += hiding
    if options:
        if "=" in spec.argv[0]:  # which env would take for a variable
            reason = f"{spec.argv[0]}: its path has a = in it"
            raise SpawnFailed(f"program cannot be executed: {reason}")
        spec = replace(spec, argv=(*spec.wrappers, ENV, *options, *spec.argv))
    if spec.cwd == here:
        return _spawn(spec, env, actions, tag, real_time)
    try:
        own = _open_here()
    except OSError as exc:
        raise SpawnFailed(f"cannot start a process: {exc.strerror}") from exc
    try:
        # Not left to a wrapper: here it is known what is wrong before anything has been started.
        with nullcontext() if spec.owner is None else spec.owner.acting():
            _enter(spec.cwd)
        try:
            return _spawn(spec, env, actions, tag, real_time)
        finally:
            _return(own)
    finally:
        os.close(own)


def _open_here() -> int:
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        return os.open(".", flags)
    except PermissionError:  # nor could it be gone back to
        return os.open("/", flags)


def _return(here: int) -> None:
    try:
        os.fchdir(here)
    except OSError as exc:  # the child runs by now, whatever becomes of us
        log.warning("the working directory can't be gone back to: %s", exc.strerror)
        os.chdir("/")


def _hidden(env: Mapping[str, str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """An environment that says nothing to wrappers, and the options of env(1) that make it `env`.

    env, the last of them, gives the program its variables. Their values get there as variables
    too, under names that mean nothing to anybody: every user can read an argument vector.
    """
    renamed = {f"v{number}": value for number, value in enumerate(env.values())}
    assignments = " ".join(
        f"{_quoted(name)}=${{{stand_in}}}" for name, stand_in in zip(env, renamed, strict=True)
    )
    return ("--ignore-environment", f"--split-string={assignments}"), renamed


def _quoted(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _spawn(
    spec: Spec, env: Mapping[str, str], actions: list[Action], tag: int, real_time: int
) -> int:
    scheduler: dict[str, Any] = {}
    if real_time:
        scheduler["scheduler"] = (os.SCHED_FIFO, os.sched_param(real_time))
    limits = mark(tag)
    files = _bounded(spec.stdio)
    signals = _restored()
    # One thread: nobody else makes a file meanwhile.
    umask = None if spec.umask is None else os.umask(spec.umask)
    try:
        return os.posix_spawn(
            spec.argv[0],
            spec.argv,
            env,
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            setsigdef=DEFAULTED,
            **scheduler,
        )
    except OSError as exc:
        raise SpawnFailed(_reason(spec, exc)) from exc
    finally:
        if umask is not None:
            os.umask(umask)
        resource.setrlimit(resource.RLIMIT_NOFILE, files)
        resource.setrlimit(resource.RLIMIT_SIGPENDING, signals)
        unmark(limits)


def _bounded(stdio: tuple[Source, ...]) -> tuple[int, int]:
    """Set the limit of descriptors that a child is to inherit, and return the one to be set again.

    It is higher where one of `stdio` is: glibc duplicates none that is beyond the limit.
    """
    soft, hard = own = resource.getrlimit(resource.RLIMIT_NOFILE)
    least = OPEN_FILES
    for source in stdio:
        if isinstance(source, int) and source >= least:
            least = source + 1
    if soft > least:
        resource.setrlimit(resource.RLIMIT_NOFILE, (least, hard))
    return own


def _restored() -> tuple[int, int]:
    """Set the limit of pending signals that a child is to inherit; returns the one to set again."""
    soft, hard = own = resource.getrlimit(resource.RLIMIT_SIGPENDING)
    if soft < PENDING_SIGNALS and (hard == resource.RLIM_INFINITY or hard >= PENDING_SIGNALS):
        resource.setrlimit(resource.RLIMIT_SIGPENDING, (PENDING_SIGNALS, hard))
    return own


def _here() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 - a str, as every path of a child is
    except FileNotFoundError:
        return ""  # somebody has deleted it


def _enter(cwd: str) -> None:
    try:
        os.chdir(cwd)
    except FileNotFoundError as exc:
        raise SpawnFailed(f"working directory does not exist: {cwd}") from exc
    except NotADirectoryError as exc:
        raise SpawnFailed(f"working directory is not a directory: {cwd}") from exc
    except OSError as exc:
        raise SpawnFailed(f"working directory cannot be entered: {cwd}: {exc.strerror}") from exc


def _reason(spec: Spec, exc: OSError) -> str:
    for source in spec.stdio:  # which the child opens before it comes to the program
        if isinstance(source, str) and not os.access(source, os.R_OK | os.W_OK):
            return f"cannot start a process: {source}: {exc.strerror}"
    program = spec.argv[0]
    match exc.errno:
        case errno.ENOENT:
            return f"program does not exist: {program}"
        case errno.EACCES | errno.ENOEXEC:
            return f"program cannot be executed: {program}: {exc.strerror}"
        case errno.E2BIG:
            return "arguments and environment are too long for execve"
        case _:
            return f"cannot start a process: {exc.strerror}"
