"""procd doctor."""

import os
import platform
import resource
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import click

from procd.cli.failure import Failure, Unreachable
from procd.cli.http import Connection
from procd.cli.io import STDOUT, coloured
from procd.cli.options import as_json
from procd.cli.progress import Progress
from procd.cli.tables import show_json
from procd.cli.target import parse
from procd.config import Config, ConfigError
from procd.configfile import check_places, load
from procd.surroundings import state_dir

GOOD, POOR, BAD = "ok", "warning", "problem"
COLOURS: Final = {GOOD: "green", POOR: "yellow", BAD: "red"}
# A session costs up to four descriptors.
ENOUGH_FILES: Final = 4096
LEAST_FILES: Final = 256
ENOUGH_BYTES: Final = 1 << 30
CGROUP: Final = Path("/sys/fs/cgroup")


class Finding(NamedTuple):
    """What one check found, and what to do about it."""

    name: str
    state: str
    found: str
    advice: str = ""


@click.command("doctor")
@click.option(
    "--config", "path", type=click.Path(path_type=Path), envvar="PROCD_CONFIG", help="TOML file."
)
@as_json
def command(*, path: Path | None, as_json: bool) -> None:
    """See whether this machine is fit for `procd serve`, and say what to do if it isn't.

    Looks at the configuration, shell, Python, kernel, cgroup, systemd, port, limits and disk. It
    changes nothing. Exits with 1 if there is a problem; a warning is none.
    """
    findings = list(_findings(path))
    if as_json:
        show_json([finding._asdict() for finding in findings])
    else:
        for finding in findings:
            state = f"{finding.state:8}"
            if coloured(STDOUT):
                state = click.style(state, fg=COLOURS[finding.state])
            click.echo(f"{state} {finding.name:14} {finding.found}")
            if finding.advice:
                click.echo(f"{'':24}→ {finding.advice}")
    sys.exit(int(any(finding.state == BAD for finding in findings)))


def _findings(path: Path | None) -> Iterator[Finding]:
    try:
        config = load(path, os.environ)
        check_places(config.process)
    except ConfigError as exc:
        yield Finding("configuration", BAD, str(exc), "config.example.toml lists every setting")
        config = Config()
    else:
        yield Finding("configuration", GOOD, str(path or "defaults and environment"))
    checks: tuple[Callable[[Config], Finding], ...] = (
        _shell, _python, _kernel, _terminals, _cgroup, _systemd, _port, _files, _disk,
    )  # fmt: skip
    for check in checks:
        yield check(config)


def _shell(config: Config) -> Finding:
    """Source: Process API contract, section 4.1."""
    places = (config.process.shell,) if config.process.shell else (
        "/usr/bin/zsh", "/bin/zsh", "/usr/bin/bash", "/bin/bash", os.environ.get("SHELL", ""),
    )  # fmt: skip
    for place in places:
        if place and os.access(place, os.X_OK):
            return Finding("shell", GOOD, place)
    if found := shutil.which("sh"):
        return Finding(
            "shell", POOR, f"only {found}", "install bash: sessions and terminals use it"
        )
    return Finding("shell", BAD, "there is none", "install bash")


def _python(config: Config) -> Finding:
    found = config.interpreter.python or shutil.which("python3") or shutil.which("python")
    if found and os.access(found, os.X_OK):
        return Finding("python", GOOD, found)
    advice = "install python3, or set interpreter.python: contexts and code-run need it"
    return Finding("python", POOR, found or "there is none on the PATH", advice)


def _kernel(_: Config) -> Finding:
    release = platform.release()
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return Finding("kernel", BAD, release, "pidfd_open is missing: Linux 5.3 or newer has it")
    return Finding("kernel", GOOD, release)


def _terminals(_: Config) -> Finding:
    try:
        os.close(os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError as exc:
        return Finding("terminals", BAD, f"/dev/ptmx: {exc.strerror}", "mount devpts on /dev/pts")
    return Finding("terminals", GOOD, "/dev/ptmx")


def _cgroup(config: Config) -> Finding:
    if config.process.cgroup == "off":
        return Finding("cgroup", GOOD, "switched off by process.cgroup")
    if not (CGROUP / "cgroup.controllers").exists():
        advice = "mount cgroup2 on /sys/fs/cgroup: without it what daemonizes is found less surely"
        return Finding("cgroup", POOR, "no cgroup v2", advice)
    if config.process.cgroup != "auto":
        return Finding("cgroup", GOOD, config.process.cgroup)
    own = CGROUP / Path("/proc/self/cgroup").read_text().strip().rpartition("::/")[2]
    if os.access(own, os.W_OK):
        return Finding("cgroup", GOOD, str(own))
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
    place = f"{host}:{port}"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as exc:
            problem = exc.strerror or str(exc)
        else:
            return Finding("port", GOOD, f"{place} is free")
    with Progress(f"asking who listens on {place}"):
        answers = _answers(host, port)
    if answers:
        return Finding("port", GOOD, f"procd listens on {place}")
    advice = "end what uses it, or set server.host and server.port"
    return Finding("port", BAD, f"{place}: {problem}", advice)


def _answers(host: str, port: int) -> bool:
    host = f"[{host}]" if ":" in host else host
    try:
        connection = Connection(parse(f"http://{host}:{port}"))
        try:
            connection.send("GET", "/healthz")
            return connection.receive(2).status == 200
        finally:
            connection.close()
    except (Unreachable, Failure):
        return False


def _files(_: Config) -> Finding:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY or hard >= ENOUGH_FILES:
        return Finding("descriptors", GOOD, f"up to {hard}")
    advice = f"raise the hard limit (ulimit -Hn, LimitNOFILE=) to {ENOUGH_FILES} or more"
    return Finding("descriptors", POOR if hard >= LEAST_FILES else BAD, f"up to {hard}", advice)


def _disk(config: Config) -> Finding:
    try:
        place = state_dir(config.sessions, os.environ)
    except ConfigError as exc:
        return Finding("logs", BAD, str(exc), "set sessions.state_dir")
    free = shutil.disk_usage(place).free
    found = f"{place}, {free / (1 << 30):.1f} GiB free"
    if free < ENOUGH_BYTES:
        return Finding(
            "logs", POOR, found, "set sessions.state_dir, or sessions.max_total_log_bytes"
        )
    return Finding("logs", GOOD, found)
