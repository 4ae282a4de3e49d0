"""procd attach, in a real terminal."""

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from tests.api.access import Secrets
from tests.cli.conftest import PROCD, Cli
from tests.cli.proxy import Proxy
from tests.cli.screen import Screen
from tests.daemon.daemon import Daemon, eventually

DETACH = b"\x10\x11"
Open = Callable[..., Screen]


@pytest.fixture
def screens() -> Iterator[list[Screen]]:
    """The terminals of a test."""
    opened: list[Screen] = []
    yield opened
    for screen in opened:
        screen.close()


@pytest.fixture
def attach(cli: Cli, screens: list[Screen]) -> Open:
    """Run `procd attach …` in a terminal."""

    def make(*arguments: str, url: str = "", cols: int = 80, rows: int = 24) -> Screen:
        env = cli.env(TERM="xterm-256color", **({"PROCD_URL": url} if url else {}))
        screen = Screen([*PROCD, "attach", *arguments], env, cols=cols, rows=rows)
        screens.append(screen)
        return screen

    return make


@pytest.fixture
def name(cli: Cli) -> Iterator[str]:
    """The name of a terminal that is gone after the test."""
    name = f"t{time.monotonic_ns()}"
    yield name
    if any(each["id"] == name for each in terminals(cli)):
        urlopen(Request(f"{cli.url}/process/pty/{name}", method="DELETE")).close()


def terminals(cli: Cli) -> list[dict[str, object]]:
    """What the server has."""
    with urlopen(f"{cli.url}/process/pty") as reply:
        found: list[dict[str, object]] = json.load(reply)["sessions"]
    return found


def is_there(cli: Cli, name: str) -> bool:
    """Whether the server has this one."""
    return any(each["id"] == name for each in terminals(cli))


def ready(screen: Screen) -> None:
    """Wait until its shell answers."""
    screen.type(b"echo rea''dy\n")
    screen.until(rb"\nready\r")


def test_type_and_exit(attach: Open, name: str, cli: Cli) -> None:
    screen = attach(name, cols=91, rows=31)
    ready(screen)
    assert screen.raw
    screen.type(b"stty size; echo $TERM; exit 5\n")
    screen.until(rb"\n31 91\r\nxterm-256color\r")
    assert screen.wait() == 5
    assert screen.restored()
    assert not is_there(cli, name)
    assert screen.seen.rstrip().endswith(f"[{name} has ended with exit code 5]".encode())


def test_keys_go_through(attach: Open, name: str) -> None:
    screen = attach(name)
    ready(screen)
    screen.type(b"bash -c 'echo o''n; exec sleep 1000'\n")
    screen.until(rb"\non\r")
    screen.type(b"\x03")  # Ctrl-C is for the program there
    screen.until(rb"\^C")
    screen.type(b"echo code=$?\n")
    screen.until(rb"\ncode=130\r")
    screen.type("echo é-\x10x; exit\n".encode())  # a detach key alone is a key
    assert screen.wait() == 0


def test_a_detach_key_alone_waits_for_no_other(attach: Open, name: str) -> None:
    screen = attach(name)
    ready(screen)
    screen.type(b"\x10")
    screen.until(rb"echo rea''dy")  # the line before: nothing else is typed
    screen.type(b"\x11")
    screen.type(b"\n")
    screen.until(rb"\nready\r")
    screen.type(DETACH)
    assert screen.wait() == 0


def test_window_size_follows(attach: Open, name: str) -> None:
    screen = attach(name)
    ready(screen)
    script = b'trap "echo now \\$(stty size)" WINCH; echo s""et; while :; do sleep 0.05; done'
    screen.type(b"bash -c '" + script + b"'\n")
    screen.until(rb"\nset\r")
    screen.resize(120, 40)
    screen.until(rb"\nnow 40 120\r")
    screen.type(DETACH)
    assert screen.wait() == 0


