"""What `make dist` builds: the bundle where there is no Python, the package under systemd."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from tests.capabilities import needs_namespaces
from tests.daemon.conftest import Start, http
from tests.daemon.machine import Systemd, unbootable, write_targets
from tests.daemon.smoke import look
from tests.deploy.test_sdist import ROOT

__all__ = ["http"]

PROGRAMS: Final = ("debootstrap", "dpkg-deb", "make", "unshare")
MISSING: Final = [name for name in PROGRAMS if shutil.which(name) is None]
UNBOOTABLE: Final = unbootable()
# When no package can be fetched: pip's words, and debootstrap's.
UNREACHABLE: Final = ("No matching distribution found for", "Failed getting release file")
BUILD_S: Final = 600
ROOTS: Final = ROOT / "build"
# Becomes a program in another root, with a /proc and /dev there.
ENTER: Final = """
set -e
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
exec chroot "$@"
"""
# Becomes the systemd in another root, in namespaces of its own.
BOOT: Final = """
set -e
mount --make-rprivate /
cd "$1"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 none sys/fs/cgroup
mount --rbind /dev dev
mount -t tmpfs none run
exec env --ignore-environment PATH="$PATH" container=procd-test chroot . \\
    /usr/lib/systemd/systemd --unit=multi-user.target --log-target=null --show-status=no
"""

pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)}: not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make a Debian"),
    needs_namespaces,
    pytest.mark.timeout(2 * BUILD_S),
]


def build(*command: str) -> None:
    """Run what needs the network; skip without one."""
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=BUILD_S, check=False
    )
    if any(text in done.stderr for text in UNREACHABLE):
        pytest.skip("there is no network to fetch packages from")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What was built."""
    made = tmp_path_factory.mktemp("dist")
    # The development tools are there, as this runs.
    build("make", "--old-file=dev", "dist", f"VENV={sys.prefix}", f"DIST={made}")
    return made


@pytest.fixture
def bundle(dist: Path, tmp_path: Path) -> Path:
    """The unpacked bundle."""
    (archive,) = dist.glob("procd-*-linux-*.tar.gz")
    subprocess.run(["tar", "-xzf", archive, "-C", tmp_path], check=True)
    return tmp_path / archive.name.removesuffix(".tar.gz")


@pytest.fixture
def debian(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """The root of a Debian with these packages, to be changed."""
    name = "-".join(["debian", *request.param])
    build("packaging/root.sh", str(ROOTS / name), *request.param)
    root = tmp_path / "root"
    subprocess.run(["cp", "-a", str(ROOTS / name), str(root)], check=True)
    yield root
    shutil.rmtree(root)


@pytest.mark.parametrize("debian", [()], indirect=True, ids=["minimal"])
async def test_the_bundle_where_there_is_no_python(
    start: Start, http: aiohttp.ClientSession, bundle: Path, debian: Path
) -> None:
    assert not [*debian.glob("usr/bin/python*")]
    assert not [*bundle.rglob("pip")]
    bundle = bundle.rename(debian / "srv" / "procd")
    enter = ("unshare", "--mount", "sh", "-c", ENTER, "sh", str(debian))
    daemon = start(
        command=(*enter, "/srv/procd/procd"),
        env={"HOME": "/root", "LD_LIBRARY_PATH": "/given", "PATH": "/usr/sbin:/usr/bin"},
    )
    await look(daemon.url)
    async with http.post(f"{daemon.url}/process/execute", json={"command": "env"}) as reply:
        lines = (await reply.json())["result"].splitlines()
        assert [line for line in lines if line.startswith(("_PYI", "LD_"))] == [
            "LD_LIBRARY_PATH=/given"
        ]
    async with http.post(
        f"{daemon.url}/process/code-run", json={"language": "python", "code": "1"}
    ) as reply:
        missing = "python3: not found: install it, or set code_run.python\n"
        assert await reply.json() == {"exitCode": 127, "result": missing}
    async with http.post(f"{daemon.url}/process/interpreter/context", json={}) as reply:
        assert reply.status == 500
        missing = "python3: not found: install it, or set interpreter.python"
        assert (await reply.json())["message"] == f"failed to start context: {missing}"
    for path in ("/terminal", "/terminal/static/js/main.js", "/docs", "/openapi.json"):
        async with http.get(f"{daemon.url}{path}") as reply:
            assert reply.status == 200
    assert daemon.stop() == 0


async def test_the_bundle_runs_code_in_the_users_python(
    start: Start, http: aiohttp.ClientSession, bundle: Path
) -> None:
    path = f"{Path(sys.executable).parent}:{os.defpath}"
    daemon = start(command=(str(bundle / "procd"),), env={"PATH": path})
    code = "import sys; print(sys.executable)  # matplotlib: procd's own runner comes before"
    async with http.post(
        f"{daemon.url}/process/code-run", json={"language": "python", "code": code}
    ) as reply:
        assert Path((await reply.json())["result"].strip()).samefile(sys.executable)
    async with http.ws_connect(f"{daemon.url}/process/interpreter/execute") as ws:
        await ws.send_json({"code": code})
        assert Path((await ws.receive_json())["text"].strip()).samefile(sys.executable)
    assert daemon.stop() == 0


@pytest.fixture
def booted(debian: Path) -> Iterator[Systemd]:
    """A Debian that runs systemd, with targets in place of Debian's units."""
    units = debian / "usr/lib/systemd/system"
    shutil.rmtree(units)
    write_targets(units)
    systemd = Systemd(BOOT, str(debian))
    yield systemd
    systemd.close()


@pytest.mark.skipif(bool(UNBOOTABLE), reason=UNBOOTABLE)
@pytest.mark.parametrize("debian", [("systemd",)], indirect=True)
def test_the_package_under_systemd(dist: Path, debian: Path, booted: Systemd) -> None:
    (package,) = dist.glob("procd_*.deb")
    shutil.copy(package, debian / "root")

    def apt(*arguments: str) -> str:
        quiet = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet=2")
        return booted.run(*quiet, *arguments, timeout_s=BUILD_S)

    def active() -> str:
        return booted.show()["ActiveState"]

    install = ("install", "--no-install-recommends", "--reinstall", f"/root/{package.name}")
    said = apt(*install)
    assert active() == "active", said
    assert booted.show()["UnitFileState"] == "enabled"
    assert booted.run("procd", "exec", "--", "cat", "/etc/hostname") == booted.run("hostname")
    assert booted.run("stat", "-c", "%a", "/etc/procd/config.toml") == "640"

    # An upgrade restarts it and keeps the configuration.
    process = booted.show()["MainPID"]
    config = debian / "etc/procd/config.toml"
    config.write_text("[server]\nport = 2281\n")
    said = apt(*install)
    assert active() == "active", said
    assert booted.show()["MainPID"] != process
    assert booted.show()["StatusText"] == "listening on 127.0.0.1:2281"

    said = apt("remove", "procd")
    assert active() == "inactive", said
    assert not (debian / "usr/lib/procd").exists()
    assert config.exists()
    said = apt("purge", "procd")
    left = [path for path in debian.rglob("*procd*") if path.name != package.name]
    assert left == [], said
