"""procd run, python, record and play, and what all have in common."""

import base64
import json
import os
import re
import select
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from procd.cli.client import Client
from procd.cli.images import encode, protocol
from procd.cli.target import parse
from tests.cli.conftest import PROCD, Cli, alive, insist, interrupt
from tests.cli.proxy import Proxy
from tests.cli.screen import Screen
from tests.daemon.daemon import PATIENCE_S, eventually

Open = Callable[..., Screen]


@pytest.fixture
def screen(cli: Cli) -> Iterator[Open]:
    """Run procd in a terminal."""
    opened: list[Screen] = []

    def make(*arguments: str, **settings: str) -> Screen:
        env = cli.env(**({"TERM": "xterm-256color"} | settings))
        opened.append(Screen([*PROCD, *arguments], env, cols=100))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


def test_run(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text(
        "import os, sys\nprint(sys.argv[1:], os.environ['V'], os.getcwd())\nsys.exit(3)\n"
    )
    result = cli("run", "-C", "/usr", "-e", "V=1", str(file), "--flag", "a b")
    assert (result.returncode, result.stderr) == (3, b"")
    assert result.stdout == b"['--flag', 'a b'] 1 /usr\n"
    result = cli("run", "--json", "-e", "V=2", str(file))
    assert json.loads(result.stdout)["exitCode"] == result.returncode == 3


def test_run_standard_input(cli: Cli) -> None:
    result = cli("run", "--language", "python", "-", stdin=b"print(6 * 7)")
    assert result.stdout == b"42\n"
    result = cli("run", "-", stdin=b"print(6 * 7)")
    assert result.returncode == 1
    assert b"can't tell what language it is in: say it with --language\n" in result.stderr


def test_run_out_of_time(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text("import time\nprint('begun', flush=True)\ntime.sleep(1000)\n")
    result = cli("run", "--timeout", "1", str(file))
    assert result.returncode == 124
    assert result.stdout == b"begun\n"
    assert b"was ended after 1 s" in result.stderr


def test_run_tells_an_exit_code_from_the_end_of_time(cli: Cli) -> None:
    result = cli("run", "--timeout", "60", "--language", "python", "-", stdin=b"exit(124)")
    assert (result.returncode, result.stderr) == (124, b"")


def test_an_empty_program_does_nothing(cli: Cli) -> None:
    for arguments in (("run", "--language", "python", "-"), ("python",)):
        result = cli(*arguments)
        assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


def test_run_interrupted(cli: Cli, tmp_path: Path) -> None:
    file, pid = tmp_path / "x.py", tmp_path / "pid"
    file.write_text(
        f"import os, time\nopen({str(pid)!r}, 'w').write(f'{{os.getpid()}}.')\ntime.sleep(1000)\n"
    )
    process = cli.start("run", str(file))
    assert eventually(lambda: pid.exists() and pid.read_text().endswith("."))
    interrupt(process)
    assert process.wait(PATIENCE_S) == 130
    assert eventually(lambda: not alive(int(pid.read_text()[:-1])))


def test_progress_is_shown_to_people(screen: Open, tmp_path: Path) -> None:
    file = tmp_path / "slow.py"
    file.write_text("import time\ntime.sleep(2)\nprint('do' 'ne')\n")
    slow = screen("run", str(file))
    slow.until(rb"running [^\x1b]*slow\.py\s+\S+ \d s")
    slow.until(rb"done")
    assert slow.wait() == 0


WAITING = [
    (["ps"], b"asking the server"),
    (["sessions"], b"asking the server"),
    (["logs", "s"], b"asking the server"),
    (["logs", "-f", "s"], b"asking the server"),
    (["input", "s", "c", "x"], b"asking the server"),
    (["kill", "s"], b"ending s"),
    (["exec", "true"], b"starting the command"),
    (["attach", "t"], b"attaching to t"),
    (["record", "t", "/dev/null"], b"attaching to t"),
    (["python"], b"starting a context"),
    (["doctor"], b"asking who listens on 127.0.0.1"),
]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_progress_is_shown_wherever_it_waits(screen: Open, stalled: int, scheme: str) -> None:
    url = f"{scheme}://127.0.0.1:{stalled}"
    waiting = [
        (screen("--url", url, *arguments, PROCD_SERVER_PORT=str(stalled)), shown)
        for arguments, shown in WAITING
    ]
    for each, shown in waiting:
        each.until(rb"\r\S+ " + shown + rb"\S* \S+ 1 s\x1b\[K")
        assert eventually(partial(insist, each.process, signal.SIGTERM))
        assert each.restored()
        assert b"\x1b[?25l" not in each.seen  # the cursor was there all the time


def test_progress_leaves_no_trace(screen: Open, tmp_path: Path) -> None:
    file = tmp_path / "slow.py"
    file.write_text("import time\ntime.sleep(1.5)\n")
    slow = screen("run", str(file), TERM="dumb")
    assert slow.wait() == 0
    assert slow.seen == b""
    slow = screen("run", str(file))
    slow.until(rb"running ")
    assert slow.wait() == 0
    assert slow.seen.endswith(b"\r\x1b[K")


def png() -> str:
    """A picture of one pixel, as base64."""
    chunks = (
        (b"IHDR", struct.pack("!IIBBBBB", 1, 1, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"\0\0")),
        (b"IEND", b""),
    )
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in chunks:
        data += struct.pack("!I", len(body)) + kind + body
        data += struct.pack("!I", zlib.crc32(kind + body))
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "ghostty"}, "kitty"),
        ({"TERM_PROGRAM": "iTerm.app"}, "iterm"),
        ({"TERM": "xterm-256color"}, ""),
        ({"TERM": "xterm-kitty", "TMUX": "x"}, ""),
    ],
)
def test_protocol(environ: dict[str, str], expected: str) -> None:
    assert protocol(environ) == expected


