"""Output that the server no longer has when its reader comes to it."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from urllib.request import Request, urlopen

import pytest

from tests.cli.conftest import PROCD, Cli
from tests.cli.proxy import Proxy
from tests.daemon.daemon import PATIENCE_S, Daemon, eventually

# More than all the buffers on its way hold, and the log; each line is as long as any other.
WHOLE = b"".join(b"%d\n" % number for number in range(1_000_000, 5_000_000))
SCRIPT = "seq 1000000 4999999; exit 7"


@pytest.fixture(scope="module")
def small(home: str) -> Iterator[Daemon]:
    """A daemon that keeps little of what a command says."""
    with Daemon.start(env={"HOME": home, "PROCD_SESSIONS_MAX_LOG_BYTES": str(4 << 20)}) as daemon:
        yield daemon


@pytest.fixture
def through(small: Daemon) -> Iterator[Proxy]:
    """A way to it that breaks."""
    proxy = Proxy(small.port)
    yield proxy
    proxy.close()


@pytest.fixture
def cli(small: Daemon, home: str) -> Iterator[Cli]:
    """Run `procd` against it."""
    cli = Cli(small.url, home)
    yield cli
    cli.close()


def has_ended(daemon: Daemon) -> bool:
    """Whether the only command that there is has."""
    with urlopen(f"{daemon.url}/process/session", timeout=PATIENCE_S) as reply:
        commands = [command for session in json.load(reply) for command in session["commands"]]
    return [command.get("exitCode") for command in commands] == [7]


def read_late(process: "subprocess.Popen[bytes]", daemon: Daemon) -> tuple[bytes, int]:
    """What it prints to who begins to read when all is over, and how much it says is lost."""
    assert eventually(lambda: has_ended(daemon))
    output, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 125
    told = re.fullmatch(
        rb"procd: (\d+) bytes of the output are lost; the command's exit code is 7\n", said
    )
    assert told is not None, said
    return output, int(told[1])


# Procd, at a server that tells no gaps: it does so only to who gives an offset.
UNTOLD = """
from procd.cli.client import Client
from procd.cli.main import main
plain = Client.websocket
Client.websocket = lambda self, path: plain(self, path.partition("&offset=")[0])
main()
"""


@pytest.mark.parametrize("command", [PROCD, (sys.executable, "-c", UNTOLD)], ids=["told", "untold"])
def test_a_gap_in_the_output_is_told(cli: Cli, small: Daemon, command: tuple[str, ...]) -> None:
    process = cli.start("exec", "-n", "--", "sh", "-c", SCRIPT, command=command)
    output, lost_bytes = read_late(process, small)
    assert len(output) + lost_bytes == len(WHOLE)
    rest = output[-500_000:]
    assert rest == WHOLE[-len(rest) :]


def test_behind_a_gap_a_lost_connection_is_resumed(cli: Cli, small: Daemon, through: Proxy) -> None:
    cli.url = through.url
    through.portion = 600_000
    process = cli.start("exec", "-n", "--", "sh", "-c", SCRIPT)
    output, lost_bytes = read_late(process, small)
    assert len(output) + lost_bytes == len(WHOLE)
    numbers = [int(line) for line in output.split()]
    # What a gap has made of two numbers has no neighbour.
    whole = [number for number, next_ in pairwise(numbers) if next_ == number + 1]
    assert whole == sorted(set(whole)), "nothing comes twice"
    assert numbers[-1] == 4_999_999


@pytest.mark.parametrize("how", [[], ["--follow"]])
def test_a_log_without_its_beginning(cli: Cli, small: Daemon, how: list[str]) -> None:
    asked: tuple[tuple[str, dict[str, str]], ...] = (
        ("/process/session", {"sessionId": "s"}),
        ("/process/session/s/exec", {"command": "seq 1000000 4999999"}),
    )
    for path, body in asked:
        request = Request(small.url + path, json.dumps(body).encode())
        urlopen(request, timeout=PATIENCE_S).close()
    try:
        result = cli("logs", *how, "--since-offset", "1000", "s")
    finally:
        urlopen(Request(f"{small.url}/process/session/s", method="DELETE")).close()
    assert result.returncode == 0
    told = re.fullmatch(rb"procd: (\d+) bytes of output are lost\n", result.stderr)
    assert told is not None, result.stderr
    assert result.stdout == WHOLE[1000 + int(told[1]) :]
