"""Typing, seeing and resizing in a real browser."""

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.daemon.daemon import Daemon
from tests.web.browser import plain
from tests.web.conftest import Opens
from tests.web.terminal import WAIT_MS, Terminal, open_terminal

if TYPE_CHECKING:  # it may not be installed
    from playwright.sync_api import BrowserContext


def test_type_and_see(opens: Opens) -> None:
    terminal = opens()
    terminal.shows("ready>")
    terminal.type("echo $((6 * 7))-ünï-世界\n")
    terminal.shows("42-ünï-世界")
    assert "ready> echo $((6 * 7))-ünï-世界" in terminal.lines()


def test_the_size_is_the_window_s(opens: Opens) -> None:
    terminal = opens()
    terminal.shows("ready>")
    sizes: list[tuple[int, int]] = []
    before = "80\u00d724"
    for width, height in ((1000, 700), (640, 600)):
        terminal.page.set_viewport_size({"width": width, "height": height})
        terminal.page.wait_for_function(
            "before => document.querySelector('.people').textContent !== before", arg=before
        )
        before = terminal.element.locator(".people").inner_text()
        cols, rows = terminal.size()
        terminal.type("clear; stty size\n")
        terminal.shows(f"{rows} {cols}")
        sizes.append((cols, rows))
    assert sizes[0][0] > sizes[1][0] > 20


def test_nothing_of_the_screen_is_covered(opens: Opens) -> None:
    """At whatever height or width: scrollbars of the page's own would hide the last row."""
    terminal = opens()
    terminal.shows("ready>")
    overflows = """() => {
      const host = document.querySelector(".host");
      const screen = document.querySelector(".xterm-screen").getBoundingClientRect();
      const room = host.getBoundingClientRect();
      return [host.scrollHeight - host.clientHeight, host.scrollWidth - host.clientWidth,
        screen.bottom > room.bottom, screen.right > room.right].some(Number);
    }"""
    row_px = terminal.page.evaluate("document.querySelector('.xterm-rows > div').clientHeight")
    for less in range(row_px + 1):
        terminal.page.set_viewport_size({"width": 1000 - less, "height": 640 - less})
        terminal.page.wait_for_function(
            f"() => !({overflows})() && document.querySelector('.view').clientHeight < 640 - {less}"
        )


def test_the_size_follows_the_font(opens: Opens) -> None:
    """Without a click into the terminal: what is cut off would be seen by nobody."""
    terminal = opens()
    terminal.shows("ready>")
    cols, rows = terminal.size()
    for _ in range(4):
        terminal.page.get_by_role("button", name="Larger font").click()
    terminal.page.wait_for_function(
        "most => parseInt(document.querySelector('.people').textContent) < most", arg=cols * 0.8
    )
    fewer_cols, fewer_rows = terminal.size()
    assert fewer_rows < rows
    terminal.type("clear; stty size\n")
    terminal.shows(f"{fewer_rows} {fewer_cols}")


def test_a_reload_shows_the_screen_again(opens: Opens) -> None:
    terminal = opens()
    terminal.shows("ready>")
    terminal.type("echo before-$((1 + 1)); X=kept\n")
    terminal.shows("before-2")
    terminal.page.reload()
    terminal.shows("before-2")
    terminal.type("echo $X-on\n")
    terminal.shows("kept-on")


def test_paste_is_bracketed(opens: Opens, context: "BrowserContext") -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    terminal = opens()
    terminal.shows("ready>")
    terminal.type("clear; printf '\\e[?2004h'; echo wait''ing; cat -v\n")
    terminal.shows("waiting")
    terminal.page.evaluate("navigator.clipboard.writeText('pasted')")
    terminal.element.locator("textarea").focus()
    terminal.page.keyboard.press("Control+Shift+V")
    terminal.type("\n")
    terminal.shows("^[[200~pasted^[[201~")


@pytest.mark.parametrize("by", ["keyboard", "event"])
def test_what_is_pasted_stays_within_its_brackets(
    opens: Opens, context: "BrowserContext", by: str
) -> None:
    """No end of the brackets in it, in 7 bits or in 8, nor any key that isn't text."""
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    terminal = opens()
    terminal.shows("ready>")
    terminal.type("clear; printf '\\e[?2004h'; stty raw -echo; echo wait''ing; cat -vT\n")
    terminal.shows("waiting")
    text = "one\x1b[201~; \x9b201~\x03two\x7f\x00\t3\n4\r\n5"
    terminal.element.locator("textarea").focus()
    if by == "keyboard":
        terminal.page.evaluate("text => navigator.clipboard.writeText(text)", text)
        terminal.page.keyboard.press("Shift+Insert")
    else:  # as a click with the middle button or a menu does
        terminal.page.evaluate(
            """text => {
              const clipboardData = new DataTransfer();
              clipboardData.setData("text/plain", text);
              document.activeElement.dispatchEvent(
                new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }));
            }""",
            text,
        )
    terminal.page.keyboard.type("end")
    terminal.shows("end")
    shown = "".join(terminal.lines())
    assert shown[shown.index("^[[200~") :] == "^[[200~one[201~; 201~two^I3^M4^M5^[[201~end"