def test_long_pictures_are_sent_in_chunks() -> None:
    text = encode("A" * 10_000, "kitty")
    parts = text.removesuffix("\x1b\\\n").split("\x1b\\")
    heads, bodies = zip(*(part.removeprefix("\x1b_G").split(";") for part in parts), strict=True)
    assert heads == ("a=T,f=100,m=1", "m=1", "m=0")
    assert "".join(bodies) == "A" * 10_000
    assert encode("AAAA", "iterm") == "\x1b]1337;File=inline=1:AAAA\x07\n"


def contexts(cli: Cli) -> list[dict[str, str]]:
    """What is left on the server."""
    with urlopen(f"{cli.url}/process/interpreter/context") as reply:
        found: list[dict[str, str]] = json.load(reply)["contexts"]
    return found


def test_python_by_a_pipe(cli: Cli) -> None:
    result = cli("python", stdin=b"x = 20\nprint(x)\nif x:\n    x += 1\n\nx * 2\n")
    assert (result.returncode, result.stdout, result.stderr) == (0, b"20\n42\n", b"")
    result = cli("python", stdin=b"\xef\xbb\xbfprint(1)\n")
    assert (result.returncode, result.stdout, result.stderr) == (0, b"1\n", b"")
    result = cli("python", stdin=b"print(1)\nraise ValueError('why')\n")
    assert result.returncode == 1
    assert result.stdout == b"1\n"
    assert b"ValueError: why" in result.stderr
    assert contexts(cli) == []


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_python_by_a_pipe_that_is_not_utf_8(cli: Cli, errors: str) -> None:
    result = cli("python", stdin=b"print('\xff')", PYTHONIOENCODING=f"utf-8:{errors}")
    assert (result.returncode, result.stdout) == (1, b"")
    assert result.stderr == b"procd: standard input: not UTF-8\n"
    assert contexts(cli) == []


@pytest.mark.parametrize(
    ("code", "expected"),
    [(b"raise SystemExit(3)", 3), (b"import sys; sys.exit()", 0), (b"exit('why')", 1)],
)
def test_python_exits_as_it_is_told(cli: Cli, code: bytes, expected: int) -> None:
    result = cli("python", stdin=b"print(1)\n" + code)
    assert (result.returncode, result.stdout) == (expected, b"1\n")
    assert result.stderr == (b"why\n" if expected == 1 else b"")
    assert contexts(cli) == []


