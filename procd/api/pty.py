"""PTY sessions. Source: Process API contract, section 10."""

from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from procd.errors import Conflict, Exhausted, ProcessNotFound, SessionEnded, SpawnFailed
from procd.http.audit import ending, note
from procd.http.openapi import (
    FLAG,
    INTEGER,
    MESSAGE,
    NOW,
    STRINGS,
    TEXT,
    TIME,
    USAGE,
    Doc,
    ListOf,
    Shape,
    about,
)
from procd.http.responses import json_response, respond, timestamp
from procd.http.schema import (
    MAX_UINT16,
    AnyText,
    BodySchema,
    Count,
    Flag,
    Text,
    load,
    non_empty,
    strings,
)
from procd.services.pty.session import PtyInfo, PtyRequest, check_size
from procd.services.pty.sessions import PtySessions

PTYS = web.AppKey("PTYS", PtySessions)


class CreateSchema(BodySchema):
    id = AnyText(
        required=True, validate=non_empty(), metadata=about("Id of the new terminal.", "main")
    )
    cwd = Text(metadata=about("Where its shell starts; the default directory if absent.", "/"))
    envs = strings(metadata=about("Variables of its shell.", {"NAME": "value"}))
    cols = Count(MAX_UINT16, metadata=about("Columns; 80 if absent.", 120))
    rows = Count(MAX_UINT16, metadata=about("Rows; 24 if absent.", 40))
    lazy_start = Flag(
        data_key="lazyStart",
        metadata=about("Start the shell when the first client attaches.", example=False),
    )
    record = Flag(metadata=about("Record it, as asciicast v3.", example=False))

    def build(self, data: dict[str, Any]) -> PtyRequest:
        return PtyRequest(**data)


class ResizeSchema(BodySchema):
    cols = Count(MAX_UINT16, required=True, metadata=about("Columns.", 120))
    rows = Count(MAX_UINT16, required=True, metadata=about("Rows.", 40))


CREATE = CreateSchema()
RESIZE = ResizeSchema()


def view(info: PtyInfo, usage: Mapping[str, int] | None = None) -> dict[str, object]:
    """A session as in the contract, section 10.1, and what it uses where that is known."""
    fields: dict[str, object] = {
        "id": info.id,
        "cwd": info.cwd,
        "envs": dict(info.envs),
        "cols": info.cols,
        "rows": info.rows,
        "createdAt": timestamp(info.created_at),
        "active": info.active,
        "lazyStart": info.lazy_start,
    }
    return fields if usage is None else fields | {"usage": usage}


async def create(request: web.Request) -> web.Response:
    """Create a terminal.

    A login shell runs on it until it exits or the terminal is deleted, whether a client is
    attached or not.
    """
    try:
        session = await request.app[PTYS].create(await load(request, CREATE))
    except SpawnFailed as exc:
        raise SpawnFailed(f"failed to start PTY session: {exc.message}") from exc
    note(id=session.id)
    session.on_end = ending(request)
    return json_response({"sessionId": session.id}, 201)


async def list_all(request: web.Request) -> web.StreamResponse:
    """List the terminals.

    Terminals whose shell has exited are not listed.
    """
    return await respond(
        request, {"sessions": [view(session.info) for session in request.app[PTYS].live.values()]}
    )


async def get(request: web.Request) -> web.StreamResponse:
    """Show one terminal.

    The reply has what its processes use, where that is known.
    """
    session = request.app[PTYS].get(request.match_info["id"])
    return await respond(request, view(session.info, session.usage()))


async def delete(request: web.Request) -> web.Response:
    """Delete a terminal.

    All that runs on it is killed, and its clients are told.
    """
    await request.app[PTYS].delete(request.match_info["id"])
    return json_response({"message": "PTY session deleted"})


async def resize(request: web.Request) -> web.StreamResponse:
    """Change a terminal's size.

    Its programs are told by SIGWINCH.
    """
    size = await load(request, RESIZE)
    check_size(size["cols"], size["rows"])
    session = request.app[PTYS].to_resize(request.match_info["id"])
    session.presence.notify()
    info = session.resize(size["cols"], size["rows"])
    return await respond(request, view(info))


INFO: Final = Shape(
    "PtySession",
    "A terminal.",
    {
        "id": TEXT | about("Its id.", "main"),
        "cwd": TEXT | about("Where its shell started.", "/"),
        "envs": STRINGS | about("Variables that it was given.", {"NAME": "value"}),
        "cols": INTEGER | about("Columns.", 120),
        "rows": INTEGER | about("Rows.", 40),
        "createdAt": TIME | about("When it was created.", NOW),
        "active": FLAG | about("Its shell runs.", example=True),
        "lazyStart": FLAG | about("Its shell starts with the first client.", example=False),
    },
    {"usage": USAGE},
)
LISTED: Final = Shape(
    "PtySessions", "The terminals.", {"sessions": ListOf(INFO, "The terminals, oldest first.")}
)
CREATED: Final = Shape(
    "PtyCreated", "The terminal is there.", {"sessionId": TEXT | about("Its id.", "main")}
)
CREATING: Final = (Conflict, Exhausted, SpawnFailed)
routes = [
    web.get("/process/pty", list_all, doc=Doc(id="listPtySessions", reply=LISTED)),
    web.post(
        "/process/pty",
        create,
        doc=Doc(
            id="createPtySession",
            example={"id": "main", "cols": 120, "rows": 40},
            body=CREATE,
            reply=CREATED,
            status=201,
            errors=CREATING,
        ),
    ),
    web.get(
        "/process/pty/{id}", get, doc=Doc(id="getPtySession", reply=INFO, errors=(ProcessNotFound,))
    ),
    web.delete(
        "/process/pty/{id}",
        delete,
        doc=Doc(id="deletePtySession", reply=MESSAGE, errors=(ProcessNotFound,)),
    ),
    web.post(
        "/process/pty/{id}/resize",
        resize,
        doc=Doc(
            id="resizePtySession",
            example={"cols": 120, "rows": 40},
            body=RESIZE,
            reply=INFO,
            errors=(SessionEnded,),
        ),
    ),
]