def test_a_window_of_unknown_size(attach: Open, name: str, cli: Cli) -> None:
    """A serial console says 0x0."""
    screen = attach(name, cols=0, rows=0)
    ready(screen)
    screen.type(b"stty size\n")
    screen.until(rb"\n24 80\r")
    screen.resize(100, 30)
    assert eventually(lambda: any(each["cols"] == 100 for each in terminals(cli)))
    other = attach(name, cols=0, rows=0)
    other.until(rb"ready\r")
    other.type(b"stty size\n")
    other.until(rb"\n30 100\r")
    other.type(b"exit 3\n")
    assert (screen.wait(), other.wait()) == (3, 3)


def test_detach_and_come_back(attach: Open, name: str, cli: Cli) -> None:
    screen = attach(name, "--cwd", "/usr", "--env", "WORD=one two")
    ready(screen)
    screen.type(b"echo kept $PWD $WORD\n")
    screen.until(rb"\nkept /usr one two\r")
    screen.type(DETACH)
    assert screen.wait() == 0
    assert screen.restored()
    assert f"come back with `procd attach {name}`".encode() in screen.seen
    assert is_there(cli, name)
    again = attach(name, "--no-create")
    again.until(rb"\nkept /usr one two\r")
    again.type(b"exit 3\n")
    assert again.wait() == 3


def test_other_detach_keys(attach: Open, name: str) -> None:
    screen = attach(name, "--detach-keys", "ctrl-a,d")
    ready(screen)
    screen.type(b"echo \x10\x11; echo still'' here\n")
    screen.until(rb"\nstill here\r")
    screen.type(b"\x01")
    screen.type(b"d")
    assert screen.wait() == 0
    assert screen.restored()


def test_without_a_name_one_is_made(attach: Open, cli: Cli) -> None:
    screen = attach()
    ready(screen)
    screen.type(DETACH)
    assert screen.wait() == 0
    made = screen.until(rb"procd attach (t-[0-9a-f]{6})`").group(1).decode()
    assert is_there(cli, made)
    urlopen(Request(f"{cli.url}/process/pty/{made}", method="DELETE")).close()


def test_no_create(attach: Open, name: str) -> None:
    screen = attach(name, "--no-create")
    assert screen.wait() == 1
    assert screen.restored()
    assert screen.seen == f"procd: there is no terminal {name}: `procd ps` lists them\r\n".encode()


def test_viewer_only_looks_on(attach: Open, name: str) -> None:
    screen = attach(name)
    ready(screen)
    viewer = attach("--view", name, cols=40, rows=10)
    viewer.until(rb"\nready\r")
    viewer.type(b"echo from the viewer\n")
    viewer.resize(50, 12)
    screen.type(b"echo the size is $(stty size)\n")
    viewer.until(rb"\nthe size is 24 80\r")
    assert b"from the viewer" not in screen.seen + viewer.seen
    viewer.type(b"\x03")
    assert viewer.wait() == 0
    assert viewer.restored()
    screen.type(b"exit\n")
    assert screen.wait() == 0


def test_viewers_say_that_they_are(attach: Open, name: str, cli: Cli, proxy: Proxy) -> None:
    screen = attach(name, url=proxy.url)
    ready(screen)
    viewer = attach("--view", name, url=proxy.url)
    viewer.until(rb"\nready\r")
    viewer.type(b"\x03")
    assert viewer.wait() == 0
    screen.type(DETACH)
    assert screen.wait() == 0
    path = f"/process/pty/{name}/connect"
    assert [line.split()[1].decode() for line in proxy.lines if b"/connect" in line] == [
        f"{path}?viewer=true&modes=true"
    ]
    assert not any(b"viewer" in line for line in proxy.lines if b"create-connect" in line)


