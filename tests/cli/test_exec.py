"""procd exec."""

import hashlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.api.sessions import SHELLS
from tests.cli.conftest import PROCD, Cli, alive, insist, interrupt
from tests.cli.proxy import Proxy
from tests.cli.screen import Screen
from tests.daemon.daemon import PATIENCE_S, Daemon, eventually

HEAVY = ("aiohttp", "asyncio", "marshmallow", "uvloop", "rich", "http.client", "tomllib", "ssl")


def test_streams_and_exit_code(cli: Cli) -> None:
    result = cli("exec", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (result.returncode, result.stdout, result.stderr) == (7, b"out\n", b"err\n")


def test_arguments_are_no_shell_text(cli: Cli) -> None:
    words = ["*", "$HOME", "a b", "it's", "", "=ls", "~", "A=b", "\n", "é", "--help", "!x"]
    result = cli("exec", "--", "printf", "<%s>", *words)
    assert result.stdout.decode() == "".join(f"<{word}>" for word in words)


@pytest.fixture(params=SHELLS)
def of_shell(cli: Cli, home: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Cli]:
    """`procd`, for a server whose shell is one of all."""
    shell = tmp_path / "sh"
    shell.symlink_to(SHELLS[request.param])
    if not shell.exists():
        pytest.skip(f"{request.param} is not installed")
    with Daemon.start(env={"HOME": home, "PROCD_PROCESS_SHELL": str(shell)}) as daemon:
        cli.url = daemon.url
        yield cli


def test_arguments_that_are_no_text(of_shell: Cli) -> None:
    """Names of files may be in Latin-1."""
    many = b"e\xff" * 20_000  # more than some shells can take, each by itself
    words = [b"\xff", b"a\xe9b", b"it's\xe4\xf6", "é".encode() + b"\xfc\n\n", many]
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


def test_a_program_of_any_name(of_shell: Cli, tmp_path: Path) -> None:
    for name in ("plain", "A=b", "a b", "a=\t'é", os.fsdecode(b"\xff=")):
        program = tmp_path / name
        program.write_text('#!/bin/sh\nprintf "%s|" "$A" "$@"\nexit 7\n')
        program.chmod(0o755)
        for told in (str(program), name):
            place = f"{tmp_path}:{os.environ['PATH']}"
            result = of_shell("exec", "--env", f"PATH={place}", "--", told, "A=1", "--", "é")
            assert (result.returncode, result.stdout.decode()) == (7, "|A=1|--|é|"), told


def test_a_script_that_is_no_text(cli: Cli) -> None:
    result = cli("exec", "--shell", os.fsdecode(b"echo \xff"))
    assert result.returncode == 125
    assert result.stderr.startswith(b"procd: the script is not UTF-8: ")


def test_options_behind_the_command_are_its_own(cli: Cli) -> None:
    assert cli("exec", "sort", "-n", "-C", "--shell", stdin=b"2\n1\n").returncode == 2
    result = cli("exec", "-n", "printf", "<%s>", "-e", "-t", "--", "--help")
    assert result.stdout == b"<-e><-t><--><--help>"


def test_shell_option(cli: Cli) -> None:
    assert cli("exec", "--shell", "echo a | tr a b; X=5; echo $X").stdout == b"b\n5\n"


def test_place_and_environment(cli: Cli, tmp_path: Path) -> None:
    script = 'pwd; echo "$ONE/$TWO"'
    result = cli(
        "exec", "--cwd", str(tmp_path), "--env", "ONE=1 =", "-e", "TWO", "--", "sh", "-c", script,
        TWO="2",
    )  # fmt: skip
    assert result.stdout.decode() == f"{tmp_path}\n1 =/2\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["exec", "--env", "NOT_SET_HERE", "--", "true"],
            b"procd: --env NOT_SET_HERE: not set here",
        ),
        (["--url", "nonsense", "exec", "--", "true"], b"procd: nonsense: not a URL"),
        (["--token-file", "/no/such", "exec", "--", "true"], b"procd: token file /no/such: "),
        (["exec", "--no-such-option", "--", "true"], b"Usage: procd exec"),
        (["exec", "--timeout", "nan", "--", "true"], b"Usage: procd exec"),
    ],
)
def test_what_is_not_even_begun(cli: Cli, arguments: list[str], said: bytes) -> None:
    result = cli(*arguments)
    assert result.returncode == 125
    assert result.stderr.startswith(said)


