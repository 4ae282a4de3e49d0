"""Losing the connection, and coming back; being sent away, and staying away."""

import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from procd.services.tokens import Scope
from tests.api.access import Secrets
from tests.daemon.daemon import Daemon
from tests.proxy import proxy_to
from tests.web.browser import plain
from tests.web.conftest import Opens
from tests.web.terminal import Terminal, call, open_terminal

if TYPE_CHECKING:  # it may not be installed
    from playwright.sync_api import BrowserContext


def numbers(terminal: Terminal) -> list[int]:
    """The numbers of the lines `n-1`, `n-2`… on the screen."""
    return [int(line[2:]) for line in terminal.lines() if re.fullmatch(r"n-\d+", line)]


def test_nothing_is_lost_and_nothing_comes_twice(
    daemon: Daemon, context: "BrowserContext", home: Path
) -> None:
    """Cut again and again while output comes: each line is there once, in all the scrollback."""
    (home / "count").write_text(
        "for i in $(seq 1500); do echo n-$i; sleep 0.001; done; echo d''one"
    )
    with proxy_to(daemon.port) as proxy:
        terminal = open_terminal(context, proxy.url, "t1")
        terminal.shows("ready>")
        terminal.type(f". {home}/count\n")
        for last in (150, 500, 900):
            terminal.page.wait_for_function(
                "last => Math.max(...[...document.querySelectorAll('.xterm-rows > div')].map("
                "row => /^n-[0-9]+/.test(row.textContent) ? +row.textContent.slice(2) : 0)) > last",
                arg=last,
            )
            proxy.cut()
            terminal.is_in("live")
        terminal.shows("done")
    seen: set[int] = set()
    while True:
        screen = numbers(terminal)
        assert screen == list(range(screen[0], screen[0] + len(screen)))
        seen |= set(screen)
        if 1 in seen:
            break
        terminal.page.keyboard.press("Shift+PageUp")
        terminal.page.wait_for_function(
            "first => document.querySelector('.xterm-rows > div').textContent.trim() !== first",
            arg=f"n-{screen[0]}",
        )
    assert seen == set(range(1, 1501))


def test_it_says_that_the_connection_is_lost(daemon: Daemon, context: "BrowserContext") -> None:
    """And what is typed meanwhile isn't typed later."""
    with proxy_to(daemon.port) as proxy:
        terminal = open_terminal(context, proxy.url, "t1")
        terminal.shows("ready>")
        proxy.down()
        terminal.is_in("waiting")
        terminal.says("Connection lost. Trying again in")
        terminal.type("never\n")
        proxy.up()
        terminal.is_in("live")
        terminal.type("echo on''ce\n")
        terminal.shows("once")
        assert not any("never" in line for line in terminal.lines())


def test_a_gateway_answers_for_the_server(daemon: Daemon, context: "BrowserContext") -> None:
    """It isn't the last word, and isn't shown."""
    with proxy_to(daemon.port) as proxy:
        terminal = open_terminal(context, proxy.url, "t1")
        terminal.shows("ready>")
        for status in (429, 502, 503, 504):
            with terminal.page.expect_response(lambda reply: not reply.ok) as reply:
                proxy.down(status)
            assert reply.value.status == status
            terminal.is_in("waiting")
            terminal.says("Connection lost. Trying again in")
            proxy.up()
            terminal.is_in("live")


def test_a_connection_that_has_fallen_silent_is_noticed(
    daemon: Daemon, context: "BrowserContext"
) -> None:
    """By the terminal and by the list; both come back when there is a way again."""
    with proxy_to(daemon.port) as proxy:
        terminal = open_terminal(context, proxy.url, "t1")
        terminal.shows("ready>")
        note = terminal.page.locator("aside").get_by_text("The server can't be reached.")
        proxy.hold()
        terminal.page.wait_for_function(
            "() => document.querySelector('.view').dataset.state !== 'live'"
        )
        note.wait_for()
        proxy.cut()
        proxy.flow()
        terminal.is_in("live")
        note.wait_for(state="hidden")
        terminal.type("echo ag''ain\n")
        terminal.shows("again")