def test_a_token_that_may_only_look_on(
    cli: Cli, screens: list[Screen], home: str, tmp_path: Path
) -> None:
    secrets = Secrets(tmp_path / "tokens")
    with Daemon.start(env={"HOME": home, "PROCD_AUTH_TOKEN_FILE": str(secrets.path)}) as daemon:
        cli.url = daemon.url

        def attach(token: str, *arguments: str) -> Screen:
            env = cli.env(TERM="xterm", PROCD_TOKEN=token)
            screens.append(Screen([*PROCD, "attach", "t", *arguments], env))
            return screens[-1]

        screen = attach(secrets.write)
        ready(screen)
        reader = attach(secrets.read, "--no-create")
        reader.until(rb"this token may only look on: Ctrl-C leaves")
        reader.until(rb"\nready\r")
        reader.type(b"echo from the reader\n")
        screen.type(b"echo the size is $(stty size)\n")
        reader.until(rb"\nthe size is 24 80\r")
        assert b"from the reader" not in screen.seen + reader.seen
        reader.type(b"\x03")
        assert reader.wait() == 0
        assert reader.restored()


def test_one_of_all_terminals_answers(attach: Open, name: str) -> None:
    """The one that was active last."""
    screen = attach(name)
    ready(screen)
    other = attach(name)
    other.until(rb"ready\r")
    for number, (active, quiet) in enumerate([(screen, other), (other, screen), (screen, other)]):
        active.type(b"printf '%%d\\033[6n\\033[c.\\n' %d\n" % number)
        active.until(rb"\n%d\x1b\[6n\x1b\[c\.\r" % number)
        quiet.until(rb"\n%d\.\r" % number)
    screen.type(DETACH)
    assert screen.wait() == 0
    other.type(b"printf 'end\\033[6n.\\n'; exit\n")
    other.until(rb"\nend\x1b\[6n\.\r")
    assert other.wait() == 0


@pytest.mark.parametrize("arguments", [(), ("--view",)])
def test_much_output(attach: Open, name: str, arguments: tuple[str, ...]) -> None:
    screen = attach(name)
    ready(screen)
    other = attach(name, *arguments)
    other.until(rb"ready\r")
    screen.type(b"seq -f '%.0f.' 150000; exit 3\n")
    assert (screen.wait(), other.wait()) == (3, 3)
    for each in (screen, other):
        numbers = re.findall(rb"\n(\d+)\.\r", each.seen)
        assert numbers == [b"%d" % number for number in range(1, 150_001)]


def test_what_programs_switched_on_is_switched_off(attach: Open, name: str) -> None:
    screen = attach(name)
    ready(screen)
    on = rb"\033[?1049h\033[?1002h\033[?2004h\033[>4;2m\033[?5h\033[4h\033(0\033[?25lfull"
    screen.type(b"printf '" + on + b"'; read x\n")
    screen.until(rb"\x1b\[\?25lfull")
    screen.type(DETACH)
    assert screen.wait() == 0
    end = screen.until(rb"\x1b\[m(.*)\[left ").group(1)
    for sequence in (
        b"\x1b[?1002l", b"\x1b[?2004l", b"\x1b[?1049l", b"\x1b[?25h", b"\x1b[>4m", b"\x1b[?5l",
        b"\x1b[4l", b"\x1b(B",
    ):  # fmt: skip
        assert sequence in end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_signals_leave_a_restored_terminal(
    attach: Open, name: str, cli: Cli, number: signal.Signals
) -> None:
    screen = attach(name)
    ready(screen)
    screen.signal(number)
    assert screen.wait() == 128 + number
    assert screen.restored()
    assert is_there(cli, name)


def test_a_full_terminal_can_be_left(attach: Open, name: str) -> None:
    screen = attach(name)
    ready(screen)
    screen.type(b"yes\n")
    screen.until(rb"y\r\ny\r\n")
    # Nobody reads what is printed here: it is stuck in a write.
    screen.signal(signal.SIGTERM)
    screen.process.wait(10)
    assert screen.restored()


def test_suspended_and_continued(attach: Open, name: str) -> None:
    screen = attach(name)
    ready(screen)
    screen.signal(signal.SIGTSTP)
    assert eventually(screen.suspended)
    screen.signal(signal.SIGCONT)
    assert eventually(lambda: screen.raw)
    ready(screen)
    screen.type(DETACH)
    assert screen.wait() == 0


