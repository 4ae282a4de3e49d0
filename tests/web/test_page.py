"""The list, tabs and panes, the keyboard, and small windows."""

import re
from typing import TYPE_CHECKING

from tests.daemon.daemon import Daemon
from tests.web.conftest import Opens
from tests.web.terminal import Terminal, call, open_terminal

if TYPE_CHECKING:  # it may not be installed
    from playwright.sync_api import BrowserContext, Page


def item(page: "Page", pty: str) -> "Terminal":
    """An entry of the list, to be asked what it shows."""
    found = Terminal(page, pty)
    found.element = page.locator(f'aside li[data-id="{pty}"]')
    return found


def test_the_list_is_kept_current(daemon: Daemon, opens: Opens) -> None:
    """What others make, resize, attach to and end shows by itself."""
    terminal = opens()
    terminal.shows("ready>")
    call(daemon.url, "/process/pty", "POST", {"id": "t2", "cols": 91, "rows": 17})
    other = item(terminal.page, "t2")
    other.reads("91\u00d717 · 0 clients")
    call(daemon.url, "/process/pty/t2/resize", "POST", {"cols": 92, "rows": 18})
    other.reads("92\u00d718")
    item(terminal.page, "t1").reads("1 client")
    call(daemon.url, "/process/pty", "POST", {"id": "t3", "lazyStart": True})
    item(terminal.page, "t3").reads("not started")
    terminal.type("exit 5\n")
    item(terminal.page, "t1").reads("ended with exit code 5")
    call(daemon.url, "/process/pty/t2", "DELETE")
    terminal.page.wait_for_function("() => !document.querySelector('aside li[data-id=t2]')")


def test_rename_and_end(opens: Opens) -> None:
    terminal = opens()
    page = terminal.page
    page.get_by_role("button", name="Rename t1").click()
    page.get_by_label("Title").fill("build <b>")
    page.keyboard.press("Enter")
    item(page, "t1").reads("build <b>")
    page.get_by_role("tab", name="build <b>").wait_for()
    page.get_by_role("button", name="End build <b>").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    terminal.is_in("live")
    page.get_by_role("button", name="End build <b>").click()
    page.get_by_role("dialog").get_by_role("button", name="End it").click()
    terminal.is_in("ended")
    terminal.says("SIGKILL")


def test_a_new_terminal_with_directory_environment_and_size(opens: Opens) -> None:
    terminal = opens()
    page = terminal.page
    page.get_by_role("button", name="New terminal with").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name", exact=True).fill("mine")
    dialog.get_by_label("Directory").fill("/usr")
    dialog.get_by_label("Environment").fill("A=1=2\nB=x y")
    dialog.get_by_role("button", name="Begin").click()
    mine = Terminal(page, "mine")
    mine.shows("ready>")
    mine.type("echo $PWD,$A,$B\n")
    mine.shows("/usr,1=2,x y")


def test_what_is_wrong_with_a_new_terminal_is_said(opens: Opens) -> None:
    page = opens().page
    page.get_by_role("button", name="New terminal with").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name", exact=True).fill("t1")
    dialog.get_by_role("button", name="Begin").click()
    page.get_by_role("alert").get_by_text("already exists").wait_for()


def test_tabs_and_panes(daemon: Daemon, opens: Opens) -> None:
    """Each terminal keeps its screen; two side by side share the window."""
    one = opens("one")
    page = one.page
    one.shows("ready>")
    one.type("echo fi''rst\n")
    one.shows("first")
    whole = one.size()
    call(daemon.url, "/process/pty", "POST", {"id": "two"})
    page.locator('aside li[data-id="two"] .name').click()
    two = Terminal(page, "two")
    two.shows("ready>")
    assert not one.element.is_visible()
    page.get_by_role("button", name="Split: new terminal beside").click()
    page.get_by_role("dialog").get_by_label("Name", exact=True).fill("three")
    page.get_by_role("dialog").get_by_role("button", name="Begin").click()
    three = Terminal(page, "three")
    three.shows("ready>")
    assert two.element.is_visible()
    page.wait_for_function(
        "most => parseInt(document.querySelector('[data-id=two] .people').textContent) < most",
        arg=whole[0] // 2 + 1,
    )
    three.type("stty size\n")
    three.shows(" ".join(map(str, reversed(three.size()))))
    page.get_by_role("tab", name="one").click()
    assert one.element.is_visible()
    assert not two.element.is_visible()
    one.shows("first")
    assert one.size() == whole
    page.reload()
    for each in (one, two, three):
        each.is_in("live")


def test_search(opens: Opens) -> None:
    terminal = opens()
    terminal.shows("ready>")
    terminal.type("for i in $(seq 200); do echo line-$i; done\n")
    terminal.shows("line-200")
    terminal.page.keyboard.press("Control+Shift+F")
    terminal.page.get_by_label("Search the output").fill("line-42")
    terminal.shows("line-42")
    terminal.page.locator(".search output").get_by_text("1 of 1").wait_for()
    terminal.page.keyboard.press("Escape")
    terminal.type("echo ba''ck\n")
    terminal.shows("back")


