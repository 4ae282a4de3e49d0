"""What can be read, and by whom: contrast, long names, tabs, signs."""

from typing import TYPE_CHECKING, Any, Literal

import pytest

from tests.daemon.daemon import Daemon, eventually
from tests.web.conftest import Opens
from tests.web.terminal import Terminal, call

if TYPE_CHECKING:  # it may not be installed
    from playwright.sync_api import BrowserContext, Page

# WCAG 2.2, success criterion 1.4.3, less what colours of 8 bits are rounded by.
CONTRAST = 4.4


def luminance(colour: str) -> float:
    """Of `rgb(…)`: WCAG 2.2, "relative luminance"."""
    parts = [int(part) / 255 for part in colour[4:-1].split(",")]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def faint(page: "Page") -> list[tuple[str, str, str]]:
    """What of the screen can't be told from its background: text, colour, background."""
    painted: list[list[str]] = page.evaluate(
        """() => {
          const back = getComputedStyle(document.querySelector(".xterm-scrollable-element"));
          return [...document.querySelectorAll(".xterm-rows span")]
            .filter(e => e.textContent.trim())
            .map(e => [e, getComputedStyle(e)])
            .map(([e, style]) => [e.textContent, style.color,
              style.backgroundColor === "rgba(0, 0, 0, 0)" ? back.backgroundColor
                : style.backgroundColor]);
        }"""
    )
    assert painted
    found = []
    for text, colour, back in painted:
        darker, lighter = sorted((luminance(colour), luminance(back)))
        if (lighter + 0.05) / (darker + 0.05) < CONTRAST:
            found.append((text, colour, back))
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_colours_can_be_read(opens: Opens, scheme: Literal["light", "dark"]) -> None:
    """Each on the background, and black, white and bright white on each."""
    terminal = opens()
    terminal.page.emulate_media(color_scheme=scheme)
    terminal.shows("ready>")
    terminal.type(
        "clear; for i in $(seq 0 15); do printf '\\e[38;5;%dmf%d\\e[48;5;%dm' $i $i $i;"
        " for j in 30 37 97; do printf '\\e[%dmx%d' $j $j; done; printf '\\e[m '; done;"
        " echo fin''ished\n"
    )
    terminal.shows("finished")
    assert faint(terminal.page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_a_search_finds_can_be_read(opens: Opens, scheme: Literal["light", "dark"]) -> None:
    terminal = opens()
    page = terminal.page
    page.emulate_media(color_scheme=scheme)
    terminal.shows("ready>")
    terminal.type("clear; printf 'hay%s\\n' 1 2 3; printf '\\e[33mhay%s\\e[m\\n' 4\n")
    terminal.shows("hay4")
    page.keyboard.press("Control+Shift+F")
    page.get_by_label("Search the output").fill("hay")
    page.locator(".search output").get_by_text("of 4").wait_for()
    page.wait_for_function("() => document.querySelectorAll('.xterm-decoration').length >= 4")
    assert faint(page) == []


@pytest.mark.parametrize("width", [360, 1000])
def test_long_names_are_cut_short(daemon: Daemon, context: "BrowserContext", width: int) -> None:
    """Nothing makes the page wider than its window, and all that can be pressed is in it."""
    name = "build-" + "x" * 180
    others = [f"terminal-number-{number}" for number in range(12)]
    for each in (name, *others):
        call(daemon.url, "/process/pty", "POST", {"id": each})
    page = context.new_page()
    page.set_viewport_size({"width": width, "height": 640})
    page.goto(f"{daemon.url}/terminal#{'&'.join([name, *others])}")
    Terminal(page, others[-1]).shows("ready>")
    wide = "document.documentElement.scrollWidth"
    assert page.evaluate(wide) <= width

    def is_one_line() -> bool:
        chosen = page.get_by_role("tab", name=others[-1]).bounding_box()
        tools = page.get_by_role("button", name="Close this view").bounding_box()
        return (
            chosen is not None
            and tools is not None
            and chosen["x"] + chosen["width"] <= tools["x"]
            and tools["x"] + tools["width"] <= width
            and tools["y"] + tools["height"] - chosen["y"] < 60
        )

    assert eventually(is_one_line)
    page.get_by_role("button", name=f"End {name}").click()
    dialog = page.get_by_role("dialog")
    assert dialog.evaluate("e => e.scrollWidth - e.clientWidth") == 0
    dialog.get_by_role("button", name="Cancel").click()
    assert page.evaluate(wide) <= width


def test_tabs_have_panels_and_arrow_keys(daemon: Daemon, opens: Opens) -> None:
    page = opens().page
    call(daemon.url, "/process/pty", "POST", {"id": "t2"})
    page.locator('aside li[data-id="t2"] .name').click()
    Terminal(page, "t2").shows("ready>")
    panels: list[list[Any]] = page.evaluate(
        """() => [...document.querySelectorAll("[role=tab]")].map((tab) => {
          const panel = document.getElementById(tab.getAttribute("aria-controls"));
          return [panel.getAttribute("role"), panel.getAttribute("aria-labelledby") === tab.id,
            panel.checkVisibility() === (tab.getAttribute("aria-selected") === "true"),
            tab.tabIndex === (tab.getAttribute("aria-selected") === "true" ? 0 : -1)];
        })"""
    )
    assert panels == [["tabpanel", True, True, True]] * 6
    page.get_by_role("tab", name="t2").focus()
    for key, name in (("ArrowLeft", "t1"), ("ArrowLeft", "t2"), ("Home", "t1"), ("End", "t2")):
        page.keyboard.press(key)
        assert page.evaluate("document.activeElement.textContent") == name
        assert page.get_by_role("tab", name=name).get_attribute("aria-selected") == "true"
    page.get_by_role("tab", name="Terminals").focus()
    page.keyboard.press("ArrowRight")
    page.get_by_text("Choose a session").wait_for()
    assert page.evaluate("document.activeElement.textContent") == "Sessions"


def test_the_theme_button_says_which_theme_is_on(opens: Opens) -> None:
    button = opens().page.get_by_role("button", name="Theme")
    for name in ("as the system", "light", "dark", "as the system"):
        assert button.get_attribute("aria-label") == f"Theme: {name}"
        button.click()


def test_signs_are_drawn(opens: Opens) -> None:
    """And no characters that a font may lack: in the lists at the left and above the terminals."""
    page = opens().page
    page.locator("aside li").get_by_text("1 client").wait_for()
    for name in ("Sessions", "Contexts", "Recordings"):
        page.get_by_role("tab", name=name).click()
        page.get_by_role("heading", name=name).wait_for()
    odd: list[str] = page.evaluate(
        "() => [...document.querySelectorAll('button')].map(e => e.textContent)"
        ".filter(text => /[^\\x20-\\x7e\u2212]/.test(text))"
    )
    assert odd == []


def test_what_has_a_label_has_a_role(opens: Opens) -> None:
    """Else the label is told to nobody: WAI-ARIA 1.2, section 5.2.8.6 (generic)."""
    page = opens().page
    for name in ("Sessions", "Contexts", "Recordings"):
        page.get_by_role("tab", name=name).click()
        page.get_by_role("heading", name=name).wait_for()
    found: list[str] = page.evaluate(
        "() => [...document.querySelectorAll('div[aria-label], span[aria-label]')]"
        ".filter(e => !e.hasAttribute('role')).map(e => e.ariaLabel)"
    )
    assert found == []
