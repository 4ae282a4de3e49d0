"""The official TypeScript SDK on Node: tests/compat/ts against a daemon of each kind of loop."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from daytona import SessionExecuteRequest

from tests.compat.node import PACKAGE, run
from tests.compat.python.sdk import AsyncSdk
from tests.daemon.daemon import PATH, Daemon, children, eventually

ENTRYPOINT: Final = ("sh", "-c", "echo it\\'s up; echo careful >&2; exit 4")
# The default context's and one that waits to become another's.
IDLE_CHILDREN: Final = 2
# An installation may have to fetch all of the packages.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def package(node_modules: Path, tmp_path: Path) -> Path:
    """A directory with the tests and, as Node looks for them there, the packages."""
    copy = tmp_path / "ts"
    copy.mkdir()
    for file in (PACKAGE / "package.json", *PACKAGE.glob("*.mjs")):
        shutil.copy(file, copy)
    (copy / "node_modules").symlink_to(node_modules)
    return copy


@pytest.fixture(params=["asyncio", "uvloop"])
def settings(request: pytest.FixtureRequest, tmp_path: Path, node_modules: Path) -> dict[str, str]:
    """What a daemon is started with: a loop, a home with nothing for a shell to read, ts-node."""
    home = tmp_path / "home"
    home.mkdir()
    return {
        "PROCD_SERVER_LOOP": request.param,
        "PROCD_INTERPRETER_WARM": "1",
        "HOME": str(home),
        "PATH": f"{PATH}:{node_modules}/.bin",
    }


@pytest.fixture
def daemon(settings: dict[str, str]) -> Iterator[Daemon]:
    """A daemon that must hold nothing of what a test did, but its interpreters."""
    with Daemon.start(env=settings) as daemon:
        assert eventually(lambda: len(children(daemon.pid)) == IDLE_CHILDREN)
        idle = daemon.idle_descriptors()
        yield daemon
        assert daemon.leaks(idle, IDLE_CHILDREN) == []
        assert daemon.stop() == 0
        assert "Traceback" not in daemon.stderr()


@pytest.fixture
def daemon_with_tsx(
    settings: dict[str, str], tmp_path: Path, node_modules: Path
) -> Iterator[Daemon]:
    """A daemon that finds tsx, and no ts-node."""
    folder = tmp_path / "tsx"
    folder.mkdir()
    (folder / "tsx").symlink_to(node_modules / ".bin" / "tsx")
    with Daemon.start(env=settings | {"PATH": f"{PATH}:{folder}"}) as daemon:
        yield daemon


def test_sdk(
    daemon: Daemon, daemon_with_tsx: Daemon, package: Path, settings: dict[str, str]
) -> None:
    files = sorted(path.name for path in package.glob("*.test.mjs"))
    assert files
    with Daemon.start("--", *ENTRYPOINT, env=settings) as beside_command:
        run(
            "node", "--test", "--test-reporter=spec", *files, cwd=package,
            BASE=daemon.url, TSX_BASE=daemon_with_tsx.url, ENTRYPOINT_BASE=beside_command.url,
        )  # fmt: skip


def test_a_sandbox(settings: dict[str, str], package: Path) -> None:
    """By itself: a sandbox that ends takes all with it."""
    with Daemon.start(env=settings) as daemon:
        run("node", "--test", "--test-reporter=spec", "sandbox.mjs", cwd=package, BASE=daemon.url)
        assert daemon.stop() == 0


def test_a_quickstart_ends(daemon: Daemon, package: Path) -> None:
    """Without an event socket the client would hold it back for three minutes."""
    variables = {"DAYTONA_API_URL": daemon.url, "DAYTONA_API_KEY": "anything"}
    done = run("node", "quickstart.mjs", cwd=package, limit_s=60, **variables)
    assert done.stdout == "0 Hello World from code!\n\n"


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
