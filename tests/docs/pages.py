"""The project's pages, and what they are made of."""

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
README: Final = ROOT / "README.md"
PAGES: Final = (README, ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").glob("*.md")))
_FENCED: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_CODE: Final = re.compile(r"`[^`\n]*`")
_LINK: Final = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING: Final = re.compile(r"^#{1,6} +(.+?)\s*$", re.MULTILINE)


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of code in this language."""
    return [text for name, text in _FENCED.findall(page.read_text()) if name == language]


def links(page: Path) -> list[str]:
    """Where its links and pictures lead."""
    text = _FENCED.sub("", page.read_text())
    return _LINK.findall(_CODE.sub("", text))


def anchors(page: Path) -> set[str]:
    """What may stand behind `#`: its headings, as GitHub makes anchors of them."""
    headings = _HEADING.findall(_FENCED.sub("", page.read_text()))
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}