@pytest.mark.parametrize(("typed", "expected"), [(b"exit()", 0), (b"quit(4)", 4)])
def test_python_conversation_is_left(cli: Cli, screen: Open, typed: bytes, expected: int) -> None:
    talk = screen("python")
    talk.until(rb">>> ")
    talk.type(typed + b"\n")
    assert talk.wait() == expected
    assert contexts(cli) == []


def test_python_conversation(cli: Cli, screen: Open, home: str) -> None:
    talk = screen("python")
    talk.until(rb">>> ")
    talk.type(b"def f(x):\n")
    talk.until(rb"\.\.\. ")
    talk.type(b"    return x * 7\n")
    talk.until(rb"\.\.\. ")
    talk.type(b"\n")
    talk.until(rb">>> ")
    talk.type(b"f(6)\n")
    talk.until(rb"\n42\r")
    talk.type(b"1/0\n")
    talk.until(rb"ZeroDivisionError: division by zero")
    talk.type(b"import time; print('wai' 'ting'); time.sleep(1000)\n")
    talk.until(rb"\nwaiting\r")
    talk.type(b"\x03")
    talk.until(rb"KeyboardInterrupt")
    talk.until(rb">>> ")
    talk.type(b"import asyncio; await asyncio.sleep(0, 'la' 'ter')\n")
    talk.until(rb"'later'\r\n.*>>> ")
    talk.type(b"\x04")
    assert talk.wait() == 0
    assert contexts(cli) == []
    history = Path(home) / ".local/state/procd/python_history"
    assert "f(6)\n" in history.read_text()
    assert history.stat().st_mode & 0o077 == 0
    again = screen("python")
    again.until(rb">>> ")
    again.type(b"\x1b[A")  # the key Up
    again.until(rb"asyncio\.sleep")
    again.type(b"\x03")
    again.until(rb">>> ")
    again.type(b"\x04")
    assert again.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
@pytest.mark.parametrize("busy", [False, True])
def test_python_leaves_nothing_whatever_ends_it(
    cli: Cli, screen: Open, tmp_path: Path, number: signal.Signals, busy: bool
) -> None:
    talk = screen("python", XDG_STATE_HOME=str(tmp_path))
    talk.until(rb">>> ")
    talk.type(b"x = 'wai' 'ting'\n")
    talk.until(rb">>> ")
    if busy:
        talk.type(b"import time; print(x); time.sleep(1000)\n")
        talk.until(rb"\nwaiting\r")
    talk.signal(number)
    assert talk.wait() == 128 + number
    assert talk.restored()
    assert contexts(cli) == []
    assert "x = 'wai' 'ting'\n" in (tmp_path / "procd/python_history").read_text()


def test_python_in_a_window_that_is_closed(cli: Cli, screen: Open, tmp_path: Path) -> None:
    talk = screen("python", XDG_STATE_HOME=str(tmp_path))
    talk.until(rb">>> ")
    talk.type(b"1 + 1\n")
    talk.until(rb"\n2\r")
    talk.until(rb">>> ")
    talk.hang_up()
    assert eventually(lambda: talk.ended)
    assert contexts(cli) == []
    assert "1 + 1\n" in (tmp_path / "procd/python_history").read_text()


def test_python_pictures(screen: Open) -> None:
    code = f"class P:\n  def _repr_png_(self): import base64; return base64.b64decode('{png()}')\n"
    for settings, expected in (
        ({"TERM_PROGRAM": "iTerm.app"}, rb"\x1b\]1337;File=inline=1:iVBOR"),
        ({"KITTY_WINDOW_ID": "1"}, rb"\x1b_Ga=T,f=100,m=0;iVBOR"),
        ({}, rb"\[picture: .*PNG of 1 KiB\]"),
    ):
        talk = screen("python", **settings)
        talk.until(rb">>> ")
        for line in [*code.splitlines(), ""]:
            talk.type(line.encode() + b"\n")
            talk.until(rb"\.\.\. |>>> ")
        talk.type(b"P()\n")
        talk.until(expected)
        talk.until(rb">>> ")
        talk.type(b"\x04")
        assert talk.wait() == 0


