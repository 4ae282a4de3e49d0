"""procd ps, sessions, logs, input, kill and completion."""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.cli.conftest import PROCD, Cli, OpenScreen
from tests.daemon.daemon import PATIENCE_S
from tests.proxy import Proxy


class Session:
    """A session of the server."""

    def __init__(self, cli: Cli, name: str) -> None:
        self.name = name
        self.path = f"/process/session/{quote(name, safe='')}"
        self._call = cli.call
        self._call("POST", "/process/session", {"sessionId": name})

    def start(self, command: str, *, runs_on: bool = True) -> str:
        body = {"command": command, "runAsync": runs_on}
        command_id: str = self._call("POST", f"{self.path}/exec", body)["cmdId"]
        return command_id

    def exit_code(self, command_id: str) -> int:
        code: int = self._call("GET", f"{self.path}/command/{command_id}?wait=10")["exitCode"]
        return code


@pytest.fixture
def session(daemon: Any, home: str) -> Iterator[Session]:
    cli = Cli(daemon.url, home)
    session = Session(cli, f"s {time.monotonic_ns()}")
    yield session
    cli("kill", "--kind", "session", session.name)


def row_of(cli: Cli, command: str, name: str) -> str:
    """The row of a table that has this name."""
    (row,) = (row for row in cli(command).stdout.decode().splitlines() if name in row)
    return row


def test_lists(cli: Cli, session: Session) -> None:
    session.start("exit_=7; (exit 7)", runs_on=False)
    running = session.start("cat\nmore of it")
    rows = cli("sessions").stdout.decode().splitlines()
    assert rows[0].split() == ["SESSION", "COMMAND", "STATE", "AGE", "TEXT"]
    own = [row for row in rows if row.startswith(session.name)]
    assert "  exit 7  " in own[0]
    assert f"  {running[:8]}  running  " in own[1]
    assert own[1].endswith("  cat")
    document = json.loads(cli("sessions", "--json").stdout)
    found = next(each for each in document if each["sessionId"] == session.name)
    assert [each.get("exitCode") for each in found["commands"]] == [7, None]
    row = row_of(cli, "ps", session.name)
    assert row.split()[0] == "session"
    assert row.endswith("  2 commands, last: cat")
    everything = json.loads(cli("ps", "--json").stdout)
    assert everything.keys() == {"terminals", "sessions", "contexts"}
    cli.call("POST", "/process/pty", {"id": "listed", "cols": 90, "rows": 30, "cwd": "/usr"})
    assert row_of(cli, "ps", "listed").endswith("  90x30 /usr")
    assert cli("kill", "listed").returncode == 0
    assert b"listed" not in cli("ps").stdout
    session.start("exit 3")
    cli("kill", session.name, running)
    cli("logs", "-f", session.name)
    assert "  ended  " in row_of(cli, "ps", session.name)


def test_lists_have_nothing_that_a_terminal_obeys(
    cli: Cli, screen: OpenScreen, session: Session
) -> None:
    text = "echo '\x1b[31m \x7f \x85 \x9b1m é'"
    session.start(text)
    output = cli("sessions", "--json").stdout
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", output.decode())
    (found,) = (each for each in json.loads(output) if each["sessionId"] == session.name)
    assert found["commands"][0]["command"] == text
    assert "é" in output.decode()
    terminal = screen("sessions", cols=100)
    assert terminal.wait() == 0
    assert terminal.seen.startswith(b"\x1b[1mSESSION")  # a bold header
    assert session.name.encode() in terminal.seen
    assert b"\x1b[31m" not in terminal.seen


@pytest.mark.parametrize("cols", [30, 80])
@pytest.mark.parametrize("listing", ["ps", "sessions"])
def test_only_the_last_column_is_cut(
    cli: Cli, screen: OpenScreen, session: Session, listing: str, cols: int
) -> None:
    command = session.start("sleep 1000 # 日本" + "x" * 2000)
    cli.call("POST", "/process/pty", {"id": "日本"})  # two cells each
    terminal = screen(listing, cols=cols)
    assert terminal.wait() == 0
    cli.call("DELETE", "/process/pty/" + quote("日本"))
    found = re.search(rf"^.*{session.name}.*$", terminal.seen.decode(), re.MULTILINE)
    assert found is not None
    row = found.group().rstrip("\r")
    head, _, text = row.partition("  running  ")
    assert text.endswith("…")
    assert (command[:8] in head) == (listing == "sessions")
    if cols == 80:
        cells = len(row) + row.count("日") + row.count("本")
        assert cells == 80
        assert ("1 command, last: " if listing == "ps" else "sleep 1000") in text


