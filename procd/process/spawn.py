"""Starting a program with `posix_spawn`, never by a fork of the interpreter.

glibc and musl spawn with vfork semantics: the cost doesn't grow with procd's memory.
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
from procd.unix.file import is_remote
from procd.unix.libc import LIBC

log = logging.getLogger(__name__)

# A redirection of the child: a descriptor of procd's to duplicate, or a path that the child opens.
Source = int | str
Action = tuple[int, int, str, int, int] | tuple[int, int, int]

# Source: env(1) of GNU coreutils, --split-string, --chdir.
ENV: Final = "/usr/bin/env"

# Children get the soft limit of descriptors that procd was started with: with a huge one, programs
# that close every possible descriptor are slow. With musl they get procd's, as its posix_spawn
# makes a pipe, whose numbers have to be below the limit.
OPEN_FILES: Final = (
    resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if hasattr(LIBC, "gnu_get_libc_version")
    else sys.maxsize
)

# Signals that procd ignores: execve(2) itself resets those with a handler.
RESET_SIGNALS: Final = {
    number for number in signal.valid_signals() if signal.getsignal(number) == signal.SIG_IGN
} | {signal.SIGPIPE, signal.SIGXFSZ}

# Limits of execve(2): of one string with its NUL, and of all together, at most and at least.
MAX_STRING_BYTES: Final = 32 * resource.getpagesize()
MAX_TOTAL_BYTES: Final = 6 << 20
MIN_TOTAL_BYTES: Final = 128 << 10
POINTER_BYTES: Final = 8
MAX_PATH_BYTES: Final = 4096
TOO_LONG: Final = "arguments and environment are too long for execve"


@dataclass(slots=True, kw_only=True)
class Spec:
    """What to start and how.

    Attributes:
        argv: the program's absolute path and its arguments.
        cwd: existing directory; relative to procd's own.
        run_as: the user that has to be able to enter it; None for procd's own.
        stdio: what becomes descriptor 0, 1, 2 and so on; nothing else is inherited.
        session: whether it leads a new session, else a new process group in procd's session.
        wrappers: programs and their arguments that run first, each executing the next. They don't
            see `env`: variables such as LD_PRELOAD must not affect privileged programs.
    """

    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]
    stdio: tuple[Source, ...]
    run_as: RunAs | None = None
    umask: int | None = None
    wrappers: tuple[str, ...] = ()
    session: bool = True


def spawn(spec: Spec, tag: int) -> int:
    """Start a program, which leads a new session or process group, and return its pid.

    All signals have their default disposition and none is blocked. The child and its descendants
    carry `tag` (see `tags`). procd changes to `cwd` for the length of the call, as it has one
    thread; on a file system that may not answer (`is_remote`) the child does so itself.

    Raises:
        SpawnFailed: the message says whether the directory, the program or the system failed.
    """
    actions: list[Action] = [
        (os.POSIX_SPAWN_OPEN, target, source, os.O_RDWR, 0)
        if isinstance(source, str)
        else (os.POSIX_SPAWN_DUP2, source, target)
        for target, source in enumerate(spec.stdio)
    ]
    env = dict(spec.env)
    if spec.cwd.startswith("/"):
        env["PWD"] = spec.cwd  # so that a shell shows the path as given, with its links
    here = _working_directory()
    env_options: list[str] = []
    if spec.cwd != here and is_remote(spec.cwd) and kind_of(os.path.realpath(ENV)) != "busybox":
        env_options.append(f"--chdir={spec.cwd}")  # BusyBox doesn't have it
        spec = replace(spec, cwd=here)
    if spec.wrappers:
        hiding_options, env = _hide_from_wrappers(env)
        env_options += hiding_options
    if env_options:
        if "=" in spec.argv[0]:  # env(1) would take it for a variable
            reason = f"{spec.argv[0]}: its path has a = in it"
            raise SpawnFailed(f"program cannot be executed: {reason}")
        spec = replace(spec, argv=(*spec.wrappers, ENV, *env_options, *spec.argv))
    if spec.cwd == here:
        return _spawn(spec, env, actions, tag)
    former = _open_working_directory()
    try:
        with nullcontext() if spec.run_as is None else spec.run_as.acting():
            _change_directory(spec.cwd)
        try:
            return _spawn(spec, env, actions, tag)
        finally:
            _return_to(former)
    finally:
        os.close(former)


def check_startable(cwd: str, env: Mapping[str, str]) -> None:
    """Refuse with SpawnFailed a directory and an environment that are too long for any program.

    Source: execve(2), "Limits on size of arguments and environment"; chdir(2).
    """
    if len(cwd) >= MAX_PATH_BYTES or len(os.fsencode(cwd)) >= MAX_PATH_BYTES:
        reason = os.strerror(errno.ENAMETOOLONG)
        raise SpawnFailed(f"working directory cannot be entered: {cwd}: {reason}")
    stack, _ = resource.getrlimit(resource.RLIMIT_STACK)
    left = MAX_TOTAL_BYTES
    if stack != resource.RLIM_INFINITY:
        left = max(min(left, stack // 4), MIN_TOTAL_BYTES)
    for name, value in env.items():
        size = len(os.fsencode(name)) + len(os.fsencode(value)) + len("=\0")
        left -= size + POINTER_BYTES
        if size > MAX_STRING_BYTES or left < 0:
            raise SpawnFailed(TOO_LONG)


def _working_directory() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 - a str, as every path of a child is
    except FileNotFoundError:
        return ""  # it was deleted


def _open_working_directory() -> int:
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        try:
            return os.open(".", flags)
        except PermissionError:
            return os.open("/", flags)
    except OSError as exc:
        raise SpawnFailed(f"cannot start a process: {exc.strerror}") from exc


def _return_to(former: int) -> None:
    try:
        os.fchdir(former)
    except OSError as exc:
        log.warning("procd can't return to its working directory: %s", exc.strerror)
        os.chdir("/")


def _change_directory(cwd: str) -> None:
    try:
        os.chdir(cwd)
    except FileNotFoundError as exc:
        raise SpawnFailed(f"working directory does not exist: {cwd}") from exc
    except NotADirectoryError as exc:
        raise SpawnFailed(f"working directory is not a directory: {cwd}") from exc
    except OSError as exc:
        raise SpawnFailed(f"working directory cannot be entered: {cwd}: {exc.strerror}") from exc


def _hide_from_wrappers(env: Mapping[str, str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Options of env(1), the last wrapper, that make it set `env`, and the environment until then.

    The values have neutral names there. They aren't arguments, as every user can read those.
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
    # procd has one thread, so nothing else uses this umask.
    umask = None if spec.umask is None else os.umask(spec.umask)
    try:
        return os.posix_spawn(
            spec.argv[0],
            spec.argv,
            env,
            file_actions=actions,
            setsigmask=(),
            setsigdef=RESET_SIGNALS,
            **({"setsid": True} if spec.session else {"setpgroup": 0}),
        )
    except OSError as exc:
        raise SpawnFailed(_reason(spec, exc)) from exc
    finally:
        if umask is not None:
            os.umask(umask)
        resource.setrlimit(resource.RLIMIT_NOFILE, files)
        unmark(limits)


def _limit_open_files(stdio: tuple[Source, ...]) -> tuple[int, int]:
    """Set the soft limit of descriptors that the child inherits; returns the limits to restore."""
    soft, hard = own = resource.getrlimit(resource.RLIMIT_NOFILE)
    least = max([OPEN_FILES, *(source + 1 for source in stdio if isinstance(source, int))])
    if soft > least:
        resource.setrlimit(resource.RLIMIT_NOFILE, (least, hard))
    return own


def _reason(spec: Spec, exc: OSError) -> str:
    for source in spec.stdio:  # the child opens these before it executes the program
        if isinstance(source, str) and not os.access(source, os.R_OK | os.W_OK):
            return f"cannot start a process: {source}: {exc.strerror}"
    program = spec.argv[0]
    match exc.errno:
        case errno.ENOENT:
            return f"program does not exist: {program}"
        case errno.EACCES | errno.ENOEXEC:
            return f"program cannot be executed: {program}: {exc.strerror}"
        case errno.E2BIG:
            return TOO_LONG
        case _:
            return f"cannot start a process: {exc.strerror}"