def test_no_answers_are_typed_by_a_replay_or_a_resume(
    daemon: Daemon, context: "BrowserContext"
) -> None:
    """The program's questions were answered when it asked."""
    with proxy_to(daemon.port) as proxy:
        terminal = open_terminal(context, proxy.url, "t1")
        terminal.shows("ready>")
        terminal.type("IFS= read -rs -d n -p $'\\e[5n' answer; printf %q\\\\n \"got$answer\"\n")
        terminal.shows("$'got")
        assert any("[0" in line for line in terminal.lines() if line.startswith("$'got"))
        terminal.type("clear; echo be''gun; cat -v\n")
        terminal.shows("begun")  # else the cut may take with it what was typed
        proxy.cut()
        terminal.is_in("live")
        terminal.page.reload()
        terminal.is_in("live")
        terminal.type("echoed\n")
        terminal.shows("echoed")
        assert not any("^[" in line for line in terminal.lines())


def test_an_end_is_an_end(opens: Opens) -> None:
    terminal = opens()
    terminal.shows("ready>")
    terminal.type("exit 3\n")
    terminal.is_in("ended")
    terminal.says("Ended with exit code 3")


def test_an_end_while_away(daemon: Daemon, context: "BrowserContext") -> None:
    """The rest of the output and the exit code are told on coming back."""
    with proxy_to(daemon.port) as proxy:
        terminal = open_terminal(context, proxy.url, "t1")
        terminal.shows("ready>")
        terminal.type("echo wait''ing; read; echo la''st; exit 4\n")
        terminal.shows("waiting")
        proxy.down()
        terminal.is_in("waiting")
        other = open_terminal(context, daemon.url, "t1", create=False)
        other.is_in("live")
        other.type("\n")
        other.is_in("ended")
        proxy.up()
        terminal.is_in("ended")
        terminal.says("exit code 4")
        terminal.shows("last")


def test_a_terminal_that_is_not_there(daemon: Daemon, opens: Opens) -> None:
    terminal = opens("nope", create=False)
    terminal.is_in("ended")
    terminal.says("not found")


def test_another_terminal_of_the_same_name(daemon: Daemon, context: "BrowserContext") -> None:
    """The page doesn't go on in it at the old one's offset."""
    with proxy_to(daemon.port) as proxy:
        terminal = open_terminal(context, proxy.url, "t1")
        terminal.shows("ready>")
        terminal.type("echo of-the-''old\n")
        terminal.shows("of-the-old")
        proxy.down()
        terminal.is_in("waiting")
        call(daemon.url, "/process/pty/t1", "DELETE")
        call(daemon.url, "/process/pty", "POST", {"id": "t1"})
        proxy.up()
        terminal.is_in("live")
        terminal.type("echo of-the-''new\n")
        terminal.shows("of-the-new")
        assert not any("of-the-old" in line for line in terminal.lines())


def test_another_terminal_of_the_name_of_one_that_has_ended(daemon: Daemon, opens: Opens) -> None:
    """Its row opens it, in place of what is still shown of the other."""
    terminal = opens()
    terminal.shows("ready>")
    terminal.type("echo of-the-''old; exit 3\n")
    terminal.is_in("ended")
    terminal.shows("of-the-old")
    call(daemon.url, "/process/pty", "POST", {"id": "t1"})
    terminal.page.locator("aside li button.name:enabled").click()
    terminal.is_in("live")
    terminal.type("echo of-the-''new\n")
    terminal.shows("of-the-new")
    assert not any("of-the-old" in line for line in terminal.lines())


def test_a_message_beyond_the_limit(context: "BrowserContext", home: Path) -> None:
    with Daemon.start(env=plain(home, PROCD_PTY_MAX_MESSAGE_BYTES="1024")) as daemon:
        terminal = open_terminal(context, daemon.url, "t1")
        terminal.shows("ready>")
        terminal.element.locator("textarea").focus()
        terminal.page.keyboard.insert_text("#" * 2000)
        terminal.is_in("failed")
        terminal.element.locator("footer").get_by_text(
            "the message was too long", exact=True
        ).wait_for()


