"""What several commands show: tables, JSON for programs, pictures, and what procd waits for.

Source: kitty, "Terminal graphics protocol"; iTerm2, "Images" (OSC 1337).
"""

import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from types import FrameType
from typing import Any, Final

import click

from procd.cli.failure import printable
from procd.cli.stdio import STDERR, STDOUT, write_all

GAP: Final = "  "
# Characters that JSON need not escape, but that a terminal obeys or no encoding has.
UNSAFE: Final = "[\x7f-\x9f\ud800-\udfff]"
KITTY_CHUNK: Final = 4096
KITTY_PROGRAMS: Final = ("ghostty", "WezTerm")
ITERM_PROGRAMS: Final = ("iTerm.app", "mintty")
ASKING: Final = "asking the server"
PROGRESS_DELAY_S: Final = 1.0
PROGRESS_INTERVAL_S: Final = 0.1
SPINNER: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


def show_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, empty: str) -> None:
    """Print a table; on a terminal, fit it into the window, and print `empty` if it has no rows.

    Only the last column is cut: the ids in the others are to be copied.
    """
    for_people = os.isatty(STDOUT)
    if for_people and not rows:
        click.echo(empty)
        return
    lines = [list(columns), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    if for_people:
        before = sum(widths[:-1]) + len(GAP) * (len(widths) - 1)
        room = max(os.get_terminal_size(STDOUT).columns - before, len(columns[-1]))
        for line in lines:
            line[-1] = _cut(line[-1], room)
    for number, line in enumerate(lines):
        cells = [
            cell + " " * (width - _width(cell)) for cell, width in zip(line, widths, strict=True)
        ]
        text = GAP.join(cells).rstrip()
        click.echo(click.style(text, bold=True) if for_people and not number else text)


def _width(text: str) -> int:
    """Columns that text takes. Source: Unicode Standard Annex #11, East Asian Width."""
    import unicodedata  # only needed here

    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(map(bool, map(unicodedata.combining, text)))


def _cut(text: str, width: int) -> str:
    if _width(text) <= width:
        return text
    taken = 0
    for index, character in enumerate(text):
        taken += _width(character)
        if taken >= width:
            return text[:index] + "…"
    return text


def show_json(document: Any) -> None:
    """Print JSON that is safe to show on a terminal."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    click.echo(re.sub(UNSAFE, lambda found: f"\\u{ord(found[0]):04x}", text))


def age(timestamp: str | None) -> str:
    """Return how long ago an ISO 8601 time was, in its largest unit; "" for None."""
    if timestamp is None:
        return ""
    then = datetime.fromisoformat(timestamp)
    seconds = max(0, int((datetime.now(UTC) - then).total_seconds()))
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def picture(png: str, title: str = "") -> str:
    """Return what to write to show a PNG in Base64: a line that names it, if none can be shown."""
    png = "".join(png.split())
    match _protocol() if os.isatty(STDOUT) else "":
        case "kitty":
            return "".join(_kitty(png)) + "\n"
        case "iterm":
            return f"\x1b]1337;File=inline=1:{png}\x07\n"
        case _:
            name = f"{title}, " if title else ""
            return f"[picture: {name}PNG of {len(png) * 3 // 4 // 1024 + 1} KiB]\n"


def _protocol() -> str:
    environ = os.environ
    if environ.get("TMUX") or environ.get("STY"):
        return ""  # multiplexers know neither
    program = environ.get("TERM_PROGRAM", "")
    if (
        environ.get("TERM") in ("xterm-kitty", "xterm-ghostty")
        or "KITTY_WINDOW_ID" in environ
        or program in KITTY_PROGRAMS
    ):
        return "kitty"
    if program in ITERM_PROGRAMS or environ.get("LC_TERMINAL") == "iTerm2":
        return "iterm"
    return ""


def _kitty(png: str) -> Iterator[str]:
    for start in range(0, len(png), KITTY_CHUNK):
        more = int(start + KITTY_CHUNK < len(png))
        first = "a=T,f=100," if not start else ""
        yield f"\x1b_G{first}m={more};{png[start : start + KITTY_CHUNK]}\x1b\\"


class Progress:
    """Shows what is waited for once that has taken a second; only on a terminal.

    A timer's signal draws it during blocking calls: setitimer(2), PEP 475. Nothing else may write
    to the terminal.
    """

    def __init__(self, text: str) -> None:
        self._text = printable(text)
        self._began_at: float | None = None
        self._drawn = False

    def __enter__(self) -> "Progress":
        self.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def begin(self) -> None:
        if self._began_at is None and os.isatty(STDERR) and os.environ.get("TERM") != "dumb":
            self._began_at = time.monotonic()
            signal.signal(signal.SIGALRM, self._draw)
            signal.setitimer(signal.ITIMER_REAL, PROGRESS_DELAY_S, PROGRESS_INTERVAL_S)

    def end(self) -> None:
        if self._began_at is None:
            return
        self._began_at = None  # the handler stays: a late signal would end the process without it
        signal.setitimer(signal.ITIMER_REAL, 0)
        if self._drawn:
            self._drawn = False
            write_all(STDERR, b"\r\x1b[K")

    def _draw(self, number: int, frame: FrameType | None) -> None:
        if self._began_at is None:
            return
        passed_s = time.monotonic() - self._began_at
        spinner = SPINNER[int(passed_s / PROGRESS_INTERVAL_S) % len(SPINNER)]
        columns = os.get_terminal_size(STDERR).columns or 80
        line = f"{spinner} {self._text} … {int(passed_s)} s"[: columns - 1]
        encoding = sys.stderr.encoding if sys.stderr is not None else "ascii"
        self._drawn = True
        write_all(STDERR, b"\r" + line.encode(encoding, "replace") + b"\x1b[K")
