"""The pages of shell sessions and of interpreter contexts."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.daemon.daemon import Daemon
from tests.web.browser import plain
from tests.web.terminal import WAIT_MS, Terminal, call

if TYPE_CHECKING:  # it may not be installed
    from playwright.sync_api import BrowserContext, Page


@pytest.fixture
def page(daemon: Daemon, context: "BrowserContext") -> "Page":
    """The page, on nothing in particular."""
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    page.goto(f"{daemon.url}/terminal")
    return page


def run(page: "Page", label: str, text: str) -> None:
    page.get_by_label(label, exact=True).fill(text)
    page.get_by_role("button", name="Run").locator("visible=true").click()


def test_commands_of_a_session(page: "Page") -> None:
    """Exit codes, and logs that are followed with both streams told apart."""
    page.get_by_role("tab", name="Sessions").click()
    page.get_by_role("button", name="New session").click()
    page.get_by_label("Name").fill("s-1")
    page.keyboard.press("Enter")
    run(page, "Command", "echo out; echo err >&2; exit_with() { return 3; }; exit_with")
    first = page.locator("article").first
    first.get_by_text("exit code 3").wait_for()
    first.locator(".stdout").get_by_text("out").wait_for()
    first.locator(".stderr").get_by_text("err").wait_for()
    run(page, "Command", "echo begun; sleep 1000; echo over")
    second = page.locator("article").first
    second.get_by_text("begun", exact=True).wait_for()
    second.get_by_role("button", name="Interrupt").click()
    second.get_by_text("exit code").wait_for()
    page.reload()
    page.get_by_role("tab", name="Sessions").click()
    page.locator("aside li").get_by_text("2 commands").wait_for()
    page.get_by_role("button", name="s-1", exact=True).click()
    page.locator("article .stderr").get_by_text("err").wait_for()
    page.get_by_role("button", name="End s-1").click()
    page.get_by_role("button", name="End it").click()
    page.get_by_text("Choose a session").wait_for()
    page.locator("aside li").first.wait_for(state="hidden")


def test_cells_of_a_context(page: "Page") -> None:
    """Text, errors, HTML in a frame without rights, pictures; the namespace is kept."""
    page.get_by_role("tab", name="Contexts").click()
    run(
        page, "Python code", "import sys\nx = 6\nprint('out')\nprint('err', file=sys.stderr)\nx * 7"
    )
    cell = page.locator("article").first
    cell.get_by_text("done").wait_for()
    assert cell.locator(".stdout").inner_text().strip() == "out"
    assert cell.locator(".stderr").inner_text().strip() == "err"
    assert cell.locator("pre").last.inner_text() == "42"
    run(page, "Python code", "1 / (x - 6)")
    cell = page.locator("article").first
    cell.get_by_text("ZeroDivisionError").first.wait_for()
    html = "<b id=x>bold</b><script>document.getElementById('x').textContent='ran'</script>"
    run(page, "Python code", f"class H:\n    def _repr_html_(self): return {html!r}\nH()")
    cell = page.locator("article").first
    cell.get_by_text("done").wait_for()
    assert cell.locator("iframe").get_attribute("sandbox") == ""
    assert cell.frame_locator("iframe").locator("#x").inner_text() == "bold"
    svg = "<svg xmlns='http://www.w3.org/2000/svg' width='8' height='8'/>"
    run(page, "Python code", f"class S:\n    def _repr_svg_(self): return {svg!r}\nS()")
    page.wait_for_function("() => document.querySelector('article img')?.naturalWidth === 8")


def test_contexts_are_begun_and_ended(page: "Page") -> None:
    page.get_by_role("tab", name="Contexts").click()
    page.get_by_role("button", name="New context").click()
    page.get_by_role("textbox", name="Directory").fill("/usr")
    page.keyboard.press("Enter")
    page.locator("aside li.here").get_by_text("/usr").wait_for()
    run(page, "Python code", "import os, time\nprint(os.getcwd(), flush=True)\ntime.sleep(1000)")
    cell = page.locator("article").first
    cell.get_by_text("/usr").wait_for()
    page.locator("aside li.here").get_by_role("button", name="Interrupt").click()
    cell.get_by_text("KeyboardInterrupt").first.wait_for()
    page.locator("aside li.here").get_by_role("button", name="End").click()
    page.get_by_role("button", name="End it").click()
    page.wait_for_function(
        "() => document.querySelectorAll('[aria-label=Contexts] li').length === 1"
    )


def test_a_recording_of_sizes_that_no_terminal_has(
    home: Path, tmp_path: Path, context: "BrowserContext"
) -> None:
    """Whoever may write to the directory may have made it."""
    directory = tmp_path / "recordings"
    directory.mkdir()
    events = [
        {"version": 3, "term": {"cols": 80, "rows": 24}, "timestamp": 1, "title": "forged"},
        *([0.1, "r", size] for size in ("60000x60000", "80x1001", "0x0", "80.5x24", "x", "")),
        [0.1, "o", "still here"],
    ]
    (directory / "20200102T030405.000006Z.cast").write_text("\n".join(map(json.dumps, events)))
    with Daemon.start(env=plain(home) | {"PROCD_SESSIONS_STATE_DIR": str(tmp_path)}) as daemon:
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        page.goto(f"{daemon.url}/terminal")
        page.get_by_role("tab", name="Recordings").click()
        page.get_by_role("list", name="Recordings").get_by_text("forged", exact=True).click()
        player = Terminal(page, "")
        player.element = page.locator(".player")
        player.shows("still here")


def test_a_recording_is_made_and_played(daemon: Daemon, page: "Page") -> None:
    page.get_by_role("button", name="New terminal with").click()
    page.get_by_label("Name", exact=True).fill("rec")
    page.get_by_label("Record it").check()
    page.keyboard.press("Enter")
    terminal = Terminal(page, "rec")
    terminal.shows("ready>")
    page.locator("aside li").get_by_text("recorded").wait_for()
    terminal.type("echo to-be-''played; exit\n")
    terminal.is_in("ended")
    page.get_by_role("tab", name="Recordings").click()
    page.get_by_role("list", name="Recordings").get_by_text("rec", exact=True).click()
    player = Terminal(page, "")
    player.element = page.locator(".player")
    player.shows("to-be-played")
    assert (
        player.element.locator(".xterm-screen").evaluate("e => getComputedStyle(e).opacity") == "1"
    )
    player.element.get_by_role("button", name="Play").wait_for()
    player.element.get_by_label("Place in the recording").fill("0")
    page.wait_for_function(
        "() => !document.querySelector('.player .xterm-rows').textContent.includes('played')"
    )
    player.element.get_by_role("button", name="Play").click()
    player.shows("to-be-played")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download rec").click()
    header = json.loads(download.value.path().read_text().splitlines()[0])
    assert (header["version"], header["title"]) == (3, "rec")
    page.get_by_role("button", name="Delete rec").click()
    page.get_by_role("button", name="Delete it").click()
    page.get_by_text("Choose a recording").wait_for()
    assert call(daemon.url, "/recordings") == {"recordings": []}
