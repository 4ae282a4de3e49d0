"""Pictures in a terminal, by the protocol that it has.

Source: kitty, "Terminal graphics protocol"; iTerm2, "Images" (OSC 1337).
"""

import os
from collections.abc import Iterator, Mapping
from typing import Final

CHUNK: Final = 4096
KITTY_PROGRAMS: Final = ("ghostty", "WezTerm")
ITERM_PROGRAMS: Final = ("iTerm.app", "mintty")


def protocol(environ: Mapping[str, str]) -> str:
    """Which one the terminal has, as far as the environment tells: kitty, iterm or none."""
    if environ.get("TMUX") or environ.get("STY"):
        return ""  # what stands in between knows neither
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


def encode(png: str, how: str) -> str:
    """What to write to show a PNG, given as base64, by the protocol `how`."""
    if how == "kitty":
        return "".join(_kitty(png)) + "\n"
    return f"\x1b]1337;File=inline=1:{png}\x07\n"


def _kitty(png: str) -> Iterator[str]:
    for start in range(0, len(png), CHUNK):
        more = int(start + CHUNK < len(png))
        first = "a=T,f=100," if not start else ""
        yield f"\x1b_G{first}m={more};{png[start : start + CHUNK]}\x1b\\"


def shown(png: str, title: str = "") -> str:
    """A PNG, given as base64, as this terminal can show it; else that there is one."""
    png = "".join(png.split())
    how = protocol(os.environ) if os.isatty(1) else ""
    if how:
        return encode(png, how)
    about = f"{title}, " if title else ""
    return f"[picture: {about}PNG of {len(png) * 3 // 4 // 1024 + 1} KiB]\n"