def test_a_token_that_is_taken_back(context: "BrowserContext", home: Path, tmp_path: Path) -> None:
    """The page says so and doesn't knock again; with another token it goes on."""
    secrets = Secrets(tmp_path / "tokens")
    with Daemon.start(env=plain(home, PROCD_AUTH_TOKEN_FILE=str(secrets.path))) as daemon:
        terminal = open_terminal(context, daemon.url, "t1", token=secrets.write)
        terminal.shows("ready>")
        secrets.remove("writer")
        new = secrets.made("other", Scope.WRITE)
        daemon.process.send_signal(signal.SIGHUP)
        terminal.is_in("kicked")
        terminal.says("the token is no longer valid")
        aside = terminal.page.locator("aside")
        aside.get_by_text("A token is needed.").wait_for()
        terminal.page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
        aside.get_by_role("button", name="Enter a token").click()
        terminal.enter_token(new)
        aside.get_by_text("1 client").or_(aside.get_by_text("0 clients")).wait_for()
        terminal.element.get_by_role("button", name="Connect").click()
        terminal.is_in("live")
        terminal.type("echo ag''ain\n")
        terminal.shows("again")


def test_a_wrong_token_and_a_right_one(
    context: "BrowserContext", home: Path, tmp_path: Path
) -> None:
    """It is asked for until it is right, and is nowhere in the browser's stores."""
    secrets = Secrets(tmp_path / "tokens")
    with Daemon.start(env=plain(home, PROCD_AUTH_TOKEN_FILE=str(secrets.path))) as daemon:
        terminal = open_terminal(context, daemon.url, "t1", token=secrets.write, enter="wrong")
        terminal.page.get_by_text("That token is not valid.").wait_for()
        terminal.enter_token(secrets.write)
        terminal.shows("ready>")
        stored = "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"
        assert secrets.write not in terminal.page.evaluate(stored)
        assert secrets.write not in terminal.page.content()


def test_a_viewer_looks_on(context: "BrowserContext", home: Path, tmp_path: Path) -> None:
    secrets = Secrets(tmp_path / "tokens")
    with Daemon.start(env=plain(home, PROCD_AUTH_TOKEN_FILE=str(secrets.path))) as daemon:
        typist = open_terminal(context, daemon.url, "t1", token=secrets.write)
        typist.shows("ready>")
        viewer = open_terminal(context, daemon.url, "t1", create=False, token=secrets.read)
        viewer.shows("ready>")
        viewer.says("read only")
        typist.says("with reader (viewer)")
        viewer.type("never\n")
        typist.type("echo ty''ped\n")
        viewer.shows("typed")
        assert not any("never" in line for line in typist.lines())
        assert viewer.size() == typist.size()
        assert viewer.element.get_by_role("button", name="Send away").count() == 0


def test_a_host_that_is_not_allowed(daemon: Daemon, context: "BrowserContext") -> None:
    """The page is served to it, and can do nothing."""
    page = context.new_page()
    page.goto(f"http://forbidden.test:{daemon.port}/terminal#t1")
    terminal = Terminal(page, "t1")
    terminal.is_in("forbidden")
    terminal.says("Not allowed")


def test_no_token_and_then_one(context: "BrowserContext", home: Path, tmp_path: Path) -> None:
    """Who gives none isn't asked again and again; with one later, all goes on."""
    secrets = Secrets(tmp_path / "tokens")
    with Daemon.start(env=plain(home, PROCD_AUTH_TOKEN_FILE=str(secrets.path))) as daemon:
        call(daemon.url, "/process/pty", "POST", {"id": "t1"}, secrets.write)
        page = context.new_page()
        page.goto(f"{daemon.url}/terminal#t1")
        page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
        terminal = Terminal(page, "t1")
        terminal.is_in("forbidden")
        assert page.get_by_role("dialog").count() == 0
        terminal.element.get_by_role("button", name="Connect").click()
        terminal.enter_token(secrets.write)
        terminal.shows("ready>")
        page.locator("aside li").get_by_text("1 client").wait_for()
