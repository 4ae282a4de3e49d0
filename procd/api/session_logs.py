"""A session command's output: as JSON or text, or followed by WebSocket.

Source: Process API contract, sections 2.3, 8.7 and 9.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from aiohttp import WSCloseCode, web

from procd.errors import BadRequest, ProcdError, ProcessNotFound, Refused
from procd.http.client import Client, asks_websocket
from procd.http.log_sender import LogSender
from procd.http.openapi import COUNT, FLAG, TEXT, Doc, Query, Shape
from procd.http.responses import OutputText, respond, respond_text
from procd.http.schema import number
from procd.http.websocket import WEBSOCKETS, WebSocket, serve_both_ways
from procd.output import frames
from procd.output.logfile import Snapshot
from procd.process.process import STDERR, STDOUT
from procd.services.shell.command import Command

# A follower's messages are dropped.
MAX_FOLLOWER_MESSAGE_BYTES: Final = 4 << 20


def output_of(kept: Snapshot, client: Client) -> dict[str, object]:
    """A command's output in the form that the client knows (section 2.3)."""
    labelled = client.labelled and not client.modern
    fields: dict[str, object] = {
        "output": OutputText(kept, labelled=labelled, marks_gap=False),
        "stdout": OutputText(kept, STDOUT, marks_gap=False) if client.modern else None,
        "stderr": OutputText(kept, STDERR, marks_gap=False) if client.modern else None,
    }
    if kept.start:
        fields |= {"truncated": True, "firstAvailableOffset": kept.start}
    return fields


@contextmanager
def readable(**known: object) -> Iterator[None]:
    """Say that a log can't be read, and what is known nevertheless.

    Raises:
        Refused: procd may not read it.
        ProcdError: it can't be read for any other reason.
    """
    try:
        yield
    except ConnectionError:
        raise  # of the client
    except OSError as exc:
        kind = Refused if isinstance(exc, PermissionError) else ProcdError
        raise kind(f"log can't be read: {exc.strerror}", known) from exc


async def answer_logs(request: web.Request, command: Command, client: Client) -> web.StreamResponse:
    """Answer with the output so far, or upgrade and go on (section 9)."""
    offset = number(request.query, "offset")
    with readable(), command.file.hold():
        if asks_websocket(request):
            return await _follow(request, command, offset, labelled=client.labelled)
        kept = command.file.snapshot()
        if not client.json_logs:
            text = OutputText(kept, labelled=client.labelled, marks_gap=False)
            return await respond_text(request, text)
        return await respond(request, output_of(kept, replace(client, modern=True)))


async def _follow(
    request: web.Request, command: Command, offset: int | None, *, labelled: bool
) -> web.StreamResponse:
    if offset is not None and offset > command.file.end:
        raise BadRequest(f"offset {offset} is beyond the end of the output")
    follows = request.query.get("follow") == "true"
    async with request.app[WEBSOCKETS].accept(request, MAX_FOLLOWER_MESSAGE_BYTES) as websocket:
        sender = LogSender(
            command.log,
            command.frames(labelled=labelled),
            command.file.start if offset is None else offset,
            until=None if follows else command.file.end,
            gap_frame=_no_frame if offset is None else _gap_frame,
            rests=True,
        )
        try:
            sender.open(websocket)
            await serve_both_ways(
                websocket.wait_closed(), _write(websocket, sender), f"follow {command.id}"
            )
        finally:
            sender.close()
    return websocket.response


def _gap_frame(offset: int) -> bytes:
    """Says that the output before `offset` is gone, to a client that gave an offset."""
    return frames.encode(frames.TEXT, b'{"type":"gap","firstAvailableOffset":%d}' % offset)


def _no_frame(_: int) -> bytes:
    """Other clients know messages of output only."""
    return b""


async def _write(websocket: WebSocket, sender: LogSender) -> None:
    try:
        await sender.run()
    except OSError as exc:
        if isinstance(exc, ConnectionError):
            raise
        websocket.close(WSCloseCode.INTERNAL_ERROR, f"log can't be read: {exc.strerror}")
        return
    sender.close()
    websocket.close(WSCloseCode.OK, "")


GAP: Final = {"truncated": FLAG, "firstAvailableOffset": COUNT}
LOGS: Final = Shape("Logs", {"output": TEXT, "stdout": TEXT, "stderr": TEXT}, GAP)
FOLLOWING: Final = Doc(
    reply=LOGS,
    content=("text/plain",),
    websocket="too",
    query=(
        Query("follow", "by WebSocket: whether to stay for what follows", TEXT),
        Query("offset", "by WebSocket: offset in the output to begin at; then gaps are told"),
    ),
    errors=(BadRequest, ProcessNotFound),
)
