"""procd record."""

import json
import select
import signal
import time
from typing import Any, Final

import click

from procd.cli.attachment import EXIT_TOKEN, PTY
from procd.cli.cast import Writer
from procd.cli.client import Client
from procd.cli.failure import Failure, Refused
from procd.cli.http import quoted
from procd.cli.ids import complete_terminal
from procd.cli.io import Signals
from procd.cli.options import pass_target
from procd.cli.target import Target
from procd.cli.websocket import TEXT, WebSocket

# The server tells nobody of a change of size, so it is asked.
SIZE_S: Final = 1.0


@click.command("record")
@click.argument("pty_id", metavar="ID", shell_complete=complete_terminal)
@click.argument("file", type=click.File("w", encoding="utf-8"))
@pass_target
def command(target: Target, *, pty_id: str, file: Any) -> None:
    """Record what the terminal ID shows, until it ends or Ctrl-C.

    The recording is an asciicast, version 3: `procd play` shows it, and so does asciinema. What is
    typed is in it only as far as the terminal shows it. The recording begins with what the terminal
    showed before.

    \b
    Examples:
      procd record work work.cast
    """
    client = Client(target)
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    try:
        with Signals(numbers) as signals:
            _Recording(client, pty_id, file).run(signals)
    finally:
        client.close()


class _Recording:
    def __init__(self, client: Client, pty_id: str, file: Any) -> None:
        self._client = client
        self._path = f"{PTY}/{quoted(pty_id)}"
        try:
            info = client.call("GET", self._path)
        except Refused as exc:
            if exc.status != 404:
                raise
            raise Failure(f"there is no terminal {pty_id}", "`procd ps` lists them") from exc
        self._size = (info["cols"], info["rows"])
        self._writer = Writer(
            file,
            cols=info["cols"],
            rows=info["rows"],
            term=info["envs"].get("TERM", ""),
            begin=int(time.time()),
            now=time.monotonic(),
        )
        self._size_at = time.monotonic() + SIZE_S

    def run(self, signals: Signals) -> None:
        websocket = self._client.websocket(f"{self._path}/connect", [EXIT_TOKEN])
        try:
            while websocket.closed is None:
                poll = select.poll()
                poll.register(signals, select.POLLIN)
                poll.register(websocket, select.POLLIN)
                if not websocket.pending:
                    poll.poll(SIZE_S * 1000)
                if signals.take():
                    return
                self._look_at_size()
                self._take(websocket)
                websocket.beat()
        finally:
            websocket.close()
        if websocket.closed.code not in (1000, 1011):
            raise Failure(f"the recording broke off: {websocket.closed.reason}")

    def _take(self, websocket: WebSocket) -> None:
        for message in websocket.receive():
            now = time.monotonic()
            if message.opcode != TEXT:
                self._writer.output(message.payload, now)
                continue
            control = json.loads(message.payload)
            if control.get("status") == "error":
                raise Failure(control.get("error") or "the server refuses the terminal")
            if control.get("status") == "exited":
                self._writer.exit(control["exitCode"], now)

    def _look_at_size(self) -> None:
        now = time.monotonic()
        if now < self._size_at:
            return
        self._size_at = now + SIZE_S
        try:
            info = self._client.call("GET", self._path)
        except Refused:
            return  # it has ended, as its socket will say
        size = (info["cols"], info["rows"])
        if size != self._size:
            self._size = size
            self._writer.resize(*size, now=now)
