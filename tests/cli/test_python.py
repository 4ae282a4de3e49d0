"""procd python."""

import base64
import os
import signal
import struct
import zlib
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, OpenScreen
from tests.cli.screen import Screen
from tests.daemon.daemon import PATIENCE_S, eventually


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (b"x = 20\nprint(x)\nif x:\n    x += 1\n\nx * 2\n", (0, b"20\n42\n", b"")),
        (b"\xef\xbb\xbfprint(1)\n", (0, b"1\n", b"")),
        (b"", (0, b"", b"")),
        (b"print(1)\nraise SystemExit(3)", (3, b"1\n", b"")),
        (b"import sys; sys.exit()", (0, b"", b"")),
        (b"exit('why')", (1, b"", b"why\n")),
        (b"print('\xff')", (1, b"", b"procd: standard input: not UTF-8\n")),
        (b"print(1)\nraise ValueError('why')\n", (1, b"1\n", None)),
    ],
)
def test_code_by_a_pipe(cli: Cli, code: bytes, expected: tuple[int, bytes, bytes | None]) -> None:
    result = cli("python", stdin=code, PYTHONIOENCODING="utf-8:surrogateescape")
    assert (result.returncode, result.stdout) == expected[:2]
    if expected[2] is None:
        assert b"ValueError: why" in result.stderr
    else:
        assert result.stderr == expected[2]
    assert cli.contexts() == []


def test_standard_input_that_another_program_made_non_blocking(cli: Cli) -> None:
    reading, writing = os.pipe()
    try:
        os.set_blocking(reading, False)
        process = cli.start("python", stdin=reading)
    finally:
        os.close(reading)
    assert eventually(lambda: bool(cli.contexts()))  # it reads next
    with open(writing, "wb") as code:
        code.write(b"print(6 * 7)")
    assert process.communicate(timeout=PATIENCE_S) == (b"42\n", b"")
    assert process.returncode == 0


def test_a_context_that_is_kept(cli: Cli) -> None:
    result = cli("python", "--keep", stdin=b"x = 5")
    context_id = result.stderr.decode().split("--context ")[1].rstrip("]\n")
    assert cli("python", "--context", context_id, stdin=b"x").stdout == b"5\n"
    assert context_id.encode() in cli("ps").stdout
    assert cli("kill", context_id).returncode == 0
    result = cli("python", "--context", context_id, stdin=b"x")
    assert result.returncode == 1
    assert b"procd: context not found: " in result.stderr


def type_and_wait(terminal: Screen, *dialogue: tuple[bytes, bytes]) -> None:
    """Type lines, and wait for what follows each."""
    for line, pattern in dialogue:
        if line == b"\x03":  # readline hears of a signal that comes before it waits only at a key
            assert eventually(lambda: terminal.state() == "S")
        terminal.type(line)
        terminal.until(pattern)


def test_interactive_use(cli: Cli, screen: OpenScreen, home: str) -> None:
    terminal = screen("python", cols=100)
    type_and_wait(
        terminal,
        (b"", rb">>> "),
        (b"def f(x):\n", rb"\.\.\. "),
        (b"    return x * 7\n", rb"\.\.\. "),
        (b"\n", rb">>> "),
        (b"f(6)\n", rb"\n42\r"),
        (b"1/0\n", rb"\x1b\[31m[^\x1b]*ZeroDivisionError: division by zero"),
        (b"import time; print('wai' 'ting'); time.sleep(1000)\n", rb"\nwaiting\r"),
        (b"\x03", rb"KeyboardInterrupt"),
        (b"", rb">>> "),
        (b"import asyncio; await asyncio.sleep(0, 'la' 'ter')\n", rb"'later'\r\n.*>>> "),
    )
    terminal.type(b"\x04")
    assert terminal.wait() == 0
    assert cli.contexts() == []
    history = Path(home) / ".local/state/procd/python_history"
    assert "f(6)\n" in history.read_text()
    assert history.stat().st_mode & 0o077 == 0
    again = screen("python", cols=100, NO_COLOR="1")
    type_and_wait(
        again,
        (b"", rb">>> "),
        (b"\x1b[A", rb"asyncio\.sleep"),  # the key Up
        (b"\x03", rb">>> "),
        (b"1/0\n", rb"ZeroDivisionError"),
        (b"", rb">>> "),
    )
    again.type(b"quit(4)\n")
    assert again.wait() == 4
    assert b"\x1b[31m" not in again.seen
    assert cli.contexts() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, 0])
@pytest.mark.parametrize("busy", [False, True])
def test_nothing_is_left_after_a_signal(
    cli: Cli, screen: OpenScreen, tmp_path: Path, number: int, busy: bool
) -> None:
    """Nor after its window was closed, which 0 stands for."""
    terminal = screen("python", XDG_STATE_HOME=str(tmp_path))
    type_and_wait(terminal, (b"", rb">>> "), (b"x = 'wai' 'ting'\n", rb">>> "))
    if busy:
        type_and_wait(terminal, (b"import time; print(x); time.sleep(1000)\n", rb"\nwaiting\r"))
    assert eventually(lambda: terminal.state() == "S")
    if number:
        terminal.process.send_signal(number)
        assert terminal.wait() == 128 + number
        assert terminal.restored()
    else:
        terminal.hang_up()
        terminal.process.wait(PATIENCE_S)
    assert cli.contexts() == []
    assert "x = 'wai' 'ting'\n" in (tmp_path / "procd/python_history").read_text()


def png() -> str:
    """A picture of a few thousand pixels at random, as base64."""
    chunks = (
        (b"IHDR", struct.pack("!IIBBBBB", 64, 64, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"".join(b"\0" + os.urandom(64) for _ in range(64)))),
        (b"IEND", b""),
    )
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in chunks:
        data += struct.pack("!I", len(body)) + kind + body
        data += struct.pack("!I", zlib.crc32(kind + body))
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("settings", "protocol"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM_PROGRAM": "ghostty"}, "kitty"),
        ({"KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM_PROGRAM": "iTerm.app"}, "iterm"),
        ({"TERM": "xterm-kitty", "TMUX": "x"}, ""),
        ({}, ""),
    ],
)
def test_pictures(screen: OpenScreen, settings: dict[str, str], protocol: str) -> None:
    picture = png()
    code = (
        f"class P:\n  def _repr_png_(self): import base64; return base64.b64decode('{picture}')\n"
    )
    terminal = screen("python", **settings)
    terminal.until(rb">>> ")
    for line in [*code.splitlines(), ""]:
        type_and_wait(terminal, (line.encode() + b"\n", rb"\.\.\. |>>> "))
    terminal.type(b"P()\n")
    if protocol == "kitty":
        first = terminal.until(rb"\x1b_Ga=T,f=100,m=1;([^\x1b]*)\x1b\\")[1]
        rest = terminal.until(rb"\x1b_Gm=0;([^\x1b]*)\x1b\\")[1]
        assert first + rest == picture.encode()
    elif protocol == "iterm":
        assert terminal.until(rb"\x1b\]1337;File=inline=1:([^\x07]*)\x07")[1] == picture.encode()
    else:
        terminal.until(rb"\[picture: .*PNG of \d KiB\]")
    terminal.until(rb">>> ")
    terminal.type(b"\x04")
    assert terminal.wait() == 0
