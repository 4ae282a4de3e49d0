"""procd record and procd play."""

import contextlib
import math
import os
import select
from collections.abc import Mapping
from typing import Any, BinaryIO, TextIO

import click

from procd.cli.display import Progress
from procd.cli.failure import Failure, Refused
from procd.cli.options import Name, pass_client
from procd.cli.output_stream import PROTOCOLS, PtyStream
from procd.cli.signals import ENDING, Signals
from procd.cli.stdio import STDOUT
from procd.cli.terminal import Output
from procd.cli.transport import PTY, Client, quoted
from procd.cli.websocket import wait
from procd.output.asciicast import NotARecordingError, Writer, read_events, read_header
from procd.output.replay import ReplayFilter


@click.command("record")
@click.argument("pty_id", metavar="ID", type=Name(PTY))
@click.argument("file", type=click.File("wb"))
@pass_client
def record(client: Client, *, pty_id: str, file: BinaryIO) -> None:
    """Record what the terminal ID shows, until it ends or Ctrl-C.

    The recording is an asciicast, version 3, for `procd play` and asciinema. It begins with the
    earlier output of the terminal. What is typed is in it only as far as the terminal shows it.
    Other users see a viewer, which stays when somebody takes the terminal over.

    \b
    Examples:
      procd record work work.cast
    """
    with Signals(ENDING, raising=True) as signals:
        with Progress(f"attaching to {pty_id}"):
            recording = Recording(client, pty_id, file)
        signals.raising = False
        recording.run(signals)


class Recording:
    def __init__(self, client: Client, pty_id: str, file: BinaryIO) -> None:
        path = f"{PTY}/{quoted(pty_id)}"
        try:
            info = client.call("GET", path, returns=dict)
        except Refused as exc:
            if exc.status != 404:
                raise
            raise Failure(f"there is no terminal {pty_id}", "`procd ps` lists them") from exc
        self._size = (info["cols"], info["rows"])
        self._file = file
        self._writer = Writer()
        self._write(self._writer.header(*self._size, info["envs"].get("TERM", "")))
        self._stream = PtyStream(client.websocket(f"{path}/connect?viewer=true", PROTOCOLS))

    def run(self, signals: Signals) -> None:
        websocket = self._stream.websocket
        try:
            while websocket.closed is None:
                wait(websocket, (signals.fileno(),))
                if signals.take():
                    self._write(self._writer.end(None))
                    return
                for message in self._stream.receive():
                    if isinstance(message, bytes):
                        self._write(self._writer.output(message))
                    else:
                        self._handle_control(message)
        finally:
            websocket.close()
        if websocket.closed.code not in (1000, 1011):
            raise Failure(f"the recording broke off: {websocket.closed.reason}")

    def _handle_control(self, control: Mapping[str, Any]) -> None:
        if "cols" in control and (size := (control["cols"], control["rows"])) != self._size:
            self._size = size
            self._write(self._writer.resize(*size))
        if control.get("status") == "exited":
            self._write(self._writer.end(control["exitCode"]))

    def _write(self, lines: bytes) -> None:
        try:
            self._file.write(lines)
            self._file.flush()
        except OSError as exc:
            with contextlib.suppress(OSError):
                self._file.close()  # else the rest would be written at the end
            if isinstance(exc, BrokenPipeError):
                raise
            raise Failure(f"{self._file.name}: {exc.strerror}") from exc


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
def play(*, speed: float, idle_limit_s: float | None, file: TextIO) -> None:
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