def test_logs(cli: Cli, screen: OpenScreen, session: Session) -> None:
    assert b"has run no command" in cli("logs", session.name).stderr
    first = session.start("echo one; echo two >&2; printf '\\001\\001\\001x'", runs_on=False)
    session.start("echo newest; echo bad >&2")
    assert cli("logs", "-f", session.name).stdout == b"newest\n"
    result = cli("logs", session.name, first[:8])
    assert (result.stdout, result.stderr) == (b"one\n\x01\x01\x01x", b"two\n")
    document = json.loads(cli("logs", "--json", session.name, first).stdout)
    assert document["stderr"] == "two\n"
    assert cli("logs", "--json", "-f", session.name).returncode == 2
    result = cli("logs", "--since-offset", "3", session.name, first)
    assert len(result.stdout + result.stderr) == 12 - 3
    assert b"no command begins with zz" in cli("logs", session.name, "zz").stderr
    terminal = screen("logs", session.name)
    assert terminal.wait() == 0
    assert b"\x1b[31mbad\r\n\x1b[39m" in terminal.seen
    assert b"newest\r\n" in terminal.seen


@pytest.mark.parametrize(
    "lose", [Proxy.cut, lambda proxy: proxy.fail_once(502), lambda proxy: proxy.fail_once(429)]
)
def test_logs_that_follow(
    cli: Cli, session: Session, proxy: Proxy, lose: Callable[[Proxy], None]
) -> None:
    command = session.start("echo one; read x; echo two; read x; echo err >&2")
    cli.url = proxy.url
    process = cli.start("logs", "--follow", session.name)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == b"one\n"
    lose(proxy)
    assert cli("input", session.name, command, "x").returncode == 0
    assert [process.stdout.readline() for _ in range(2)] == [b"x\n", b"two\n"]
    lose(proxy)
    assert cli("input", session.name, command[:6], stdin=b"y\n").returncode == 0
    assert process.wait(PATIENCE_S) == 0
    assert process.stdout.read() == b"y\n"
    assert process.stderr.read() == b"err\n"


def test_input(cli: Cli, session: Session, tmp_path: Path) -> None:
    command = session.start('read x; echo "<$x>"; od -An -tx1; echo over')
    assert cli("input", session.name, command, "").returncode == 0
    assert cli("input", session.name, command, stdin=b"\xff\x00a").returncode == 0
    assert cli("input", "--eof", session.name, command).returncode == 0
    assert cli("logs", "-f", session.name).stdout == b"\n<>\n\xff\x00a ff 00 61\nover\n"
    result = cli("input", session.name, command, "late")
    assert result.returncode == 1
    assert result.stderr == b"procd: command has already completed with exit code 0\n"


def test_input_and_its_end(cli: Cli, session: Session, tmp_path: Path) -> None:
    command = session.start("wc -c")
    (tmp_path / "words").write_text("one\ntwo\n")
    with (tmp_path / "words").open() as words:
        process = cli.start("input", "--eof", session.name, command, stdin=words)
        assert process.stderr is not None
        assert b"--eof alone doesn't read standard input: give `-`" in process.stderr.read()
        assert process.wait(PATIENCE_S) == 2
        process = cli.start("input", session.name, command, "-", stdin=words)
        assert process.wait(PATIENCE_S) == 0
    assert cli("input", "--eof", session.name, command, "-", stdin=b"xyz").returncode == 0
    assert cli("logs", "-f", session.name).stdout.endswith(b"11\n")
    with (tmp_path / "words").open("rb", buffering=0) as words:
        words.readline()  # as a loop of a shell does
        command = session.start("wc -c")
        process = cli.start("input", "--eof", session.name, command, stdin=words)
        assert process.wait(PATIENCE_S) == 0
    assert cli("logs", "-f", session.name, command).stdout == b"0\n"


def test_kill(cli: Cli, session: Session) -> None:
    command = session.start("sleep 1000")
    assert cli("kill", "--signal", "int", session.name).returncode == 2
    assert cli("kill", "--signal", "int", session.name, command).returncode == 0
    assert session.exit_code(command) == 130
    command = session.start("sleep 1000")
    assert cli("kill", session.name, command).returncode == 0
    assert session.exit_code(command) == 143
    cli.call("POST", "/process/pty", {"id": session.name})
    result = cli("kill", session.name)
    assert result.returncode == 1
    assert result.stderr.endswith(b"is a terminal and a session: say which one with --kind\n")
    assert cli("kill", "--kind", "session", session.name).returncode == 0
    assert cli("kill", session.name).returncode == 0
    assert cli("kill", session.name).returncode == 1


