"""`python -m tests.web.timings`: how long a person waits for the web terminal, on loopback.

From navigation, with an empty cache, until the terminal takes keys and until its prompt is painted;
and from a key until its echo is painted. Medians; on a machine that does nothing else.
"""

import random
import shutil
import tempfile
from pathlib import Path
from statistics import median
from typing import Final

from playwright.sync_api import Browser, sync_playwright

from tests.daemon.daemon import Daemon
from tests.web.browser import OPTIONS, plain
from tests.web.terminal import Terminal, call, open_terminal

LOADS: Final = 15
KEYS: Final = 150
FRAME_MS: Final = 1000 / 60
# xterm draws in an animation frame's callback: what comes after that frame comes after its paint.
PAINTED: Final = """
  const painted = (then) => {
    const channel = new MessageChannel();
    channel.port1.onmessage = () => then(performance.now());
    channel.port2.postMessage(null);
  };
"""
LOADING: Final = (
    PAINTED
    + """
  window.times = {};
  const seen = () => {
    const view = document.querySelector(".view");
    if (view?.dataset.state === "live" && document.activeElement.tagName === "TEXTAREA") {
      times.live ??= performance.now();
    }
    if (times.live && view.querySelector(".xterm-rows")?.textContent.includes("ready>")) {
      observer.disconnect();
      painted((now) => {
        times.painted = now;
        console.log("measured");
      });
    }
  };
  const observer = new MutationObserver(seen);
  const all = { subtree: true, childList: true, attributes: true, characterData: true };
  observer.observe(document, all);
"""
)
TYPING: Final = (
    "() => {"
    + PAINTED
    + """
  window.echoes = [];
  let pressed = null;
  addEventListener("keydown", (event) => (pressed = event.timeStamp), true);
  new MutationObserver(() => {
    if (pressed === null) return;
    const from = pressed;
    pressed = null;
    painted((now) => echoes.push(now - from));
  }).observe(document.querySelector(".xterm-rows"), { subtree: true, childList: true });
}"""
)
FRAMES: Final = """() => new Promise((resolve) => {
  const times = [];
  const frame = (now) => {
    times.push(now);
    if (times.length < 60) requestAnimationFrame(frame);
    else resolve((times.at(-1) - times[0]) / (times.length - 1));
  };
  requestAnimationFrame(frame);
})"""


def loads(browser: Browser, url: str) -> dict[str, list[float]]:
    """Milliseconds from navigation, of each load."""
    taken: dict[str, list[float]] = {"live": [], "painted": []}
    for _ in range(LOADS):
        context = browser.new_context()
        context.add_init_script(LOADING)
        page = context.new_page()
        # To wait by a function would give the page a third of a megabyte of Playwright to read.
        with page.expect_console_message(lambda message: message.text == "measured"):
            page.goto(f"{url}/terminal#t1")
        for name, value in page.evaluate("times").items():
            taken[name].append(value)
        context.close()
    return taken


def echoes(terminal: Terminal) -> list[float]:
    """Milliseconds from key to painted echo."""
    terminal.page.evaluate(TYPING)
    terminal.element.locator("textarea").focus()
    for number in range(KEYS):
        # The wait below ends with a frame; people don't press keys in step with those.
        terminal.page.wait_for_timeout(random.uniform(0, 3 * FRAME_MS))
        terminal.page.keyboard.press("x" if number % 60 else "Enter")
        terminal.page.wait_for_function("count => echoes.length > count", arg=number)
    taken: list[float] = terminal.page.evaluate("echoes")
    return taken


def report(name: str, values: list[float]) -> None:
    ordered = sorted(values)
    high = ordered[int(len(ordered) * 0.95)]
    print(f"{name:<32} {median(ordered):6.1f} ms median {high:6.1f} p95 ({len(ordered)})")  # noqa: T201


def main() -> None:
    home = Path(tempfile.mkdtemp(prefix="timings-"))
    (home / ".bash_profile").write_text("PS1='ready> '\n")
    with sync_playwright() as driver, Daemon.start(env=plain(home)) as daemon:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=OPTIONS)
        call(daemon.url, "/process/pty", "POST", {"id": "t1"})
        open_terminal(browser.new_context(), daemon.url, "t1", create=False).shows("ready>")
        taken = loads(browser, daemon.url)
        report("navigation to taking keys", taken["live"])
        report("navigation to painted prompt", taken["painted"])
        terminal = open_terminal(browser.new_context(), daemon.url, "t1", create=False)
        terminal.shows("ready>")
        report("key to painted echo", echoes(terminal))
        print(f"{'a frame':<32} {terminal.page.evaluate(FRAMES):6.1f} ms")  # noqa: T201
        browser.close()
    shutil.rmtree(home)


if __name__ == "__main__":
    main()
