"""procd attach, in a real terminal."""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.api.access import Secrets
from tests.cli.conftest import Cli, OpenScreen
from tests.cli.screen import Screen
from tests.daemon.daemon import Daemon, eventually
from tests.proxy import Proxy, proxy_to

DETACH = b"\x10\x11"
Attach = Callable[..., Screen]


@pytest.fixture
def attach(screen: OpenScreen) -> Attach:
    """Run `procd attach …` in a terminal."""

    def make(*arguments: str, url: str = "", **options: object) -> Screen:
        settings = {"PROCD_URL": url} if url else {}
        return screen("attach", *arguments, **settings, **options)

    return make


def terminals(cli: Cli) -> dict[str, dict[str, object]]:
    return {each["id"]: each for each in cli.call("GET", "/process/pty")["sessions"]}


def wait_until_ready(terminal: Screen) -> None:
    terminal.type(b"echo rea''dy\n")
    terminal.until(rb"\nready\r")


def leave(terminal: Screen) -> None:
    terminal.type(DETACH)
    assert terminal.wait() == 0
    assert terminal.restored()


def test_type_and_exit(attach: Attach, name: str, cli: Cli) -> None:
    terminal = attach(name, cols=91, rows=31)
    wait_until_ready(terminal)
    assert terminal.raw
    terminal.type(b"bash -c 'echo o''n; exec sleep 1000'\n")
    terminal.until(rb"\non\r")
    terminal.type(b"\x03")  # Ctrl-C is for the program there
    terminal.until(rb"\^C")
    terminal.type(b"echo code=$?\n")
    terminal.until(rb"\ncode=130\r")
    terminal.type("echo é-\x10x; stty size; echo $TERM; exit 5\n".encode())
    terminal.until(rb"\n31 91\r\nxterm-256color\r")
    assert terminal.wait() == 5
    assert terminal.restored()
    assert name not in terminals(cli)
    assert terminal.seen.rstrip().endswith(f"[{name} has ended with exit code 5]".encode())


def test_window_size_follows(attach: Attach, name: str) -> None:
    terminal = attach(name)
    wait_until_ready(terminal)
    script = b'trap "echo now \\$(stty size)" WINCH; echo s""et; while :; do sleep 0.05; done'
    terminal.type(b"bash -c '" + script + b"'\n")
    terminal.until(rb"\nset\r")
    terminal.resize(120, 40)
    terminal.until(rb"\nnow 40 120\r")
    leave(terminal)


def test_a_window_of_unknown_size(attach: Attach, name: str, cli: Cli) -> None:
    """A serial console says 0x0."""
    terminal = attach(name, cols=0, rows=0)
    wait_until_ready(terminal)
    terminal.type(b"stty size\n")
    terminal.until(rb"\n24 80\r")
    terminal.resize(100, 30)
    assert eventually(lambda: terminals(cli)[name]["cols"] == 100)
    other = attach(name, cols=0, rows=0)
    other.until(rb"ready\r")
    other.type(b"stty size; exit 3\n")
    other.until(rb"\n30 100\r")
    assert (terminal.wait(), other.wait()) == (3, 3)


def test_leave_and_come_back(attach: Attach, name: str) -> None:
    terminal = attach(name, "--cwd", "/usr", "--env", "WORD=one two")
    wait_until_ready(terminal)
    terminal.type(b"echo kept $PWD $WORD\n")
    terminal.until(rb"\nkept /usr one two\r")
    leave(terminal)
    assert f"come back with `procd attach {name}`".encode() in terminal.seen
    again = attach(name, "--no-create")
    again.until(rb"\nkept /usr one two\r")
    again.type(b"exit 3\n")
    assert again.wait() == 3


def test_a_detach_key_alone_is_sent_on(attach: Attach, name: str) -> None:
    terminal = attach(name)
    wait_until_ready(terminal)
    terminal.type(b"\x10")
    terminal.until(rb"echo rea''dy")  # the line before: nothing else is typed
    terminal.type(b"\x11\n")
    terminal.until(rb"\nready\r")
    leave(terminal)


