"""procd record."""

import json
import time
from typing import IO

import click

from procd.cli.attachment import ACK_BYTES, EXIT_TOKEN, PROTOCOL
from procd.cli.cast import Writer
from procd.cli.client import PTY, Client
from procd.cli.failure import Failure, Refused
from procd.cli.http import quoted
from procd.cli.ids import complete_terminal
from procd.cli.io import ENDING, Signals
from procd.cli.options import not_empty, pass_target
from procd.cli.progress import Progress
from procd.cli.target import Target
from procd.cli.websocket import TEXT, WebSocket


@click.command("record")
@click.argument("pty_id", metavar="ID", callback=not_empty, shell_complete=complete_terminal)
@click.argument("file", type=click.File("w", encoding="utf-8"))
@pass_target
def command(target: Target, *, pty_id: str, file: IO[str]) -> None:
    """Record what the terminal ID shows, until it ends or Ctrl-C.

    The recording is an asciicast, version 3: `procd play` shows it, and so does asciinema. What is
    typed is in it only as far as the terminal shows it. The recording begins with what the terminal
    showed before. Others see it as a viewer, which stays when somebody takes the terminal over.

    \b
    Examples:
      procd record work work.cast
    """
    with Signals(ENDING, ending=ENDING, raising=True) as signals, Client(target) as client:
        with Progress(f"attaching to {pty_id}"):
            recording = _Recording(client, pty_id, file)
            websocket = recording.open()
        signals.raising = False
        try:
            recording.run(websocket, signals)
        finally:
            websocket.close()


class _Recording:
    def __init__(self, client: Client, pty_id: str, file: IO[str]) -> None:
        self._client = client
        self._path = f"{PTY}/{quoted(pty_id)}"
        try:
            info = client.call("GET", self._path, shape={"cols": int, "rows": int, "envs": dict})
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
        # Where the output goes on, once the replay is over, and how much of it was acknowledged.
        self._offset = 0
        self._replay_bytes = 0
        self._acknowledged: int | None = None

    def open(self) -> WebSocket:
        """Attach, as a viewer."""
        return self._client.websocket(f"{self._path}/connect?viewer=true", [EXIT_TOKEN, PROTOCOL])

    def run(self, websocket: WebSocket, signals: Signals) -> None:
        """Write what comes until the end of the terminal or a signal.

        Raises:
            Failure: it broke off, or can't be written.
        """
        while websocket.closed is None:
            websocket.wait(signals.fileno())
            if signals.take():
                return
            websocket.flush()
            self._take(websocket)
            self._acknowledge(websocket)
            websocket.beat()
        if websocket.closed.code not in (1000, 1011):
            raise Failure(f"the recording broke off: {websocket.closed.reason}")

    def _take(self, websocket: WebSocket) -> None:
        for message in websocket.receive():
            now = time.monotonic()
            if message.opcode != TEXT:
                self._writer.output(message.payload, now)
                self._replay_bytes -= len(message.payload)
                continue
            control = json.loads(message.payload)
            size = (control.get("cols"), control.get("rows"))
            if size not in ((None, None), self._size):
                self._size = size
                self._writer.resize(*size, now=now)
            match control.get("status"):
                case "connected":
                    self._offset = int(control.get("liveOffset", 0))
                    self._replay_bytes = int(control.get("replayBytes", 0))
                case "presence":
                    self._acknowledged = self._acknowledged or self._offset
                case "error":
                    raise Failure(str(control.get("error") or "the server refuses the terminal"))
                case "exited":
                    self._writer.exit(control["exitCode"], now)
                case _:
                    pass  # of no interest to who only looks on

    def _acknowledge(self, websocket: WebSocket) -> None:
        """Have the server send more, if it is one that waits for that."""
        end = self._offset - min(self._replay_bytes, 0)
        if self._acknowledged is not None and end - self._acknowledged >= ACK_BYTES:
            self._acknowledged = end
            websocket.send(json.dumps({"type": "ack", "offset": end}).encode(), TEXT)
