"""The PTYs as the web terminal lists them: pushed when something changes, with a title each.

`GET /terminal/ptys` is a WebSocket. Each text message is the whole list:

    {"ptys": [{"id": "t1", "title": "build", "cols": 80, "rows": 24, "createdAt": …, "active": true,
               "lazyStart": false, "clients": 2, "exitCode": null, "recorded": false}]}

Those that have ended are in it as long as they can be resumed. Whatever the client says asks for
the list again: a page in a browser sees by that whether it is still connected.
"""

import asyncio
from typing import Any, Final

from aiohttp import web
from marshmallow import validate

from procd.api.pty import PTYS
from procd.errors import ProcessNotFound
from procd.http.audit import note
from procd.http.describe import Doc
from procd.http.encoder import SHORT_BYTES, encoded, timestamp
from procd.http.responses import json_response
from procd.http.schema import BodySchema, Text, load
from procd.http.websocket import CONNECTIONS, Connection
from procd.output.frames import TEXT, encode
from procd.services.pty.session import PtySession
from procd.services.pty.sessions import PtySessions

# Between two lists: changes come in bursts, and people don't read faster.
PAUSE_S: Final = 0.2
MAX_TITLE: Final = 100
# A client has little to say here.
MAX_MESSAGE_BYTES: Final = 1024


class TitleSchema(BodySchema):
    """PATCH /terminal/ptys/{id}."""

    title = Text(required=True, validate=validate.Length(max=MAX_TITLE))

    def build(self, data: dict[str, Any]) -> str:
        """The title; empty for none."""
        title: str = data["title"]
        return title.strip()


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


class Lists:
    """The list as it is sent: made once for all who are sent it in a turn of the event loop."""

    def __init__(self, ptys: PtySessions) -> None:
        self.ptys = ptys
        self._frame = b""
        ptys.watchers.add(self._forget)

    def frame(self) -> bytes:
        """That of now."""
        if not self._frame:
            listed = [_describe(session) for session in self.ptys.all()]
            self._frame = encode(TEXT, encoded({"ptys": listed}, len(listed) * SHORT_BYTES))
            asyncio.get_running_loop().call_soon(self._forget)
        return self._frame

    def _forget(self) -> None:
        self._frame = b""


LISTS = web.AppKey("LISTS", Lists)


class Watcher:
    """Sends one client the list, now and after changes."""

    def __init__(self, connection: Connection, lists: Lists) -> None:
        self._connection = connection
        self._lists = lists
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._stale = False
        lists.ptys.watchers.add(self.ask)
        self._send()

    def _send(self) -> None:
        self._connection.write(self._lists.frame())
        self._stale = False
        self._timer = self._loop.call_later(PAUSE_S, self._paused)

    def _paused(self) -> None:
        self._timer = None
        if self._connection.full:
            self._timer = self._loop.call_later(PAUSE_S, self._paused)
        elif self._stale:
            self._send()

    def ask(self) -> None:
        """Send the list soon."""
        self._stale = True
        if self._timer is None:
            self._timer = self._loop.call_later(0, self._paused)

    def close(self) -> None:
        """Send no more."""
        self._lists.ptys.watchers.discard(self.ask)
        if self._timer is not None:
            self._timer.cancel()


async def follow(request: web.Request) -> web.StreamResponse:
    """Send the list until the client goes."""
    connection = await request.app[CONNECTIONS].accept(request, MAX_MESSAGE_BYTES)
    watcher = Watcher(connection, request.app[LISTS])
    try:
        while await connection.receive() is not None:
            watcher.ask()
    finally:
        watcher.close()
        response = connection.release()
    return response


async def rename(request: web.Request) -> web.Response:
    """Give a PTY a title; its id stays."""
    session = request.app[PTYS].get(request.match_info["id"])
    session.set_title(await load(request, TITLE))
    note(id=session.id)
    return json_response(_describe(session))


routes = [
    web.get("/terminal/ptys", follow, doc=Doc(websocket="only")),
    web.patch(
        "/terminal/ptys/{id}",
        rename,
        doc=Doc(body=TITLE, reply={"type": "object"}, errors=(ProcessNotFound,)),
    ),
]
