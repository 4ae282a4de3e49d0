"""The list of terminals: pressing what is in it while it changes; what it says of the server."""

from typing import TYPE_CHECKING

from tests.daemon.daemon import Daemon
from tests.proxy import proxy_to
from tests.web.conftest import Opens
from tests.web.terminal import Terminal, call, open_terminal

if TYPE_CHECKING:  # it may not be installed
    from playwright.sync_api import BrowserContext


def test_a_press_counts_while_the_list_changes(daemon: Daemon, opens: Opens) -> None:
    """The button that is let go is the one that was pressed."""
    terminal = opens()
    page = terminal.page
    call(daemon.url, "/process/pty", "POST", {"id": "t2"})
    row = page.locator('aside li[data-id="t1"]')
    row.get_by_text("1 client").wait_for()
    box = row.get_by_role("button", name="Rename").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.down()
    call(daemon.url, "/process/pty/t2/resize", "POST", {"cols": 99, "rows": 11})
    call(daemon.url, "/terminal/ptys/t1", "PATCH", {"title": "another"})
    page.locator("aside li").get_by_text("99\u00d711").wait_for()
    row.get_by_text("another").wait_for()
    page.mouse.up()
    page.get_by_role("dialog").get_by_label("Title").wait_for()


def test_the_keyboard_stays_where_it_was(daemon: Daemon, opens: Opens) -> None:
    """On a row that changes; and beside one that goes."""
    page = opens().page
    for name in ("t2", "t3"):
        call(daemon.url, "/process/pty", "POST", {"id": name})
    page.get_by_role("button", name="End t2").focus()
    call(daemon.url, "/process/pty/t2/resize", "POST", {"cols": 99, "rows": 11})
    page.locator("aside li").get_by_text("99\u00d711").wait_for()
    assert page.evaluate("document.activeElement.ariaLabel") == "End t2"
    call(daemon.url, "/process/pty/t2", "DELETE")
    page.wait_for_function("() => document.activeElement.textContent === 't3'")


def test_it_says_that_the_server_can_not_be_reached(
    daemon: Daemon, context: "BrowserContext"
) -> None:
    """As long as that is so, whatever else is drawn meanwhile."""
    with proxy_to(daemon.port) as proxy:
        terminal = open_terminal(context, proxy.url, "t1")
        terminal.shows("ready>")
        page = terminal.page
        proxy.down()
        terminal.is_in("waiting")
        note = page.locator("aside").get_by_text("The server can't be reached.")
        note.wait_for()
        page.get_by_role("button", name="Close this view").click()  # which draws the list
        page.get_by_text("No terminal is open.").wait_for()
        assert note.is_visible()
        proxy.up()
        note.wait_for(state="hidden")


def test_an_address_that_nobody_can_have_written(daemon: Daemon, context: "BrowserContext") -> None:
    """What is wrong in it is left out; the rest is shown."""
    call(daemon.url, "/process/pty", "POST", {"id": "t1"})
    page = context.new_page()
    page.goto(f"{daemon.url}/terminal#%E0%A4%A&t1&t2;nonsense")
    Terminal(page, "t1").shows("ready>")
    page.locator("aside li").get_by_text("1 client").wait_for()
    page.wait_for_function("() => location.hash === '#t1'")
    call(daemon.url, "/process/pty", "POST", {"id": "t3"})
    page.evaluate("location.hash = '#t3'")  # as by a link
    Terminal(page, "t3").shows("ready>")
