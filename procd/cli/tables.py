"""What is listed: a table for people, aligned columns for pipes, JSON for programs."""

import json
import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import click

from procd.cli.io import STDOUT
from procd.cli.text import clean

PADDING: Final = 1  # of a cell of a table for people, on each side
# What JSON may have as it is and a terminal obeys, or no encoding has.
UNSHOWN: Final = re.compile("[\x7f-\x9f\ud800-\udfff]")


def show(columns: Sequence[str], rows: Sequence[Sequence[str]], *, empty: str) -> None:
    """Print a table; `empty` if there is nothing in it, to people only."""
    if os.isatty(STDOUT):
        if not rows:
            click.echo(empty)
            return
        _pretty(columns, rows)
        return
    lines = [list(columns), *([clean(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        click.echo("  ".join(cells).rstrip())


def _pretty(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console  # for people only: it takes its time
    from rich.table import Table
    from rich.text import Text

    cells = [[Text(clean(cell)) for cell in row] for row in rows]
    widths = [
        max(len(name), *(cell.cell_len for cell in column))
        for name, column in zip(columns, zip(*cells, strict=True), strict=True)
    ]
    # Only the last column is cut short to fit the window: ids are to be copied.
    before = sum(widths[:-1]) + 2 * PADDING * (len(widths) - 1)
    console = Console()
    console.width = max(console.width, before + len(columns[-1]))
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, PADDING))
    for name in columns:
        table.add_column(name, overflow="ellipsis", no_wrap=True)
    table.columns[-1].max_width = console.width - before
    for row in cells:
        table.add_row(*row)
    console.print(table)


def show_json(document: Any) -> None:
    """Print JSON, which a terminal shows as it is."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    click.echo(UNSHOWN.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def age(timestamp: object) -> str:
    """How long ago something was, in its largest unit; what is no moment is shown as it is."""
    if not timestamp:
        return ""
    try:
        then = datetime.fromisoformat(str(timestamp))
    except ValueError:
        return str(timestamp)
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    seconds = max(0, int((datetime.now(UTC) - then).total_seconds()))
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"
