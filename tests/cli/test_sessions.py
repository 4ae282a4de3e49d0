"""procd ps, sessions, logs, input and kill."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest
from rich.cells import cell_len

from tests.cli.conftest import PROCD, Cli
from tests.cli.proxy import Proxy
from tests.cli.screen import Screen
from tests.daemon.daemon import PATIENCE_S

Call = Callable[..., Any]


@pytest.fixture
def call(cli: Cli) -> Call:
    """Call the API without the command line."""
    url = cli.url

    def make(method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urlopen(Request(url + path, data, method=method), timeout=PATIENCE_S) as reply:
            text = reply.read()
        return json.loads(text) if text else None

    return make


@pytest.fixture
def session(call: Call) -> Iterator[str]:
    """A session that is gone after the test."""
    name = f"s {time.monotonic_ns()}"
    path = f"/process/session/{name.replace(' ', '%20')}"
    call("POST", "/process/session", {"sessionId": name})
    yield name
    try:
        call("DELETE", path)
    except HTTPError as exc:
        exc.close()
        if exc.code != 404:
            raise


def start(call: Call, session: str, command: str) -> str:
    """Start a command, and give its id."""
    path = f"/process/session/{session.replace(' ', '%20')}/exec"
    command_id: str = call("POST", path, {"command": command, "runAsync": True})["cmdId"]
    return command_id


def test_json_for_a_terminal(cli: Cli, call: Call, session: str) -> None:
    """As any other output, it has nothing that a terminal would obey; what is read is the same."""
    text = "echo '\x1b[1m \x7f \x85 \x9b1m é'"
    start(call, session, text)
    said = cli("sessions", "--json").stdout
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", said.decode())
    (found,) = (each for each in json.loads(said) if each["sessionId"] == session)
    assert found["commands"][0]["command"] == text
    assert "é" in said.decode()


def test_lists(cli: Cli, call: Call, session: str) -> None:
    call(
        "POST",
        "/process/session/" + session.replace(" ", "%20") + "/exec",
        {"command": "exit_=7; (exit 7)"},
    )
    running = start(call, session, "cat\nmore of it")
    rows = cli("sessions").stdout.decode().splitlines()
    assert rows[0].split() == ["SESSION", "COMMAND", "STATE", "AGE", "TEXT"]
    own = [row for row in rows if row.startswith(session)]
    assert "  exit 7  " in own[0]
    assert f"  {running[:8]}  running  " in own[1]
    assert own[1].endswith("  cat")
    document = json.loads(cli("sessions", "--json").stdout)
    found = next(each for each in document if each["sessionId"] == session)
    assert [each.get("exitCode") for each in found["commands"]] == [7, None]
    (row,) = (row for row in cli("ps").stdout.decode().splitlines() if session in row)
    assert row.split()[0] == "session"
    assert row.endswith("  2 commands, last: cat")
    everything = json.loads(cli("ps", "--json").stdout)
    assert everything.keys() == {"terminals", "sessions", "contexts"}
    call("POST", "/process/pty", {"id": "listed", "cols": 90, "rows": 30, "cwd": "/usr"})
    (row,) = (row for row in cli("ps").stdout.decode().splitlines() if "listed" in row)
    assert row.endswith("  90x30 /usr")
    assert cli("kill", "listed").returncode == 0
    assert b"listed" not in cli("ps").stdout


def test_a_session_whose_shell_has_exited(cli: Cli, call: Call, session: str) -> None:
    path = f"/process/session/{session.replace(' ', '%20')}"
    call("POST", f"{path}/exec", {"command": "exit 3"})
    (row,) = (row for row in cli("ps").stdout.decode().splitlines() if session in row)
    assert "  ended  " in row


def test_a_table_for_people(cli: Cli, call: Call, session: str) -> None:
    start(call, session, "printf '\x1b[31mred'")
    screen = Screen([*PROCD, "sessions"], cli.env(TERM="xterm-256color"), cols=100)
    try:
        assert screen.wait() == 0
        assert b"\x1b[1m" in screen.seen  # a bold header
        assert b"\x1b[31mred" not in screen.seen  # what others wrote is no command to this terminal
        assert session.encode() in screen.seen
    finally:
        screen.close()


@pytest.mark.parametrize("cols", [30, 80])
@pytest.mark.parametrize("listing", ["ps", "sessions"])
def test_a_long_command_leaves_room_for_the_ids(
    cli: Cli, call: Call, session: str, listing: str, cols: int
) -> None:
    command = start(call, session, "sleep 1000 # " + "x" * 2000)
    call("POST", "/process/pty", {"id": "日本"})  # two cells each
    screen = Screen([*PROCD, listing], cli.env(TERM="xterm"), cols=cols)
    try:
        assert screen.wait() == 0
        about = "1 command, last: " if listing == "ps" else "sleep 1000"
        found = re.search(rf"^.*{session}.*$", screen.seen.decode(), re.MULTILINE)
        assert found is not None
        row = found.group().rstrip("\r")
        head, _, text = row.partition("  running  ")
        assert text.endswith("…")
        if cols == 80:
            assert cell_len(row) == 80
            assert about in text
        assert (command[:8] in head) == (listing == "sessions")
    finally:
        screen.close()
        call("DELETE", "/process/pty/" + quote("日本"))


def test_logs(cli: Cli, call: Call, session: str) -> None:
    first = start(call, session, "echo one; echo two >&2; printf '\\001\\001\\001x'")
    start(call, session, "echo newest")
    call("GET", f"/process/session/{session.replace(' ', '%20')}/command/{first}?wait=10")
    assert cli("logs", "-f", session).stdout == b"newest\n"
    result = cli("logs", session, first[:8])
    assert (result.stdout, result.stderr) == (b"one\n\x01\x01\x01x", b"two\n")
    document = json.loads(cli("logs", "--json", session, first).stdout)
    assert document["stderr"] == "two\n"
    result = cli("logs", "--since-offset", "3", session, first)
    assert (result.stdout + result.stderr).startswith((b"\n\x01", b"\ntwo", b"\n"))
    assert len(result.stdout + result.stderr) == 12 - 3


def restart(proxy: Proxy) -> None:
    """Be a gateway whose server is away for a moment."""
    proxy.answer(502)
    proxy.answers = b""


def crowd(proxy: Proxy) -> None:
    """Be a server that has too many connections for a moment."""
    proxy.answer(429)
    proxy.answers = b""


@pytest.mark.parametrize("cut", [Proxy.cut, restart, crowd])
def test_logs_that_follow(
    cli: Cli, call: Call, session: str, proxy: Proxy, cut: Callable[[Proxy], None]
) -> None:
    command = start(call, session, "echo one; read x; echo two; read x; echo err >&2")
    cli.url = proxy.url
    process = cli.start("logs", "--follow", session)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == b"one\n"
    cut(proxy)
    assert cli("input", session, command, "x").returncode == 0
    assert [process.stdout.readline() for _ in range(2)] == [b"x\n", b"two\n"]
    assert cli("input", session, command[:6], stdin=b"y\n").returncode == 0
    assert process.wait(PATIENCE_S) == 0
    assert process.stdout.read() == b"y\n"
    assert process.stderr.read() == b"err\n"


def test_logs_that_are_quiet_between_two_losses(
    cli: Cli, call: Call, session: str, proxy: Proxy
) -> None:
    command = start(call, session, "echo one; read x; echo two")
    cli.url = proxy.url
    code = "from procd.cli import main, outage; outage.LOST_S = outage.STEADY_S = 0.3; main.main()"
    process = cli.start("logs", "-f", session, command=(sys.executable, "-c", code))
    assert process.stdout is not None
    assert process.stdout.readline() == b"one\n"
    for _ in range(2):
        proxy.cut()
        time.sleep(1.0)  # in which it is found, and by which the first loss is long ago
    assert cli("input", session, command, "x").returncode == 0
    assert process.stdout.read() == b"x\ntwo\n"
    assert process.wait(PATIENCE_S) == 0


def test_logs_in_colour(cli: Cli, call: Call, session: str) -> None:
    start(call, session, "echo fine; echo bad >&2")
    screen = Screen([*PROCD, "logs", "-f", session], cli.env(TERM="xterm-256color"))
    try:
        assert screen.wait() == 0
        assert b"\x1b[31mbad\r\n\x1b[39m" in screen.seen
        assert b"fine\r\n" in screen.seen
    finally:
        screen.close()


def test_input(cli: Cli, call: Call, session: str) -> None:
    command = start(call, session, 'read x; echo "<$x>"; od -An -tx1; echo over')
    assert cli("input", session, command, "").returncode == 0
    assert cli("input", session, command, stdin=b"\xff\x00a").returncode == 0
    assert cli("input", "--eof", session, command).returncode == 0
    assert cli("logs", "-f", session).stdout == b"\n<>\n\xff\x00a ff 00 61\nover\n"
    with open("/dev/null", "wb") as unreadable:
        process = cli.start("input", session, command, stdin=unreadable)
    assert process.wait(PATIENCE_S) == 1
    assert process.stderr is not None
    assert process.stderr.read() == b"procd: can't read standard input: Bad file descriptor\n"
    result = cli("input", session, command, "late")
    assert result.returncode == 1
    assert result.stderr == b"procd: command has already completed with exit code 0\n"


def test_input_and_its_end(cli: Cli, call: Call, session: str, tmp_path: Path) -> None:
    command = start(call, session, "wc -c")
    (tmp_path / "words").write_text("one\ntwo\n")
    with (tmp_path / "words").open() as words:
        process = cli.start("input", "--eof", session, command, stdin=words)
        assert process.stderr is not None
        assert b"--eof alone doesn't read standard input: give `-`" in process.stderr.read()
        assert process.wait(PATIENCE_S) == 2
        assert cli.start("input", session, command, "-", stdin=words).wait(PATIENCE_S) == 0
    assert cli("input", "--eof", session, command, "-", stdin=b"xyz").returncode == 0
    assert cli("logs", "-f", session).stdout.endswith(b"11\n")
    with (tmp_path / "words").open("rb", buffering=0) as words:
        words.readline()  # as a loop of a shell does
        command = start(call, session, "wc -c")
        arguments = ("input", "--eof", session, command)
        assert cli.start(*arguments, stdin=words).wait(PATIENCE_S) == 0
    assert cli("logs", "-f", session, command).stdout == b"0\n"


def test_kill(cli: Cli, call: Call, session: str) -> None:
    path = f"/process/session/{session.replace(' ', '%20')}"
    command = start(call, session, "sleep 1000")
    assert cli("kill", "--signal", "int", session, command).returncode == 0
    assert call("GET", f"{path}/command/{command}?wait=10")["exitCode"] == 130
    command = start(call, session, "sleep 1000")
    assert cli("kill", session, command).returncode == 0
    assert call("GET", f"{path}/command/{command}?wait=10")["exitCode"] == 143
    call("POST", "/process/pty", {"id": session})
    result = cli("kill", session)
    assert result.returncode == 1
    assert result.stderr.endswith(b"is a terminal and a session: say which one with --kind\n")
    assert cli("kill", "--kind", "session", session).returncode == 0
    assert cli("kill", session).returncode == 0
    assert cli("kill", session).returncode == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["logs", "nope"], "there is no session nope: `procd sessions` lists them"),
        (["input", "nope", "x", "y"], "there is no session nope: `procd sessions` lists them"),
        (["kill", "nope"], "there is nothing named nope: `procd ps` lists what there is"),
        (["record", "nope", "/dev/null"], "there is no terminal nope: `procd ps` lists them"),
    ],
)
def test_what_is_not_there(cli: Cli, arguments: list[str], message: str) -> None:
    result = cli(*arguments)
    assert result.returncode == 1
    assert result.stderr.decode() == f"procd: {message}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["logs", "\udcff"], ["kill", "\udcff"], ["input", "\udcff", "x", "y"],
        ["record", "\udcff", "/dev/null"], ["python", "-c", "\udcff"],
    ],
)  # fmt: skip
def test_a_name_that_is_not_utf_8(cli: Cli, arguments: list[str]) -> None:
    result = cli(*arguments)
    assert result.returncode == 1
    assert result.stderr.startswith(b"procd: ")
    assert result.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["logs", ""], ["logs", "s", ""], ["input", "", "c", "x"], ["input", "s", "", "x"],
        ["kill", ""], ["kill", "s", ""], ["record", "", "/dev/null"], ["python", "--context", ""],
    ],
)  # fmt: skip
def test_a_name_is_not_empty(cli: Cli, arguments: list[str]) -> None:
    """It is that of a variable that isn't set."""
    result = cli(*arguments)
    assert result.returncode == 2
    assert re.search(rb"\nError: Invalid value for '.+': must not be empty\n$", result.stderr)


