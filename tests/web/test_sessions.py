"""Shell sessions in the page: what is waited for, logs that are followed, floods."""

import json
import re
import urllib.request
from typing import TYPE_CHECKING

from tests.daemon.daemon import Daemon, eventually
from tests.proxy import proxy_to
from tests.web.terminal import WAIT_MS

if TYPE_CHECKING:  # it may not be installed
    from playwright.sync_api import BrowserContext, Locator, Page


def tell(url: str, path: str, **body: object) -> None:
    """POST, whatever is answered."""
    request = urllib.request.Request(
        f"{url}/process/session{path}", method="POST", data=json.dumps(body).encode()
    )
    urllib.request.urlopen(request, timeout=20).close()


def begin(url: str, session: str, *commands: str) -> None:
    """A session in which these are run."""
    tell(url, "", sessionId=session)
    for command in commands:
        tell(url, f"/{session}/exec", command=command, runAsync=True)


def show(page: "Page", url: str, session: str) -> None:
    """Open the page on a session."""
    page.set_default_timeout(WAIT_MS)
    page.goto(f"{url}/terminal")
    page.get_by_role("tab", name="Sessions").click()
    choose(page, session)


def choose(page: "Page", session: str) -> None:
    page.locator("aside").get_by_role("button", name=session, exact=True).click()


def logged(article: "Locator") -> list[str]:
    return article.locator("pre").inner_text().splitlines()


def test_one_command_is_waited_for_at_a_time(daemon: Daemon, context: "BrowserContext") -> None:
    """However many there are: a browser has six connections for requests."""
    begin(daemon.url, "s1", *(f"read; echo go-{n}" for n in range(8)))
    begin(daemon.url, "s2", "echo oth''er")
    waits: set[object] = set()
    most = 0

    def asked(request: object) -> None:
        nonlocal most
        if "?wait=" in request.url:  # type: ignore[attr-defined]  # it may not be installed
            waits.add(request)
            most = max(most, len(waits))

    page = context.new_page()
    page.on("request", asked)
    for end in ("requestfinished", "requestfailed"):
        page.on(end, lambda request: waits.discard(request))
    show(page, daemon.url, "s1")
    page.locator("article").get_by_text("running", exact=True).wait_for()
    page.locator("article").get_by_text("queued", exact=True).nth(6).wait_for()
    command = json.load(urllib.request.urlopen(f"{daemon.url}/process/session/s1"))["commands"][0]
    tell(daemon.url, f"/s1/command/{command['id']}/input", data="\n")
    page.locator("article").last.get_by_text("exit code 0").wait_for()
    page.locator("article").nth(6).get_by_text("running", exact=True).wait_for()
    assert eventually(lambda: page.evaluate("1") == 1 and len(waits) == 1)
    choose(page, "s2")
    page.locator("article").get_by_text("other", exact=True).wait_for()
    assert eventually(lambda: page.evaluate("1") == 1 and not waits)
    assert most == 1


def test_what_begins_later_is_shown_too(daemon: Daemon, context: "BrowserContext") -> None:
    """A command of somebody else's, and one that is run here while another runs."""
    begin(daemon.url, "s1", "sleep 1000")
    page = context.new_page()
    show(page, daemon.url, "s1")
    page.locator("article").get_by_text("running", exact=True).wait_for()
    page.get_by_label("Command", exact=True).fill("echo sec''ond")
    page.keyboard.press("Enter")
    page.locator("article").first.get_by_text("queued", exact=True).wait_for()
    tell(daemon.url, "/s1/exec", command="echo thi''rd", runAsync=True)
    page.locator("article").last.get_by_role("button", name="Interrupt").click()
    for text in ("second", "third"):
        page.locator("article pre").get_by_text(text, exact=True).wait_for()
    assert page.locator("article .good").count() == 2
    page.get_by_label("Command", exact=True).fill("echo fou''rth")
    page.keyboard.press("Enter")
    page.locator("article").first.get_by_text("fourth", exact=True).wait_for()
    page.locator("article").first.get_by_text("exit code 0").wait_for()


def test_a_shell_that_has_ended(daemon: Daemon, context: "BrowserContext") -> None:
    """The list says so of one that had, and of one that does while it is shown."""
    begin(daemon.url, "s1", "exit 4")
    begin(daemon.url, "s2")
    page = context.new_page()
    show(page, daemon.url, "s2")
    rows = page.get_by_role("list", name="Sessions").get_by_role("listitem")
    rows.get_by_text("1 command · ended").wait_for()
    rows.get_by_text("0 commands", exact=True).wait_for()
    page.get_by_label("Command", exact=True).fill("exit 5")
    page.keyboard.press("Enter")
    rows.get_by_text("1 command · ended").nth(1).wait_for()


def test_a_log_is_taken_up_again(daemon: Daemon, context: "BrowserContext") -> None:
    """After each loss at the place that it had reached, and its end is seen."""
    begin(daemon.url, "s1", "for i in $(seq 300); do echo n-$i; sleep 0.01; done; (exit 3)")
    with proxy_to(daemon.port) as proxy:
        page = context.new_page()
        show(page, proxy.url, "s1")
        article = page.locator("article")
        for last in ("n-20", "n-90"):
            article.locator("pre").get_by_text(re.compile(f"^{last}$", re.MULTILINE)).wait_for()
            proxy.cut()
        article.get_by_text("exit code 3").wait_for()
        wanted = [f"n-{number}" for number in range(1, 301)]
        assert eventually(lambda: logged(article) == wanted), logged(article)


