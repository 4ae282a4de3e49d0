"""`make install`: for everybody to run, and nothing left where it was called."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.test_sdist import FILES, ROOT

UNREACHABLE = "No matching distribution found for setuptools"


def listed(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.timeout(600)
def test_it_is_for_everybody_and_leaves_nothing(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    for name in ("procd", "systemd"):
        shutil.copytree(
            ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
    for name in FILES:
        shutil.copy(ROOT / name, clone)
    stale = clone / "build" / "lib" / "procd" / "stale.py"  # of an earlier version
    stale.parent.mkdir(parents=True)
    stale.write_text("")
    before = listed(clone)
    programs, temporary, root = tmp_path / "programs", tmp_path / "tmp", tmp_path / "root"
    programs.mkdir()
    (programs / "systemctl").symlink_to("/bin/true")  # this machine's systemd is told nothing
    temporary.mkdir()
    done = subprocess.run(
        [
            "make", "install", f"PYTHON={sys.executable}", f"PREFIX={root}/opt",
            f"BINDIR={root}/bin", f"UNITDIR={root}/units", f"CONFDIR={root}/etc",
        ],
        cwd=clone,
        env=os.environ
        | {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "TMPDIR": str(temporary),
            "PIP_NO_DEPS": "1",
        },
        umask=0o077,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    if UNREACHABLE in done.stderr:
        pytest.skip("setuptools can't be fetched to build with")
    assert done.returncode == 0, done.stderr
    assert listed(clone) == before
    assert not listed(temporary)
    (package,) = (root / "opt").glob("lib/python*/site-packages/procd")
    assert {f"procd/{name}" for name in listed(package) if "__pycache__" not in name} == {
        name for name in before if name.startswith("procd/")
    }
    closed = {
        str(path)
        for path in root.rglob("*")
        if ~path.stat().st_mode & (0o005 if path.is_dir() else stat.S_IROTH)
    }
    assert closed == {f"{root}/etc/config.toml"}  # which may have what isn't for everybody
    assert (root / "bin" / "procd").resolve().stat().st_mode & stat.S_IXOTH
    unit = (root / "units" / "procd.service").read_text()
    assert f"ExecStart={root}/bin/procd serve --config {root}/etc/config.toml\n" in unit