def test_much_output_leaves_the_page_responsive(opens: Opens) -> None:
    """50 MB: none is lost at its end, and the page answers within the time of a few frames."""
    terminal = opens()
    terminal.shows("ready>")
    terminal.page.evaluate(
        """() => {
          window.longest = 0;
          let last = performance.now();
          setInterval(() => {
            const now = performance.now();
            window.longest = Math.max(window.longest, now - last);
            last = now;
          }, 10);
        }"""
    )
    terminal.type("yes abcdefghijklmnopqrstuvwxyz | head -c 50000000; echo do''ne\n")
    terminal.element.locator(".xterm-rows").get_by_text(re.compile("done")).wait_for(
        timeout=3 * WAIT_MS
    )
    worst_ms = terminal.page.evaluate("window.longest")
    assert worst_ms < 1000
    terminal.type("echo aft''er\n")
    terminal.shows("after")


def test_an_interrupt_stops_a_flood(opens: Opens) -> None:
    terminal = opens()
    terminal.shows("ready>")
    terminal.type("yes flo''od\n")
    terminal.shows("flood")  # else the shell may be interrupted before there is one
    terminal.page.keyboard.press("Control+C")
    terminal.type("echo stop''ped\n")
    terminal.shows("stopped")


def test_the_page_loads_nothing_from_elsewhere(
    daemon: Daemon, context: "BrowserContext", opens: Opens
) -> None:
    """Its policy holds (the fixture looks for complaints), and it is light."""
    loaded: list[tuple[str, int]] = []
    context.on(
        "response",
        lambda reply: loaded.append((reply.url, int(reply.headers.get("content-length", 0)))),
    )
    terminal = opens()
    terminal.shows("ready>")
    assert all(url.startswith(daemon.url) for url, _ in loaded)
    assert sum(size for _, size in loaded) < 700_000
    assert any("xterm.mjs" in url for url, _ in loaded)


def test_it_works_below_a_proxy_s_prefix(daemon: Daemon, context: "BrowserContext") -> None:
    page = context.new_page()
    page.goto(f"{daemon.url}/toolbox/any/terminal/")
    assert page.url == f"{daemon.url}/toolbox/any/terminal"
    page.get_by_label("New terminal", exact=True).click()
    section = page.locator(".view")
    section.wait_for()
    terminal = Terminal(page, section.get_attribute("data-id") or "")
    terminal.shows("ready>")


def test_a_hidden_page_holds_no_program_up(opens: Opens) -> None:
    """It leaves when it can't keep up, and shows what became of it when it is seen again."""
    terminal = opens()
    terminal.shows("ready>")
    hide = """hidden => {
      Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
      document.dispatchEvent(new Event("visibilitychange"));
    }"""
    terminal.page.evaluate(hide, True)
    terminal.type("yes abcdefghijklmnopqrstuvwxyz | head -c 30000000; echo fi''n\n")
    terminal.is_in("asleep")
    terminal.says("Paused while the page is hidden")
    terminal.page.evaluate(hide, False)
    terminal.is_in("live")
    terminal.shows("fin")


def test_a_paste_longer_than_a_message(context: "BrowserContext", home: Path) -> None:
    """It comes in pieces, all of it and in order."""
    with Daemon.start(env=plain(home, PROCD_PTY_MAX_MESSAGE_BYTES="65536")) as daemon:
        terminal = open_terminal(context, daemon.url, "t1")
        terminal.shows("ready>")
        terminal.type("stty raw -echo; echo be''gun; head -c 200000 | md5sum; stty sane\n")
        terminal.shows("begun")
        text = "".join(f"{number:05}" for number in range(40_000))
        terminal.element.locator("textarea").evaluate(
            """(area, text) => {
              const clipboardData = new DataTransfer();
              clipboardData.setData("text/plain", text);
              area.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true }));
            }""",
            text,
        )
        terminal.shows(hashlib.md5(text.encode()).hexdigest())
