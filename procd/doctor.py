"""procd doctor: what `procd serve` would refuse, and what else this machine lacks for it."""

import os
import platform
import resource
import select
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import click

from procd.cli.display import show_json
from procd.cli.failure import Failure
from procd.cli.options import as_json
from procd.cli.progress import Progress
from procd.cli.stdio import STDOUT, use_colours
from procd.cli.target import parse
from procd.cli.transport import Client
from procd.config import Config, ConfigError
from procd.config_file import load
from procd.errors import SpawnFailed
from procd.inherited import state_dir
from procd.preflight import prepared
from procd.process import cgroup, tags
from procd.process.kernel import missing
from procd.process.limits import Confinement
from procd.process.memory import memory_bytes
from procd.process.shell import Shell, script_argv
from procd.services.credentials import VARIABLE
from procd.services.programs import MissingProgramError, find
from procd.unix.procfs import stat_of

GOOD, POOR, BAD = "ok", "warning", "problem"
COLOURS: Final = {GOOD: "green", POOR: "yellow", BAD: "red"}
# A session takes five descriptors, a terminal three; by default there may be 2048 of each.
ENOUGH_FILES: Final = 16384
LEAST_FILES: Final = 256
ENOUGH_BYTES: Final = 1 << 30
ENOUGH_PROCESSES: Final = 1024
ENOUGH_MEMORY_BYTES: Final = 256 << 20
# What a program that does nothing may take to end.
START_S: Final = 10.0
OLDEST_PYTHON: Final = "3.8"
UID_MAP: Final = Path("/proc/self/uid_map")
# Of a unix socket: unix(7), sun_path.
MAX_PATH_BYTES: Final = 107


class Finding(NamedTuple):
    """What one check found, and what to do about it."""

    name: str
    state: str
    found: str
    advice: str = ""