@pytest.mark.parametrize(
    ("keys", "typed"),
    [
        ("ctrl-a,d", [b"\x01", b"d"]),
        ("ctrl-A,d", [b"\x01d"]),
        ("ctrl-@", [b"\0"]),
        ("~,~,.", [b"~~", b"~."]),
    ],
)
def test_other_detach_keys(attach: Attach, name: str, keys: str, typed: list[bytes]) -> None:
    terminal = attach(name, "--detach-keys", keys)
    wait_until_ready(terminal)
    terminal.type(b"echo \x10\x11; echo still'' here\n")
    terminal.until(rb"\nstill here\r")
    for each in typed:
        terminal.type(each)
    assert terminal.wait() == 0
    assert terminal.restored()


@pytest.mark.parametrize("key", ["ctrl-", "ctrl-1", "ctrl-ab", "ab", "é"])
def test_bad_detach_keys(cli: Cli, key: str) -> None:
    result = cli("attach", "--detach-keys", key, "x")
    assert result.returncode == 1
    assert f"--detach-keys {key}: {key}: no such key" in result.stderr.decode()


def test_without_a_name_one_is_made(attach: Attach, cli: Cli) -> None:
    terminal = attach()
    wait_until_ready(terminal)
    leave(terminal)
    made = terminal.until(rb"procd attach (t-[0-9a-f]{6})`").group(1).decode()
    assert made in terminals(cli)
    assert cli("kill", made).returncode == 0


@pytest.mark.parametrize("option", ["--no-create", "--view"])
def test_a_terminal_that_is_not_there(attach: Attach, name: str, option: str) -> None:
    terminal = attach(name, option)
    assert terminal.wait() == 1
    assert terminal.restored()
    message = f"procd: there is no terminal {name}: `procd ps` lists them\r\n"
    assert terminal.seen == message.encode()


def test_without_a_terminal_here(cli: Cli, name: str) -> None:
    result = cli("attach", name)
    assert result.returncode == 1
    assert result.stderr.startswith(b"procd: input and output must be a terminal: ")
    assert name not in terminals(cli)


def test_a_viewer_only_watches(attach: Attach, name: str, proxy: Proxy) -> None:
    terminal = attach(name)
    wait_until_ready(terminal)
    viewer = attach("--view", name, url=proxy.url, cols=40, rows=10)
    viewer.until(rb"\nready\r")
    viewer.type(b"echo from the viewer\n")
    viewer.resize(50, 12)
    terminal.type(b"echo the size is $(stty size)\n")
    viewer.until(rb"\nthe size is 24 80\r")
    assert b"from the viewer" not in terminal.seen + viewer.seen
    viewer.type(b"\x03")
    assert viewer.wait() == 0
    assert viewer.restored()
    assert [line.split()[1].decode() for line in proxy.lines if b"connect" in line] == [
        f"/process/pty/{name}/connect?viewer=true&modes=true"
    ]
    terminal.type(b"exit\n")
    assert terminal.wait() == 0


def test_a_token_that_may_only_read(
    cli: Cli, screen: OpenScreen, home: str, tmp_path: Path
) -> None:
    secrets = Secrets(tmp_path / "tokens")
    with Daemon.start(env={"HOME": home, "PROCD_AUTH_TOKEN_FILE": str(secrets.path)}) as daemon:
        settings = {"PROCD_URL": daemon.url}
        terminal = screen("attach", "t", PROCD_TOKEN=secrets.write, **settings)
        wait_until_ready(terminal)
        reader = screen("attach", "t", "--no-create", PROCD_TOKEN=secrets.read, **settings)
        reader.until(rb"this token may only look on: Ctrl-C leaves")
        reader.until(rb"\nready\r")
        reader.type(b"echo from the reader\n")
        terminal.type(b"echo the size is $(stty size)\n")
        reader.until(rb"\nthe size is 24 80\r")
        assert b"from the reader" not in terminal.seen + reader.seen
        reader.type(b"\x03")
        assert reader.wait() == 0
        assert reader.restored()


def test_the_terminal_that_was_used_last_answers_queries(attach: Attach, name: str) -> None:
    terminal = attach(name)
    wait_until_ready(terminal)
    other = attach(name)
    other.until(rb"ready\r")
    for number, (active, quiet) in enumerate([(terminal, other), (other, terminal)] * 2):
        active.type(b"printf '%%d\\033[6n\\033[c.\\n' %d\n" % number)
        active.until(rb"\n%d\x1b\[6n\x1b\[c\.\r" % number)
        quiet.until(rb"\n%d\.\r" % number)
    leave(other)
    terminal.type(b"printf 'end\\033[6n.\\n'; exit\n")
    terminal.until(rb"\nend\x1b\[6n\.\r")
    assert terminal.wait() == 0


