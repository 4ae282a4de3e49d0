"""procd exec."""

import hashlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.api.sessions import SHELLS
from tests.cli.conftest import PROCD, Cli, OpenScreen, alive, insist
from tests.daemon.daemon import PATIENCE_S, Daemon, eventually
from tests.proxy import Proxy

HEAVY = ("aiohttp", "asyncio", "marshmallow", "uvloop", "http.client", "tomllib", "ssl")
LEFTOVER = rb"procd: .*: `(procd kill exec-\w+)` ends what may be left of the command\n"


class Running:
    """A `procd exec` that was started."""

    def __init__(self, cli: Cli, *arguments: str, **options: object) -> None:
        self.process = cli.start("exec", *arguments, **options)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.stdin: IO[bytes] = self.process.stdin
        self.stdout: IO[bytes] = self.process.stdout
        self.stderr: IO[bytes] = self.process.stderr

    def type(self, data: bytes) -> None:
        self.stdin.write(data)
        self.stdin.flush()

    def end(self) -> int:
        self.stdin.close()
        return self.process.wait(PATIENCE_S)


@pytest.fixture(params=SHELLS)
def of_shell(cli: Cli, home: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Cli]:
    """Run `procd` against servers with each shell."""
    shell = tmp_path / "sh"
    shell.symlink_to(SHELLS[request.param])
    if not shell.exists():
        pytest.skip(f"{request.param} is not installed")
    with Daemon.start(env={"HOME": home, "PROCD_PROCESS_SHELL": str(shell)}) as daemon:
        cli.url = daemon.url
        yield cli


def test_streams_and_exit_code(cli: Cli) -> None:
    result = cli("exec", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (result.returncode, result.stdout, result.stderr) == (7, b"out\n", b"err\n")
    assert cli("exec", "--", "sh", "-c", "kill -9 $$").returncode == 137


def test_arguments_are_passed_exactly(of_shell: Cli) -> None:
    """In every shell; names of files may be in Latin-1."""
    words = [b"*", b"$HOME", b"a b", b"it's", b"", b"=ls", b"~", b"A=b", b"\n", b"--help", b"!x"]
    words += [b"\xff", b"a\xe9b", b"it's\xe4\xf6", "é".encode() + b"\xfc\n\n", b"e\xff" * 20_000]
    words += [b"-v\xff", b"\xff%d\\n\\\\'\"$X`1\n2", b"\xff1\xfe0"]
    result = of_shell("exec", "--", "printf", "<%s>", *map(os.fsdecode, words))
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout == b"".join(b"<%s>" % word for word in words)


def test_no_command_is_a_builtin(of_shell: Cli) -> None:
    result = of_shell("exec", "--", "echo", r"C:\temp\new")
    assert (result.returncode, result.stdout) == (0, b"C:\\temp\\new\n")
    for words in (("eval", "echo eval"), ("exit", "5"), ("set",), ("-",), ("A=b",), ("if x",)):
        result = of_shell("exec", "--", *words)
        assert (result.returncode, result.stdout) == (127, b"")
        assert words[0].encode() in result.stderr
    result = of_shell("exec", "--", "/etc/passwd")
    assert result.returncode == 126
    assert b"/etc/passwd" in result.stderr


def test_programs_of_any_name(of_shell: Cli, tmp_path: Path) -> None:
    for name in ("plain", "A=b", "a b", "a=\t'é", os.fsdecode(b"\xff=")):
        program = tmp_path / name
        program.write_text('#!/bin/sh\nprintf "%s|" "$A" "$@"\nexit 7\n')
        program.chmod(0o755)
        path = f"PATH={tmp_path}:{os.environ['PATH']}"
        for given in (str(program), name):
            result = of_shell("exec", "--env", path, "--", given, "A=1", "--", "é")
            assert (result.returncode, result.stdout.decode()) == (7, "|A=1|--|é|"), given


def test_the_shell_prints_nothing_of_its_own(of_shell: Cli) -> None:
    for number in (signal.SIGHUP, signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM):
        result = of_shell("exec", "--", "sh", "-c", f"echo err >&2; kill -{number} $$")
        assert (result.returncode, result.stderr) == (128 + number, b"err\n")
    result = of_shell("exec", "--timeout", "0.3", "--", "sleep", "1000")
    assert (result.returncode, result.stderr) == (124, b"")


def test_options(cli: Cli, tmp_path: Path) -> None:
    assert cli("exec", "sort", "-n", "-C", "--shell", stdin=b"2\n1\n").returncode == 2
    result = cli("exec", "-n", "printf", "<%s>", "-e", "-t", "--", "--help")
    assert result.stdout == b"<-e><-t><--><--help>"
    assert cli("exec", "--shell", "echo a | tr a b; X=5; echo $X").stdout == b"b\n5\n"
    result = cli(
        "exec", "--cwd", str(tmp_path), "--env", "ONE=1 =", "-e", "TWO", "--",
        "sh", "-c", 'pwd; echo "$ONE/$TWO"', TWO="2",
    )  # fmt: skip
    assert result.stdout.decode() == f"{tmp_path}\n1 =/2\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["exec", "--env", "UNSET", "--", "true"], "procd: --env UNSET: not set here"),
        (["--url", "nonsense", "exec", "--", "true"], "procd: nonsense: not a URL"),
        (["--token-file", "/no/such", "exec", "--", "true"], "procd: token file /no/such: "),
        (["exec", "--no-such-option", "--", "true"], "Usage: procd exec"),
        (["exec", "--shell", "echo \udcff"], "procd: the script is not UTF-8: "),
        (["exec", "--cwd", "/no/such/place", "--", "true"], "procd: "),
        (
            ["--url", "http://127.0.0.1:1", "exec", "--", "true"],
            "procd: can't reach procd at http://127.0.0.1:1 (Connection refused): start it with"
            " `procd serve`, or say where it is with --url or PROCD_URL\n",
        ),
    ],
)
def test_a_command_that_cannot_be_run(cli: Cli, arguments: list[str], message: str) -> None:
    result = cli(*arguments)
    assert result.returncode == 125
    assert result.stderr.decode().startswith(message)


