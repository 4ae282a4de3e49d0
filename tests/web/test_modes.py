"""Looking on, sizes that are asked for, and windows smaller than their terminal."""

from typing import TYPE_CHECKING

import pytest

from tests.daemon.daemon import Daemon
from tests.web.conftest import Opens
from tests.web.terminal import Terminal, call, open_terminal

if TYPE_CHECKING:  # it may not be installed
    from playwright.sync_api import BrowserContext

SHOWN = """() => {
  const cursor = document.querySelector(".xterm-cursor").getBoundingClientRect();
  const seen = document.querySelector(".host").getBoundingClientRect();
  return cursor.top >= seen.top && cursor.bottom <= seen.bottom
    && cursor.left >= seen.left && cursor.right <= seen.right;
}"""


def test_looking_on(daemon: Daemon, opens: Opens, context: "BrowserContext") -> None:
    """Without any token: nothing is typed, no size told, nor after a reload; until it is undone."""
    typist = opens()
    typist.shows("ready>")
    page = context.new_page()
    page.set_viewport_size({"width": 500, "height": 400})
    page.goto(f"{daemon.url}/terminal")
    size = typist.size()  # by now that of its window
    page.get_by_role("button", name="View only t1").click()
    viewer = Terminal(page, "t1")
    for _ in range(2):
        viewer.shows("ready>")
        viewer.says("read only")
        typist.says("with anyone (viewer)")
        viewer.type("never\n")
        typist.type("clear; echo ty''ped\n")
        viewer.shows("typed")
        assert not any("never" in line for line in typist.lines())
        assert viewer.size() == typist.size() == size
        assert not viewer.element.get_by_role("button", name="Send away").is_visible()
        page.reload()
    viewer.element.get_by_role("button", name="View only").click()
    typist.page.wait_for_function(
        "() => !document.querySelector('.people').textContent.includes('viewer')"
    )
    viewer.type("echo no''w\n")
    typist.shows("now")
    assert viewer.size()[0] < size[0]
    viewer.element.get_by_role("button", name="View only").click()
    viewer.says("read only")


def test_a_viewer_sees_what_is_drawn_for_another_size(
    daemon: Daemon, opens: Opens, context: "BrowserContext"
) -> None:
    """Nothing is drawn anew for it, so the replay has to come out right."""
    typist = opens()
    typist.shows("ready>")
    cols, rows = typist.size()
    typist.type(
        f"clear; printf '\\e[{rows - 1};{cols - 5}Hco''rner\\e[H'; echo do''ne; sleep 1000\n"
    )
    typist.shows("done")
    typist.shows("corner")
    page = context.new_page()
    page.set_viewport_size({"width": 500, "height": 400})
    page.goto(f"{daemon.url}/terminal#t1;view")
    viewer = Terminal(page, "t1")
    viewer.shows("corner")
    viewer.says("read only")
    assert viewer.lines() == typist.lines()


def test_the_size_that_was_asked_for_holds(opens: Opens, daemon: Daemon) -> None:
    """Until the person has it fit the window."""
    page = opens().page
    page.get_by_role("button", name="New terminal with").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name", exact=True).fill("mine")
    dialog.get_by_label("Columns").fill("50")
    dialog.get_by_label("Rows").fill("12")
    dialog.get_by_role("button", name="Begin").click()
    mine = Terminal(page, "mine")
    mine.shows("ready>")
    mine.says("50\u00d712")
    mine.type("clear; stty size\n")
    mine.shows("12 50")
    page.set_viewport_size({"width": 800, "height": 500})
    page.reload()
    mine.says("50\u00d712")
    mine.element.locator(".xterm-screen").click()
    mine.type("clear; stty size\n")
    mine.shows("12 50")
    mine.element.get_by_role("button", name="Give the terminal the size").click()
    page.wait_for_function(
        "() => parseInt(document.querySelector('[data-id=mine] .people').textContent) > 50"
    )
    cols, rows = mine.size()
    mine.type("clear; stty size\n")
    mine.shows(f"{rows} {cols}")
    assert page.evaluate("location.hash").endswith("&mine")


@pytest.mark.parametrize("query", ["", ";view"])
def test_a_small_window_follows_the_cursor(
    daemon: Daemon, context: "BrowserContext", query: str
) -> None:
    """On a terminal of somebody's larger window; and lets who scrolls away look at something."""
    page = context.new_page()
    page.set_viewport_size({"width": 360, "height": 500})
    call(daemon.url, "/process/pty", "POST", {"id": "t1", "cols": 120, "rows": 60})
    page.goto(f"{daemon.url}/terminal#t1{query}")
    small = Terminal(page, "t1")
    small.shows("ready>")
    other = open_terminal(context, daemon.url, "t1", create=False)
    other.shows("ready>")
    small.page.bring_to_front()
    call(daemon.url, "/process/pty/t1/resize", "POST", {"cols": 120, "rows": 60})
    small.says("120\u00d760")
    other.type("clear; seq 100; echo do''ne\n")
    small.shows("done")
    page.wait_for_function(SHOWN)
    other.type("echo " + 100 * "x")
    page.wait_for_function(SHOWN)
    other.type("\n")
    page.wait_for_function(f"() => ({SHOWN})() && document.querySelector('.host').scrollLeft === 0")
    page.mouse.move(100, 400)
    page.evaluate("document.querySelector('.host').scrollTop = 0")
    other.type("clear; seq 100; echo ag''ain\n")
    small.shows("again")
    page.evaluate("new Promise(requestAnimationFrame)")
    assert page.evaluate("document.querySelector('.host').scrollTop") == 0
    if not query:
        small.type("x")
        page.wait_for_function(SHOWN)
