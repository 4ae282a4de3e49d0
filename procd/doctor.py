"""procd doctor: what `procd serve` would refuse, and what else this machine lacks for it."""

import os
import platform
import resource
import shutil
import socket
import subprocess  # noqa: TID251 - this process serves nobody
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import click

from procd.cli.config_option import config_option
from procd.cli.display import Progress, show_json
from procd.cli.failure import Failure
from procd.cli.options import as_json
from procd.cli.stdio import STDOUT, use_colours
from procd.cli.transport import Client, parse
from procd.config import Config, ConfigError
from procd.config_file import load
from procd.errors import SpawnFailed
from procd.inherited import state_dir
from procd.preflight import missing_features, prepared
from procd.process import cgroup, tags
from procd.process.cgroup import memory_bytes
from procd.process.limits import ChildLimits
from procd.process.shell import Shell, script_argv
from procd.services.access import VARIABLE
from procd.services.environment import MissingProgramError, find_program
from procd.unix.procfs import stat_of

COLOURS: Final = {"ok": "green", "warning": "yellow", "problem": "red"}
# A session takes five descriptors, a terminal three; by default there may be 2048 of each.
ENOUGH_FILES: Final = 16384
LEAST_FILES: Final = 256
ENOUGH_PROCESSES: Final = 1024
ENOUGH_MEMORY_BYTES: Final = 256 << 20
ENOUGH_DISK_BYTES: Final = 1 << 30
# How long a program that does nothing may take.
PROGRAM_S: Final = 10.0
HEALTH_S: Final = 2.0
OLDEST_PYTHON: Final = "3.8"
UID_MAP: Final = Path("/proc/self/uid_map")
MAX_SOCKET_PATH_BYTES: Final = 107  # unix(7), sun_path


class Finding(NamedTuple):
    name: str
    state: str
    found: str
    advice: str = ""


class Problem(Exception):
    """A check failed: what it found, and what to do about it."""

    state = "problem"


class Warn(Problem):
    """Procd runs nevertheless, but less well."""

    state = "warning"


@click.command("doctor")
@config_option
@as_json
def command(*, path: Path | None, as_json: bool) -> None:
    """Check whether this machine is fit for `procd serve`, and say what to do if it isn't.

    Checks the kernel, the settings as `procd serve` does, then the shell, Python, cgroup, systemd,
    where to listen, limits and the disk. It changes nothing. Run it as the user and with the
    environment that procd is to have. Exits with 1 if there is a problem, but not for a warning.

    \b
    Examples:
      procd doctor
      sudo procd doctor --config /etc/procd/config.toml
      procd doctor --json | jq '.[] | select(.state == "problem")'
    """
    findings = list(_findings(path))
    if as_json:
        show_json([finding._asdict() for finding in findings])
    else:
        for finding in findings:
            state = f"{finding.state:8}"
            if use_colours(STDOUT):
                state = click.style(state, fg=COLOURS[finding.state])
            click.echo(f"{state} {finding.name:14} {finding.found}")
            if finding.advice:
                click.echo(f"{'':24}→ {finding.advice}")
    sys.exit(int(any(finding.state == "problem" for finding in findings)))


def _findings(path: Path | None) -> Iterator[Finding]:
    release = platform.release()
    if lacking := missing_features():
        advice = f"this is {release}: run a newer one, or let its sandbox (seccomp) have it"
        for each in lacking:
            mount = "mount -t proc proc /proc, or else: " if each.startswith("/proc/") else ""
            yield Finding("kernel", "problem", f"lacks {each}", mount + advice)
        return  # the other checks need some of it, too
    yield Finding("kernel", "ok", release)
    config = Config()
    try:
        config = load(path, os.environ)
        prepared(config, os.environ, os.environ.get(VARIABLE))
        yield Finding("configuration", "ok", str(path or "defaults and environment"))
    except ConfigError as exc:
        advice = "`procd serve` would refuse it; config.example.toml lists every setting"
        yield Finding("configuration", "problem", str(exc), advice)
    for check in CHECKS:
        name = check.__name__[1:].replace("_", " ")
        try:
            yield Finding(name, "ok", check(config))
        except Problem as exc:
            yield Finding(name, exc.state, *exc.args)


