"""A daemon for the tests of the command line, and the means to run that."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from tests.cli.screen import Screen
from tests.daemon.daemon import PATIENCE_S, Daemon, environment
from tests.proxy import Proxy, proxy_to

PROCD = (str(Path(sys.executable).with_name("procd")),)
Result = subprocess.CompletedProcess[bytes]
OpenScreen = Callable[..., Screen]


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
    """A proxy of the daemon that can be cut."""
    with proxy_to(daemon.port) as proxy:
        yield proxy


@pytest.fixture
def stalled() -> Iterator[int]:
    """A port of loopback that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


class Cli:
    """Runs `procd` against one server, and calls its API without the command line."""

    def __init__(self, url: str, home: str) -> None:
        self.url = url
        self.home = home
        self._running: list[subprocess.Popen[bytes]] = []

    def env(self, **settings: str) -> dict[str, str]:
        places = dict.fromkeys(("XDG_CONFIG_HOME", "XDG_STATE_HOME"), "")
        own = {"HOME": self.home, "PROCD_URL": self.url, "LC_ALL": "C.UTF-8"}
        return environment() | places | own | settings

    def __call__(self, *arguments: str, stdin: bytes = b"", **settings: str) -> Result:
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

    def call(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urlopen(Request(self.url + path, data, method=method), timeout=PATIENCE_S) as reply:
            text = reply.read()
        return json.loads(text) if text else None

    def contexts(self) -> list[str]:
        found = self.call("GET", "/process/interpreter/context")["contexts"]
        return [each["id"] for each in found]

    def close(self) -> None:
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


@pytest.fixture
def screen(cli: Cli) -> Iterator[OpenScreen]:
    """Run procd, or another command, in a terminal."""
    opened: list[Screen] = []

    def make(*arguments: str, cols: int = 80, rows: int = 24, **settings: str) -> Screen:
        command = settings.pop("command", PROCD[0]).split()
        env = cli.env(**({"TERM": "xterm-256color"} | settings))
        opened.append(Screen([*command, *arguments], env, cols=cols, rows=rows))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


@pytest.fixture
def name(cli: Cli) -> Iterator[str]:
    """The name of a terminal that is gone after the test."""
    url = cli.url
    name = f"t{time.monotonic_ns()}"
    yield name
    cli.url = url
    if name in cli("ps").stdout.decode():
        cli("kill", name)


def alive(pid: int) -> bool:
    """Whether a process runs, zombies not counted."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def insist(process: "subprocess.Popen[bytes]", number: int) -> bool:
    """Signal a process again; True once it has ended. Two signals of one kind may arrive as one."""
    process.send_signal(number)
    return process.poll() is not None
