"""The programs that are measured, each a process of its own, and what the kernel says of them."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

TREE: Final = Path(__file__).resolve().parent.parent
SHELL: Final = shutil.which("bash", path="/usr/bin:/bin") or "/bin/sh"
TICKS: Final = os.sysconf("SC_CLK_TCK")
STOP_S: Final = 15.0
SERVE: Final = ("-m", "procd", "serve", "--host", "127.0.0.1", "--port", "0")
BARE: Final = ("-m", "bench.bare")


def environment(home: str) -> dict[str, str]:
    """A small environment, the same for daemon and floors: its size and the profile cost time.

    PYTHONPATH and PROCD_* settings of the caller pass, so that another tree or setting can be
    measured.
    """
    passed = {name: value for name, value in os.environ.items() if name.startswith("PROCD_")}
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": home,
        "LANG": "C.UTF-8",
        "PYTHONPATH": os.environ.get("PYTHONPATH", str(TREE)),
        "PROCD_PROCESS_SHELL": SHELL,
        "PROCD_LOG_LEVEL": "warning",
        **passed,
    }


class Program:
    """A server process that prints a line with its port at the end when it listens."""

    def __init__(
        self,
        arguments: tuple[str, ...],
        env: Mapping[str, str],
        cwd: str,
        stderr: IO[str] | None = None,
    ) -> None:
        self._process = subprocess.Popen(
            (sys.executable, *arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=stderr, env=dict(env), cwd=cwd, start_new_session=True,  # as a service has it
        )  # fmt: skip
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(arguments)} did not start")
        self.port = int(line.split()[-1])
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    @property
    def rss_kib(self) -> int:
        """Resident memory now."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise RuntimeError("no VmRSS")

    @property
    def cpu_ticks(self) -> int:
        """CPU time used so far, in clock ticks."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    def settle(self, quiet_s: float = 1.0, most_s: float = 60.0) -> None:
        """Wait until it has used no CPU for a while."""
        end = time.monotonic() + most_s
        before = -1
        while before != (before := self.cpu_ticks) and time.monotonic() < end:
            time.sleep(quiet_s)


@dataclass(frozen=True, slots=True)
class Place:
    """Where programs run: a directory of their own that is also their home."""

    home: str

    def procd(self, **settings: str) -> Program:
        """Start the daemon, with such variables."""
        return Program(SERVE, environment(self.home) | settings, self.home)

    def bare(self) -> Program:
        """Start the aiohttp server with one handler."""
        env = environment(self.home) | {"PYTHONPATH": str(TREE)}
        return Program(BARE, env, self.home)

    def import_times(self, arguments: tuple[str, ...]) -> str:
        """Start a server and stop it; what `-X importtime` said of its start."""
        with tempfile.TemporaryFile("w+") as said:
            with Program(("-X", "importtime", *arguments), environment(self.home), self.home, said):
                pass
            said.seek(0)
            return said.read()

    def server(self) -> Program:
        """Start the aiohttp server that does nothing."""
        env = environment(self.home) | {"PYTHONPATH": str(TREE)}
        return Program(("-m", "bench.servers"), env, self.home)

    def ungated(self) -> Program:
        """Start the daemon without its gate and its metrics."""
        return Program(("-m", "bench.ungated"), environment(self.home), self.home)

    def helper(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a module of this package, to be spoken to over its stdin and stdout."""
        env = environment(self.home) | {"PYTHONPATH": str(TREE)}
        return subprocess.Popen(
            (sys.executable, "-m", *arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env=env, cwd=self.home, text=True, bufsize=1,
        )  # fmt: skip