def test_unknown_command_of_a_session(cli: Cli, call: Call, session: str) -> None:
    assert b"has run no command" in cli("logs", session).stderr
    start(call, session, "true")
    assert b"no command begins with zz" in cli("logs", session, "zz").stderr


def test_completion(cli: Cli, call: Call, session: str) -> None:
    command = start(call, session, "true")
    name = session.replace(" ", "\\ ")
    for words, word, expected in (
        ("procd ", "1", "attach"),
        ("procd logs ", "2", session),
        (f"procd logs {name} ", "3", command),
        ("procd kill s", "2", session),
    ):
        result = cli(_PROCD_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=word)
        assert f"plain,{expected}" in result.stdout.decode().splitlines()
    context = call("POST", "/process/interpreter/context", {})["id"]
    words = "procd python --context "
    result = cli(_PROCD_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD="3")
    assert f"plain,{context}" in result.stdout.decode().splitlines()
    call("DELETE", f"/process/interpreter/context/{context}")
    for shell in ("bash", "zsh", "fish"):
        assert b"_PROCD_COMPLETE" in cli("completion", shell).stdout
    url = "http://127.0.0.1:1"
    result = cli(
        _PROCD_COMPLETE="bash_complete", COMP_WORDS="procd logs ", COMP_CWORD="2", PROCD_URL=url
    )
    assert (result.stdout.strip(), result.stderr) == (b"", b"")


