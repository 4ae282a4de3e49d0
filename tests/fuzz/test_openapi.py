"""Every route against its description: no failure of the server, no reply of another shape."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.daemon import Daemon

pytest.importorskip("schemathesis", reason="schemathesis isn't installed (extra: fuzz)")

# For each operation; `make fuzz` takes more.
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "8"))
HERE = Path(__file__).parent
SETTINGS = {
    "PROCD_PROCESS_SHELL": "/bin/sh",
    "PROCD_PTY_MAX_SESSIONS": "32",
    "PROCD_SESSIONS_MAX_SESSIONS": "32",
    "PROCD_SESSIONS_GRACE_S": "0.1",
    "PROCD_SESSIONS_MAX_WAIT_S": "0.1",
}


@pytest.fixture(autouse=True)
def settled() -> None:
    """In place of the check of this process: what is tested runs in another one."""


@pytest.fixture(autouse=True)
def no_blocking() -> None:
    """In place of the check of this loop: procd's code runs in another process."""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A procd that has nothing of value around it."""
    env = SETTINGS | {"HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    with Daemon.start(env=env, cwd=str(tmp_path)) as daemon:
        yield daemon
        assert daemon.stop() == 0


@pytest.mark.timeout(60 + 10 * EXAMPLES)
def test_every_route_does_as_described(daemon: Daemon, tmp_path: Path) -> None:
    result = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")),
            f"--config-file={HERE / 'schemathesis.toml'}",
            "run",
            f"{daemon.url}/openapi.json",
            f"--max-examples={EXAMPLES}",
            "--generation-database=none",
            "--no-color",
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ
        | {
            "SCHEMATHESIS_HOOKS": "tests.fuzz.hooks",
            "PYTHONPATH": str(HERE.parent.parent),
        },
        cwd=tmp_path,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    assert "Traceback" not in daemon.stderr()