def test_a_lost_connection_is_resumed(attach: Open, name: str, proxy: Proxy) -> None:
    screen = attach(name, url=proxy.url)
    ready(screen)
    screen.type(b"stty -echo; for i in $(seq 300); do echo line $i.; sleep 0.005; done\n")
    screen.until(rb"line 30\.")
    for _ in range(3):
        proxy.refuses = True
        proxy.cut()
        screen.until(rb"trying again, the detach keys leave")
        proxy.refuses = False
        screen.until(rb"connected again")
    screen.until(rb"line 300\.")
    text = re.sub(rb"\x18?\r\n\x1b\[7m\[procd:[^\]]*\]\x1b\[27m\r\n", b"", screen.seen)
    assert [int(each) for each in re.findall(rb"line (\d+)\.", text)] == list(range(1, 301))
    screen.type(b"exit 4\n")
    assert screen.wait() == 4


def test_a_gateway_without_its_server_is_a_lost_server(
    attach: Open, name: str, proxy: Proxy
) -> None:
    screen = attach(name, url=proxy.url)
    ready(screen)
    for status in (429, 502, 503, 504):
        proxy.answer(status)
        screen.until(rb"trying again, the detach keys leave")
        proxy.answers = b""
        screen.until(rb"connected again")
    screen.type(b"exit 4\n")
    assert screen.wait() == 4


def test_it_ended_while_the_connection_was_lost(attach: Open, name: str, proxy: Proxy) -> None:
    screen = attach(name, url=proxy.url)
    ready(screen)
    screen.type(b"sleep 0.3; echo good''bye; exit 6\n")
    screen.until(rb"exit 6\r")
    proxy.refuses = True
    proxy.cut()
    screen.until(rb"trying again")
    proxy.refuses = False
    screen.until(rb"goodbye\r")
    assert screen.wait() == 6
    assert screen.restored()


def test_a_lost_server_can_be_left(attach: Open, name: str, proxy: Proxy) -> None:
    screen = attach(name, url=proxy.url)
    ready(screen)
    proxy.refuses = True
    proxy.cut()
    screen.until(rb"trying again, the detach keys leave")
    screen.type(DETACH)
    assert screen.wait() == 0
    assert screen.restored()


@pytest.mark.parametrize("retry_s", ["0", "0.5"])
def test_a_killed_server(attach: Open, home: str, retry_s: str) -> None:
    with Daemon.start(env={"HOME": home}) as daemon:
        screen = attach("doomed", "--retry", retry_s, url=daemon.url)
        ready(screen)
        daemon.stop(signal.SIGKILL)
        assert screen.wait() == 1
        assert screen.restored()
        assert b"come back with `procd attach doomed`\r\n" in screen.seen


def test_a_restarted_server_has_other_terminals(attach: Open, home: str) -> None:
    with Daemon.start(env={"HOME": home}) as daemon:
        proxy = Proxy(daemon.port)
        try:
            screen = attach("old", url=proxy.url)
            ready(screen)
            with Daemon.start(env={"HOME": home}) as other:
                proxy.port_behind = other.port
                daemon.stop()
                assert screen.wait() == 1
                assert screen.restored()
                assert (
                    b"procd: Failed to connect to PTY session: PTY session old not found"
                    in screen.seen
                )
        finally:
            proxy.close()


def test_no_terminal_here(cli: Cli, name: str) -> None:
    result = cli("attach", name)
    assert result.returncode == 1
    assert result.stderr.startswith(b"procd: input and output must be a terminal: ")
    assert not is_there(cli, name)


def test_bad_detach_keys(cli: Cli) -> None:
    result = cli("attach", "--detach-keys", "ctrl-1", "x")
    assert result.returncode == 1
    assert b"--detach-keys ctrl-1: ctrl-1: no such key" in result.stderr