def _shell(config: Config) -> str:
    try:
        place = Shell(config.process.shell, os.environ.get("SHELL", "")).path()
    except SpawnFailed as exc:
        raise Problem(exc.message, "install bash") from exc
    if failure := _try(script_argv(place, "exit 0")[0]):
        raise Problem(f"{place} {failure}", "repair it, or set process.shell")
    if Path(place).name == "sh":
        raise Warn(f"only {place}", "install bash: sessions and terminals use it")
    return place


def _python(config: Config) -> str:
    advice = "install python3, or set interpreter.python (contexts) and code_run.python"
    places: list[str] = []
    oldest = tuple(map(int, OLDEST_PYTHON.split(".")))
    for setting in dict.fromkeys((config.interpreter.python, config.code_run.python)):
        try:
            place = setting or find_program(os.environ, ChildLimits(), "python3", "python")
        except MissingProgramError as exc:
            raise Warn("there is none on the PATH", advice) from exc
        if failure := _try((place, "-c", "pass")):
            raise Warn(f"{place} {failure}", advice)
        if _try((place, "-c", f"import sys; sys.exit(sys.version_info < {oldest})")):
            raise Warn(f"{place} is older than {OLDEST_PYTHON}", advice)
        places.append(place)
    return ", ".join(places)


def _try(argv: tuple[str, ...]) -> str:
    """Run a program that does nothing; returns what is wrong with it, or "" if nothing is."""
    null = subprocess.DEVNULL
    try:
        with Progress(f"trying {argv[0]}"):
            code = subprocess.run(
                argv, stdin=null, stdout=null, stderr=null, timeout=PROGRAM_S, check=False
            ).returncode
    except OSError as exc:
        return f"can't be started: {exc.strerror}"
    except subprocess.TimeoutExpired:
        return f"doesn't end within {PROGRAM_S:.0f} s"
    return f"fails with exit code {code}" if code else ""


