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
    STRINGS,
    TEXT,
    TIME,
    USAGE,
    Doc,
    ListOf,
    Shape,
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
    id = AnyText(required=True, validate=non_empty())
    cwd = Text()
    envs = strings()
    cols = Count(MAX_UINT16)
    rows = Count(MAX_UINT16)
    lazy_start = Flag(data_key="lazyStart")
    record = Flag()

    def build(self, data: dict[str, Any]) -> PtyRequest:
        return PtyRequest(**data)


class ResizeSchema(BodySchema):
    cols = Count(MAX_UINT16, required=True)
    rows = Count(MAX_UINT16, required=True)


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
    """Create a session."""
    try:
        session = await request.app[PTYS].create(await load(request, CREATE))
    except SpawnFailed as exc:
        raise SpawnFailed(f"failed to start PTY session: {exc.message}") from exc
    note(id=session.id)
    session.on_end = ending(request)
    return json_response({"sessionId": session.id}, 201)


async def list_all(request: web.Request) -> web.StreamResponse:
    """List the live sessions."""
    return await respond(
        request, {"sessions": [view(session.info) for session in request.app[PTYS].live.values()]}
    )


async def get(request: web.Request) -> web.StreamResponse:
    """Show one session, and what it uses where that is known."""
    session = request.app[PTYS].get(request.match_info["id"])
    return await respond(request, view(session.info, session.usage()))


async def delete(request: web.Request) -> web.Response:
    """End a session."""
    await request.app[PTYS].delete(request.match_info["id"])
    return json_response({"message": "PTY session deleted"})


async def resize(request: web.Request) -> web.StreamResponse:
    """Change a session's winsize."""
    size = await load(request, RESIZE)
    check_size(size["cols"], size["rows"])
    session = request.app[PTYS].to_resize(request.match_info["id"])
    session.presence.notify()
    info = session.resize(size["cols"], size["rows"])
    return await respond(request, view(info))


INFO: Final = Shape(
    "PtySession",
    {
        "id": TEXT,
        "cwd": TEXT,
        "envs": STRINGS,
        "cols": INTEGER,
        "rows": INTEGER,
        "createdAt": TIME,
        "active": FLAG,
        "lazyStart": FLAG,
    },
    {"usage": USAGE},
)
LISTED: Final = Shape("PtySessions", {"sessions": ListOf(INFO)})
CREATED: Final = Shape("PtyCreated", {"sessionId": TEXT})
CREATING: Final = (Conflict, Exhausted, SpawnFailed)
routes = [
    web.get("/process/pty", list_all, doc=Doc(reply=LISTED)),
    web.post(
        "/process/pty", create, doc=Doc(body=CREATE, reply=CREATED, status=201, errors=CREATING)
    ),
    web.get("/process/pty/{id}", get, doc=Doc(reply=INFO, errors=(ProcessNotFound,))),
    web.delete("/process/pty/{id}", delete, doc=Doc(reply=MESSAGE, errors=(ProcessNotFound,))),
    web.post(
        "/process/pty/{id}/resize", resize, doc=Doc(body=RESIZE, reply=INFO, errors=(SessionEnded,))
    ),
]