def test_python_context_that_is_kept(cli: Cli) -> None:
    result = cli("python", "--keep", stdin=b"x = 5")
    context_id = result.stderr.decode().split("--context ")[1].rstrip("]\n")
    assert cli("python", "--context", context_id, stdin=b"x").stdout == b"5\n"
    assert context_id.encode() in cli("ps").stdout
    assert cli("kill", context_id).returncode == 0
    result = cli("python", "--context", context_id, stdin=b"x")
    assert result.returncode == 1
    assert b"procd: context not found: " in result.stderr


def test_record_and_play(cli: Cli, screen: Open, tmp_path: Path) -> None:
    name, file = "recorded", str(tmp_path / "x.cast")
    terminal = screen("attach", name)
    terminal.type(b"echo be''fore\n")
    terminal.until(rb"\nbefore\r")
    recorder = cli.start("record", name, file)
    assert eventually(lambda: Path(file).exists() and "before" in Path(file).read_text())
    for cols, rows in ((111, 33), (90, 30), (111, 33)):
        terminal.resize(cols, rows)
        terminal.type(b"stty size\n")
        terminal.until(b"\n%d %d\r" % (rows, cols))
    terminal.type("echo é sec''ret; exit 3\n".encode())
    assert terminal.wait() == 3
    assert recorder.wait(PATIENCE_S) == 0
    header, *events = map(json.loads, Path(file).read_text().splitlines())
    assert header["version"] == 3
    assert header["term"] == {"cols": 100, "rows": 24, "type": "xterm-256color"}
    assert all(interval >= 0 and code in "orx" for interval, code, _ in events)
    assert events[-1][1:] == ["x", "3"]
    told = "".join(f"<{data}>" if code == "r" else data for _, code, data in events)
    # Each stands where it was: before what the programs say that know of it.
    assert re.findall(r"<\d+x\d+>|\n\d+ \d+\r", told) == [
        "<111x33>", "\n33 111\r", "<90x30>", "\n30 90\r", "<111x33>", "\n33 111\r",
    ]  # fmt: skip
    shown = "".join(data for _, code, data in events if code == "o")
    assert "\nbefore\r" in shown
    assert "\né secret\r" in shown
    result = cli("play", "--speed", "1000", "--idle-limit", "0", file)
    assert result.returncode == 0
    assert result.stdout.decode() == shown


def test_record_until_interrupted(cli: Cli, tmp_path: Path) -> None:
    urlopen(Request(f"{cli.url}/process/pty", b'{"id": "r2"}', method="POST")).close()
    file = tmp_path / "x.cast"
    recorder = cli.start("record", "r2", str(file))
    assert eventually(lambda: file.exists() and len(file.read_text().splitlines()) > 1)
    interrupt(recorder)
    assert recorder.wait(PATIENCE_S) == 0
    assert cli("kill", "r2").returncode == 0


def test_play_older_recordings(cli: Cli, screen: Open, tmp_path: Path) -> None:
    file = tmp_path / "x.cast"
    file.write_text(
        '{"version": 2, "width": 80, "height": 24, "idle_time_limit": 0.01}\n'
        '[1000, "o", "one"]\n[1000.5, "i", "typed"]\n[2000, "o", "two\\u001b[?1049h"]\n'
    )
    result = cli("play", str(file))
    assert result.stdout == b"onetwo\x1b[?1049h"
    player = screen("play", str(file))
    assert player.wait() == 0
    assert player.seen == b"onetwo\x1b[?1049h\x1b[m\x1b[?1049l"
    for text in (
        "", "x", "[]", '{"version": 1}', '{"version": 3}\n[1]', '{"version": 3}\n[Infinity,"o",""]',
        '{"version": 3}\n[NaN,"o",""]', '{"version": 3}\n[1%s,"o",""]' % ("0" * 400),
        '{"version": 3, "idle_time_limit": "1"}', '{"version": 3, "idle_time_limit": true}',
        "[" * 100_000, '{"version": 3}\n' + "[" * 100_000,
    ):  # fmt: skip
        file.write_text(text)
        result = cli("play", str(file))
        assert (result.returncode, result.stdout) == (1, b"")
        assert result.stderr.startswith(b"procd: ")
        assert result.stderr.count(b"\n") == 1