def _terminals(_: Config) -> str:
    try:
        os.close(os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError as exc:
        raise Problem(f"/dev/ptmx: {exc.strerror}", "mount devpts on /dev/pts") from exc
    return "/dev/ptmx"


def _process_trees(_: Config) -> str:
    if (hard := tags.obstacle()) is not None:
        advice = "raise it (LimitRTTIME=): to end one command of a session ends the session without"
        raise Warn(f"the hard RLIMIT_RTTIME is {hard} us", advice)
    if stat_of(1) is None:
        advice = "mount it without hidepid (ProtectProc=): what isn't dumpable is not found without"
        raise Warn("/proc hides processes of others", advice)
    return "can be marked"


def _cgroup(config: Config) -> str:
    if config.process.cgroup == "off":
        return "switched off by process.cgroup"
    try:
        root = cgroup.find_root(config.process.cgroup)
    except ConfigError as exc:
        raise Problem(str(exc), 'set process.cgroup, or leave it at "auto"') from exc
    if root is not None:
        return str(root.path)
    if not (cgroup.MOUNT / "cgroup.controllers").exists():
        advice = "mount cgroup2 on /sys/fs/cgroup: without it what daemonizes is found less surely"
        raise Warn("no cgroup v2", advice)
    own = cgroup.own()
    if own != cgroup.MOUNT and not (own / "cgroup.kill").exists():
        advice = "use Linux 5.14 or newer: before, what daemonizes is found less surely"
        raise Warn(f"{own} has no cgroup.kill", advice)
    advice = "run procd as a service with Delegate=yes, or set process.cgroup"
    raise Warn(f"{own} is not ours to divide", advice)


def _systemd(_: Config) -> str:
    """Source: sd_booted(3)."""
    if Path("/run/systemd/system").is_dir():
        return "runs this machine"
    advice = "nothing restarts procd after a failure; systemd/procd.service is a unit to start from"
    raise Warn("doesn't run this machine", advice)


def _port(config: Config) -> str:
    host, port = config.server.host, config.server.port
    if not host:
        if config.server.unix:
            return "no TCP, as server.host is empty"
        advice = "set server.host or server.unix, unless a service manager passes sockets on"
        raise Warn("nothing to listen on", advice)
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            return f"{place} is free" if port else "any that is free"
        except TypeError as exc:  # of IDNA
            raise Problem(f"{place}: not the name of a host", "set server.host") from exc
        except OSError as exc:
            if not _answers(f"http://{place}", place):
                advice = "end what uses it, or set server.host and server.port"
                raise Problem(f"{place}: {exc.strerror or exc}", advice) from exc
    return f"procd listens on {place}"


def _socket(config: Config) -> str:
    path = Path(config.server.unix)
    if not config.server.unix:
        return "none, as server.unix is empty"
    if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
        advice = f"set server.unix to a path of {MAX_SOCKET_PATH_BYTES} bytes at most"
        raise Problem(f"{path} is too long", advice)
    if path.is_socket() and _answers(f"unix:{path}", str(path)):
        return f"procd listens on {path}"
    if os.access(path, os.F_OK) and not path.is_socket():
        raise Problem(f"{path} is no socket", "move it away, or set server.unix")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        advice = f"make the directory {path.parent}, for procd's user to write in"
        raise Problem(f"{path} can't be made", advice)
    return str(path)


def _answers(url: str, place: str) -> bool:
    """Whether a procd answers there."""
    try:
        with Progress(f"asking who listens on {place}"):
            Client(parse(url)).call("GET", "/healthz", within_s=HEALTH_S, returns=dict)
        return True
    except Failure:
        return False


def _descriptors(_: Config) -> str:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < ENOUGH_FILES:
        advice = f"raise the hard limit (ulimit -Hn, LimitNOFILE=) to {ENOUGH_FILES} or more"
        raise (Warn if hard >= LEAST_FILES else Problem)(f"up to {hard}", advice)
    return f"up to {hard}"


def _processes(_: Config) -> str:
    limits = cgroup.limits("pids.max")
    if not (os.geteuid() == 0 and _is_initial_root()):  # which it doesn't limit: getrlimit(2)
        limits |= {"RLIMIT_NPROC": resource.getrlimit(resource.RLIMIT_NPROC)[0]}
    bounded = {name: most for name, most in limits.items() if most != resource.RLIM_INFINITY}
    if not bounded:
        return "any number"
    name = min(bounded, key=bounded.__getitem__)
    found = f"up to {bounded[name]}, by {name}"
    if bounded[name] < ENOUGH_PROCESSES:
        advice = f"raise it (ulimit -u, LimitNPROC=, TasksMax=) to {ENOUGH_PROCESSES} or more"
        raise Warn(found, advice)
    return found


def _is_initial_root() -> bool:
    """Whether user 0 is root of the machine, and not of a rootless container only.

    Source: user_namespaces(7), "User and group ID mappings".
    """
    try:
        return UID_MAP.read_text().split()[:2] == ["0", "0"]
    except OSError:
        return True


def _memory(config: Config) -> str:
    most = memory_bytes()
    output_bytes = config.process.total_output_bytes(most)
    found = f"up to {most >> 20} MiB, {output_bytes >> 20} of them for output"
    if most < ENOUGH_MEMORY_BYTES:
        enough = f"{ENOUGH_MEMORY_BYTES >> 20} MiB"
        raise Warn(found, f"raise the limit (ulimit -v, MemoryMax=) to {enough} or more")
    return found


def _logs(config: Config) -> str:
    try:
        place = state_dir(config.sessions, os.environ)
    except ConfigError as exc:
        raise Problem(str(exc), "set sessions.state_dir") from exc
    largest = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if largest != resource.RLIM_INFINITY and largest < config.sessions.max_log_bytes:
        advice = "raise it (ulimit -f, LimitFSIZE=), or lower sessions.max_log_bytes"
        raise Warn(f"{place}, files of up to {largest} bytes", advice)
    free = shutil.disk_usage(place).free
    found = f"{place}, {free / (1 << 30):.1f} GiB free"
    if free < ENOUGH_DISK_BYTES:
        raise Warn(found, "set sessions.state_dir, or sessions.max_total_log_bytes")
    return found


# A check returns what it found, and raises Problem or Warn with that and with advice.
CHECKS: Final[tuple[Callable[[Config], str], ...]] = (
    _shell, _python, _terminals, _process_trees, _cgroup, _systemd, _port, _socket, _descriptors,
    _processes, _memory, _logs,
)  # fmt: skip
