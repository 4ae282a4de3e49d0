"""Start a program: one function over `posix_spawn`, never a fork of the interpreter.

glibc and musl spawn with vfork semantics: the cost doesn't grow with procd's memory, and a failure
to execute is reported here as an error.
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
from typing import Final

from procd.errors import SpawnFailed
from procd.process.run_as import RunAs
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

# The soft limit of descriptors for children: the one that procd was started with, though it raises
# its own. With a huge one, programs that close every possible descriptor are slow, and those that
# use select(2) may fail. musl's posix_spawn makes a pipe in procd, which needs a number below the
# limit: there children get procd's own limit.
OPEN_FILES: Final = (
    resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if hasattr(LIBC, "gnu_get_libc_version")
    else sys.maxsize
)

# The signals that procd ignores: execve(2) leaves them ignored, and resets those with a handler.
# Each costs a system call while the event loop waits.
DEFAULTED: Final = {
    number for number in signal.valid_signals() if signal.getsignal(number) == signal.SIG_IGN
} | {signal.SIGPIPE, signal.SIGXFSZ}


@dataclass(slots=True, kw_only=True)
class Spec:
    """What to start and how.

    Attributes:
        argv: the program's absolute path and its arguments.
        cwd: existing directory; relative to procd's own.
        run_as: the user that must be able to enter it; None for procd's own.
        stdio: what becomes descriptor 0, 1, 2 and so on; nothing else is inherited.
        umask: the child's; None for procd's own.
        wrappers: programs and their arguments that run first, each executing the next. They don't
            see `env`: variables of the caller (LD_PRELOAD) must not reach privileged programs.
    """

    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]
    stdio: tuple[Source, ...]
    run_as: RunAs | None = None
    umask: int | None = None
    wrappers: tuple[str, ...] = ()


def spawn(spec: Spec, tag: int) -> int:
    """Start `spec` as the leader of a new session and return its pid.

    All signals have their default disposition and none is blocked. The child and all that descend
    from it carry `tag` (see tags).

    `cwd` is procd's own for the length of the call, which is sound because procd has one thread. If
    the former directory can't be entered any more, procd's becomes `/`. A directory on a file
    system that may not answer (`is_remote`) is entered by the child, which reports a missing one.

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
        return _spawn(spec, env, actions, tag)
    try:
        own = _open_here()
    except OSError as exc:
        raise SpawnFailed(f"cannot start a process: {exc.strerror}") from exc
    try:
        # Not left to a wrapper: here it is known what is wrong before anything has been started.
        with nullcontext() if spec.run_as is None else spec.run_as.acting():
            _enter(spec.cwd)
        try:
            return _spawn(spec, env, actions, tag)
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


def _spawn(spec: Spec, env: Mapping[str, str], actions: list[Action], tag: int) -> int:
    limits = mark(tag)
    files = _limit_open_files(spec.stdio)
    # One thread: nothing else makes a file meanwhile.
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
        )
    except OSError as exc:
        raise SpawnFailed(_reason(spec, exc)) from exc
    finally:
        if umask is not None:
            os.umask(umask)
        resource.setrlimit(resource.RLIMIT_NOFILE, files)
        unmark(limits)


def _limit_open_files(stdio: tuple[Source, ...]) -> tuple[int, int]:
    """Set the soft limit of descriptors that the child inherits; returns the one to restore.

    It is higher if one of `stdio` is: glibc duplicates none beyond the limit.
    """
    soft, hard = own = resource.getrlimit(resource.RLIMIT_NOFILE)
    least = max([OPEN_FILES, *(source + 1 for source in stdio if isinstance(source, int))])
    if soft > least:
        resource.setrlimit(resource.RLIMIT_NOFILE, (least, hard))
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