@pytest.mark.parametrize("begin", ["zz", "'zz", '"zz', "zz\\ "])
def test_completion_is_no_code(cli: Cli, call: Call, tmp_path: Path, begin: str) -> None:
    """Others choose the ids."""
    name = "zz $(touch pwned)`touch pwned`;touch pwned;*'\"\\"
    call("POST", "/process/session", {"sessionId": name})
    rc = tmp_path / "rc"
    rc.write_bytes(b"PS1='> ' HISTFILE=\n" + cli("completion", "bash").stdout)
    env = cli.env(PATH=f"{Path(PROCD[0]).parent}:{os.environ['PATH']}", TERM="dumb")
    screen = Screen(["bash", "--rcfile", str(rc), "-i"], env, cols=200)
    try:
        screen.until(rb"> ")
        screen.type(f"cd {tmp_path}\nprocd logs {begin}\t".encode())
        if begin[:2] == "zz":
            screen.until(rb"\$")
            screen.type(b"\n")
            screen.until(re.escape(f"session {name} has run no command".encode()))
        else:
            screen.type(begin[:1].encode() + b"\n")
            screen.until(rb"there is no session zz:")
        screen.type(b"exit\n")
        screen.wait()
    finally:
        screen.close()
        call("DELETE", f"/process/session/{quote(name, safe='')}")
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
