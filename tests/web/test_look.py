"""What can be read: contrast."""

from typing import TYPE_CHECKING, Literal

import pytest

from tests.web.conftest import Opens

if TYPE_CHECKING:  # it may not be installed
    from playwright.sync_api import Page

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
