"""procd play.

Source: asciinema, "asciicast v2" and "asciicast v3" file formats.
"""

import json
import math
import os
import select
from collections.abc import Iterator
from typing import IO, Final, NamedTuple

import click

from procd.cli.failure import Failure
from procd.cli.signals import ENDING, Signals
from procd.cli.stdio import STDOUT
from procd.cli.terminal import Output
from procd.output.replay import ReplayFilter

VERSIONS: Final = (2, 3)
MAX_PAUSE_S: Final = 86400.0  # select(2) takes no infinite time
MAX_LINE_CHARACTERS: Final = 16 << 20


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
def command(*, speed: float, idle_limit_s: float | None, file: IO[str]) -> None:
    """Play a recording (asciicast, version 2 or 3) in this terminal; Ctrl-C ends it.

    \b
    Examples:
      procd play --speed 2 --idle-limit 1 work.cast
    """
    recording = Recording(file)
    limit_s = recording.idle_limit_s if idle_limit_s is None else idle_limit_s
    output = Output()
    queries = ReplayFilter()  # the terminal would answer them to the next program
    with Signals(ENDING, raising=True) as signals:
        try:
            for event in recording.events():
                pause_s = min(event.interval_s, limit_s) / speed
                if pause_s:
                    select.select([signals], [], [], min(pause_s, MAX_PAUSE_S))
                if event.code == "o":
                    output.write(queries.feed(event.data.encode(errors="replace")))
            output.write(queries.flush())
        finally:
            if os.isatty(STDOUT):
                output.reset()


class Event(NamedTuple):
    """An event: seconds since the one before, its type, and its data."""

    interval_s: float
    code: str
    data: str


class Recording:
    """Reads a recording.

    Attributes:
        idle_limit_s: the longest pause that the recording asks for.

    Raises:
        Failure: the file is no recording, or can't be read.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        try:
            header = json.loads(self._read_line())
            self._version = header["version"]
            limit_s = header.get("idle_time_limit")
            self.idle_limit_s = math.inf if limit_s is None else max(0.0, float(limit_s))
        except (ValueError, KeyError, TypeError) as exc:
            message = f"{file.name}: not a recording"
            raise Failure(message, "asciicast is what `procd record` writes") from exc
        if self._version not in VERSIONS:
            raise Failure(f"{file.name}: asciicast version {self._version} is not known")

    def events(self) -> Iterator[Event]:
        """Yield the events.

        Raises:
            Failure: a line is no event, or can't be read.
        """
        before = 0.0
        number = 1
        while line := self._read_line():
            number += 1
            if not line.strip() or line.startswith("#"):
                continue
            try:
                time, code, data = json.loads(line)
                interval_s = float(time) - (before if self._version == 2 else 0)
                event = Event(max(0.0, interval_s), str(code), str(data))
            except (ValueError, TypeError) as exc:
                raise Failure(f"{self._file.name}: line {number} is no event") from exc
            before = float(time)
            yield event

    def _read_line(self) -> str:
        try:
            return self._file.readline(MAX_LINE_CHARACTERS)
        except OSError as exc:
            raise Failure(f"{self._file.name}: {exc.strerror}") from exc
