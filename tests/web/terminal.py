"""The web terminal as a person sees it: the text on its screen, its state, its keys."""

import json
import re
import urllib.request
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # it may not be installed
    from playwright.sync_api import BrowserContext, Locator, Page

WAIT_MS = 20_000


def call(url: str, path: str, method: str = "GET", body: object = None, token: str = "") -> Any:
    """Ask the API and return the parsed reply."""
    request = urllib.request.Request(
        url + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {token}"} if token else {},
    )
    with urllib.request.urlopen(request, timeout=20) as reply:
        return json.load(reply)


class Terminal:
    """One terminal in one page."""

    def __init__(self, page: "Page", pty: str) -> None:
        self.page = page
        self.element: Locator = page.locator(f'.view[data-id="{pty}"]')

    # `Any`: the type of an expectation isn't exported.
    def _expect(self, part: str = "") -> Any:
        from playwright.sync_api import expect  # not needed where the tests are skipped

        return expect(self.element.locator(part) if part else self.element)

    def lines(self) -> list[str]:
        rows: list[str] = self.element.locator(".xterm-rows > div").all_text_contents()
        return [row.replace("\xa0", " ").rstrip() for row in rows]

    def shows(self, text: str) -> None:
        """Wait until the screen has a line that contains `text`."""
        self._expect(".xterm-rows").to_contain_text(text, timeout=WAIT_MS)

    def reads(self, text: str) -> None:
        """Wait until any of it contains `text`."""
        self._expect().to_contain_text(text, timeout=WAIT_MS)

    def is_in(self, state: str) -> None:
        """Wait for a state of the connection."""
        self._expect().to_have_attribute("data-state", state, timeout=WAIT_MS)

    def says(self, text: str) -> None:
        """Wait until the line below the screen contains `text`."""
        self._expect("footer").to_contain_text(text, timeout=WAIT_MS)

    def type(self, text: str) -> None:
        self.element.locator("textarea").focus()
        self.page.keyboard.type(text)

    def enter_token(self, token: str) -> None:
        self.page.locator("input[name=token]").fill(token)
        self.page.keyboard.press("Enter")

    def size(self) -> tuple[int, int]:
        """Columns and rows as the page says them."""
        cols, rows = re.findall(r"\d+", self.element.locator(".people").inner_text())[:2]
        return int(cols), int(rows)


def open_terminal(
    context: "BrowserContext",
    url: str,
    pty: str,
    *,
    create: bool = True,
    token: str = "",
    enter: str = "",
) -> Terminal:
    """Open a page on a terminal, made before if `create`; `enter` is given instead of `token`."""
    if create:
        call(url, "/process/pty", "POST", {"id": pty}, token)
    page = context.new_page()
    page.goto(f"{url}/terminal#{pty}")
    terminal = Terminal(page, pty)
    if token:
        terminal.enter_token(enter or token)
    return terminal
