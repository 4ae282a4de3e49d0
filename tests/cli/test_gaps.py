"""Output that the server no longer has when its reader comes to it."""

import re
import subprocess
from collections.abc import Iterator
from itertools import pairwise

import pytest

from tests.cli.conftest import Cli
from tests.daemon.daemon import PATIENCE_S, Daemon, eventually
from tests.proxy import proxy_to

# More than the log and all buffers on the way hold; each line is as long as any other.
WHOLE = b"".join(b"%d\n" % number for number in range(1_000_000, 5_000_000))
SCRIPT = "seq 1000000 4999999; exit 7"


@pytest.fixture(scope="module")
def small(home: str) -> Iterator[Daemon]:
    """A daemon that keeps little of a command's output."""
    with Daemon.start(env={"HOME": home, "PROCD_SESSIONS_MAX_LOG_BYTES": str(4 << 20)}) as daemon:
        yield daemon


@pytest.fixture
def cli(small: Daemon, home: str) -> Iterator[Cli]:
    """Run `procd` against it."""
    cli = Cli(small.url, home)
    yield cli
    cli.close()


def read_late(process: "subprocess.Popen[bytes]", cli: Cli) -> bytes:
    """Read the output once the command has ended; all of it that isn't reported lost."""

    def has_ended() -> bool:
        sessions = cli.call("GET", "/process/session")
        commands = [command for session in sessions for command in session["commands"]]
        return [command.get("exitCode") for command in commands] == [7]

    assert eventually(has_ended)
    output, message = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 125
    lost = re.fullmatch(
        rb"procd: (\d+) bytes of the output are lost; the command's exit code is 7\n", message
    )
    assert lost is not None, message
    assert len(output) + int(lost[1]) == len(WHOLE)
    return output


def test_a_gap_in_the_output_is_reported(cli: Cli) -> None:
    output = read_late(cli.start("exec", "-n", "--", "sh", "-c", SCRIPT), cli)
    assert WHOLE.endswith(output[-500_000:])


def test_a_lost_connection_is_resumed_behind_a_gap(cli: Cli, small: Daemon) -> None:
    direct = cli.url
    with proxy_to(small.port) as proxy:
        cli.url = proxy.url
        proxy.portion = 600_000
        process = cli.start("exec", "-n", "--", "sh", "-c", SCRIPT)
        cli.url = direct
        numbers = [int(line) for line in read_late(process, cli).split()]
    # A number that a gap has cut has no neighbour.
    whole = [number for number, next_ in pairwise(numbers) if next_ == number + 1]
    assert whole == sorted(set(whole)), "nothing comes twice"
    assert numbers[-1] == 4_999_999


@pytest.mark.parametrize("options", [[], ["--follow"]])
def test_a_log_without_its_beginning(cli: Cli, options: list[str]) -> None:
    cli.call("POST", "/process/session", {"sessionId": "s"})
    cli.call("POST", "/process/session/s/exec", {"command": "seq 1000000 4999999"})
    result = cli("logs", *options, "--since-offset", "1000", "s")
    cli.call("DELETE", "/process/session/s")
    assert result.returncode == 0
    lost = re.fullmatch(rb"procd: (\d+) bytes of output are lost\n", result.stderr)
    assert lost is not None, result.stderr
    assert result.stdout == WHOLE[1000 + int(lost[1]) :]
