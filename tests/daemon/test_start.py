"""What a start imports, which takes its time and memory, and from where."""

import sys
from pathlib import Path

import aiohttp

from tests.daemon.conftest import Start
from tests.daemon.daemon import PROCD, Daemon

# Of the command line, `serve` needs how it is named, not how it talks to a server.
COMMAND_LINE = {
    f"procd.cli{name}"
    for name in ("", ".commands", ".config_option", ".failure", ".main", ".stdio")
}
# Needed when they are asked for: /metrics, /openapi.json, cors.allowed_origins, completion.
LATER = {"prometheus_client", "apispec", "aiohttp_cors", "click.shell_completion"}
NEVER = {"rich", "pygments", "pip", "setuptools", "packaging", "importlib.metadata"}


def imported(daemon: Daemon) -> set[str]:
    """The modules that it has imported, when it was started with -X importtime."""
    lines = daemon.stderr().splitlines()
    return {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}


async def read(http: aiohttp.ClientSession, url: str) -> None:
    async with http.get(url) as reply:
        assert reply.status == 200
        await reply.read()


async def test_it_imports_what_serving_needs(start: Start, http: aiohttp.ClientSession) -> None:
    daemon = start(command=(sys.executable, "-X", "importtime", *PROCD[1:]))
    await read(http, f"{daemon.url}/version")
    found = imported(daemon)
    assert {"procd.app", "aiohttp", "marshmallow"} <= found
    assert found & (LATER | NEVER) == set()
    assert {name for name in found if name.startswith("procd.cli")} == COMMAND_LINE

    await read(http, f"{daemon.url}/metrics")
    await read(http, f"{daemon.url}/openapi.json")
    assert {"prometheus_client", "apispec"} <= imported(daemon) - found


async def test_it_imports_nothing_from_where_it_was_started(
    start: Start, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """Users may write there, and would run as procd."""
    daemon = start(cwd=str(tmp_path))
    taken = tmp_path / "taken"
    for name in ("prometheus_client", "apispec"):
        (tmp_path / f"{name}.py").write_text(f"open({str(taken)!r}, 'w')\nraise SystemExit\n")
    await read(http, f"{daemon.url}/metrics")
    await read(http, f"{daemon.url}/openapi.json")
    assert not taken.exists()