@pytest.mark.parametrize("arguments", [(), ("--view",)])
def test_much_output(attach: Attach, name: str, arguments: tuple[str, ...]) -> None:
    terminal = attach(name)
    wait_until_ready(terminal)
    other = attach(name, *arguments)
    other.until(rb"ready\r")
    terminal.type(b"seq -f '%.0f.' 150000; exit 3\n")
    assert (terminal.wait(), other.wait()) == (3, 3)
    for each in (terminal, other):
        numbers = re.findall(rb"\n(\d+)\.\r", each.seen)
        assert numbers == [b"%d" % number for number in range(1, 150_001)]


def test_modes_that_programs_set_are_reset(attach: Attach, name: str) -> None:
    terminal = attach(name)
    wait_until_ready(terminal)
    on = rb"\033[?1049h\033[?1002h\033[?2004h\033[>4;2m\033[?5h\033[4h\033(0\033[?25lfull"
    terminal.type(b"printf '" + on + b"'; read x\n")
    terminal.until(rb"\x1b\[\?25lfull")
    begin = len(terminal.seen)
    leave(terminal)
    end = terminal.seen[begin:]
    reset = {
        prefix + number + suffix
        for prefix, numbers, suffix in re.findall(rb"\x1b\[([?>]?)([0-9;]+)([hlm])", end)
        for number in numbers.split(b";")
    }
    assert {b"?1002l", b"?2004l", b"?1049l", b"?25h", b">4m", b"?5l", b"4l"} <= reset
    assert b"\x1b(B" in end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_signals_leave_a_restored_terminal(
    attach: Attach, name: str, cli: Cli, number: signal.Signals
) -> None:
    terminal = attach(name)
    wait_until_ready(terminal)
    terminal.process.send_signal(number)
    assert terminal.wait() == 128 + number
    assert terminal.restored()
    assert name in terminals(cli)


def test_a_full_terminal_can_be_left(attach: Attach, name: str) -> None:
    terminal = attach(name)
    wait_until_ready(terminal)
    terminal.type(b"yes\n")
    terminal.until(rb"y\r\ny\r\n")
    # Nobody reads what is printed here: it is stuck in a write.
    terminal.process.send_signal(signal.SIGTERM)
    terminal.process.wait(10)
    assert terminal.restored()


def test_a_lost_connection_is_resumed(attach: Attach, name: str, proxy: Proxy) -> None:
    terminal = attach(name, url=proxy.url)
    wait_until_ready(terminal)
    terminal.type(b"stty -echo; for i in $(seq 300); do echo line $i.; sleep 0.005; done\n")
    terminal.until(rb"line 30\.")
    for _ in range(3):
        proxy.down()
        terminal.until(rb"trying again, the detach keys leave")
        proxy.up()
        terminal.until(rb"connected again")
    terminal.until(rb"line 300\.")
    text = re.sub(rb"\r\n\x1b\[7m\[procd:[^\]]*\]\x1b\[27m\r\n", b"", terminal.seen)
    assert [int(each) for each in re.findall(rb"line (\d+)\.", text)] == list(range(1, 301))
    for status in (429, 502, 503, 504):  # what a gateway without its server answers
        proxy.down(status)
        terminal.until(rb"trying again, the detach keys leave")
        proxy.up()
        terminal.until(rb"connected again")
    terminal.type(b"exit 4\n")
    assert terminal.wait() == 4


def test_it_ended_while_the_connection_was_lost(attach: Attach, name: str, proxy: Proxy) -> None:
    terminal = attach(name, url=proxy.url)
    wait_until_ready(terminal)
    terminal.type(b"sleep 0.3; echo good''bye; exit 6\n")
    terminal.until(rb"exit 6\r")
    proxy.down()
    terminal.until(rb"trying again")
    proxy.up()
    terminal.until(rb"goodbye\r")
    assert terminal.wait() == 6
    assert terminal.restored()


