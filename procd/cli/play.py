"""procd play."""

import os
import select
from typing import IO, Final

import click

from procd.cli.cast import read
from procd.cli.io import ENDING, STDOUT, Signals, write_all
from procd.cli.modes import Modes
from procd.cli.options import Number
from procd.output.replay import ReplayFilter

# What lasts longer isn't waited for: select(2) has an end, too.
LONGEST_S: Final = 86400.0


@click.command("play")
@click.option(
    "--speed",
    type=Number(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="How many times as fast as it was.",
)
@click.option(
    "--idle-limit",
    "idle_s",
    type=Number(min=0),
    metavar="SECONDS",
    help="Longest pause; if not given, what the recording itself says.",
)
@click.argument("file", type=click.File("r", encoding="utf-8", errors="replace"))
def command(*, speed: float, idle_s: float | None, file: IO[str]) -> None:
    """Play a recording (asciicast, version 2 or 3) in this terminal; Ctrl-C ends it.

    \b
    Examples:
      procd play --speed 2 --idle-limit 1 work.cast
    """
    own_limit_s, events = read(file, file.name)
    limit_s = own_limit_s if idle_s is None else idle_s
    modes = Modes()
    queries = ReplayFilter()  # which the terminal would answer, to whoever reads it next

    def show(data: bytes) -> None:
        modes.feed(data)
        write_all(STDOUT, data)

    with Signals(ENDING, ending=ENDING, raising=True) as signals:
        try:
            for event in events:
                pause_s = event.interval_s if limit_s is None else min(event.interval_s, limit_s)
                if pause_s:
                    select.select([signals], [], [], min(pause_s / speed, LONGEST_S))
                if event.code == "o":
                    show(queries.feed(event.data.encode(errors="replace")))
            show(queries.flush())
        finally:
            if os.isatty(STDOUT):
                write_all(STDOUT, modes.undo())
