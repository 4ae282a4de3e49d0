"""procd exec."""

import hashlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import PROCD, Cli, alive, interrupt
from tests.cli.proxy import Proxy
from tests.daemon.daemon import PATIENCE_S, eventually

HEAVY = ("aiohttp", "asyncio", "marshmallow", "uvloop", "rich", "http.client", "tomllib", "ssl")


def test_streams_and_exit_code(cli: Cli) -> None:
    result = cli("exec", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (result.returncode, result.stdout, result.stderr) == (7, b"out\n", b"err\n")


def test_arguments_are_no_shell_text(cli: Cli) -> None:
    words = ["*", "$HOME", "a b", "it's", "", "=ls", "~", "A=b", "\n", "é", "--help", "!x"]
    result = cli("exec", "--", "printf", "<%s>", *words)
    assert result.stdout.decode() == "".join(f"<{word}>" for word in words)


def test_shell_option(cli: Cli) -> None:
    assert cli("exec", "--shell", "echo a | tr a b; X=5; echo $X").stdout == b"b\n5\n"


def test_place_and_environment(cli: Cli, tmp_path: Path) -> None:
    script = 'pwd; echo "$ONE/$TWO"'
    result = cli(
        "exec", "--cwd", str(tmp_path), "--env", "ONE=1 =", "-e", "TWO", "--", "sh", "-c", script,
        TWO="2",
    )  # fmt: skip
    assert result.stdout.decode() == f"{tmp_path}\n1 =/2\n"


def test_variable_that_is_not_set_here(cli: Cli) -> None:
    result = cli("exec", "--env", "NOT_SET_HERE", "--", "true")
    assert result.returncode == 1
    assert result.stderr.startswith(b"procd: --env NOT_SET_HERE: not set here")


def test_input_and_output_are_exact(cli: Cli) -> None:
    data = bytes(range(256)) * 4096 + b"\x01\x01\x01\x02\x02\x02 no newline at the end"
    result = cli("exec", "--", "cat", stdin=data)
    assert result.returncode == 0, result.stderr
    assert hashlib.sha256(result.stdout).digest() == hashlib.sha256(data).digest()


def test_output_of_both_streams_is_complete(cli: Cli) -> None:
    script = "head -c 3000000 /dev/zero | tr '\\0' a; head -c 3000000 /dev/zero >&2"
    result = cli("exec", "--", "sh", "-c", script)
    assert result.stdout == b"a" * 3_000_000
    assert result.stderr == bytes(3_000_000)


def test_input_as_it_comes(cli: Cli) -> None:
    process = cli.start("exec", "--", "sh", "-c", "while read x; do echo got $x; done; exit 4")
    assert process.stdin is not None
    assert process.stdout is not None
    for word in (b"one", b"two"):
        process.stdin.write(word + b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"got " + word + b"\n"
    process.stdin.close()
    assert process.wait(PATIENCE_S) == 4


def test_input_that_nobody_reads_holds_nobody_up(cli: Cli) -> None:
    result = cli("exec", "--", "sh", "-c", "echo done; exit 3", stdin=bytes(5_000_000))
    assert (result.returncode, result.stdout) == (3, b"done\n")


def test_no_stdin(cli: Cli) -> None:
    process = cli.start("exec", "--no-stdin", "--", "wc", "-c")
    assert process.stdout is not None
    assert process.stdout.readline() == b"0\n"
    assert process.wait(PATIENCE_S) == 0


def test_unknown_command(cli: Cli) -> None:
    result = cli("exec", "--", "no-such-command")
    assert result.returncode == 127
    assert b"no-such-command" in result.stderr


def test_death_by_signal(cli: Cli) -> None:
    assert cli("exec", "--", "sh", "-c", "kill -9 $$").returncode == 137


def test_timeout_ends_everything(cli: Cli) -> None:
    result = cli("exec", "--timeout", "0.5", "--", "sh", "-c", "echo $$; sleep 1000 & wait")
    assert result.returncode == 124
    assert eventually(lambda: not alive(int(result.stdout)))


def test_what_is_left_in_the_background_ends_with_it(cli: Cli) -> None:
    result = cli("exec", "--shell", "setsid sleep 1000 & echo $!")
    assert result.returncode == 0
    assert eventually(lambda: not alive(int(result.stdout)))


def _tree(process: "subprocess.Popen[bytes]") -> list[int]:
    assert process.stdout is not None
    return [int(process.stdout.readline()) for _ in range(2)]


def test_interrupt_reaches_the_tree(cli: Cli) -> None:
    process = cli.start("exec", "--", "sh", "-c", "sleep 1000 & echo $!; echo $$; wait")
    tree = _tree(process)
    interrupt(process)
    assert process.wait(PATIENCE_S) == 130
    assert eventually(lambda: not any(map(alive, tree)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_who_does_not_obey_is_killed(cli: Cli, number: int) -> None:
    script = "trap '' INT TERM HUP; (echo 0; exec sleep 1000) & echo $!; wait"
    process = cli.start("exec", "--", "sh", "-c", script)
    tree = [pid for pid in _tree(process) if pid]
    interrupt(process, number)
    interrupt(process, number)
    assert process.wait(PATIENCE_S) == 128 + number
    assert eventually(lambda: not any(map(alive, tree)))


def test_a_command_may_clean_up_after_an_interrupt(cli: Cli) -> None:
    script = "trap 'echo cleaned; exit 9' INT; echo ready; while :; do sleep 0.1; done"
    process = cli.start("exec", "--", "bash", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    interrupt(process)
    assert process.stdout.read() == b"cleaned\n"
    assert process.wait(PATIENCE_S) == 130


def test_a_reader_that_leaves_ends_it(cli: Cli) -> None:
    process = cli.start("exec", "--", "sh", "-c", "echo $$; exec yes", stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    process.stdout.close()
    assert process.wait(PATIENCE_S) == 128 + signal.SIGPIPE
    assert eventually(lambda: not alive(pid))


def test_a_lost_connection_is_resumed(cli: Cli, proxy: Proxy) -> None:
    script = "for i in $(seq 200); do echo $i; done; read x; seq 201 400; echo err >&2; exit 6"
    cli.url = proxy.url
    process = cli.start("exec", "--", "bash", "-c", script)
    assert process.stdin is not None
    assert process.stdout is not None
    seen = [process.stdout.readline() for _ in range(200)]
    proxy.refuses = True
    proxy.cut()
    proxy.refuses = False
    process.stdin.write(b"\n")
    process.stdin.close()
    seen += process.stdout.readlines()
    assert seen == [b"%d\n" % number for number in range(1, 401)]
    assert process.wait(PATIENCE_S) == 6


def test_nothing_is_left(cli: Cli) -> None:
    for words in (("true",), ("no-such-command",), ("sh", "-c", "kill -9 $PPID")):
        cli("exec", "--", *words)
    result = cli("exec", "--", "curl", "-s", f"{cli.url}/process/session")
    assert len(re.findall(rb'"sessionId"', result.stdout)) == 1  # its own


def test_no_server(cli: Cli) -> None:
    result = cli("--url", "http://127.0.0.1:1", "exec", "--", "true")
    assert result.returncode == 125
    assert result.stderr == (
        b"procd: can't reach procd at http://127.0.0.1:1 (Connection refused): start it with"
        b" `procd serve`, or say where it is with --url or PROCD_URL\n"
    )


def test_bad_place(cli: Cli) -> None:
    result = cli("exec", "--cwd", "/no/such/place", "--", "true")
    assert result.returncode == 125
    assert b"/no/such/place" in result.stderr
    assert result.stderr.count(b"\n") == 1


def test_what_it_imports(cli: Cli) -> None:
    for arguments in (["exec", "--", "true"], ["--version"], ["--help"]):
        program = (
            "import sys, atexit, procd.cli.main as m\n"
            f"atexit.register(lambda: print(sorted(set(sys.modules) & set({HEAVY}))))\n"
            f"sys.argv[1:] = {arguments}; m.main()"
        )
        result = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, env=cli.env(), check=True,
            stdin=subprocess.DEVNULL, timeout=PATIENCE_S,
        )  # fmt: skip
        assert result.stdout.endswith(b"[]\n"), result


def test_installed_command_is_the_light_one() -> None:
    text = Path(PROCD[0]).read_text()
    assert "procd.cli.main" in text
    assert os.access(PROCD[0], os.X_OK)
