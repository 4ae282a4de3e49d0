"""The units under the real systemd: what it thinks of them, and what it does with procd."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.daemon.daemon import eventually
from tests.daemon.machine import UNITS, Machine, unbootable

ANALYZE = shutil.which("systemd-analyze")
UNBOOTABLE = unbootable()
boots = pytest.mark.skipif(bool(UNBOOTABLE), reason=UNBOOTABLE)

Boot = Callable[..., Machine]


@pytest.fixture
def boot(tmp_path: Path) -> Iterator[Boot]:
    """Boot one; it is gone after the test."""
    machines: list[Machine] = []

    def make(drop_in: str = "") -> Machine:
        machines.append(Machine(tmp_path, drop_in))
        return machines[-1]

    yield make
    for machine in machines:
        machine.close()


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    # The program need not be installed here: it has to be executable, and somewhere.
    for unit in UNITS.iterdir():
        text = unit.read_text().replace("/usr/local/bin/procd", "/bin/true")
        (tmp_path / unit.name).write_text(text)
    result = subprocess.run(
        [str(ANALYZE), "verify", "--man=no", *map(str, tmp_path.iterdir())],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@boots
def test_starts_reloads_and_stops(boot: Boot) -> None:
    machine = boot()
    machine.run("systemctl", "start", "procd.service")
    shown = machine.show()
    assert shown["ActiveState"] == "active", machine.stderr()
    assert shown["StatusText"] == "listening on 127.0.0.1:2280"
    assert '"version":' in machine.ask("/version")
    machine.run("systemctl", "reload", "procd.service")
    assert eventually(lambda: machine.show()["SubState"] == "running")
    assert machine.show()["MainPID"] == shown["MainPID"]
    # What it runs ends with it, also what has left its process group.
    machine.ask("/process/execute", '{"command": "setsid sleep 1000 >/dev/null 2>&1 &"}')
    assert "sleep" in machine.run("ps", "-e", "-o", "comm=")
    machine.run("systemctl", "stop", "procd.service")
    shown = machine.show()
    assert (shown["ActiveState"], shown["Result"]) == ("inactive", "success"), machine.stderr()
    assert "sleep" not in machine.run("ps", "-e", "-o", "comm=")
    assert machine.run("ls", "/var/lib/procd") == ""


@boots
def test_a_stuck_loop_is_restarted(boot: Boot) -> None:
    machine = boot("WatchdogSec=1\n")
    machine.run("systemctl", "start", "procd.service")
    shown = machine.show()
    assert shown["NRestarts"] == "0"
    machine.ask("/process/session", '{"sessionId": "s"}')
    machine.run("kill", "-STOP", shown["MainPID"])
    assert eventually(lambda: machine.show()["NRestarts"] == "1"), machine.stderr()
    assert eventually(lambda: machine.show()["SubState"] == "running")
    assert machine.show()["MainPID"] != shown["MainPID"]
    assert '"version":' in machine.ask("/version")
    assert machine.ask("/process/session") == "[]"
    assert "Fatal Python error: Aborted" in machine.stderr()
    assert machine.run("systemctl", "stop", "procd.service") == ""


@boots
def test_a_killed_daemon_is_restarted_and_its_children_are_gone(boot: Boot) -> None:
    machine = boot()
    machine.run("systemctl", "start", "procd.service")
    machine.ask("/process/execute", '{"command": "setsid sleep 1000 >/dev/null 2>&1 &"}')
    machine.run("kill", "-KILL", machine.show()["MainPID"])
    assert eventually(lambda: machine.show()["NRestarts"] == "1")
    assert eventually(lambda: machine.show()["SubState"] == "running")
    assert "sleep" not in machine.run("ps", "-e", "-o", "comm=")


@boots
def test_socket_activation(boot: Boot) -> None:
    machine = boot()
    machine.run("systemctl", "start", "procd.socket")
    assert machine.show()["ActiveState"] == "inactive"
    assert machine.run("stat", "-c", "%a", "/run/procd.sock") == "660"
    assert '"version":' in machine.ask("/version", unix="/run/procd.sock")
    assert machine.show()["StatusText"] == "listening on 127.0.0.1:2280, unix:/run/procd.sock"
    assert '"version":' in machine.ask("/version")
    # Across a restart the sockets stay.
    machine.run("systemctl", "restart", "procd.service")
    assert '"version":' in machine.ask("/version", unix="/run/procd.sock")


@boots
def test_a_refused_configuration_is_not_tried_again(boot: Boot) -> None:
    machine = boot("Environment=PROCD_SERVER_PROT=1\n")
    machine.run("systemctl", "start", "procd.service")
    assert eventually(lambda: machine.show()["ActiveState"] == "failed")
    shown = machine.show()
    assert (shown["NRestarts"], shown["ExecMainStatus"]) == ("0", "2")
    assert "PROCD_SERVER_PROT: no such setting" in machine.stderr()


@boots
def test_a_session_has_a_cgroup_below_that_of_the_unit(boot: Boot) -> None:
    machine = boot()
    machine.run("systemctl", "start", "procd.service")
    machine.ask("/process/session", '{"sessionId": "s"}')
    shown = machine.ask("/process/session/s")
    assert '"usage":{' in shown
    assert '"cpuUsec":' in shown
    leaves = machine.run("sh", "-c", "ls -d /sys/fs/cgroup/system.slice/procd.service/procd-*")
    assert len(leaves.splitlines()) == 1
    assert machine.run("systemctl", "stop", "procd.service") == ""


@boots
def test_limits_without_controllers_are_warned_of(boot: Boot) -> None:
    machine = boot("Environment=PROCD_PROCESS_PIDS_MAX=50\n")
    machine.run("systemctl", "start", "procd.service")
    enforced = "pids" in machine.run(
        "cat", "/sys/fs/cgroup/system.slice/procd.service/cgroup.controllers"
    )
    assert ("no pids.max in" in machine.stderr()) != enforced
    assert '"exitCode":0' in machine.ask("/process/execute", '{"command": "true"}')
