"""A procd process under test: its start, its address, its notifications, its end.

The standard library only: the smoke run needs it where no test tools are installed.
"""

import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Final

PROCD: Final = (sys.executable, "-m", "procd")
READY_LINE: Final = b"Starting toolbox server on "
# For what should take no time at all; only a test that fails waits so long.
PATIENCE_S: Final = 20.0
# For what procd starts: programs find this Python, and the packages that are installed with it.
PATH: Final = f"{os.path.dirname(sys.executable)}:{os.environ.get('PATH', os.defpath)}"


def environment(**settings: str) -> dict[str, str]:
    """This process's environment without any setting of procd, and with these."""
    inherited = {name: value for name, value in os.environ.items() if name[:6] != "PROCD_"}
    inherited.pop("NOTIFY_SOCKET", None)
    return inherited | settings


def eventually(fact: Callable[[], bool]) -> bool:
    """Wait until `fact` holds, for what another process does and tells nobody; False if never."""
    deadline = time.monotonic() + PATIENCE_S
    while not fact():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


class NotifySocket:
    """The service manager's end of sd_notify(3)."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("")  # the kernel picks an abstract name: unix(7), "Autobind feature"
        self._socket.settimeout(PATIENCE_S)

    @property
    def address(self) -> str:
        """What NOTIFY_SOCKET is to say."""
        name: bytes = self._socket.getsockname()
        return "@" + name[1:].decode()

    def receive(self) -> dict[str, str]:
        """The next notification, by variable.

        Raises:
            TimeoutError: none came.
        """
        lines = self._socket.recv(4096).decode().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def close(self) -> None:
        self._socket.close()


@dataclass(slots=True, eq=False)
class Daemon:
    """A running `procd serve`.

    Attributes:
        pid: of procd itself, which is not `process` when that only launches it.
    """

    process: subprocess.Popen[bytes]
    port: int
    notify: NotifySocket
    errors: IO[bytes]
    host: str = "127.0.0.1"
    pid: int = 0

    @classmethod
    def start(
        cls,
        *arguments: str,
        command: Sequence[str] = PROCD,
        env: Mapping[str, str] | None = None,
        pass_fds: Iterable[int] = (),
        cwd: str | None = None,
        stderr: int | None = None,
    ) -> "Daemon":
        """Start one on a free port and return when it listens.

        No interpreter is kept ready unless `env` says so: most tests have no use for one.

        Args:
            stderr: its standard error, if that isn't to be the file that `stderr()` reads.

        Raises:
            RuntimeError: it doesn't; the message is its standard error.
        """
        notify = NotifySocket()
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the daemon
        process = subprocess.Popen(
            [*command, "serve", "--port", "0", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors if stderr is None else stderr,
            env=environment(NOTIFY_SOCKET=notify.address, PROCD_INTERPRETER_WARM="0")
            | dict(env or {}),
            pass_fds=tuple(pass_fds),
            cwd=cwd,
        )
        daemon = cls(process, 0, notify, errors, pid=process.pid)
        assert process.stdout is not None
        line = process.stdout.readline()  # or nothing, when it ends
        if not line.startswith(READY_LINE):
            said = daemon.stderr()
            daemon.discard()
            raise RuntimeError(f"procd did not start: {said}")
        where = line.removeprefix(READY_LINE)
        if where.startswith(b"port "):  # or else it listens on a unix socket only
            daemon.port = int(where.removeprefix(b"port "))
        return daemon

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def stderr(self) -> str:
        """What it has said on its standard error so far."""
        self.errors.seek(0)
        return self.errors.read().decode(errors="replace")

    def stop(self, number: int = signal.SIGTERM, within_s: float = 5.0) -> int:
        """Signal it, wait for its end and return its exit code.

        Raises:
            subprocess.TimeoutExpired: it didn't end in time.
        """
        os.kill(self.pid, number)
        return self.process.wait(within_s)

    def discard(self) -> None:
        """Make sure that it has gone, and close what belongs to it."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.notify.close()
        self.errors.close()

    def __enter__(self) -> "Daemon":
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def idle_descriptors(self) -> int:
        """How many descriptors it has while it has no clients and no sessions."""
        with socket.create_connection((self.host, self.port)) as connection:
            # Its answer proves that it has gone past its start; the connection costs it one.
            connection.sendall(b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n")
            connection.recv(1)
            return len(descriptors(self.pid)) - 1

    def leaks(self, idle_descriptors: int, idle_children: int = 0) -> list[str]:
        """What it still holds once its clients have gone and its sessions have ended.

        Args:
            idle_children: how many processes it keeps when idle: interpreters.
        """
        eventually(lambda: not self._held(idle_descriptors, idle_children))
        return self._held(idle_descriptors, idle_children)

    def _held(self, idle_descriptors: int, idle_children: int) -> list[str]:
        held = [f"child {pid}" for pid in children(self.pid)]
        if len(held) == idle_children:
            held = []
        now = descriptors(self.pid)
        if len(now) != idle_descriptors:
            held.append(f"{len(now)} descriptors instead of {idle_descriptors}: {now}")
        return held


def children(pid: int) -> list[int]:
    """The direct children of a process, zombies included."""
    found: list[int] = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/children") as file:
            found += map(int, file.read().split())
    return found


def descendants(pid: int) -> list[int]:
    """All that a process has started and that still runs."""
    found = []
    for child in children(pid):
        found.append(child)
        try:
            found += descendants(child)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
    return found


def descriptors(pid: int) -> dict[int, str]:
    """The open descriptors of a process and what they are."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            continue
    return found


class Watch:
    """Supervisor held by pidfd: whatever becomes of their numbers, it knows which of them live."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._pidfds = {pid: os.pidfd_open(pid) for pid in pids}

    def survivors(self, within_s: float = 0.0) -> list[int]:
        """Those that have not ended within this time."""
        deadline = time.monotonic() + within_s
        alive = []
        for pid, pidfd in self._pidfds.items():
            left_s = max(0.0, deadline - time.monotonic())
            if not select.select([pidfd], [], [], left_s)[0]:
                alive.append(pid)
        return alive

    def close(self) -> None:
        """Kill who is left, so that a failing test leaves nobody, and close the pidfds."""
        for pidfd in self._pidfds.values():
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)