def test_input_and_output_are_exact(cli: Cli) -> None:
    data = bytes(range(256)) * 4096 + b"\x01\x01\x01\x02\x02\x02 no newline at the end"
    result = cli("exec", "--", "cat", stdin=data)
    assert result.returncode == 0, result.stderr
    assert hashlib.sha256(result.stdout).digest() == hashlib.sha256(data).digest()
    script = "head -c 3000000 /dev/zero | tr '\\0' a; head -c 3000000 /dev/zero >&2"
    result = cli("exec", "--", "sh", "-c", script)
    assert result.stdout == b"a" * 3_000_000
    assert result.stderr == bytes(3_000_000)


def test_input_arrives_as_it_comes(cli: Cli) -> None:
    running = Running(cli, "--", "sh", "-c", "while read x; do echo got $x; done; exit 4")
    for word in (b"one", b"two"):
        running.type(word + b"\n")
        assert running.stdout.readline() == b"got " + word + b"\n"
    assert running.end() == 4


def test_input_that_is_not_there_or_not_read(cli: Cli) -> None:
    closed = cli.start("exec", "--", "cat", preexec_fn=lambda: os.close(0))
    assert closed.wait(PATIENCE_S) == 0
    running = Running(cli, "--no-stdin", "--", "wc", "-c")
    assert running.stdout.readline() == b"0\n"
    assert running.end() == 0
    result = cli("exec", "--", "sh", "-c", "echo done; exit 3", stdin=bytes(5_000_000))
    assert (result.returncode, result.stdout) == (3, b"done\n")


def test_output_that_cannot_be_written(cli: Cli) -> None:
    with open("/dev/full", "wb") as full:
        script = "echo $$ >&2; read go; exec yes"
        process = cli.start("exec", "--", "sh", "-c", script, stdout=full)
    assert process.stderr is not None
    pid = int(process.stderr.readline())
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()
    assert process.wait(PATIENCE_S) == 125
    assert process.stderr.read() == (
        b"procd: can't write to standard output: No space left on device\n"
    )
    assert eventually(lambda: not alive(pid))


def test_a_reader_that_leaves_ends_the_command(cli: Cli) -> None:
    running = Running(cli, "-n", "--", "sh", "-c", "echo $$; exec yes")
    pid = int(running.stdout.readline())
    running.stdout.close()
    assert running.process.wait(PATIENCE_S) == 128 + signal.SIGPIPE
    assert eventually(lambda: not alive(pid))


@pytest.mark.parametrize(
    ("script", "code"), [("sleep 1000 & wait", 124), ("sleep 1000 &", 0), ("setsid sleep 9 &", 0)]
)
def test_everything_ends_with_the_command(cli: Cli, script: str, code: int) -> None:
    script = script.replace("&", "& echo $!;", 1)
    result = cli("exec", "--timeout", "3" if code else "1000", "--shell", script)
    assert result.returncode == code
    assert eventually(lambda: not alive(int(result.stdout)))


