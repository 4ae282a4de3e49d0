"""`make install`: for everybody to run, and nothing left where it was called. `make uninstall`."""

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
def test_it_is_for_everybody_and_is_undone(tmp_path: Path) -> None:
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

    def make(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                "make", *arguments, f"PYTHON={sys.executable}", f"PREFIX={root}/opt",
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

    done = make("install")
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
    assert not [*package.parent.glob("pip*"), *(root / "opt" / "bin").glob("pip*")]

    config = root / "etc" / "config.toml"
    config.write_text("[server]\nport = 2281\n")
    assert make("install").returncode == 0, "once more, over what is there"
    done = make("uninstall")
    assert (done.returncode, done.stderr) == (0, "")
    assert listed(root) == {"bin", "units", "etc", "etc/config.toml"}
    assert config.read_text() == "[server]\nport = 2281\n"
    assert f"{config} stays" in done.stdout
    done = make("uninstall", "PURGE=1")
    assert (done.returncode, done.stderr) == (0, "")
    assert listed(root) == {"bin", "units", "etc"}

    other = root / "opt" / "other"
    other.parent.mkdir()
    other.touch()
    done = make("install")
    assert "has files of others" in done.stderr
    assert done.returncode
    assert make("uninstall").returncode == 0
    assert other.exists()
