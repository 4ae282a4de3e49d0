"""A systemd of our own: booted in namespaces, and gone after the test.

It has a cgroup v2 tree below one that is made for it. Nothing of it outlives its first process.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from tests.daemon.daemon import PATIENCE_S, environment, eventually

REPOSITORY: Final = Path(__file__).parents[2]
SYSTEMD: Final = Path("/usr/lib/systemd/systemd")
UNITS: Final = REPOSITORY / "systemd"
TARGETS: Final = (
    "basic", "exit", "final", "multi-user", "network", "poweroff", "shutdown", "sockets",
    "sysinit", "umount",
)  # fmt: skip

# Runs with namespaces of its own for pids, mounts, cgroups, the network and host names.
BOOT: Final = """
set -e
mount --make-rprivate /
mount -t proc proc /proc
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
umount -R /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
for own in /run /etc/systemd /var/lib /var/log; do mount -t tmpfs none $own; done
mkdir /run/systemd /run/systemd/system
mount --bind "$1" /usr/lib/systemd/system
hostname sandbox
exec env --ignore-environment PATH="$PATH" container=procd-test "$2" \\
    --unit=multi-user.target --log-target=null --show-status=no
"""


def cgroup2() -> Path | None:
    """Where the machine has its cgroup v2 tree, if it has."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(place)
    return None


def unbootable() -> str:
    """Why no systemd can be booted here; empty if one can."""
    if os.geteuid() != 0:
        return "booting systemd takes root"
    for program in ("unshare", "nsenter", "systemctl"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    if not SYSTEMD.exists():
        return "systemd is not installed"
    root = cgroup2()
    if root is None or not os.access(root / "cgroup.procs", os.W_OK):
        return "no cgroup v2 tree can be written to"
    probe = ["unshare", "--pid", "--fork", "--mount", "--cgroup", "--net", "--uts", "--ipc"]
    script = "mount --make-rprivate / && mount -t proc proc /proc && mount -t cgroup2 none /mnt"
    result = subprocess.run([*probe, "sh", "-c", script], capture_output=True, check=False)
    return "" if result.returncode == 0 else f"no namespaces: {result.stderr.decode().strip()}"


def write_targets(units: Path) -> None:
    """Make a directory of units that has targets only."""
    units.mkdir()
    for name in TARGETS:
        (units / f"{name}.target").write_text("[Unit]\nDefaultDependencies=no\n")


class Systemd:
    """A booted instance.

    Args:
        script: mounts what it needs, in namespaces of its own, and becomes systemd.
        arguments: of the script.
    """

    def __init__(self, script: str, *arguments: str) -> None:
        root = cgroup2()
        assert root is not None
        self._cgroup = root / f"procd-test-{os.getpid()}-{time.monotonic_ns()}"
        self._cgroup.mkdir()
        enter = f'echo 0 >"{self._cgroup}/cgroup.procs" && exec "$@"'
        boot = ["sh", "-c", script, "sh", *arguments]
        self._launcher = subprocess.Popen(
            ["sh", "-c", enter, "sh", "unshare", "--pid", "--fork", "--mount", "--cgroup", "--net",
             "--uts", "--ipc", "--kill-child", *boot],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=environment(),
        )  # fmt: skip
        self.pid = 0
        if not eventually(self._booted):
            self.close()
            raise RuntimeError("systemd has not booted")

    def _booted(self) -> bool:
        path = Path(f"/proc/{self._launcher.pid}/task/{self._launcher.pid}/children")
        with suppress(FileNotFoundError, ValueError):
            self.pid = int(path.read_text())
            return self.run("systemctl", "is-active", "multi-user.target") == "active"
        return False

    def run(self, *command: str, timeout_s: float = PATIENCE_S * 2) -> str:
        """Run a command inside and return what it says, on either stream."""
        inside = ["nsenter", "--target", str(self.pid), "--mount", "--pid", "--cgroup", "--net"]
        result = subprocess.run(
            [*inside, "--root", "--wd", "--", *command],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=timeout_s, check=False,
        )  # fmt: skip
        return result.stdout.decode().strip()

    def show(self, unit: str = "procd.service") -> Mapping[str, str]:
        """The properties of a unit."""
        lines = self.run("systemctl", "show", unit).splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def close(self) -> None:
        """End it, with all that runs in it."""
        self._launcher.kill()
        self._launcher.wait()
        assert eventually(self._removed), f"{self._cgroup} is not empty"

    def _removed(self) -> bool:
        for directory, _, _ in os.walk(self._cgroup, topdown=False):
            with suppress(OSError):
                os.rmdir(directory)
        return not self._cgroup.exists()


class Machine(Systemd):
    """One with the units of this repository, that sees this machine's files.

    It has a /run, /var/lib and /etc/systemd of its own.

    Args:
        drop_in: lines to add to procd.service.
    """

    def __init__(self, directory: Path, drop_in: str = "") -> None:
        units = directory / "units"
        write_targets(units)
        for unit in UNITS.iterdir():
            shutil.copy(unit, units)
        more = units / "procd.service.d"
        more.mkdir()
        command = f"{sys.executable} -m procd serve"
        (more / "here.conf").write_text(
            f"[Service]\nWorkingDirectory={REPOSITORY}\nExecStart=\nExecStart={command}\n"
            f"StandardError=append:/run/stderr\n{drop_in}"
        )
        super().__init__(BOOT, str(units), str(SYSTEMD))

    def stderr(self) -> str:
        """What procd has said on its standard error, over all restarts."""
        return self.run("cat", "/run/stderr")

    def ask(self, path: str, body: str = "", *, unix: str = "") -> str:
        """The answer to a request to procd from inside."""
        script = (
            "import http.client, socket, sys\n"
            "path, body, unix = sys.argv[1:]\n"
            "connection = http.client.HTTPConnection('127.0.0.1', 2280, timeout=20)\n"
            "if unix:\n"
            "    connection.sock = socket.socket(socket.AF_UNIX)\n"
            "    connection.sock.connect(unix)\n"
            "connection.request('POST' if body else 'GET', path, body or None)\n"
            "print(connection.getresponse().read().decode())\n"
        )
        return self.run(sys.executable, "-c", script, path, body, unix)
