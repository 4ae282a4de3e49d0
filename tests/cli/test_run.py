"""procd run."""

import json
import signal
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, alive
from tests.daemon.daemon import PATIENCE_S, Daemon, eventually

PLOT = """
import matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt
plt.plot([1, 2])
plt.title("Sales")
plt.show()
"""


def test_a_program_with_arguments(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text(
        "import os, sys\nprint(sys.argv[1:], os.environ['V'], os.getcwd())\nsys.exit(3)\n"
    )
    result = cli("run", "-C", "/usr", "-e", "V=1", str(file), "--flag", "a b")
    assert (result.returncode, result.stderr) == (3, b"")
    assert result.stdout == b"['--flag', 'a b'] 1 /usr\n"
    result = cli("run", "--json", "-e", "V=2", str(file))
    assert json.loads(result.stdout)["exitCode"] == result.returncode == 3


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["--language", "python"], b"print(6 * 7)", (0, b"42\n", b"")),
        (["--language", "python"], b"", (0, b"", b"")),
        (["--timeout", "60", "--language", "python"], b"exit(124)", (124, b"", b"")),
        ([], b"", (1, b"", b"procd: <stdin>: can't tell what language it is in: say it with")),
        (["--language", "python"], b"print('\xff')", (1, b"", b"procd: <stdin>: not UTF-8\n")),
    ],
)
def test_standard_input(
    cli: Cli, arguments: list[str], code: bytes, expected: tuple[int, bytes, bytes]
) -> None:
    result = cli("run", *arguments, "-", stdin=code)
    assert (result.returncode, result.stdout) == expected[:2]
    assert result.stderr.startswith(expected[2])
    assert bool(result.stderr) == bool(expected[2])


def test_charts(cli: Cli, home: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "plot.py"
    file.write_text(PLOT)
    with Daemon.start(env={"HOME": home, "PROCD_CODE_RUN_PYTHON": sys.executable}) as daemon:
        cli.url = daemon.url
        result = cli("run", str(file))
        assert result.stdout.startswith(b"[picture: Sales, PNG of "), result
        result = cli("run", "--charts", str(tmp_path / "out"), str(file))
    assert result.stdout.decode() == f"{tmp_path}/out/chart-1.png\n"
    assert (tmp_path / "out/chart-1.png").read_bytes().startswith(b"\x89PNG")


def test_a_timeout(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text("import time\nprint('begun', flush=True)\ntime.sleep(1000)\n")
    result = cli("run", "--timeout", "3", str(file))
    assert (result.returncode, result.stdout) == (124, b"begun\n")
    assert b"was ended after 3 s" in result.stderr


def test_an_interrupt_ends_the_program(cli: Cli, tmp_path: Path) -> None:
    file, pid = tmp_path / "x.py", tmp_path / "pid"
    file.write_text(
        f"import os, time\nopen({str(pid)!r}, 'w').write(f'{{os.getpid()}}.')\ntime.sleep(1000)\n"
    )
    process = cli.start("run", str(file))
    assert eventually(lambda: pid.exists() and pid.read_text().endswith("."))
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == 130
    assert eventually(lambda: not alive(int(pid.read_text()[:-1])))
