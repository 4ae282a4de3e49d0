"""The official TypeScript SDK on Node: tests/compat/ts against a daemon of each kind of loop."""

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from daytona import SessionExecuteRequest

from tests.compat.python.sdk import AsyncSdk
from tests.daemon.daemon import Daemon, environment

HERE: Final = Path(__file__).with_name("ts")
PACKAGE_FILES: Final = ("package.json", "package-lock.json", ".npmrc")
ENTRYPOINT: Final = ("sh", "-c", "echo it\\'s up; echo careful >&2; exit 4")
# An installation may have to fetch all of the packages.
pytestmark = pytest.mark.timeout(300)


def run(*command: str | Path, cwd: Path, **settings: str) -> "subprocess.CompletedProcess[str]":
    """Run a program of Node's; a failure shows all that it said."""
    result = subprocess.run(
        command,
        cwd=cwd,
        env=environment(**settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result


@pytest.fixture(scope="module")
def node_modules() -> Path:
    """The packages of the lock file, installed once for all runs."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    lock = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()[:16]
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "procd-compat"
    installed = base / lock / "node_modules"
    if not installed.exists():
        base.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=base) as place:
            copy = Path(place, "package")
            copy.mkdir()
            for name in PACKAGE_FILES:
                shutil.copy(HERE / name, copy)
            run("npm", "ci", cwd=copy)
            copy.rename(base / lock)  # whole, or not at all
    return installed


@pytest.fixture
def package(node_modules: Path, tmp_path: Path) -> Path:
    """A directory with the tests and, as Node looks for them there, the packages."""
    copy = tmp_path / "ts"
    copy.mkdir()
    for file in (HERE / "package.json", *HERE.glob("*.mjs")):
        shutil.copy(file, copy)
    (copy / "node_modules").symlink_to(node_modules)
    return copy


@pytest.fixture(params=["asyncio", "uvloop"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """What a daemon is started with: a loop, and a home with nothing for a shell to read."""
    home = tmp_path / "home"
    home.mkdir()
    return {"PROCD_SERVER_LOOP": request.param, "HOME": str(home)}


@pytest.fixture
def daemon(settings: dict[str, str]) -> Iterator[Daemon]:
    """A daemon that must hold nothing of what a test did."""
    with Daemon.start(env=settings) as daemon:
        idle = daemon.idle_descriptors()
        yield daemon
        assert daemon.leaks(idle) == []
        assert daemon.stop() == 0
        assert "Traceback" not in daemon.stderr()


def test_sdk(daemon: Daemon, package: Path, settings: dict[str, str]) -> None:
    files = sorted(path.name for path in package.glob("*.test.mjs"))
    assert files
    with Daemon.start("--", *ENTRYPOINT, env=settings) as beside_command:
        run(
            "node", "--test", "--test-reporter=spec", *files,
            cwd=package, BASE=daemon.url, ENTRYPOINT_BASE=beside_command.url,
        )  # fmt: skip


def test_callbacks_get_the_text_that_those_of_python_get(
    daemon: Daemon, package: Path, tmp_path: Path
) -> None:
    """Of bytes that are text in part, and cut anywhere, on both streams."""
    data = bytes(number for number in range(256) if number not in (1, 2)) * 300
    data += "é€😀".encode() * 5_000 + b"\xf0\x9f\x98" * 5_000 + b"\x80" * 40_000 + b"\xe2\x82"
    (tmp_path / "data").write_bytes(data)
    command = f"cat '{tmp_path}/data'; tail -c +2 '{tmp_path}/data' >&2"

    async def both() -> tuple[dict[str, str], dict[str, str]]:
        sdk = AsyncSdk.at(daemon.url)
        await sdk.process.create_session("s")
        ran = await sdk.process.execute_session_command("s", SessionExecuteRequest(command=command))
        stdout: list[str] = []
        stderr: list[str] = []
        await sdk.process.get_session_command_logs_async(
            "s", str(ran.cmd_id), stdout.append, stderr.append
        )
        seen = run("node", "follow.mjs", "s", str(ran.cmd_id), cwd=package, BASE=daemon.url)
        await sdk.process.delete_session("s")
        await sdk.aclose()
        return {"stdout": "".join(stdout), "stderr": "".join(stderr)}, json.loads(seen.stdout)

    of_python, of_node = asyncio.run(both())
    assert of_python["stdout"] == data.decode(errors="replace")
    assert of_python["stderr"] == data[1:].decode(errors="replace")
    assert of_python == of_node