@pytest.mark.parametrize(
    ("begun", "rest"),
    [(b"\x1b[3", b"1mred"), (b"\x1b]0;ti", b"tle\x07"), (b"\xe2\x82", b"\xac")],
)
def test_a_message_cuts_nothing_in_two(
    attach: Open, name: str, proxy: Proxy, begun: bytes, rest: bytes
) -> None:
    screen = attach(name, url=proxy.url)
    ready(screen)
    first, second = ("".join(f"\\{byte:03o}" for byte in text) for text in (begun, rest))
    screen.type(f"stty -echo; read x; printf '+{first}'; read x; printf '{second}end'\n".encode())
    screen.until(rb"end'\r\n")
    screen.type(b"\n")
    screen.until(rb"\+" + re.escape(begun))
    begin = len(screen.seen)
    proxy.cut()
    screen.until(rb"connected again")
    screen.type(b"\n")
    screen.until(rb"end")
    told = rb"\x18\r\n\x1b\[7m\[procd: .*\]\x1b\[27m\r\n" + re.escape(begun)
    assert re.fullmatch(told * 2 + re.escape(rest) + rb"end.*", screen.seen[begin:], re.DOTALL)


FULL_SCREEN = r"""
trap 'printf "<%s>" "$(stty size)"' WINCH
printf '\033[?1049h\033[?1000;1006hbegun'
seq 60000
printf over
while :; do read line; done
"""


def test_a_full_screen_program_is_shown_whole(
    attach: Open, name: str, cli: Cli, tmp_path: Path
) -> None:
    """Though it has drawn more than a replay holds."""
    (tmp_path / "draw").write_text(FULL_SCREEN)
    screen = attach(name)
    ready(screen)
    screen.type(f"exec sh {tmp_path}/draw\n".encode())
    screen.until(rb"60000\r\nover")
    screen.type(DETACH)
    screen.wait()
    screen = attach(name)
    screen.until(rb"60000\r\nover<23 80><24 80>")
    assert b"begun" not in screen.seen
    assert screen.seen.index(b"\x1b[?1049h\x1b[?1000h\x1b[?1006h") < screen.seen.index(b"59999")
    screen.type(DETACH)
    screen.wait()
    assert b"\x1b[?1049l" in screen.seen


def test_a_full_screen_program_is_as_it_was_after_a_lost_connection(
    attach: Open, name: str, cli: Cli, proxy: Proxy, tmp_path: Path
) -> None:
    (tmp_path / "draw").write_text(FULL_SCREEN.replace("over", r"'\033[2;9r\033[?6hover'"))
    screen = attach(name, url=proxy.url, cols=40)
    ready(screen)
    screen.type(f"exec sh {tmp_path}/draw\n".encode())
    screen.until(rb"over")
    for _ in range(2):
        proxy.cut()
        line = rb"\x1b7\x1b\[\?6l\x1b\[24;1H\x1b\(B\x0f\x1b\[0;7m(\[procd: .*?)\x1b\[m\x1b\[K"
        assert len(screen.until(line + rb"\x1b\[\?6h\x1b8")[1]) == 39
        screen.until(rb"connected again\].*<23 40><24 40>")
    screen.type(DETACH)
    screen.wait()


def test_a_full_screen_program_is_shown_again_once_continued(
    attach: Open, name: str, cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "draw").write_text(FULL_SCREEN)
    screen = attach(name)
    ready(screen)
    screen.type(f"exec sh {tmp_path}/draw\n".encode())
    screen.until(rb"over")
    screen.signal(signal.SIGTSTP)
    screen.until(rb"\x1b\[\?1049l")
    assert eventually(screen.suspended)
    screen.signal(signal.SIGCONT)
    screen.until(rb"\x1b\[H\x1b\[2J\x1b\[\?1049h\x1b\[\?1000h\x1b\[\?1006h")
    screen.until(rb"60000\r\nover<23 80><24 80>")
    assert screen.raw
    screen.type(DETACH)
    assert screen.wait() == 0


def test_what_ends_while_it_is_suspended(attach: Open, name: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    screen = attach(name)
    other = attach(name)
    ready(screen)
    screen.type(f"read x <{gate}; echo last; exit 7\n".encode())
    other.until(rb"exit 7\r")
    screen.signal(signal.SIGTSTP)
    assert eventually(screen.suspended)
    gate.write_text("\n")
    assert other.wait() == 7
    screen.signal(signal.SIGCONT)
    screen.until(rb"[\nm]last\r")
    assert screen.wait() == 7
