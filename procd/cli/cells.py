"""Pieces of code, run in a Python context of the server.

Source: Process API contract, section 11.2; the README for `display`.
"""

import json
import signal
from collections.abc import Mapping
from typing import Any, Final

import click

from procd.cli.client import CONTEXT, Client
from procd.cli.failure import Failure, Refused
from procd.cli.http import quoted
from procd.cli.images import shown
from procd.cli.io import STDERR, STDOUT, Signals, coloured, write_all
from procd.cli.progress import ASKING, Progress

# What a client with `display` is told of a SystemExit: the exit code.
EXIT_TYPE: Final = "application/vnd.procd.exit+json"
INTERRUPT_S: Final = 5.0


class Context:
    """A context of the server.

    Args:
        context_id: an existing one; None for a new one, in `cwd`.

    Raises:
        Failure: there is none, or no more can be had.
    """

    def __init__(self, client: Client, context_id: str | None, cwd: str) -> None:
        self._client = client
        if context_id is None:
            made = client.call("POST", CONTEXT, {"cwd": cwd}, shape={"id": str}, within_s=60)
            context_id = made["id"]
        self.id: str = context_id

    def delete(self) -> None:
        """End it."""
        self._client.call("DELETE", f"{CONTEXT}/{quoted(self.id)}")

    def run(self, code: str) -> bool:
        """Run code and show what it prints, returns and raises; False if it raised.

        Ctrl-C interrupts it there; a second one, while the server doesn't even hear of the first,
        is raised.

        Raises:
            Failure: it was broken off.
            SystemExit: it raised that.
        """
        request = {"code": code, "contextId": self.id, "timeout": 0, "display": True}
        good = True
        exit_code: int | None = None
        with Progress(ASKING):
            websocket = self._client.websocket("/process/interpreter/execute")
        with Signals([signal.SIGINT], ending=[signal.SIGINT]) as signals:
            try:
                websocket.send(json.dumps(request).encode())
                while websocket.closed is None:
                    websocket.wait(signals.fileno())
                    if signals.take():
                        self._interrupt()
                    websocket.flush()
                    for message in websocket.receive():
                        frame = json.loads(message.payload)
                        exit_code = frame.get("data", {}).get(EXIT_TYPE, exit_code)
                        good &= _show(frame)
                    websocket.beat()
            finally:
                websocket.close()
        if websocket.closed.code != 1000:
            raise Failure(websocket.closed.reason or f"broken off ({websocket.closed.code})")
        if exit_code is not None:
            raise SystemExit(exit_code)
        return good

    def _interrupt(self) -> None:
        try:
            path = f"{CONTEXT}/{quoted(self.id)}/interrupt"
            self._client.call("POST", path, within_s=INTERRUPT_S)
        except Refused:
            return  # it has just ended


def _show(frame: Mapping[str, Any]) -> bool:
    match frame["type"]:
        case "stdout":
            write_all(STDOUT, frame["text"].encode(errors="replace"))
        case "stderr":
            write_all(STDERR, frame["text"].encode(errors="replace"))
        case "result" if EXIT_TYPE not in frame["data"]:
            write_all(STDOUT, _bundle(frame["data"]).encode(errors="replace"))
        case "error":
            text = frame["traceback"].rstrip() or f"{frame['name']}: {frame['value']}"
            click.echo(click.style(text, fg="red") if coloured(STDERR) else text, err=True)
            return False
        case _:
            pass  # an exit; `control` says what the Close says, too
    return True


def _bundle(data: Mapping[str, Any]) -> str:
    """The richest form of a result that a terminal can show."""
    if isinstance(png := data.get("image/png"), str):
        return shown(png, str(data.get("text/plain", "")))
    if isinstance(text := data.get("text/plain"), str):
        return text + "\n"
    return f"[result: {', '.join(data)}]\n"
