"""The source distribution: procd can be installed, configured and tested from it alone."""

import shutil
import subprocess
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path

import pytest

DIRECTORIES = ("bench", "deploy", "docs", "packaging", "procd", "scripts", "systemd", "tests")
FILES = (
    ".dockerignore", "ARCHITECTURE.md", "CHANGELOG.md", "LICENSE", "MANIFEST.in", "Makefile",
    "README.md", "config.example.toml", "pyproject.toml", "setup.cfg",
)  # fmt: skip
ROOT = Path(__file__).parents[2]
BUILD = "from setuptools.build_meta import build_sdist; print(build_sdist('.'))"


@pytest.mark.skipif(find_spec("setuptools") is None, reason="setuptools is not installed")
def test_it_has_all_that_the_repository_has(tmp_path: Path) -> None:
    for name in DIRECTORIES:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, tmp_path)
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    subprocess.run(
        [sys.executable, "-c", BUILD], cwd=tmp_path, check=True, capture_output=True, timeout=50
    )
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        packed = {name.partition("/")[2] for name in tar.getnames()}
    assert files <= packed
