"""`python -m tests.web.screenshots DIRECTORY`: pictures of the web terminal, for the README."""

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from tests.daemon.daemon import Daemon
from tests.web.browser import OPTIONS, plain
from tests.web.terminal import Terminal, call, open_terminal

PROFILE = r"PS1='\[\e[32m\]you@sandbox\[\e[0m\]:\[\e[34m\]\w\[\e[0m\]$ '; alias ls='ls --color'"
CODE = """\
class Chart:
    def _repr_svg_(self):
        bars = "".join(
            f"<rect x='{40 * i}' y='{120 - h}' width='30' height='{h}' fill='#58a6ff'/>"
            for i, h in enumerate([30, 75, 50, 110, 90, 60])
        )
        return f"<svg xmlns='http://www.w3.org/2000/svg' width='240' height='120'>{bars}</svg>"
Chart()
"""
TABLE = """\
class Table:
    def _repr_html_(self):
        rows = "".join(f"<tr><td>{n}</td><td>{n ** 2}</td></tr>" for n in range(1, 5))
        return f"<table border=1 cellpadding=4><tr><th>n</th><th>n²</th></tr>{rows}</table>"
print("four squares")
Table()
"""


def terminals(browser: Browser, url: str, home: Path, target: Path) -> None:
    """Two terminals beside each other, and the same on a small screen."""
    context = browser.new_context(
        viewport={"width": 1200, "height": 560}, color_scheme="dark", device_scale_factor=2
    )
    call(url, "/process/pty", "POST", {"id": "build", "cwd": str(home)})
    one = open_terminal(context, url, "edit", create=True)
    one.shows("$")
    page = one.page
    one.type("vim -u NONE -i NONE hello.py\n")
    one.shows("Greets")
    page.get_by_role("button", name="Split: new terminal beside").click()
    page.get_by_label("Name", exact=True).fill("shell")
    page.keyboard.press("Enter")
    two = Terminal(page, "shell")
    two.shows("$")
    two.type("clear; ls --color /usr; uname -sm; python3 hello.py\n")
    two.shows("Hello")
    call(url, "/terminal/ptys/build", "PATCH", {"title": "nightly build"})
    page.locator("aside").get_by_text("nightly build").wait_for()
    page.screenshot(path=target / "terminals.png")
    context.close()
    small = browser.new_context(
        viewport={"width": 360, "height": 640}, color_scheme="light", device_scale_factor=2
    )
    phone = open_terminal(small, url, "shell", create=False)
    phone.shows("Hello")
    phone.page.locator("aside").get_by_text("nightly build").wait_for()
    phone.page.screenshot(path=target / "small.png")
    small.close()


def _tab(browser: Browser, url: str, name: str) -> Page:
    page = browser.new_context(
        viewport={"width": 1000, "height": 640}, color_scheme="light", device_scale_factor=2
    ).new_page()
    page.goto(f"{url}/terminal")
    page.get_by_role("tab", name=name).click()
    return page


def sessions(browser: Browser, url: str, target: Path) -> None:
    """A session with commands that worked and failed."""
    page = _tab(browser, url, "Sessions")
    page.get_by_role("button", name="New session").click()
    page.get_by_label("Name", exact=True).fill("setup")
    page.keyboard.press("Enter")
    for command in ("echo installed; echo 'warning: old cache' >&2", "ls /nowhere"):
        page.get_by_label("Command", exact=True).fill(command)
        page.keyboard.press("Enter")
        page.locator("article").first.get_by_text("exit code").wait_for()
        page.locator("article").first.locator("pre span").first.wait_for()
    page.screenshot(path=target / "sessions.png")


def contexts(browser: Browser, url: str, target: Path) -> None:
    """Cells with text, HTML and a picture."""
    page = _tab(browser, url, "Contexts")
    for code in (CODE, TABLE):
        page.get_by_label("Python code").fill(code)
        page.keyboard.press("Control+Enter")
        page.locator("article").first.get_by_text("done").wait_for()
    page.frame_locator("iframe").first.locator("table").wait_for()
    page.get_by_label("Python code").fill("")
    page.screenshot(path=target / "contexts.png")


def main(target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="sandbox-"))
    (home / ".bash_profile").write_text(PROFILE)
    (home / "hello.py").write_text('"""Greets."""\n\nfor name in ("world", "sandbox"):\n'
                                   '    print(f"Hello, {name}!")\n')  # fmt: skip
    with sync_playwright() as driver, Daemon.start(env=plain(home), cwd=str(home)) as daemon:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=OPTIONS)
        terminals(browser, daemon.url, home, target)
        sessions(browser, daemon.url, target)
        contexts(browser, daemon.url, target)
        browser.close()
    shutil.rmtree(home)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
