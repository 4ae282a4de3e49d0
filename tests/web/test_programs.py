"""Full-screen programs: the screen as painted is what a reference emulator makes of the bytes."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.daemon.daemon import Daemon, eventually
from tests.web.terminal import Terminal, call, open_terminal

if TYPE_CHECKING:  # it may not be installed
    from playwright.sync_api import BrowserContext

pyte = pytest.importorskip("pyte", reason="pyte is not installed: pip install 'procd-server[web]'")

# vt220: what pyte implements of it is complete, other than of xterm.
PROGRAMS = {
    "vim": ("TERM=vt220 vim -u NONE -i NONE text", "line 20", "GOZ last\x1b", "Z last"),
    "htop": ("TERM=vt220 HTOPRC=/dev/null htop -d 100 -C", "Help", "h", "htop"),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_it_draws_right(daemon: Daemon, context: "BrowserContext", home: Path, name: str) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    command, shown, keys, result = PROGRAMS[name]
    (home / "text").write_text("".join(f"line {number}\tübér 世界\n" for number in range(1, 25)))
    call(daemon.url, "/process/pty", "POST", {"id": "t1", "cwd": str(home)})
    received = bytearray()
    page = context.new_page()
    page.on(
        "websocket",
        lambda ws: ws.on(
            "framereceived",
            lambda data: received.extend(data if isinstance(data, bytes) else b""),
        ),
    )
    page.goto(f"{daemon.url}/terminal#t1")
    terminal = Terminal(page, "t1")
    terminal.shows("ready>")
    terminal.type(f"clear; {command}\n")
    terminal.shows(shown)
    terminal.type(keys)
    terminal.shows(result)
    cols, rows = terminal.size()

    def reference() -> list[str]:
        screen = pyte.Screen(cols, rows)
        pyte.ByteStream(screen).feed(bytes(received))
        return [line.rstrip() for line in screen.display]

    assert eventually(lambda: terminal.lines() == reference()), (terminal.lines(), reference())


FULL_SCREEN = r"""
trap 'printf "\033[H\033[2Jdrawn at %s" "$(stty size)"' WINCH
printf '\033[?1049h\033[?1000;1006hbegun'
seq 60000
while :; do read line; done
"""


def test_it_is_shown_whole(daemon: Daemon, context: "BrowserContext", home: Path) -> None:
    """Though it has drawn more than a replay holds."""
    (home / "draw").write_text(FULL_SCREEN)
    call(daemon.url, "/process/pty", "POST", {"id": "t1", "cwd": str(home)})
    first = open_terminal(context, daemon.url, "t1", create=False)
    first.shows("ready>")
    first.type("exec sh draw\n")
    first.shows("60000")
    first.page.close()
    again = open_terminal(context, daemon.url, "t1", create=False)
    again.shows("drawn at ")
    assert eventually(lambda: "drawn at {1} {0}".format(*again.size()) in again.lines()[0])
    assert again.element.locator(".xterm.enable-mouse-events").count() == 1  # as was asked for