@click.command("doctor")
@click.option(
    "--config", "path", type=click.Path(path_type=Path), envvar="PROCD_CONFIG", show_envvar=True,
    help="TOML file.",
)  # fmt: skip
@as_json
def command(*, path: Path | None, as_json: bool) -> None:
    """See whether this machine is fit for `procd serve`, and say what to do if it isn't.

    Checks the kernel, the settings as `procd serve` does, then the shell, Python, cgroup, systemd,
    where to listen, limits and the disk. It changes nothing. Run it as the user and with the
    environment that procd is to have. Exits with 1 if there is a problem; a warning is none.

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
    sys.exit(int(any(finding.state == BAD for finding in findings)))


def _findings(path: Path | None) -> Iterator[Finding]:
    release = platform.release()
    if lacking := missing():
        advice = f"this is {release}: run a newer one, or let its sandbox (seccomp) have it"
        for each in lacking:
            mount = "mount -t proc proc /proc, or else: " if each.startswith("/proc/") else ""
            yield Finding("kernel", BAD, f"lacks {each}", mount + advice)
        return  # the other checks need some of it, too
    yield Finding("kernel", GOOD, release)
    config = Config()
    try:
        config = load(path, os.environ)
        prepared(config, os.environ, os.environ.get(VARIABLE))
    except ConfigError as exc:
        advice = "`procd serve` would refuse it; config.example.toml lists every setting"
        yield Finding("configuration", BAD, str(exc), advice)
    else:
        yield Finding("configuration", GOOD, str(path or "defaults and environment"))
    checks: tuple[Callable[[Config], Finding], ...] = (
        _shell, _python, _terminals, _marks, _cgroup, _systemd, _port, _socket, _files,
        _processes, _memory, _disk,
    )  # fmt: skip
    for check in checks:
        yield check(config)


def _shell(config: Config) -> Finding:
    try:
        place = Shell(config.process.shell, os.environ.get("SHELL", "")).path()
    except SpawnFailed as exc:
        return Finding("shell", BAD, exc.message, "install bash")
    if problem := _problem(script_argv(place, "exit 0")[0]):
        return Finding("shell", BAD, f"{place} {problem}", "repair it, or set process.shell")
    if Path(place).name == "sh":
        advice = "install bash: sessions and terminals use it"
        return Finding("shell", POOR, f"only {place}", advice)
    return Finding("shell", GOOD, place)


def _python(config: Config) -> Finding:
    advice = "install python3, or set interpreter.python (contexts) and code_run.python"
    places: list[str] = []
    oldest = tuple(map(int, OLDEST_PYTHON.split(".")))
    for setting in dict.fromkeys((config.interpreter.python, config.code_run.python)):
        try:
            place = setting or find(os.environ, Confinement(), "python3", "python")
        except MissingProgramError:
            return Finding("python", POOR, "there is none on the PATH", advice)
        if problem := _problem((place, "-c", "pass")):
            return Finding("python", POOR, f"{place} {problem}", advice)
        if _problem((place, "-c", f"import sys; sys.exit(sys.version_info < {oldest})")):
            return Finding("python", POOR, f"{place} is older than {OLDEST_PYTHON}", advice)
        places.append(place)
    return Finding("python", GOOD, ", ".join(places))


def _problem(argv: tuple[str, ...]) -> str:
    """What is wrong with a program that should do nothing; empty if it does that."""
    null = os.open(os.devnull, os.O_RDWR)
    try:
        quiet = [(os.POSIX_SPAWN_DUP2, null, number) for number in range(3)]
        pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=quiet)
    except OSError as exc:
        return f"can't be started: {exc.strerror}"
    finally:
        os.close(null)
    pidfd = os.pidfd_open(pid)
    try:
        with Progress(f"trying {argv[0]}"):
            ended = bool(select.select([pidfd], [], [], START_S)[0])
    finally:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not ended:
        return f"doesn't end within {START_S:.0f} s"
    return f"fails with exit code {code}" if code else ""


def _terminals(_: Config) -> Finding:
    try:
        os.close(os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError as exc:
        return Finding("terminals", BAD, f"/dev/ptmx: {exc.strerror}", "mount devpts on /dev/pts")
    return Finding("terminals", GOOD, "/dev/ptmx")


def _marks(_: Config) -> Finding:
    hard = tags.obstacle()
    if hard is None and stat_of(1) is None:
        advice = "mount it without hidepid (ProtectProc=): what isn't dumpable is not found without"
        return Finding("process trees", POOR, "/proc hides processes of others", advice)
    if hard is None:
        return Finding("process trees", GOOD, "can be marked")
    advice = "raise it (LimitRTTIME=): to end one command of a session ends the session without"
    return Finding("process trees", POOR, f"the hard RLIMIT_RTTIME is {hard} us", advice)


def _cgroup(config: Config) -> Finding:
    if config.process.cgroup == "off":
        return Finding("cgroup", GOOD, "switched off by process.cgroup")
    try:
        root = cgroup.find_root(config.process.cgroup)
    except ConfigError as exc:
        return Finding("cgroup", BAD, str(exc), 'set process.cgroup, or leave it at "auto"')
    if root is not None:
        return Finding("cgroup", GOOD, str(root.path))
    if not (cgroup.MOUNT / "cgroup.controllers").exists():
        advice = "mount cgroup2 on /sys/fs/cgroup: without it what daemonizes is found less surely"
        return Finding("cgroup", POOR, "no cgroup v2", advice)
    own = cgroup.own()
    if own != cgroup.MOUNT and not (own / "cgroup.kill").exists():
        advice = "use Linux 5.14 or newer: before, what daemonizes is found less surely"
        return Finding("cgroup", POOR, f"{own} has no cgroup.kill", advice)
    advice = "run procd as a service with Delegate=yes, or set process.cgroup"
    return Finding("cgroup", POOR, f"{own} is not ours to divide", advice)


def _systemd(_: Config) -> Finding:
    """Source: sd_booted(3)."""
    if Path("/run/systemd/system").is_dir():
        return Finding("systemd", GOOD, "runs this machine")
    advice = "nothing restarts procd after a failure; systemd/procd.service is a unit to start from"
    return Finding("systemd", POOR, "doesn't run this machine", advice)


def _port(config: Config) -> Finding:
    host, port = config.server.host, config.server.port
    if not host:
        if not config.server.unix:
            advice = "set server.host or server.unix, unless a service manager passes sockets on"
            return Finding("port", POOR, "nothing to listen on", advice)
        return Finding("port", GOOD, "no TCP, as server.host is empty")
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except TypeError:  # of IDNA
            return Finding("port", BAD, f"{place}: not the name of a host", "set server.host")
        except OSError as exc:
            problem = exc.strerror or str(exc)
        else:
            return Finding("port", GOOD, f"{place} is free" if port else "any that is free")
    if _answers(f"http://{place}", place):
        return Finding("port", GOOD, f"procd listens on {place}")
    advice = "end what uses it, or set server.host and server.port"
    return Finding("port", BAD, f"{place}: {problem}", advice)


def _socket(config: Config) -> Finding:
    path = Path(config.server.unix)
    if not config.server.unix:
        return Finding("socket", GOOD, "none, as server.unix is empty")
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        advice = f"set server.unix to a path of {MAX_PATH_BYTES} bytes at most"
        return Finding("socket", BAD, f"{path} is too long", advice)
    if os.access(path, os.F_OK):
        if not path.is_socket():
            advice = "move it away, or set server.unix"
            return Finding("socket", BAD, f"{path} is no socket", advice)
        if _answers(f"unix:{path}", str(path)):
            return Finding("socket", GOOD, f"procd listens on {path}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        advice = f"make the directory {path.parent}, for procd's user to write in"
        return Finding("socket", BAD, f"{path} can't be made", advice)
    return Finding("socket", GOOD, str(path))


def _answers(url: str, place: str) -> bool:
    """Whether a procd does."""
    try:
        with Progress(f"asking who listens on {place}"):
            Client(parse(url)).call("GET", "/healthz", within_s=2, returns=dict)
            return True
    except Failure:
        return False


def _files(_: Config) -> Finding:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY or hard >= ENOUGH_FILES:
        return Finding("descriptors", GOOD, f"up to {hard}")
    advice = f"raise the hard limit (ulimit -Hn, LimitNOFILE=) to {ENOUGH_FILES} or more"
    return Finding("descriptors", POOR if hard >= LEAST_FILES else BAD, f"up to {hard}", advice)


def _processes(_: Config) -> Finding:
    limits = {"RLIMIT_NPROC": resource.getrlimit(resource.RLIMIT_NPROC)[0]}
    if os.geteuid() == 0 and _is_true_root():  # whom it doesn't hold: getrlimit(2)
        limits = {}
    limits |= cgroup.limits("pids.max")
    bounded = {name: most for name, most in limits.items() if most != resource.RLIM_INFINITY}
    if not bounded:
        return Finding("processes", GOOD, "any number")
    name = min(bounded, key=bounded.__getitem__)
    found = f"up to {bounded[name]}, by {name}"
    if bounded[name] >= ENOUGH_PROCESSES:
        return Finding("processes", GOOD, found)
    advice = f"raise it (ulimit -u, LimitNPROC=, TasksMax=) to {ENOUGH_PROCESSES} or more"
    return Finding("processes", POOR, found, advice)


def _is_true_root() -> bool:
    """Whether user 0 is the machine's, and not that of a rootless container.

    Source: user_namespaces(7), "User and group ID mappings".
    """
    try:
        return UID_MAP.read_text().split()[:2] == ["0", "0"]
    except OSError:
        return True


def _memory(config: Config) -> Finding:
    most = memory_bytes()
    output_bytes = config.process.total_output_bytes(most)
    found = f"up to {most >> 20} MiB, {output_bytes >> 20} of them for output"
    if most >= ENOUGH_MEMORY_BYTES:
        return Finding("memory", GOOD, found)
    advice = f"raise the limit (ulimit -v, MemoryMax=) to {ENOUGH_MEMORY_BYTES >> 20} MiB or more"
    return Finding("memory", POOR, found, advice)


def _disk(config: Config) -> Finding:
    try:
        place = state_dir(config.sessions, os.environ)
    except ConfigError as exc:
        return Finding("logs", BAD, str(exc), "set sessions.state_dir")
    free = shutil.disk_usage(place).free
    found = f"{place}, {free / (1 << 30):.1f} GiB free"
    largest = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if largest != resource.RLIM_INFINITY and largest < config.sessions.max_log_bytes:
        advice = "raise it (ulimit -f, LimitFSIZE=), or lower sessions.max_log_bytes"
        return Finding("logs", POOR, f"{place}, files of up to {largest} bytes", advice)
    if free < ENOUGH_BYTES:
        return Finding(
            "logs", POOR, found, "set sessions.state_dir, or sessions.max_total_log_bytes"
        )
    return Finding("logs", GOOD, found)
