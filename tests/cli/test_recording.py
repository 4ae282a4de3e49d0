"""procd record and procd play."""

import json
import re
import signal
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, OpenScreen
from tests.daemon.daemon import PATIENCE_S, eventually
from tests.proxy import Proxy


def lines_of(file: Path) -> list[str]:
    """The lines of a recording, once there are some."""
    return file.read_text().splitlines() if file.exists() else []


def test_record_and_play(
    cli: Cli, screen: OpenScreen, name: str, proxy: Proxy, tmp_path: Path
) -> None:
    file = tmp_path / "x.cast"
    terminal = screen("attach", name, cols=100)
    terminal.type(b"echo be''fore\n")
    terminal.until(rb"\nbefore\r")
    cli.url = proxy.url
    recorder = cli.start("record", name, str(file))
    assert eventually(lambda: "before" in str(lines_of(file)))
    assert proxy.lines[-1].startswith(b"GET /process/pty/%b/connect?viewer=true" % name.encode())
    for cols, rows in ((111, 33), (90, 30), (111, 33)):
        terminal.resize(cols, rows)
        terminal.type(b"stty size\n")
        terminal.until(b"\n%d %d\r" % (rows, cols))
    # More than the server sends without acknowledgements.
    terminal.type("echo é sec''ret; seq 400000; exit 3\n".encode())
    assert terminal.wait() == 3
    assert recorder.wait(PATIENCE_S) == 0
    header, *events = map(json.loads, lines_of(file))
    assert header["version"] == 3
    assert header["term"] == {"cols": 100, "rows": 24, "type": "xterm-256color"}
    assert all(interval >= 0 and code in "orx" for interval, code, _ in events)
    assert events[-1][1:] == ["x", "3"]
    told = "".join(f"<{data}>" if code == "r" else data for _, code, data in events)
    # Each size stands before what programs that know it print.
    assert re.findall(r"<\d+x\d+>|\n\d+ \d+\r", told) == [
        "<111x33>", "\n33 111\r", "<90x30>", "\n30 90\r", "<111x33>", "\n33 111\r",
    ]  # fmt: skip
    shown = "".join(data for _, code, data in events if code == "o")
    assert "\nbefore\r" in shown
    assert "\né secret\r" in shown
    assert "".join(f"{number}\r\n" for number in range(1, 400_001)) in shown
    result = cli("play", "--speed", "1000", "--idle-limit", "0", str(file))
    assert result.returncode == 0
    assert result.stdout.decode() == shown


def test_an_interrupt_ends_the_recording(cli: Cli, name: str, tmp_path: Path) -> None:
    cli.call("POST", "/process/pty", {"id": name})
    file = tmp_path / "x.cast"
    recorder = cli.start("record", name, str(file))
    assert eventually(lambda: len(lines_of(file)) > 1)
    recorder.send_signal(signal.SIGINT)
    assert recorder.wait(PATIENCE_S) == 0


def test_a_recording_that_cannot_be_written(cli: Cli, name: str) -> None:
    cli.call("POST", "/process/pty", {"id": name})
    result = cli("record", name, "/dev/full")
    assert result.returncode == 1
    assert result.stderr == b"procd: /dev/full: No space left on device\n"
    recorder = cli.start("record", name, "-")
    assert recorder.stdout is not None
    assert recorder.stderr is not None
    assert json.loads(recorder.stdout.readline())["version"] == 3
    recorder.stdout.close()
    cli.call("POST", f"/process/pty/{name}/resize", {"cols": 91, "rows": 31})
    assert recorder.wait(PATIENCE_S) == 128 + signal.SIGPIPE
    assert recorder.stderr.read() == b""


def test_play_an_older_version(cli: Cli, screen: OpenScreen, tmp_path: Path) -> None:
    file = tmp_path / "x.cast"
    file.write_text(
        '{"version": 2, "width": 80, "height": 24, "idle_time_limit": 0.01}\n'
        '[1000, "o", "one"]\n[1000.5, "i", "typed"]\n[2000, "o", "two\\u001b[?1049h"]\n'
    )
    assert cli("play", str(file)).stdout == b"onetwo\x1b[?1049h"
    player = screen("play", str(file))
    assert player.wait() == 0
    assert player.seen.startswith(b"onetwo\x1b[?1049h")
    assert player.seen.endswith(b"\x1b[?1049l")


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "[]", '{"version": 1}', '{"version": 3}\n[1]', '{"version": 3}\n["a","o",""]',
        '{"version": 3, "idle_time_limit": "a"}',
    ],
)  # fmt: skip
def test_play_what_is_no_recording(cli: Cli, text: str) -> None:
    result = cli("play", "-", stdin=text.encode())
    assert (result.returncode, result.stdout) == (1, b"")
    assert result.stderr.startswith(b"procd: <stdin>: ")
    assert result.stderr.count(b"\n") == 1


def test_play_asks_the_terminal_nothing(screen: OpenScreen, tmp_path: Path) -> None:
    file = tmp_path / "x.cast"
    events = ["one\x1b[", "6ntwo\x1b[c\x05", "\x1b[1mthree\x1b]11;?\x07", "\x1b[>c\x1b[m four\x1b["]
    lines = [json.dumps([0, "o", text]) + "\n" for text in events]
    file.write_text('{"version": 3}\n' + "".join(lines))
    player = screen("play", str(file))
    assert player.wait() == 0
    assert player.seen.startswith(b"onetwo\x1b[1mthree\x1b[m four\x1b[")


def test_play_a_long_pause(screen: OpenScreen, tmp_path: Path) -> None:
    file = tmp_path / "x.cast"
    file.write_bytes(b'{"version": 3}\n[0, "o", "\\u001b[?1049hone\xff"]\n[1e12, "o", "two"]\n')
    player = screen("play", str(file))
    player.until(rb"one")
    player.process.send_signal(signal.SIGTERM)
    assert player.wait() == 128 + signal.SIGTERM
    assert b"two" not in player.seen
    assert player.seen.endswith(b"\x1b[?1049l")
