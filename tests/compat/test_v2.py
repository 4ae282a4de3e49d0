"""The client of Daytona's second generation, in an environment of its own: tests/compat/v2."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import pytest

from tests.daemon.daemon import Daemon, environment

PACKAGE: Final = "daytona==2.0.0a3"
PROGRAMS: Final = Path(__file__).with_name("v2")

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="session")
def python() -> Path:
    """A Python with the client, installed once for all runs."""
    version = f"{PACKAGE}-py{sys.version_info.major}.{sys.version_info.minor}"
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "procd-compat"
    installed = base / version
    if not installed.exists():
        base.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=base) as place:
            made = Path(place, "venv")
            subprocess.run([sys.executable, "-m", "venv", made], check=True)
            subprocess.run([made / "bin/python", "-m", "pip", "install", "-q", PACKAGE], check=True)
            made.rename(installed)  # whole, or not at all
    return installed / "bin" / "python"


@pytest.mark.parametrize("program", ["doors.py"])
def test_program(python: Path, program: str) -> None:
    with Daemon.start() as daemon:
        done = subprocess.run(
            [python, PROGRAMS / program],
            env=environment(DAYTONA_API_URL=daemon.url, DAYTONA_API_KEY="anything"),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
        assert daemon.stop() == 0