@pytest.mark.parametrize("name", ["nope", "\udcff"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["logs", "NAME"], "there is no session NAME: `procd sessions` lists them"),
        (["input", "NAME", "x", "y"], "there is no session NAME: `procd sessions` lists them"),
        (["kill", "NAME"], "there is nothing named NAME: `procd ps` lists what there is"),
        (["record", "NAME", "/dev/null"], "there is no terminal NAME: `procd ps` lists them"),
        (["python", "-c", "NAME"], ""),
    ],
)
def test_a_name_that_is_not_there(cli: Cli, arguments: list[str], message: str, name: str) -> None:
    result = cli(*(name if each == "NAME" else each for each in arguments))
    assert result.returncode == 1
    assert result.stderr.startswith(b"procd: ")
    assert result.stderr.count(b"\n") == 1
    if message and name.isascii():
        assert result.stderr.decode() == f"procd: {message.replace('NAME', name)}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["logs", ""], ["logs", "s", ""], ["input", "", "c", "x"], ["input", "s", "", "x"],
        ["kill", ""], ["kill", "s", ""], ["record", "", "/dev/null"], ["python", "--context", ""],
    ],
)  # fmt: skip
def test_an_empty_name(cli: Cli, arguments: list[str]) -> None:
    """It is that of an unset variable."""
    result = cli(*arguments)
    assert result.returncode == 2
    assert re.search(rb"\nError: Invalid value for '.+': must not be empty\n$", result.stderr)


def complete(cli: Cli, words: str) -> list[str]:
    """What bash would offer behind these words."""
    word = str(words.count(" ") - words.count("\\ "))
    result = cli(_PROCD_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=word)
    assert result.stderr == b""
    return [line.removeprefix("plain,") for line in result.stdout.decode().split("\n") if line]


def test_completion(cli: Cli, session: Session) -> None:
    command = session.start("true")
    context = cli.call("POST", "/process/interpreter/context", {})["id"]
    name = session.name.replace(" ", "\\ ")
    for words, expected in (
        ("procd ", "attach"),
        ("procd logs ", session.name),
        (f"procd logs {name} ", command),
        (f"procd kill {name} ", command),
        ("procd kill s", session.name),
        ("procd kill ", context),
        ("procd python --context ", context),
    ):
        assert expected in complete(cli, words), words
    cli.call("DELETE", f"/process/interpreter/context/{context}")
    for shell in ("bash", "zsh", "fish"):
        assert b"_PROCD_COMPLETE" in cli("completion", shell).stdout
    cli.url = "http://127.0.0.1:1"
    assert complete(cli, "procd logs ") == []


@pytest.mark.parametrize("begin", ["zz", "'zz", '"zz', "zz\\ "])
def test_bash_does_not_run_completed_names(
    cli: Cli, screen: OpenScreen, tmp_path: Path, begin: str
) -> None:
    """Others choose them."""
    name = "zz $(touch pwned)`touch pwned`;touch pwned;*'\"\\"
    session = Session(cli, name)
    rc = tmp_path / "rc"
    rc.write_bytes(b"PS1='> ' HISTFILE=\n" + cli("completion", "bash").stdout)
    path = f"{Path(PROCD[0]).parent}:{os.environ['PATH']}"
    shell = screen("--rcfile", str(rc), "-i", command="bash", cols=200, PATH=path, TERM="dumb")
    shell.until(rb"> ")
    shell.type(f"cd {tmp_path}\nprocd logs {begin}\t".encode())
    if begin[:2] == "zz":
        shell.until(rb"\$")
        shell.type(b"\n")
        shell.until(re.escape(f"session {name} has run no command".encode()))
    else:
        shell.type(begin[:1].encode() + b"\n")
        shell.until(rb"there is no session zz:")
    shell.type(b"exit\n")
    shell.wait()
    cli.call("DELETE", session.path)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_completion_in_a_zsh_that_has_none(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / ".zshrc").write_bytes(cli("completion", "zsh").stdout)
    result = subprocess.run(
        ["zsh", "-i", "-c", "print -- $_comps[procd]"], env=cli.env(ZDOTDIR=str(tmp_path)),
        capture_output=True, stdin=subprocess.DEVNULL, check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    assert result.stdout == b"_procd_completion\n", result
    assert b"compdef" not in result.stderr