def test_a_gateway_answers_for_the_server(daemon: Daemon, context: "BrowserContext") -> None:
    """Meanwhile what runs is neither lost nor given up."""
    begin(daemon.url, "s1", "echo first; read; echo last; (exit 3)")
    with proxy_to(daemon.port) as proxy:
        page = context.new_page()
        show(page, proxy.url, "s1")
        article = page.locator("article")
        article.locator("pre").get_by_text("first").wait_for()
        with (
            page.expect_response(lambda reply: not reply.ok and reply.url.endswith("/session/s1")),
            page.expect_response(lambda reply: not reply.ok and "/command/" in reply.url),
        ):
            proxy.down(502)
        note = page.get_by_role("tabpanel", name="Sessions").get_by_role("status")
        note.get_by_text("The server can't be reached.").wait_for()
        proxy.up()
        command = json.load(urllib.request.urlopen(f"{daemon.url}/process/session/s1"))["commands"]
        tell(daemon.url, f"/s1/command/{command[0]['id']}/input", data="\n")
        article.get_by_text("exit code 3").wait_for()
        article.locator("pre").get_by_text("last").wait_for()
        assert logged(article) == ["first", "", "last"]


def test_earlier_commands_are_not_concealed(daemon: Daemon, context: "BrowserContext") -> None:
    begin(daemon.url, "s1", *(f"echo n-{number}" for number in range(45)))
    page = context.new_page()
    show(page, daemon.url, "s1")
    more = page.get_by_role("button", name="Show more")
    more.get_by_text("25 earlier commands aren't shown").wait_for()
    assert page.locator("article").count() == 20
    page.locator("article").first.get_by_text("n-44", exact=True).wait_for()
    more.click()
    more.get_by_text("5 earlier commands aren't shown").wait_for()
    more.click()
    page.locator("article").last.get_by_text("n-0", exact=True).wait_for()
    assert page.locator("article").count() == 45
    assert not more.is_visible()


def test_a_progress_bar_can_be_read(daemon: Daemon, context: "BrowserContext") -> None:
    """A log has no cursor: what would be written over stays, on a line of its own."""
    # In pieces: a carriage return may come before or after what it parts, and before a newline.
    pieces = (r"\r1%%", r"\r2%%", r"\r3%%\r", r"4%%\r", r"\n", r"\r5%%\r\r6%%\r\n", r"\r\nend")
    begin(daemon.url, "s1", "; sleep 0.1; ".join(f"printf '{piece}'" for piece in pieces))
    page = context.new_page()
    show(page, daemon.url, "s1")
    article = page.locator("article")
    article.locator("pre").get_by_text("end").wait_for()
    lines = article.locator("pre").inner_text().split("\n")
    assert lines == ["1%", "2%", "3%", "4%", "5%", "6%", "", "end"]


def test_a_long_log_is_shown_from_its_end(daemon: Daemon, context: "BrowserContext") -> None:
    """Whole lines, in order, the last in sight; that there is more is said."""
    begin(daemon.url, "s1", "seq 1 200000; printf 'and last'")
    page = context.new_page()
    show(page, daemon.url, "s1")
    article = page.locator("article")
    article.get_by_text("exit code 0").wait_for()
    article.locator("pre").get_by_text("and last").wait_for()
    cut, _, *numbers, last = logged(article)
    assert cut == "What came earlier isn't shown."
    assert last == "and last"
    first = int(numbers[0])
    assert [int(line) for line in numbers] == list(range(first, 200001))
    assert 9000 < 200001 - first <= 10000
    assert article.locator("pre").evaluate(
        "log => Math.abs(log.scrollHeight - log.scrollTop - log.clientHeight) < 2"
    )


# Once there is more than is shown, looks for a second how long the page is busy, then interrupts.
WATCH = """
  window.longest = 0;
  let last = null;
  const watch = setInterval(() => {
    if (!document.querySelector("article .cut:not([hidden])")) return;
    const now = performance.now();
    window.begun ??= now;
    window.longest = Math.max(window.longest, now - (last ?? now));
    last = now;
    if (now < window.begun + 1000) return;
    clearInterval(watch);
    document.querySelector(".acts button").click();
  }, 10);
"""


def test_a_flood_leaves_the_page_responsive(daemon: Daemon, context: "BrowserContext") -> None:
    """And what becomes of the command is seen while its output still comes.

    The page does all by itself: the browser tells its driver of each message that comes, so that
    what is asked by the driver waits behind all those.
    """
    begin(daemon.url, "s1", "echo begun; yes")
    context.add_init_script(WATCH)
    page = context.new_page()
    show(page, daemon.url, "s1")
    page.locator("article .head").get_by_text("exit code 130").wait_for()
    assert 0 < page.evaluate("window.longest") < 1000
    assert page.locator("article pre").evaluate("log => log.textContent.length") < 4 << 20
