"""Programs that run on Node, and the packages that the tests need of it."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

import pytest

from tests.daemon.daemon import environment

PACKAGE: Final = Path(__file__).with_name("ts")
PACKAGE_FILES: Final = ("package.json", "package-lock.json", ".npmrc")


def run(
    *command: str | Path, cwd: Path, limit_s: float = 280, **settings: str
) -> "subprocess.CompletedProcess[str]":
    """Run a program of Node's; a failure shows all that it said."""
    result = subprocess.run(
        command,
        cwd=cwd,
        env=environment(**settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=limit_s,
        check=False,
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result


def needed(program: str) -> str:
    """The path of a program without which the test is skipped."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed")
    return path


def installed_packages() -> Path:
    """`node_modules` with the packages of the lock file, installed once for all runs."""
    needed("node")
    needed("npm")
    lock = hashlib.sha256((PACKAGE / "package-lock.json").read_bytes()).hexdigest()[:16]
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "procd-compat"
    installed = base / lock / "node_modules"
    if not installed.exists():
        base.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=base) as place:
            copy = Path(place, "package")
            copy.mkdir()
            for name in PACKAGE_FILES:
                shutil.copy(PACKAGE / name, copy)
            run("npm", "ci", cwd=copy)
            copy.rename(base / lock)  # whole, or not at all
    return installed
