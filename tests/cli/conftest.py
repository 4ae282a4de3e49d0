"""A daemon for the tests of the command line, and the means to run that."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.proxy import Proxy
from tests.daemon.daemon import PATIENCE_S, Daemon, environment

PROCD = (str(Path(sys.executable).with_name("procd")),)
Result = subprocess.CompletedProcess[bytes]


@pytest.fixture(autouse=True)
def settled() -> None:
    """In place of the check of this process: what is tested runs in others."""


@pytest.fixture(autouse=True)
def no_blocking() -> None:
    """In place of the check of this loop: as above."""


@pytest.fixture(scope="package")
def home(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A home without files of the machine's user, and with a shell that prints little."""
    home = tmp_path_factory.mktemp("home")
    (home / ".inputrc").write_text("set enable-bracketed-paste off\n")
    return str(home)


@pytest.fixture(scope="package")
def daemon(home: str) -> Iterator[Daemon]:
    """One daemon for all tests."""
    settings = {"HOME": home, "SHELL": "/bin/bash", "PROCD_PROCESS_SHELL": "/bin/bash"}
    with Daemon.start(env=settings) as daemon:
        yield daemon


@pytest.fixture
def proxy(daemon: Daemon) -> Iterator[Proxy]:
    """A way to the daemon that can be cut."""
    proxy = Proxy(daemon.port)
    yield proxy
    proxy.close()


@pytest.fixture
def stalled() -> Iterator[int]:
    """A port of loopback where somebody listens who never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


class Cli:
    """Runs `procd` against one server."""

    def __init__(self, url: str, home: str) -> None:
        self.url = url
        self.home = home
        self._running: list[subprocess.Popen[bytes]] = []

    def env(self, **settings: str) -> dict[str, str]:
        """The environment that it runs in."""
        places = dict.fromkeys(("XDG_CONFIG_HOME", "XDG_STATE_HOME"), "")
        own = {"HOME": self.home, "PROCD_URL": self.url, "LC_ALL": "C.UTF-8"}
        return environment() | places | own | settings

    def __call__(self, *arguments: str, stdin: bytes = b"", **settings: str) -> Result:
        """Run it to its end."""
        return subprocess.run(
            [*PROCD, *arguments],
            input=stdin,
            capture_output=True,
            env=self.env(**settings),
            timeout=PATIENCE_S,
            check=False,
        )

    def start(self, *arguments: str, **options: Any) -> "subprocess.Popen[bytes]":
        """Start it, or another command that starts it."""
        pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        settings = options.pop("settings", {})
        process = subprocess.Popen(
            [*options.pop("command", PROCD), *arguments],
            env=self.env(**settings),
            **(pipes | options),
        )
        self._running.append(process)
        return process

    def close(self) -> None:
        """Nothing of it is left."""
        for process in self._running:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    try:
                        pipe.close()
                    except BrokenPipeError:
                        continue  # what it was to read it never will


@pytest.fixture
def cli(daemon: Daemon, home: str) -> Iterator[Cli]:
    """Run `procd` against the daemon."""
    cli = Cli(daemon.url, home)
    yield cli
    cli.close()


def alive(pid: int) -> bool:
    """Whether a process runs, zombies not counted."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def interrupt(process: "subprocess.Popen[bytes]", number: int = signal.SIGINT) -> None:
    """Signal a process that was started."""
    process.send_signal(number)


def insist(process: "subprocess.Popen[bytes]", number: int) -> bool:
    """Signal it again; True once it has ended. Two signals of one kind may arrive as one."""
    process.send_signal(number)
    return process.poll() is not None