def test_play_asks_the_terminal_nothing(screen: Open, tmp_path: Path) -> None:
    file = tmp_path / "x.cast"
    events = ["one\x1b[", "6ntwo\x1b[c\x05", "\x1b[1mthree\x1b]11;?\x07", "\x1b[>c\x1b[m four\x1b["]
    lines = [json.dumps([0, "o", text]) + "\n" for text in events]
    file.write_text('{"version": 3}\n' + "".join(lines))
    player = screen("play", str(file))
    assert player.wait() == 0
    assert player.seen == b"onetwo\x1b[1mthree\x1b[m four\x1b[\x1b[m"


@pytest.mark.parametrize("option", ["--speed", "--idle-limit"])
def test_play_with_what_is_no_number(cli: Cli, option: str) -> None:
    result = cli("play", option, "nan", "/dev/null")
    assert result.returncode == 2
    assert result.stderr.endswith(b": nan is not a number.\n")


def test_play_pauses_without_end(cli: Cli, screen: Open, tmp_path: Path) -> None:
    file = tmp_path / "x.cast"
    file.write_bytes(b'{"version": 3}\n[0, "o", "\\u001b[?1000hone\xff"]\n[1e12, "o", "two"]\n')
    player = screen("play", str(file))
    player.until(rb"one")
    player.signal(signal.SIGTERM)
    assert player.wait() == 128 + signal.SIGTERM
    player.until(rb"\x1b\[\?1000l")
    assert b"two" not in player.seen


def test_record_much_output(cli: Cli, tmp_path: Path) -> None:
    urlopen(Request(f"{cli.url}/process/pty", b'{"id": "r3"}', method="POST")).close()
    file = tmp_path / "x.cast"
    recorder = cli.start("record", "r3", str(file))
    assert eventually(lambda: file.exists() and len(file.read_text().splitlines()) > 1)
    # More than the server sends to who acknowledges nothing.
    with Client(parse(cli.url)) as client:
        websocket = client.websocket("/process/pty/r3/connect")
        websocket.send(b"seq 400000; exit\n")
        echo = b""
        while b"; exit" not in echo:  # what is left unread may cost what was sent, by a reset
            select.select([websocket], [], [], PATIENCE_S)
            echo += b"".join(message.payload for message in websocket.receive())
        websocket.close()
    assert recorder.wait(PATIENCE_S) == 0
    events = [json.loads(line) for line in file.read_text().splitlines()[1:]]
    shown = "".join(data for _, code, data in events if code == "o")
    assert "".join(f"{number}\r\n" for number in range(1, 400_001)) in shown


def test_record_for_a_reader_that_leaves(cli: Cli) -> None:
    urlopen(Request(f"{cli.url}/process/pty", b'{"id": "r6"}', method="POST")).close()
    recorder = cli.start("record", "r6", "-")
    assert recorder.stdout is not None
    assert recorder.stderr is not None
    assert json.loads(recorder.stdout.readline())["version"] == 3
    recorder.stdout.close()
    with Client(parse(cli.url)) as client:
        client.call("POST", "/process/pty/r6/resize", {"cols": 91, "rows": 31})
    assert recorder.wait(PATIENCE_S) == 128 + signal.SIGPIPE
    assert recorder.stderr.read() == b""
    assert cli("kill", "r6").returncode == 0


def test_record_on_a_full_disk(cli: Cli) -> None:
    urlopen(Request(f"{cli.url}/process/pty", b'{"id": "r4"}', method="POST")).close()
    result = cli("record", "r4", "/dev/full")
    assert result.returncode == 1
    assert result.stderr == b"procd: /dev/full: No space left on device\n"
    assert cli("kill", "r4").returncode == 0


def test_recorders_say_that_they_only_look_on(cli: Cli, proxy: Proxy, tmp_path: Path) -> None:
    urlopen(Request(f"{cli.url}/process/pty", b'{"id": "r5"}', method="POST")).close()
    cli.url = proxy.url
    file = tmp_path / "x.cast"
    recorder = cli.start("record", "r5", str(file))
    assert eventually(lambda: file.exists() and len(file.read_text().splitlines()) > 1)
    interrupt(recorder)
    assert recorder.wait(PATIENCE_S) == 0
    assert proxy.lines[-1].startswith(b"GET /process/pty/r5/connect?viewer=true HTTP")
    assert cli("kill", "r5").returncode == 0