def test_a_lost_server_can_be_left(attach: Attach, name: str, proxy: Proxy) -> None:
    terminal = attach(name, url=proxy.url)
    wait_until_ready(terminal)
    proxy.down()
    terminal.until(rb"trying again, the detach keys leave")
    leave(terminal)


@pytest.mark.parametrize("retry_s", ["0", "0.5"])
def test_a_killed_server(attach: Attach, home: str, retry_s: str) -> None:
    with Daemon.start(env={"HOME": home}) as daemon:
        terminal = attach("doomed", "--retry", retry_s, url=daemon.url)
        wait_until_ready(terminal)
        daemon.stop(signal.SIGKILL)
        assert terminal.wait() == 1
        assert terminal.restored()
        assert b"come back with `procd attach doomed`\r\n" in terminal.seen


def test_a_restarted_server_has_other_terminals(attach: Attach, home: str) -> None:
    with Daemon.start(env={"HOME": home}) as daemon, proxy_to(daemon.port) as proxy:
        terminal = attach("old", url=proxy.url)
        wait_until_ready(terminal)
        with Daemon.start(env={"HOME": home}) as other:
            proxy.port_behind = other.port
            daemon.stop()
            assert terminal.wait() == 1
        assert terminal.restored()
        message = b"procd: Failed to connect to PTY session: PTY session old not found"
        assert message in terminal.seen


FULL_SCREEN = r"""
trap 'printf "<%s>" "$(stty size)"' WINCH
printf '\033[?1049h\033[?1000;1006hbegun'
seq 60000
printf over
while :; do read line; done
"""


@pytest.fixture
def full_screen(attach: Attach, name: str, proxy: Proxy, tmp_path: Path) -> Screen:
    """A terminal with a full-screen program that has drawn more than a replay holds."""
    (tmp_path / "draw").write_text(FULL_SCREEN)
    terminal = attach(name, url=proxy.url, cols=40)
    wait_until_ready(terminal)
    terminal.type(f"exec sh {tmp_path}/draw\n".encode())
    terminal.until(rb"60000\r\nover")
    return terminal


def test_a_full_screen_program_is_shown_whole(
    attach: Attach, name: str, full_screen: Screen
) -> None:
    leave(full_screen)
    terminal = attach(name)
    terminal.until(rb"60000\r\nover.*<23 80><24 80>")
    assert b"begun" not in terminal.seen
    modes = terminal.seen.index(b"\x1b[?1049h\x1b[?1000h\x1b[?1006h")
    assert modes < terminal.seen.index(b"59999")
    leave(terminal)
    assert b"\x1b[?1049l" in terminal.seen


def test_a_full_screen_program_after_a_lost_connection(full_screen: Screen, proxy: Proxy) -> None:
    for _ in range(2):
        proxy.cut()
        message = rb"\x1b7\x1b\[24;1H\x1b\(B\x0f\x1b\[0;7m(\[procd: .*?)\x1b\[m\x1b\[K\x1b8"
        assert len(full_screen.until(message)[1]) == 39
        full_screen.until(rb"connected again\].*<23 40><24 40>")
    leave(full_screen)


def test_suspended_and_continued(attach: Attach, name: str, full_screen: Screen) -> None:
    """All is shown again then."""
    full_screen.process.send_signal(signal.SIGTSTP)
    full_screen.until(rb"\x1b\[\?1049l")
    assert eventually(full_screen.suspended)
    full_screen.process.send_signal(signal.SIGCONT)
    full_screen.until(rb"\x1b\[H\x1b\[2J\x1b\[\?1049h\x1b\[\?1000h\x1b\[\?1006h")
    full_screen.until(rb"60000\r\nover.*<23 40><24 40>")
    assert full_screen.raw
    leave(full_screen)


def test_it_ended_while_suspended(attach: Attach, name: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    terminal = attach(name)
    other = attach(name)
    wait_until_ready(terminal)
    terminal.type(f"read x <{gate}; echo last; exit 7\n".encode())
    other.until(rb"exit 7\r")
    terminal.process.send_signal(signal.SIGTSTP)
    assert eventually(terminal.suspended)
    gate.write_text("\n")
    assert other.wait() == 7
    terminal.process.send_signal(signal.SIGCONT)
    terminal.until(rb"[\nm]last\r")
    assert terminal.wait() == 7
