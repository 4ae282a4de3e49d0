"""Recordings of terminals: list, download, delete."""

import os
from typing import Final

from aiohttp import hdrs, web

from procd.api.pty import PTYS
from procd.errors import Conflict
from procd.http.audit import note
from procd.http.openapi import FLAG, INTEGER, MESSAGE, NOW, TEXT, TIME, Doc, ListOf, Shape, about
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
    """List the recordings, oldest first.

    Recordings that are still being written are listed, too.
    """
    recordings = request.app[PTYS].recordings.list()
    return json_response({"recordings": [describe(info) for info in recordings]})


async def download(request: web.Request) -> web.StreamResponse:
    """Download a recording.

    If it is still being written, the reply is what it contains by now.
    """
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
    """Delete a recording.

    A recording that is still being written can't be deleted.
    """
    name = request.match_info["name"]
    request.app[PTYS].recordings.delete(name)
    note(id=name)
    return json_response({"message": "recording deleted"})


RECORDING: Final = Shape(
    "Recording",
    "A recording of a terminal.",
    {
        "name": TEXT | about("Its name.", "20261202T100000.000000Z.cast"),
        "ptyId": TEXT | about("Id of the terminal.", "main"),
        "cols": INTEGER | about("Columns at its beginning.", 120),
        "rows": INTEGER | about("Rows at its beginning.", 40),
        "startedAt": TIME | about("When it began.", NOW),
        "sizeBytes": INTEGER | about("Its size, bytes.", 1024),
        "active": FLAG | about("It is being written.", example=False),
    },
)
RECORDINGS: Final = Shape(
    "Recordings", "The recordings.", {"recordings": ListOf(RECORDING, "The recordings.")}
)
CAST: Final = '{"version":3,"term":{"cols":120,"rows":40}}\n[0.1,"o","hello\\r\\n"]\n'

routes = [
    web.get("/recordings", list_all, doc=Doc(id="listRecordings", reply=RECORDINGS)),
    web.get(
        "/recordings/{name}",
        download,
        doc=Doc(id="downloadRecording", content={"application/x-asciicast": CAST}),
    ),
    web.delete(
        "/recordings/{name}",
        delete,
        doc=Doc(id="deleteRecording", reply=MESSAGE, errors=(Conflict,)),
    ),
]