def test_output_that_cannot_be_written(cli: Cli) -> None:
    with open("/dev/full", "wb") as full:
        process = cli.start("exec", "--", "sh", "-c", "echo $$ >&2; exec yes", stdout=full)
    assert process.stderr is not None
    pid = int(process.stderr.readline())
    assert process.wait(PATIENCE_S) == 125
    assert process.stderr.read() == (
        b"procd: can't write to standard output: No space left on device\n"
    )
    assert eventually(lambda: not alive(pid))


def test_without_any_input(cli: Cli) -> None:
    process = cli.start("exec", "--", "cat", preexec_fn=lambda: os.close(0))
    assert process.wait(PATIENCE_S) == 0


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


def test_unknown_command(of_shell: Cli) -> None:
    result = of_shell("exec", "--", "no-such-command")
    assert result.returncode == 127
    assert b"no-such-command" in result.stderr
    result = of_shell("exec", "--", "/etc/passwd")
    assert result.returncode == 126
    assert b"/etc/passwd" in result.stderr


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_who_does_not_obey_is_killed(cli: Cli, number: int) -> None:
    script = "trap '' INT TERM HUP QUIT; (echo 0; exec sleep 1000) & echo $!; wait"
    process = cli.start("exec", "--", "sh", "-c", script)
    tree = [pid for pid in _tree(process) if pid]
    assert eventually(lambda: insist(process, number))
    assert process.returncode in (128 + number, -number)  # a last one may come when all is done
    assert eventually(lambda: not any(map(alive, tree)))


@pytest.fixture
def screens(cli: Cli) -> Iterator[Callable[..., Screen]]:
    """Run procd in a terminal."""
    opened: list[Screen] = []

    def make(*arguments: str) -> Screen:
        opened.append(Screen([*PROCD, *arguments], cli.env(TERM="xterm-256color")))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


def test_in_the_background_it_leaves_what_is_typed_alone(cli: Cli) -> None:
    screen = Screen(["bash", "--norc", "-i"], cli.env(TERM="dumb", HISTFILE=""))
    try:
        screen.type(f"{PROCD[0]} exec cat & echo pid=$!.\n".encode())
        pid = int(screen.until(rb"\npid=(\d+)\.").group(1))
        assert eventually(lambda: b"exec-" in cli("ps").stdout)
        screen.type(b"bash -c 'echo u''p; exec sleep 1000'\n")
        screen.until(rb"\nup\r")
        screen.type(b"for nobody\n")
        before = cpu_s(pid)
        for _ in range(5):
            cli("ps")
        assert cpu_s(pid) - before < 0.2
        screen.type(b"\x03")
        screen.until(rb"\^C")
        screen.type(b"fg\n")
        screen.until(rb"exec cat\r")
        screen.type(b"for cat\n")
        screen.until(rb"for cat\r\nfor cat\r")
        screen.type(b"\x04exit\n")
        assert screen.wait() == 0
    finally:
        screen.close()


