"""README and the pages beside it: their links lead somewhere, and what is made is up to date."""

import subprocess
import sys
from pathlib import Path

import pytest

from procd.api.not_supported import SECTION
from tests.docs.pages import PAGES, README, ROOT, anchors, links


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in links(page):
        if link.startswith(("https://", "http://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or not target.is_relative_to(ROOT):
            broken.append(f"{link}: no such file")
        elif anchor and anchor not in anchors(target):
            broken.append(f"{link}: no such heading")
    assert not broken


def test_every_page_is_reached_from_the_readme() -> None:
    found, left = set(), [README]
    while left:
        page = left.pop()
        found.add(page)
        targets = {(page.parent / link.partition("#")[0]).resolve() for link in links(page)}
        left += [target for target in targets if target in PAGES and target not in found]
    assert found == set(PAGES)


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 200


def test_the_readme_has_the_section_that_errors_name() -> None:
    """A 501 says where to read on."""
    name = SECTION.split('"')[1]
    assert f"\n## {name}\n" in README.read_text()


def test_the_page_of_settings_is_made_from_them() -> None:
    """`python scripts/config_page.py > docs/config.md` makes it."""
    made = subprocess.run(
        [sys.executable, "scripts/config_page.py"],
        cwd=ROOT,
        env={"PYTHONPATH": "."},
        capture_output=True,
        check=True,
    )
    assert made.stdout == (ROOT / "docs" / "config.md").read_bytes()
