"""procd record: write what a terminal shows into a file."""

import contextlib
from collections.abc import Mapping
from typing import Any, BinaryIO

import click

from procd.cli.display import Progress
from procd.cli.failure import Failure, Refused
from procd.cli.options import Name, pass_client
from procd.cli.output_stream import PROTOCOLS, PtyStream
from procd.cli.signals import ENDING, Signals
from procd.cli.transport import PTY, Client, quoted
from procd.cli.websocket import wait
from procd.output.asciicast import Writer


@click.command("record")
@click.argument("pty_id", metavar="ID", type=Name(PTY))
@click.argument("file", type=click.File("wb"))
@pass_client
def command(client: Client, *, pty_id: str, file: BinaryIO) -> None:
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
