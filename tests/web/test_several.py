"""Several pages on one terminal: what they see, whose size counts, who stays."""

from pathlib import Path
from typing import TYPE_CHECKING

from tests.daemon.daemon import Daemon
from tests.web.browser import plain
from tests.web.conftest import Opens
from tests.web.terminal import Terminal, open_terminal

if TYPE_CHECKING:  # it may not be installed
    from playwright.sync_api import BrowserContext


def is_sized(terminal: Terminal, cols: int, rows: int) -> None:
    """Wait until the page has agreed to this size."""
    terminal.says(f"{cols}\u00d7{rows}")


def test_both_see_and_type(opens: Opens) -> None:
    one, two = opens(), opens(create=False)
    two.shows("ready>")
    one.type("echo from-$((0 + 1))\n")
    two.shows("from-1")
    two.type("echo from-$((1 + 1))\n")
    one.shows("from-2")
    one.says("with anyone")


def test_the_latest_size_counts(opens: Opens) -> None:
    one = opens()
    one.shows("ready>")
    one.page.wait_for_function(
        "() => /^(?!80\u00d724)\\d+\u00d7\\d+/.test(document.querySelector('.people').textContent)"
    )
    cols, rows = one.size()
    two = opens(create=False)
    two.page.set_viewport_size({"width": 500, "height": 500})
    two.page.wait_for_function(
        "most => parseInt(document.querySelector('.people')?.textContent) < most", arg=cols
    )
    is_sized(one, *two.size())
    assert two.size()[1] < rows
    one.page.bring_to_front()
    one.page.set_viewport_size({"width": 1001, "height": 700})
    one.element.locator("textarea").blur()
    one.element.locator("textarea").focus()
    is_sized(two, cols, rows)
    one.type("clear; stty size\n")
    two.shows(f"{rows} {cols}")


def test_the_smallest_size_counts(context: "BrowserContext", home: Path) -> None:
    with Daemon.start(env=plain(home, PROCD_PTY_RESIZE_POLICY="smallest")) as daemon:
        one = open_terminal(context, daemon.url, "t1")
        one.shows("ready>")
        one.page.wait_for_function(
            "() => !document.querySelector('.people').textContent.startsWith('80\u00d724')"
        )
        cols, rows = one.size()
        two = open_terminal(context, daemon.url, "t1", create=False)
        two.page.set_viewport_size({"width": 1000, "height": 500})
        one.says("smallest window")
        two.page.wait_for_function(
            "rows => document.querySelector('.people')?.textContent.match(/[0-9]+/g)?.[1] < rows",
            arg=rows,
        )
        is_sized(one, cols, two.size()[1])
        two.page.close()
        is_sized(one, cols, rows)


def test_taking_over(opens: Opens) -> None:
    """The other page says who works here now and doesn't come back by itself."""
    one, two = opens(), opens(create=False)
    two.shows("ready>")
    two.element.get_by_role("button", name="Send away").click()
    one.is_in("replaced")
    one.says("Somebody else works here now: taken over by anyone.")
    two.type("echo al''one\n")
    two.shows("alone")
    one.is_in("replaced")
    one.element.get_by_role("button", name="Connect").click()
    one.is_in("live")
    one.shows("alone")


def test_a_question_is_answered_once(opens: Opens) -> None:
    """By the page that was active last, however many are attached."""
    one, two = opens(), opens(create=False)
    two.shows("ready>")
    one.shows("ready>")
    one.type("clear; stty -echo -icanon; printf '\\e[5n'; cat -v\n")
    one.shows("^[[0n")
    one.type("x")
    one.shows("^[[0nx")
    two.shows("^[[0nx")
    two.type("y")
    two.shows("^[[0nxy")
    assert sum(line.count("^[[0n") for line in one.lines()) == 1