def cpu_s(pid: int) -> float:
    """What a process has used of the processor. Source: proc_pid_stat(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_ctrl_backslash_ends_everything(cli: Cli, screens: Callable[..., Screen]) -> None:
    screen = screens("exec", "--", "sh", "-c", "echo pid=$$.; sleep 1000")
    pid = int(screen.until(rb"pid=(\d+)\.").group(1))
    screen.type(b"\x1c")
    assert screen.wait() == 128 + signal.SIGQUIT
    assert eventually(lambda: not alive(pid))
    assert b"exec-" not in cli("ps").stdout


# Interrupts itself when it is about to import something.
IMPATIENCE = """
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
    ("name", "code"),
    [("click", -signal.SIGINT), ("procd.cli.exec", 130), ("procd.cli.execution", 130)],
)
def test_an_interrupt_while_it_starts(cli: Cli, name: str, code: int) -> None:
    process = cli.start(
        "exec", "--", "true", command=(sys.executable, "-c", IMPATIENCE, name),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.communicate(timeout=PATIENCE_S) == (b"", b"")
    assert process.returncode == code


def test_who_ignores_interrupts_goes_on(cli: Cli) -> None:
    """As a job does that a script has put into the background."""
    command = (sys.executable, "-c", IMPATIENCE, "click")
    process = cli.start(
        "exec", "--", "echo", "x", command=command,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )  # fmt: skip
    assert process.communicate(timeout=PATIENCE_S) == (b"x\n", b"")
    assert process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_what_was_ignored_at_the_start_is(cli: Cli, number: signal.Signals, tmp_path: Path) -> None:
    """As nohup(1) has it, and while the command runs."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    process = cli.start(
        "exec", "-n", "--", "sh", "-c", f"echo up; read x <{gate}; exit 7",
        preexec_fn=lambda: signal.signal(number, signal.SIG_IGN),
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.send_signal(number)
    gate.write_text("go on\n")
    assert process.communicate(timeout=PATIENCE_S) == (b"", b"")
    assert process.returncode == 7


def test_nobody_waits_for_a_server_that_is_silent(
    screens: Callable[..., Screen], stalled: int
) -> None:
    screen = screens("--url", f"http://127.0.0.1:{stalled}", "exec", "--", "true")
    screen.until(b"starting the command")
    screen.type(b"\x03")
    screen.until(b"ending the command")
    screen.type(b"\x03")
    assert screen.wait() == 130


def test_a_second_interrupt_waits_for_nobody(cli: Cli, home: str) -> None:
    with Daemon.start(env={"HOME": home}) as daemon:
        cli.url = daemon.url
        process = cli.start("exec", "--", "sh", "-c", "echo up; exec sleep 1000")
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"up\n"
        os.kill(daemon.pid, signal.SIGSTOP)
        # Two signals of one kind that nobody has heard yet are one.
        interrupt(process)
        interrupt(process, signal.SIGTERM)
        assert process.wait(PATIENCE_S) in (128 + signal.SIGINT, 128 + signal.SIGTERM)
        said = process.stderr.read()
        assert re.fullmatch(
            rb"procd: \S+ doesn't answer: `procd kill exec-\w+` ends what may be left of the"
            rb" command\n",
            said,
        ), said
        os.kill(daemon.pid, signal.SIGCONT)


def test_the_shell_says_nothing_of_its_own(of_shell: Cli) -> None:
    for number in (signal.SIGHUP, signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM):
        result = of_shell("exec", "--", "sh", "-c", f"echo err >&2; kill -{number} $$")
        assert (result.returncode, result.stderr) == (128 + number, b"err\n")
    result = of_shell("exec", "--timeout", "0.3", "--", "sleep", "1000")
    assert (result.returncode, result.stderr) == (124, b"")


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


def impatient(**times: float) -> tuple[str, ...]:
    """Procd, with other times than it has."""
    modules = ("execution", "outage", "websocket")
    lines = [f"from procd.cli import {', '.join(modules)}", "from procd.cli.main import main"]
    for name, seconds in times.items():
        lines += [f"{module}.{name} = {seconds}" for module in modules]
    return (sys.executable, "-c", "\n".join([*lines, "main()"]))


@pytest.mark.parametrize("what", [b"", b"/logs?", b"?wait="])
def test_a_connection_that_is_lost_silently_is_resumed(cli: Cli, proxy: Proxy, what: bytes) -> None:
    cli.url = proxy.url
    script = "echo one; read x; echo two; exit 6"
    command = impatient(PING_S=0.2, DEAD_S=1.0, BEAT_S=0.2, SILENT_S=3.0)
    process = cli.start("exec", "--", "sh", "-c", script, command=command)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == b"one\n"
    assert eventually(lambda: any(b"?wait=" in line for line in proxy.lines))
    proxy.freeze(what)
    process.stdin.write(b"x\n")
    process.stdin.close()
    assert process.stdout.read() == b"two\n"
    assert process.wait(PATIENCE_S) == 6


def test_a_slow_reader_gets_all(cli: Cli) -> None:
    process = cli.start(
        "exec", "--", "seq", "600000", command=impatient(DELETE_S=0.5, REST_S=0.5),
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    slow = "for i in 1 2 3 4 5 6 7; do head -c 500000; sleep 0.6; done; cat"
    read = subprocess.run(
        ["sh", "-c", slow], stdin=process.stdout, capture_output=True, check=True,
        timeout=PATIENCE_S,
    )  # fmt: skip
    assert process.wait(PATIENCE_S) == 0
    assert read.stdout == b"".join(b"%d\n" % number for number in range(1, 600_001))


def test_the_rest_may_take_its_time_through_lost_connections(cli: Cli, proxy: Proxy) -> None:
    cli.url = proxy.url
    proxy.portion = 400_000  # with RETRY_S after each: in all, longer than REST_S
    process = cli.start("exec", "-n", "--", "seq", "1200000", command=impatient(REST_S=2.0))
    said, complaint = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, complaint) == (0, b"")
    assert said == b"".join(b"%d\n" % number for number in range(1, 1_200_001))


def test_a_connection_that_is_lost_each_time_is_given_up(cli: Cli, proxy: Proxy) -> None:
    """As with a proxy that passes on no more than the handshake."""
    cli.url = proxy.url
    command = impatient(LOST_S=1.0)
    process = cli.start("exec", "--", "sh", "-c", "echo $$; read x", command=command)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    proxy.portion = 1
    proxy.cut()
    assert process.wait(PATIENCE_S) == 125
    assert process.stderr is not None
    assert b"procd kill exec-" in process.stderr.read()
    assert len([line for line in proxy.lines if b"/logs?" in line]) > 2
    assert eventually(lambda: not alive(pid))  # to end it takes no more than to ask for it


@pytest.mark.parametrize("gone", [False, True])
def test_a_rest_that_does_not_come_is_told(cli: Cli, proxy: Proxy, gone: bool) -> None:
    """Because nobody sends it, or because its session was ended meanwhile."""
    cli.url = proxy.url
    times = {"DEAD_S": 5.0, "PING_S": 0.2, "BEAT_S": 0.2} if gone else {"REST_S": 0.5}
    script = "echo $PPID; read x; echo two; exit 6"
    process = cli.start("exec", "--", "sh", "-c", script, command=impatient(**times))
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    shell = int(process.stdout.readline())
    assert eventually(lambda: any(b"?wait=" in line for line in proxy.lines))
    proxy.freeze(b"/logs?")
    process.stdin.write(b"x\n")
    process.stdin.close()
    if gone:
        cli.url = f"http://127.0.0.1:{proxy.port_behind}"
        (own,) = {line.split(b"/")[3].decode() for line in proxy.lines if b"?wait=" in line}
        assert cli("logs", "-f", own).stdout.endswith(b"two\n")  # it has ended
        assert cli("kill", own).returncode == 0
    assert process.wait(PATIENCE_S) == 125
    assert process.stdout.read() == b""
    assert process.stderr.read() == b"procd: the rest of the output is lost\n"
    assert eventually(lambda: not alive(shell))


@pytest.mark.parametrize("code", [0, 6])
@pytest.mark.parametrize("time", ["LOST_S", "DELETE_S"])
def test_an_end_that_is_known_is_told_though_the_server_is_lost(
    cli: Cli, proxy: Proxy, time: str, code: int
) -> None:
    """Nothing is left to do then but to end what may be left of the command."""
    cli.url = proxy.url
    # To end what doesn't hear takes the server a while.
    script = f"trap '' TERM; sleep 100 & echo all; exit {code}"
    command = impatient(**{time: 0.5})
    process = cli.start("exec", "-n", "--", "sh", "-c", script, command=command)
    assert eventually(lambda: any(line.startswith(b"DELETE ") for line in proxy.lines))
    if time == "LOST_S":
        proxy.refuses = True
        proxy.cut()
    said, complaint = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, said) == (code, b"all\n")
    assert re.fullmatch(rb"procd: .*: `procd kill exec-\w+` ends what may be left.*\n", complaint)


# The server itself answers 429 to what is one connection too many.
@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_gateway_without_its_server_is_a_lost_server(cli: Cli, proxy: Proxy, status: int) -> None:
    cli.url = proxy.url
    process = cli.start("exec", "--", "sh", "-c", "echo one; read x; echo two; exit 6")
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == b"one\n"
    proxy.answer(status)
    proxy.answers = b""
    process.stdin.write(b"x\n")
    process.stdin.close()
    assert process.stdout.read() == b"two\n"
    assert process.wait(PATIENCE_S) == 6


@pytest.mark.parametrize(("status", "number"), [(401, 0), (502, 0), (502, signal.SIGTERM)])
def test_what_is_left_is_told(cli: Cli, proxy: Proxy, status: int, number: int) -> None:
    cli.url = proxy.url
    command = impatient(LOST_S=PATIENCE_S if number else 0.5)
    process = cli.start("exec", "--", "sh", "-c", "echo one; exec sleep 1000", command=command)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == b"one\n"
    proxy.answer(status)
    if number:
        interrupt(process, number)
    assert process.wait(PATIENCE_S) == (128 + number if number else 125)
    said = process.stderr.read()
    told = re.fullmatch(rb"procd: .*: `(procd kill exec-\w+)` ends what may be left.*\n", said)
    assert told is not None, said
    cli.url = cli.url.replace(str(proxy.port), str(proxy.port_behind))
    assert cli(*told[1].decode().split()[1:]).returncode == 0


def _lose_start(proxy: Proxy) -> None:
    """Have the reply to the start of a command be lost, and everything after it refused."""
    proxy.refuses_after_loss = True
    proxy.loses = b"runAsync"


def test_a_start_whose_reply_is_lost_leaves_nothing(cli: Cli, proxy: Proxy) -> None:
    url, cli.url = cli.url, proxy.url
    _lose_start(proxy)
    process = cli.start("exec", "--", "sleep", "1000")
    assert eventually(lambda: proxy.refused > 0)
    proxy.refuses = False
    assert process.wait(PATIENCE_S) == 125
    assert process.stderr is not None
    assert b"procd kill" not in process.stderr.read()
    cli.url = url
    assert b"exec-" not in cli("ps").stdout


@pytest.mark.parametrize("number", [0, signal.SIGTERM])
def test_what_is_left_of_a_start_is_told(cli: Cli, proxy: Proxy, number: int) -> None:
    url, cli.url = cli.url, proxy.url
    _lose_start(proxy)
    command = impatient(DELETE_S=PATIENCE_S if number else 0.5)
    process = cli.start("exec", "--", "sleep", "1000", command=command)
    assert process.stderr is not None
    if number:
        assert eventually(lambda: proxy.refused > 0)
        interrupt(process, number)
    assert process.wait(PATIENCE_S) == (128 + number if number else 125)
    said = process.stderr.read()
    told = re.match(rb"procd: .*: `(procd kill exec-\w+)` ends what may be left.*\n", said)
    assert told is not None, said
    cli.url = url
    assert cli(*told[1].decode().split()[1:]).returncode == 0


@pytest.mark.parametrize("what", [b"dataBase64", b"eof"])
def test_input_arrives_once_though_the_reply_is_lost(cli: Cli, proxy: Proxy, what: bytes) -> None:
    cli.url = proxy.url
    process = cli.start("exec", "--", "sh", "-c", "cat; echo end")
    assert process.stdin is not None
    assert process.stdout is not None
    lines = [b"line %d\n" % number for number in range(3)]
    for number, line in enumerate(lines):
        if number == 1:
            proxy.loses = what
        process.stdin.write(line)
        process.stdin.flush()
        assert process.stdout.readline() == line
    process.stdin.close()
    assert process.stdout.read() == b"end\n"
    assert process.wait(PATIENCE_S) == 0
    assert not proxy.loses


def test_much_input_through_lost_connections(cli: Cli, proxy: Proxy) -> None:
    cli.url = proxy.url
    data = os.urandom(3_000_000)
    process = cli.start("exec", "--", "cat")
    assert process.stdin is not None
    assert process.stdout is not None
    writing = threading.Thread(target=_write, args=(process.stdin, data))
    writing.start()
    seen = b""
    for _ in range(5):
        seen += process.stdout.read(300_000)
        proxy.cut()
    seen += process.stdout.read()
    writing.join()
    assert seen == data
    assert process.wait(PATIENCE_S) == 0


def _write(pipe: IO[bytes], data: bytes) -> None:
    with pipe:
        pipe.write(data)


def test_nothing_is_left(cli: Cli) -> None:
    for words in (("true",), ("no-such-command",), ("sh", "-c", "kill -9 $PPID")):
        cli("exec", "--", *words)
    result = cli("exec", "--", "curl", "-s", f"{cli.url}/process/session")
    assert len(re.findall(rb'"sessionId"', result.stdout)) == 1  # its own


def test_what_is_refused_at_first_stays_so(cli: Cli, proxy: Proxy) -> None:
    cli.url = proxy.url
    proxy.answers = b"HTTP/1.1 429 X\r\nContent-Length: 0\r\n\r\n"
    result = cli("exec", "--", "true")
    assert (result.returncode, result.stderr) == (125, b"procd: the server answered 429\n")


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


@pytest.mark.parametrize(
    "command", [["-m", "procd"], ["-c", "import procd.cli.main as m; m.main()"]]
)
@pytest.mark.parametrize("arguments", [["exec", "--", "true"], ["--version"], ["--help"]])
def test_what_it_imports(cli: Cli, command: list[str], arguments: list[str]) -> None:
    result = subprocess.run(
        [sys.executable, "-X", "importtime", *command, *arguments],
        capture_output=True, env=cli.env(), check=True, stdin=subprocess.DEVNULL,
        timeout=PATIENCE_S,
    )  # fmt: skip
    lines = result.stderr.decode().splitlines()
    imported = {line.rpartition("|")[2].strip() for line in lines}
    assert "procd.cli.main" in imported
    assert not imported & set(HEAVY)


def test_installed_command_is_the_light_one() -> None:
    text = Path(PROCD[0]).read_text()
    assert "procd.cli.main" in text
    assert os.access(PROCD[0], os.X_OK)
