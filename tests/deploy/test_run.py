"""`make run`: a server that has nothing of make's own in its environment."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.test_sdist import ROOT

BY_THE_SHELL = {"PWD", "OLDPWD", "SHLVL", "_"}


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_what_runs_knows_nothing_of_make(tmp_path: Path) -> None:
    """A `make` that procd runs is nobody's but the caller's; settings by name are passed."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("setup.cfg", "pyproject.toml"):
        (tmp_path / name).touch()
    program = tmp_path / ".venv" / "bin" / "procd"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\necho "$@"\nenv\n')
    program.chmod(0o755)
    command = ("make", "-sk", "-j2", "run", "ARGS=--port 0", "PYTHON=python3", "PROCD_LOG_LEVEL=a")
    environ = {"PATH": os.environ["PATH"], "ARGS": "of a shell"}
    said = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, check=True)
    arguments, *variables = said.stdout.decode().splitlines()
    assert arguments == "serve --port 0"
    names = {variable.partition("=")[0] for variable in variables}
    assert names - BY_THE_SHELL == {"PATH", "PROCD_LOG_LEVEL"}