def test_copy(opens: Opens, context: "BrowserContext") -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    terminal = opens()
    terminal.shows("ready>")
    terminal.type("clear; echo co''pied\n")
    terminal.shows("copied")
    terminal.element.locator(".xterm-screen").dblclick(position={"x": 20, "y": 5})
    terminal.page.keyboard.press("Control+Shift+C")
    terminal.page.wait_for_function("() => navigator.clipboard.readText().then(t => t == 'copied')")


def test_programs_set_the_clipboard_only_if_allowed(
    opens: Opens, context: "BrowserContext"
) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    terminal = opens()
    terminal.shows("ready>")
    terminal.page.evaluate("navigator.clipboard.writeText('before')")
    osc = "printf '\\e]52;c;%s\\a' $(printf taken | base64); echo do''ne\n"
    terminal.type(osc)
    terminal.shows("done")
    assert terminal.page.evaluate("navigator.clipboard.readText()") == "before"
    terminal.page.get_by_role("button", name="Programs may set the clipboard").click()
    terminal.type(osc)
    terminal.page.wait_for_function("() => navigator.clipboard.readText().then(t => t == 'taken')")


def test_links_open_on_a_modifier_click_only(opens: Opens, daemon: Daemon) -> None:
    terminal = opens()
    terminal.shows("ready>")
    terminal.type(f"clear; echo {daemon.url}/healthz\n")
    terminal.shows("/healthz")
    screen = terminal.element.locator(".xterm-screen")
    screen.hover(position={"x": 60, "y": 8})
    screen.click(position={"x": 60, "y": 8})
    assert len(terminal.page.context.pages) == 1
    with terminal.page.context.expect_page() as opened:
        screen.click(position={"x": 60, "y": 8}, modifiers=["Control"])
    assert opened.value.url == f"{daemon.url}/healthz"
    opened.value.close()


def test_the_theme_follows_the_system_or_the_person(opens: Opens) -> None:
    terminal = opens()
    page = terminal.page

    def becomes(theme: str) -> None:
        page.wait_for_function(
            "theme => document.documentElement.dataset.theme == theme", arg=theme
        )

    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        becomes(scheme)
    page.get_by_role("button", name="Theme").click(click_count=2)
    becomes("dark")
    page.reload()
    becomes("dark")


def test_all_by_keyboard(opens: Opens) -> None:
    """Begin a terminal, type in it, leave it again: without a mouse."""
    terminal = opens()
    page = terminal.page
    terminal.shows("ready>")
    page.get_by_role("button", name="End t1").wait_for()  # the list comes when it comes
    page.keyboard.press("Shift+F6")
    assert page.evaluate("document.activeElement.getAttribute('role')") == "tab"
    reached: list[str] = []
    for _ in range(40):
        page.keyboard.press("Shift+Tab")
        name = page.evaluate(
            "(document.activeElement.ariaLabel ?? document.activeElement.textContent)"
        )
        if name == "New terminal":
            break
        reached.append(name)
    assert any("End t1" in name for name in reached)
    page.keyboard.press("Enter")
    page.locator(".view").nth(1).wait_for()
    fresh = Terminal(page, page.locator(".view").nth(1).get_attribute("data-id") or "")
    fresh.shows("ready>")
    page.keyboard.type("echo key''board\n")
    fresh.shows("keyboard")


def test_everything_has_a_name(opens: Opens) -> None:
    """For screen readers: no control without one."""
    terminal = opens()
    terminal.shows("ready>")
    nameless = terminal.page.evaluate(
        """() => [...document.querySelectorAll('button, input, textarea, select, [role=tablist]')]
          .filter(e => !(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length))
          .map(e => e.outerHTML)"""
    )
    assert nameless == []


def test_a_small_window(daemon: Daemon, context: "BrowserContext") -> None:
    """At 360 px nothing is cut off sideways, and the terminal can be used."""
    terminal = open_terminal(context, daemon.url, "t1")
    terminal.page.set_viewport_size({"width": 360, "height": 640})
    terminal.shows("ready>")
    terminal.page.wait_for_function(
        "() => parseInt(document.querySelector('.people').textContent) < 60"
    )
    assert terminal.page.evaluate("document.documentElement.scrollWidth") <= 360
    cols, rows = terminal.size()
    assert cols >= 35
    assert rows >= 10
    terminal.type("clear; stty size\n")
    terminal.shows(f"{rows} {cols}")
    terminal.page.set_viewport_size({"width": 360, "height": 500})
    terminal.page.wait_for_function(
        "() => document.querySelector('.view').getBoundingClientRect().bottom <= 500"
    )
    terminal.page.wait_for_function(
        "rows => +document.querySelector('.people').textContent.match(/[0-9]+/g)[1] < rows",
        arg=rows,
    )
    for button in terminal.page.get_by_role("button").all():
        box = button.bounding_box()
        assert box is None or box["x"] + box["width"] <= 360, re.sub(r"\s+", " ", str(button))
