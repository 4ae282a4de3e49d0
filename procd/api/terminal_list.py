"""The PTYs as the web terminal lists them: pushed at each change, with a title each.

`GET /terminal/ptys` is a WebSocket. Each text message is the whole list, with the ended PTYs that
can be resumed. Any message of the client asks for the list again, as a sign of life.
"""

import asyncio
from typing import Any, Final

from aiohttp import web
from marshmallow import validate

from procd.api.pty import PTYS
from procd.errors import ProcessNotFound
from procd.http.audit import note
from procd.http.openapi import COUNT, FLAG, INTEGER_OR_NULL, NOW, TEXT, TIME, Doc, Shape, about
from procd.http.responses import dumps, json_response, timestamp
from procd.http.schema import BodySchema, Text, load
from procd.http.websocket import WEBSOCKETS, WebSocket
from procd.services.pty.session import PtySession
from procd.services.pty.sessions import PtySessions

# Between two lists, seconds: changes come in bursts.
PAUSE_S: Final = 0.2
MAX_TITLE: Final = 100
MAX_MESSAGE_BYTES: Final = 1024


class TitleSchema(BodySchema):
    title = Text(
        required=True,
        validate=validate.Length(max=MAX_TITLE),
        metadata=about("The title; an empty one takes it away.", "build log"),
    )

    def build(self, data: dict[str, Any]) -> str:
        return str(data["title"]).strip()


TITLE: Final = TitleSchema()


def _describe(session: PtySession) -> dict[str, object]:
    info = session.info
    return {
        "id": info.id,
        "title": session.title,
        "cols": info.cols,
        "rows": info.rows,
        "createdAt": timestamp(info.created_at),
        "active": info.active,
        "lazyStart": info.lazy_start,
        "clients": len(session.presence.members),
        "exitCode": session.exit_code,
        "recorded": session.recorded,
    }


class ListSender:
    """Sends one client the list, now and after changes."""

    def __init__(self, websocket: WebSocket, ptys: PtySessions) -> None:
        self._websocket = websocket
        self._ptys = ptys
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._stale = False
        ptys.watchers.add(self.request)
        self._send()

    def _send(self) -> None:
        listed = [_describe(session) for session in self._ptys.all()]
        self._websocket.write_text(dumps({"ptys": listed}))
        self._stale = False
        self._timer = self._loop.call_later(PAUSE_S, self._paused)

    def _paused(self) -> None:
        self._timer = None
        if self._websocket.full:
            self._timer = self._loop.call_later(PAUSE_S, self._paused)
        elif self._stale:
            self._send()

    def request(self) -> None:
        self._stale = True
        if self._timer is None:
            self._timer = self._loop.call_later(0, self._paused)

    def close(self) -> None:
        self._ptys.watchers.discard(self.request)
        if self._timer is not None:
            self._timer.cancel()


async def follow(request: web.Request) -> web.StreamResponse:
    """Follow the list of terminals by WebSocket.

    Each text message is the whole list, and is sent when it has changed. Any message of the client
    asks for the list again.
    """
    async with request.app[WEBSOCKETS].accept(request, MAX_MESSAGE_BYTES) as websocket:
        sender = ListSender(websocket, request.app[PTYS])
        try:
            while await websocket.receive() is not None:
                sender.request()
        finally:
            sender.close()
    return websocket.response


async def rename(request: web.Request) -> web.Response:
    """Give a terminal a title.

    Its id stays the same.
    """
    session = request.app[PTYS].get(request.match_info["id"])
    session.set_title(await load(request, TITLE))
    note(id=session.id)
    return json_response(_describe(session))


LISTED: Final = Shape(
    "TitledPty",
    "A terminal as the web terminal lists it.",
    {
        "id": TEXT | about("Its id.", "main"),
        "title": TEXT | about("Its title.", "build log"),
        "cols": COUNT | about("Columns.", 120),
        "rows": COUNT | about("Rows.", 40),
        "createdAt": TIME | about("When it was created.", NOW),
        "active": FLAG | about("Its shell runs.", example=True),
        "lazyStart": FLAG | about("Its shell starts with the first client.", example=False),
        "clients": COUNT | about("How many clients are attached.", 1),
        "exitCode": INTEGER_OR_NULL | about("Its exit code, once its shell has exited.", None),
        "recorded": FLAG | about("It is being recorded.", example=False),
    },
)

routes = [
    web.get("/terminal/ptys", follow, doc=Doc(id="followPtySessions", websocket="only")),
    web.patch(
        "/terminal/ptys/{id}",
        rename,
        doc=Doc(
            id="renamePtySession",
            body=TITLE,
            example={"title": "build log"},
            reply=LISTED,
            errors=(ProcessNotFound,),
        ),
    ),
]
