"""procd play: show a recording in this terminal."""

import math
import os
import select
from typing import TextIO

import click

from procd.cli.failure import Failure
from procd.cli.signals import ENDING, Signals
from procd.cli.stdio import STDOUT
from procd.cli.terminal import Output
from procd.output.asciicast import NotARecordingError, read_events, read_header
from procd.output.replay import ReplayFilter


@click.command("play")
@click.option(
    "--speed",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="How many times as fast as it was.",
)
@click.option(
    "--idle-limit",
    "idle_limit_s",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Longest pause; by default, the recording's own limit.",
)
@click.argument("file", type=click.File("r", encoding="utf-8", errors="replace"))
def command(*, speed: float, idle_limit_s: float | None, file: TextIO) -> None:
    """Play a recording (asciicast, version 2 or 3) in this terminal; Ctrl-C ends it.

    \b
    Examples:
      procd play --speed 2 --idle-limit 1 work.cast
    """
    try:
        with Signals(ENDING, raising=True) as signals:
            _play(file, signals, speed, idle_limit_s)
    except NotARecordingError as exc:
        raise Failure(f"{file.name}: {exc}", "`procd record` makes asciicasts") from exc
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise Failure(f"{file.name}: {exc.strerror}") from exc


def _play(file: TextIO, signals: Signals, speed: float, idle_limit_s: float | None) -> None:
    header = read_header(file.readline())
    limit_s = header.idle_limit_s if idle_limit_s is None else idle_limit_s
    limit_s = math.inf if limit_s is None else limit_s
    output = Output()
    queries = ReplayFilter()  # the terminal would answer them to the next program
    try:
        for event in read_events(file, header.version):
            pause_s = min(event.interval_s, limit_s) / speed
            if pause_s:
                select.select([signals], [], [], min(pause_s, 86400))  # it takes no infinite time
            if event.code == "o":
                output.write(queries.feed(event.data.encode(errors="replace")))
        output.write(queries.flush())
    finally:
        if os.isatty(STDOUT):
            output.reset()
