"""The page of the API's description, in a browser."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.api.access import Secrets
from tests.daemon.daemon import Daemon
from tests.web.browser import plain
from tests.web.terminal import WAIT_MS

if TYPE_CHECKING:  # it may not be installed
    from playwright.sync_api import Browser, BrowserContext, Locator, Page


@pytest.fixture
def daemon(home: Path, secrets: Secrets) -> Iterator[Daemon]:
    """A server that asks for tokens."""
    settings = plain(home, PROCD_AUTH_TOKEN_FILE=str(secrets.path))
    with Daemon.start(env=settings) as daemon:
        yield daemon


@pytest.fixture
def page(daemon: Daemon, context: "BrowserContext") -> "Page":
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    page.goto(f"{daemon.url}/docs")
    return page


def opened(page: "Page", operation: str) -> "Locator":
    element = page.locator(f"details#{operation}")
    element.locator("> summary").click()
    return element


def sign_in(page: "Page", secret: str) -> None:
    page.locator("header").get_by_role("button", name="Sign in").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Token").fill(secret)
    dialog.get_by_role("button", name="Sign in").click()


def test_a_user_signs_in_and_tries_an_operation(page: "Page", secrets: Secrets) -> None:
    page.get_by_text("A token is needed.").wait_for()
    execute = opened(page, "executeCommand")
    execute.get_by_role("button", name="Send").click()
    execute.locator(".status", has_text="401").wait_for()
    sign_in(page, secrets.write[:-1])
    page.get_by_text("That token is not valid.").wait_for()
    sign_in(page, secrets.write)
    page.locator("header").get_by_text("Signed in.").wait_for()
    execute.get_by_role("button", name="Send").click()
    execute.locator(".status", has_text="200 OK").wait_for()
    assert '"result": "hello\\n"' in execute.locator("pre.reply").inner_text()
    assert "content-type: application/json" in execute.locator("pre.headers").inner_text()
    execute.get_by_label("Body").fill('{"command": "exit 3"}')
    execute.get_by_role("button", name="Send").click()
    execute.get_by_text('"exitCode": 3').wait_for()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_text("A token is needed.").wait_for()


def test_what_varies_in_a_path_and_a_query(page: "Page", secrets: Secrets) -> None:
    sign_in(page, secrets.admin)
    page.locator("header").get_by_text("Signed in.").wait_for()
    command = opened(page, "getSessionCommand")
    command.get_by_label("session_id").fill("a b/c")
    command.get_by_label("wait").fill("x")
    with page.expect_response("**/process/session/**") as answered:
        command.get_by_role("button", name="Send").click()
    assert "/process/session/a%20b%2Fc/command/" in answered.value.url
    assert answered.value.url.endswith("?wait=x")
    command.locator(".status", has_text="404").wait_for()
    sandbox = opened(page, "getSandbox")
    sandbox.get_by_role("button", name="Send").click()
    sandbox.locator(".status", has_text="200").wait_for()


def test_a_command_that_takes_long_is_cancelled(page: "Page", secrets: Secrets) -> None:
    sign_in(page, secrets.write)
    page.locator("header").get_by_text("Signed in.").wait_for()
    execute = opened(page, "executeCommand")
    execute.get_by_label("Body").fill('{"command": "sleep 1000", "timeout": 0}')
    execute.get_by_role("button", name="Send").click()
    execute.get_by_role("button", name="Cancel").click()
    execute.get_by_text("Cancelled.").wait_for()


def test_each_operation_can_be_tried_or_says_why_not(page: "Page") -> None:
    operations = page.locator("details.operation")
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    page.wait_for_function(
        "() => document.querySelector('details.operation:not(:has(.try))') === null"
    )
    websockets = page.get_by_text("This is a WebSocket, which this page doesn't open.").count()
    assert websockets == 5
    assert page.locator("form.try").count() == operations.count() - websockets
    page.goto(page.url + "#ExecuteReply")
    page.locator("details#ExecuteReply[open]").wait_for()


def test_it_is_read_without_javascript(chromium: "Browser", daemon: Daemon) -> None:
    context = chromium.new_context(java_script_enabled=False, color_scheme="dark")
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    page.goto(f"{daemon.url}/toolbox/box/docs")
    opened(page, "executeCommand").get_by_text("answered with 408").wait_for()
    assert page.locator(".try").count() == 0
    context.close()