def test_colours_can_be_switched_off(screen: Open) -> None:
    talk = screen("python", NO_COLOR="1")
    talk.until(rb">>> ")
    talk.type(b"1/0\n")
    talk.until(rb"ZeroDivisionError")
    talk.until(rb">>> ")
    talk.type(b"\x04")
    assert talk.wait() == 0
    doctor = screen("doctor", NO_COLOR="1", PROCD_SERVER_PORT="0")
    assert doctor.wait() == 0
    assert b"\x1b[3" not in talk.seen + doctor.seen
    doctor = screen("doctor", PROCD_SERVER_PORT="0")
    assert doctor.wait() == 0
    assert b"\x1b[32m" in doctor.seen


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"], ["ps"], ["ps", "--json"], ["doctor"], ["completion", "bash"],
        ["python"], ["play", "/dev/stdin"],
    ],
)  # fmt: skip
def test_a_full_disk(cli: Cli, arguments: list[str]) -> None:
    stdin = b"print(1)" if "python" in arguments else b'{"version": 3}\n[0, "o", "x"]\n'
    with open("/dev/full", "wb") as full:
        process = cli.start(*arguments, stdout=full, settings={"PROCD_SERVER_PORT": "0"})
        _, said = process.communicate(stdin, PATIENCE_S)
    assert process.returncode == 1
    assert said.startswith(b"procd: can't write ")
    assert said.endswith(b": No space left on device\n")
    assert said.count(b"\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["python"], b"can't read standard input"),
        (["run", "--language", "python", "-"], b"can't read standard input"),
        (["run", "--language", "python", "/proc/self/mem"], b"/proc/self/mem"),
        (["play", "-"], b"<stdin>"),
    ],
)
def test_what_can_not_be_read(cli: Cli, arguments: list[str], said: bytes) -> None:
    with open("/dev/null", "wb") as unreadable:
        process = cli.start(*arguments, stdin=unreadable)
    assert process.wait(PATIENCE_S) == 1
    assert process.stderr is not None
    assert re.fullmatch(
        rb"procd: %s: (Bad file descriptor|Input/output error)\n" % said, process.stderr.read()
    )


def test_standard_input_that_another_has_made_non_blocking(cli: Cli) -> None:
    reading, writing = os.pipe()
    try:
        os.set_blocking(reading, False)
        process = cli.start("python", stdin=reading)
    finally:
        os.close(reading)
    assert eventually(lambda: bool(contexts(cli)))  # it reads next
    with open(writing, "wb") as code:
        code.write(b"print(6 * 7)")
    assert process.communicate(timeout=PATIENCE_S) == (b"42\n", b"")
    assert process.returncode == 0


def test_help_of_every_command(cli: Cli) -> None:
    from procd.cli.commands import COMMANDS

    for name in COMMANDS:
        result = cli(name, "--help")
        assert result.returncode == 0, result
        assert f"Usage: procd {name}".encode() in result.stdout
        assert f"Examples:\n  procd {name}".encode() in re.sub(rb"\n +", b"\n  ", result.stdout)
    listed = cli("--help").stdout.decode()
    assert all(f"  {name} " in listed for name in COMMANDS)


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("serve", "PROCD_CONFIG"),
        ("doctor", "PROCD_CONFIG"),
        ("token", "PROCD_CONFIG"),
        ("attach", "PROCD_DETACH_KEYS"),
    ],
)
def test_help_names_the_variable_of_an_option(cli: Cli, name: str, variable: str) -> None:
    assert f"[env var: {variable}" in " ".join(cli(name, "--help").stdout.decode().split())


def test_python_dash_m(cli: Cli) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "procd", "exec", "--", "echo", "x"], env=cli.env(),
        capture_output=True, stdin=subprocess.DEVNULL, check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    assert (result.returncode, result.stdout) == (0, b"x\n")