def test_an_interrupt_reaches_all_processes(cli: Cli) -> None:
    running = Running(cli, "--", "sh", "-c", "sleep 1000 & echo $!; echo $$; wait")
    pids = [int(running.stdout.readline()) for _ in range(2)]
    running.process.send_signal(signal.SIGINT)
    assert running.end() == 130
    assert eventually(lambda: not any(map(alive, pids)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_processes_that_ignore_signals_are_killed(cli: Cli, number: int) -> None:
    script = "trap '' INT TERM HUP QUIT; (exec sleep 1000) & echo $!; wait"
    running = Running(cli, "--", "sh", "-c", script)
    pid = int(running.stdout.readline())
    assert eventually(lambda: insist(running.process, number))
    # The last one may come when all is done.
    assert running.process.returncode in (128 + number, -number)
    assert eventually(lambda: not alive(pid))


@pytest.mark.parametrize(
    ("script", "number", "code"),
    [
        ("trap 'echo cleaned; exit 9' INT; echo up; while :; do sleep 0.1; done", "INT", 130),
        ("trap 'echo cleaned; exit 9' TERM; echo up; while :; do sleep 0.1; done", "TERM", 143),
    ],
)
def test_a_command_may_clean_up_after_a_signal(
    cli: Cli, script: str, number: str, code: int
) -> None:
    running = Running(cli, "--", "bash", "-c", script)
    assert running.stdout.readline() == b"up\n"
    running.process.send_signal(signal.Signals[f"SIG{number}"])
    assert running.stdout.read() == b"cleaned\n"
    assert running.end() == code


def test_a_background_job_leaves_the_terminal_alone(cli: Cli, screen: OpenScreen) -> None:
    shell = screen("--norc", "-i", command="bash", TERM="dumb", HISTFILE="")
    shell.type(f"{PROCD[0]} exec cat &\n".encode())
    assert eventually(lambda: b"exec-" in cli("ps").stdout)
    shell.type(b"bash -c 'echo u''p; exec sleep 1000'\n")
    shell.until(rb"\nup\r")
    shell.type(b"for nobody\n\x03")
    shell.until(rb"\^C")
    shell.type(b"fg\n")
    shell.until(rb"exec cat\r")
    shell.type(b"for cat\n")
    shell.until(rb"for cat\r\nfor cat\r")
    shell.type(b"\x04exit\n")
    assert shell.wait() == 0


# Interrupts itself when it is about to import something.
IMPATIENT = """
import os, signal, sys

NAME = sys.argv.pop(1)

class Finder:
    def find_spec(self, name, path, target=None):
        if name == NAME:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
from procd.cli.main import main
main()
"""


@pytest.mark.parametrize(
    ("module", "action", "code"),
    [
        ("click", signal.SIG_DFL, -signal.SIGINT),
        ("procd.cli.exec", signal.SIG_DFL, 130),
        ("click", signal.SIG_IGN, 0),  # a job that a script has put into the background
    ],
)
def test_an_interrupt_while_it_starts(
    cli: Cli, module: str, action: signal.Handlers, code: int
) -> None:
    process = cli.start(
        "exec", "--", "echo", "x", command=(sys.executable, "-c", IMPATIENT, module),
        preexec_fn=lambda: signal.signal(signal.SIGINT, action),
    )  # fmt: skip
    output = b"" if code else b"x\n"
    assert process.communicate(timeout=PATIENCE_S) == (output, b"")
    assert process.returncode == code


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_signals_that_were_ignored_stay_ignored(
    cli: Cli, number: signal.Signals, tmp_path: Path
) -> None:
    """As nohup(1) expects."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    running = Running(
        cli, "-n", "--", "sh", "-c", f"echo up; read x <{gate}; exit 7",
        preexec_fn=lambda: signal.signal(number, signal.SIG_IGN),
    )  # fmt: skip
    assert running.stdout.readline() == b"up\n"
    running.process.send_signal(number)
    gate.write_text("go on\n")
    assert running.end() == 7
    assert running.stderr.read() == b""


def test_an_interrupt_while_the_server_is_silent(screen: OpenScreen, stalled: int) -> None:
    terminal = screen("--url", f"http://127.0.0.1:{stalled}", "exec", "--", "true")
    terminal.until(b"starting the command")
    terminal.type(b"\x03")
    assert terminal.wait() == 130


def test_a_second_interrupt_does_not_wait(cli: Cli, home: str) -> None:
    with Daemon.start(env={"HOME": home}) as daemon:
        cli.url = daemon.url
        running = Running(cli, "--", "sh", "-c", "echo up; exec sleep 1000")
        assert running.stdout.readline() == b"up\n"
        os.kill(daemon.pid, signal.SIGSTOP)
        # Two signals of one kind may arrive as one.
        running.process.send_signal(signal.SIGINT)
        running.process.send_signal(signal.SIGTERM)
        assert running.end() in (128 + signal.SIGINT, 128 + signal.SIGTERM)
        assert re.fullmatch(LEFTOVER, running.stderr.read())
        os.kill(daemon.pid, signal.SIGCONT)


def test_a_lost_connection_is_resumed(cli: Cli, proxy: Proxy) -> None:
    script = "for i in $(seq 200); do echo $i; done; read x; seq 201 400; echo err >&2; exit 6"
    cli.url = proxy.url
    running = Running(cli, "--", "bash", "-c", script)
    lines = [running.stdout.readline() for _ in range(200)]
    proxy.down()
    proxy.up()
    running.type(b"\n")
    running.stdin.close()
    lines += running.stdout.readlines()
    assert lines == [b"%d\n" % number for number in range(1, 401)]
    assert running.end() == 6


def with_times(**times: float) -> tuple[str, ...]:
    """Procd with other limits of time."""
    modules = ("exec", "output_stream", "websocket")
    lines = [f"from procd.cli import {', '.join(modules)}", "from procd.cli.main import main"]
    for name, seconds in times.items():
        lines += [f"{module}.{name} = {seconds}" for module in modules]
    return (sys.executable, "-c", "\n".join([*lines, "main()"]))


@pytest.mark.parametrize("what", [b"", b"/logs?", b"?wait="])
def test_a_connection_that_is_lost_silently_is_resumed(cli: Cli, proxy: Proxy, what: bytes) -> None:
    cli.url = proxy.url
    command = with_times(PING_S=0.2, DEAD_S=1.0, WAIT_S=0.2, SILENT_S=3.0)
    script = "echo one; read x; echo two; exit 6"
    running = Running(cli, "--", "sh", "-c", script, command=command)
    assert running.stdout.readline() == b"one\n"
    assert eventually(lambda: any(b"?wait=" in line for line in proxy.lines))
    proxy.hold(what)
    running.type(b"x\n")
    running.stdin.close()
    assert running.stdout.read() == b"two\n"
    assert running.end() == 6


def test_a_slow_reader_gets_everything(cli: Cli) -> None:
    running = Running(cli, "-n", "--", "seq", "600000", command=with_times(DELETE_S=0.5))
    slow = "for i in 1 2 3 4 5 6 7; do head -c 500000; sleep 0.2; done; cat"
    reader = subprocess.run(
        ["sh", "-c", slow], stdin=running.stdout, capture_output=True, check=True,
        timeout=PATIENCE_S,
    )  # fmt: skip
    assert running.end() == 0
    assert reader.stdout == b"".join(b"%d\n" % number for number in range(1, 600_001))


def test_a_connection_that_is_lost_each_time_is_given_up(cli: Cli, proxy: Proxy) -> None:
    """As with a proxy that passes on no more than the handshake."""
    cli.url = proxy.url
    running = Running(cli, "--", "sh", "-c", "echo $$; read x", command=with_times(LOST_S=1.0))
    pid = int(running.stdout.readline())
    proxy.portion = 1
    proxy.cut()
    assert running.process.wait(PATIENCE_S) == 125
    assert len([line for line in proxy.lines if b"/logs?" in line]) > 2
    assert eventually(lambda: not alive(pid))  # to end it takes no more than to ask for it


@pytest.mark.parametrize("code", [0, 6])
def test_a_known_exit_code_though_the_server_is_lost(cli: Cli, proxy: Proxy, code: int) -> None:
    cli.url = proxy.url
    # To end what ignores SIGTERM takes the server a while.
    script = f"trap '' TERM; sleep 100 & echo all; exit {code}"
    running = Running(cli, "-n", "--", "sh", "-c", script, command=with_times(DELETE_S=0.5))
    assert running.end() == code
    assert running.stdout.read() == b"all\n"
    assert re.fullmatch(LEFTOVER, running.stderr.read())


# The server itself answers 429 to one connection too many.
@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_gateway_without_its_server_is_a_lost_server(cli: Cli, proxy: Proxy, status: int) -> None:
    cli.url = proxy.url
    running = Running(cli, "--", "sh", "-c", "echo one; read x; echo two; exit 6")
    assert running.stdout.readline() == b"one\n"
    proxy.fail_once(status)
    running.type(b"x\n")
    running.stdin.close()
    assert running.stdout.read() == b"two\n"
    assert running.end() == 6


@pytest.mark.parametrize(("status", "number"), [(401, 0), (502, 0), (502, signal.SIGTERM)])
def test_leftovers_are_reported(cli: Cli, proxy: Proxy, status: int, number: int) -> None:
    direct, cli.url = cli.url, proxy.url
    command = with_times(LOST_S=PATIENCE_S if number else 0.5)
    running = Running(cli, "--", "sh", "-c", "echo one; exec sleep 1000", command=command)
    assert running.stdout.readline() == b"one\n"
    proxy.down(status)
    lines = len(proxy.lines)
    assert eventually(lambda: len(proxy.lines) > lines)
    if number:
        running.process.send_signal(number)
    assert running.process.wait(PATIENCE_S) == (128 + number if number else 125)
    message = running.stderr.read()
    reported = re.fullmatch(LEFTOVER, message)
    assert reported is not None, message
    cli.url = direct
    assert cli(*reported[1].decode().split()[1:]).returncode == 0


@pytest.mark.parametrize("ends", [True, False])
def test_a_start_whose_reply_is_lost(cli: Cli, proxy: Proxy, ends: bool) -> None:
    """The command may run: it is ended, or reported."""
    direct, cli.url = cli.url, proxy.url
    proxy.down_after_loss = True
    proxy.loses = b"runAsync"
    running = Running(cli, "--", "sleep", "1000", command=with_times(DELETE_S=20 if ends else 0.5))
    assert eventually(lambda: proxy.refused > 0)
    if ends:
        proxy.up()
    assert running.end() == 125
    message = running.stderr.read()
    cli.url = direct
    if not ends:
        reported = re.search(LEFTOVER, message)
        assert reported is not None, message
        assert cli(*reported[1].decode().split()[1:]).returncode == 0
    assert b"exec-" not in cli("ps").stdout


@pytest.mark.parametrize("what", [b"dataBase64", b"eof"])
def test_input_arrives_once_though_the_reply_is_lost(cli: Cli, proxy: Proxy, what: bytes) -> None:
    cli.url = proxy.url
    running = Running(cli, "--", "sh", "-c", "cat; echo end")
    for number, line in enumerate([b"line 0\n", b"line 1\n", b"line 2\n"]):
        if number == 1:
            proxy.loses = what
        running.type(line)
        assert running.stdout.readline() == line
    running.stdin.close()
    assert running.stdout.read() == b"end\n"
    assert running.end() == 0
    assert not proxy.loses


def test_much_input_through_lost_connections(cli: Cli, proxy: Proxy) -> None:
    cli.url = proxy.url
    data = os.urandom(3_000_000)
    running = Running(cli, "--", "cat")

    def write() -> None:
        with running.stdin as pipe:
            pipe.write(data)

    thread = threading.Thread(target=write)
    thread.start()
    output = b""
    for _ in range(5):
        output += running.stdout.read(300_000)
        proxy.cut()
    output += running.stdout.read()
    thread.join()
    assert output == data
    assert running.end() == 0


def test_no_session_is_left(cli: Cli) -> None:
    for words in (("true",), ("no-such-command",), ("sh", "-c", "kill -9 $PPID")):
        cli("exec", "--", *words)
    assert b"exec-" not in cli("ps").stdout


@pytest.mark.parametrize(
    "command", [["-m", "procd"], ["-c", "import procd.cli.main as m; m.main()"]]
)
@pytest.mark.parametrize("arguments", [["exec", "--", "true"], ["--version"], ["--help"]])
def test_it_imports_no_heavy_modules(cli: Cli, command: list[str], arguments: list[str]) -> None:
    result = subprocess.run(
        [sys.executable, "-X", "importtime", *command, *arguments],
        capture_output=True, env=cli.env(), check=True, stdin=subprocess.DEVNULL,
        timeout=PATIENCE_S,
    )  # fmt: skip
    lines = result.stderr.decode().splitlines()
    imported = {line.rpartition("|")[2].strip() for line in lines}
    assert "procd.cli.main" in imported
    assert not imported & set(HEAVY)
    assert "procd.cli.main" in Path(PROCD[0]).read_text()
