"""Recordings of terminals: list, download, delete."""

import os
from typing import Final

from aiohttp import hdrs, web

from procd.api.pty import PTYS
from procd.errors import Conflict
from procd.http.audit import note
from procd.http.openapi import FLAG, INTEGER, MESSAGE, TEXT, TIME, Doc, ListOf, Shape
from procd.http.responses import json_response, timestamp
from procd.services.pty.recording import RecordingInfo

PIECE_BYTES: Final = 256 << 10


def describe(info: RecordingInfo) -> dict[str, object]:
    return {
        "name": info.name,
        "ptyId": info.pty_id,
        "cols": info.cols,
        "rows": info.rows,
        "startedAt": timestamp(info.started_at),
        "sizeBytes": info.size_bytes,
        "active": info.active,
    }


async def list_all(request: web.Request) -> web.Response:
    """List the recordings, oldest first."""
    recordings = request.app[PTYS].recordings.list()
    return json_response({"recordings": [describe(info) for info in recordings]})


async def download(request: web.Request) -> web.StreamResponse:
    """Send a recording; of one that is being written, what it contains by now."""
    name = request.match_info["name"]
    file = request.app[PTYS].recordings.open(name)
    try:
        size = os.fstat(file.number).st_size
        reply = web.StreamResponse(
            headers={
                hdrs.CONTENT_TYPE: "application/x-asciicast",
                hdrs.CONTENT_DISPOSITION: f'attachment; filename="{name}"',
                "X-Content-Type-Options": "nosniff",
            }
        )
        reply.content_length = size
        await reply.prepare(request)
        offset = size if request.method == hdrs.METH_HEAD else 0
        while offset < size:
            piece = os.pread(file.number, min(PIECE_BYTES, size - offset), offset)
            if not piece:  # the file was truncated: the client sees it by the length
                reply.force_close()
                break
            offset += len(piece)
            await reply.write(piece)
        await reply.write_eof()
    finally:
        file.close()
    return reply


async def delete(request: web.Request) -> web.Response:
    """Remove a recording."""
    name = request.match_info["name"]
    request.app[PTYS].recordings.delete(name)
    note(id=name)
    return json_response({"message": "recording deleted"})


RECORDING: Final = Shape(
    "Recording",
    {
        "name": TEXT,
        "ptyId": TEXT,
        "cols": INTEGER,
        "rows": INTEGER,
        "startedAt": TIME,
        "sizeBytes": INTEGER,
        "active": FLAG,
    },
)
RECORDINGS: Final = Shape("Recordings", {"recordings": ListOf(RECORDING)})

routes = [
    web.get("/recordings", list_all, doc=Doc(reply=RECORDINGS)),
    web.get("/recordings/{name}", download, doc=Doc(content=("application/x-asciicast",))),
    web.delete("/recordings/{name}", delete, doc=Doc(reply=MESSAGE, errors=(Conflict,))),
]
