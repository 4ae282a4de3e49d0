"""A real browser, and a daemon that serves it the page."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.daemon.daemon import Daemon
from tests.web.browser import OPTIONS, plain
from tests.web.terminal import Terminal, open_terminal

if TYPE_CHECKING:  # it may not be installed
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage

Opens = Callable[..., Terminal]


@pytest.fixture(autouse=True)
def settled() -> None:
    """In place of the check of this process: what is tested runs in others."""


@pytest.fixture(autouse=True)
def no_blocking() -> None:
    """In place of the check of this loop: procd's code runs in another process."""


@pytest.fixture(scope="module")
def chromium() -> "Iterator[Browser]":
    """Headless Chromium; for one module, as its event loop would be in the way of other tests."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install 'procd-server[web]'"
    )
    with playwright.sync_playwright() as driver:
        found = shutil.which("chromium")
        if found is None and not Path(driver.chromium.executable_path).exists():
            pytest.skip("no Chromium: run scripts/get-programs.sh")
        browser = driver.chromium.launch(executable_path=found, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def context(chromium: "Browser") -> "Iterator[BrowserContext]":
    """A fresh profile, whose pages have no error by the end."""
    context = chromium.new_context(viewport={"width": 1000, "height": 700})
    errors: list[str] = []
    context.on("weberror", lambda error: errors.append(str(error.error)))
    context.on("console", lambda message: errors.extend(_complaints(message)))
    yield context
    context.close()
    assert not errors


def _complaints(message: "ConsoleMessage") -> list[str]:
    """What the browser refuses by the page's policy; a failed connection is a test's affair."""
    text = message.text
    return [text] if message.type == "error" and "Content Security Policy" in text else []


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home directory with a prompt that is easy to recognise."""
    (tmp_path / ".bash_profile").write_text("PS1='ready> '\n")
    return tmp_path


@pytest.fixture
def daemon(home: Path) -> Iterator[Daemon]:
    """A server whose shells are plain."""
    with Daemon.start(env=plain(home)) as daemon:
        yield daemon


@pytest.fixture
def opens(context: "BrowserContext", daemon: Daemon) -> Opens:
    """Open the page on a terminal of this id, made anew if need be."""

    def make(pty: str = "t1", **options: object) -> Terminal:
        return open_terminal(context, daemon.url, pty, **options)  # type: ignore[arg-type]  # as there

    return make
