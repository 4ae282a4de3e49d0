"""A client of a PTY that has more to say than keys, if it offers the sub-protocol `procd.pty.v1`.

Its binary messages are input, as everybody's. Its text messages are JSON objects:

    {"type": "ack", "offset": N}       all output before N is drawn; messages that begin less than
                                       `pty.window_bytes` after N may follow, and then the end;
                                       who is sent no more for that, and is silent so for
                                       `server.dead_peer_s`, counts as gone
    {"type": "size", "cols": C, "rows": R, "visible": true}       its window's size
    {"type": "take-over"}              send away all others that may write, with close code 4001
    {"type": "ping"}                   answer {"type": "control", "status": "pong"}: a page in a
                                       browser sees no ping of the WebSocket's own

Its `connected` also says with `cols` and `rows` which size the output is for. When it joins and at
each change, it hears who is attached and which size was agreed:

    {"type": "control", "status": "presence", "you": 2, "active": 2, "policy": "latest",
     "cols": 80, "rows": 24, "clients": [{"id": 2, "name": …, "viewer": false, "visible": true,
     "cols": 80, "rows": 24}]}

It is also told the `modes` before a replay, as with `?modes=true` (README).

To all other clients nothing of this exists.
"""

import asyncio
from typing import Any, Final

from aiohttp import WSCloseCode, web
from marshmallow import validate

from procd.errors import BadRequest
from procd.http.encoder import SHORT_BYTES, encoded
from procd.http.handshake import offered
from procd.http.log_sender import Outlet
from procd.http.schema import MAX_UINT16, MAX_VALUES, BodySchema, Count, Flag, Text, parse
from procd.http.websocket import CONNECTIONS, Connection
from procd.output.frames import TEXT, encode
from procd.services.pty.presence import Member
from procd.services.pty.session import PtySession, check_size
from procd.suspend import Countdown

PROTOCOL: Final = "procd.pty.v1"
# A code of our own: RFC 6455, section 7.4.2.
TAKEN_OVER: Final = 4001
PONG: Final = encode(TEXT, b'{"type":"control","status":"pong"}')
PRESENCE: Final = b'{"type":"control","status":"presence","you":%d,%b'
MAX_OFFSET: Final = (1 << 63) - 1
# Presence while its client reads nothing waits and is told once.
RETRY_S: Final = 0.1


class MessageSchema(BodySchema):
    """A text message of the client."""

    type = Text(required=True, validate=validate.OneOf(("ack", "size", "take-over", "ping")))
    offset = Count(MAX_OFFSET, load_default=None)
    cols = Count(MAX_UINT16, load_default=0)
    rows = Count(MAX_UINT16, load_default=0)
    visible = Flag(load_default=True)


MESSAGE: Final = MessageSchema()


class Attendant:
    """One client's part in a session, from `join` to `leave`.

    Attributes:
        asked: whether the client offered the sub-protocol.
        may_write: whether it types and resizes; else it is a viewer.
    """

    def __init__(
        self,
        request: web.Request,
        connection: Connection,
        session: PtySession,
        outlet: Outlet,
        *,
        may_write: bool,
    ) -> None:
        self.asked = PROTOCOL in offered(request)
        self.may_write = may_write
        self._connection = connection
        self._session = session
        self._outlet = outlet
        self._window_bytes = session.window_bytes
        self._max_values = request.app[MAX_VALUES]
        self._live = 0
        self._acked = 0
        # How long it may leave more waiting and acknowledge nothing, and that as it runs.
        self._dead_peer_s = request.app[CONNECTIONS].config.dead_peer_s
        self._overdue: Countdown | None = None
        self._timer: asyncio.Handle | None = None
        self._member = Member(
            name=connection.caller.name,
            may_write=may_write,
            drop=lambda by: connection.send_away(TAKEN_OVER, f"taken over by {by}"),
            changed=self._changed if self.asked else None,
        )

    @property
    def size(self) -> dict[str, int]:
        """What `connected` says besides, to a client that asked."""
        info = self._session.info
        return {"cols": info.cols, "rows": info.rows} if self.asked else {}

    def join(self, live: int) -> None:
        """The client is attached, and has been told so.

        Args:
            live: offset where its live output begins, which no replay counts for.
        """
        self._live = live
        if self.asked:
            self._outlet.on_shut = self._await_ack
            self._outlet.allow(live + self._window_bytes)
        self._session.presence.join(self._member)

    def caught_up(self) -> None:
        """The client has its replay. Tell it the size for which all that comes last is drawn."""
        if self.asked:
            self._write_presence()

    def leave(self) -> None:
        """The client has gone."""
        self._session.presence.leave(self._member)
        self._member.changed = None  # or else each would keep the other, and the session's output
        if self._timer is not None:
            self._timer.cancel()
        self._stop_awaiting()

    def _await_ack(self) -> None:
        """More is to be shown than may be sent. Who shows nothing any more is as good as gone.

        A page that a browser has frozen still answers pings, and the program would wait for it.
        """
        if self._overdue is None:
            self._overdue = Countdown(self._dead_peer_s, self._connection.drop_silent)

    def _stop_awaiting(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    @property
    def is_active(self) -> bool:
        """Whether the client, who may write, has typed last."""
        return self._session.presence.active == self._member.number

    def typed(self) -> bool:
        """The client has typed; whether all are told, in the next turn, that it is active now."""
        return self._session.presence.typed(self._member)

    async def said(self, text: bytes) -> None:
        """Do what a text message asks for.

        Raises:
            BadRequest: it can't be understood.
            ConnectionError: the client has gone.
        """
        message: dict[str, Any] = MESSAGE.load_document(parse(text, self._max_values))
        match message["type"]:
            case "ack":
                if message["offset"] is None:
                    raise BadRequest("ack: offset is missing")
                if message["offset"] > max(self._outlet.cursor.offset, self._live):
                    raise BadRequest("ack: offset is beyond what was sent")
                if message["offset"] > self._acked:
                    self._acked = message["offset"]
                    self._stop_awaiting()
                self._outlet.allow(message["offset"] + self._window_bytes)
            case "size":
                check_size(message["cols"], message["rows"])
                self._session.presence.set_size(
                    self._member, (message["cols"], message["rows"]), visible=message["visible"]
                )
            case "ping":
                await self._connection.answer(PONG)
            case _:
                if not self.may_write:
                    raise BadRequest("take-over: a viewer may not write")
                self._session.presence.take_over(self._member)

    def _changed(self, at_once: bool) -> None:  # noqa: FBT001 - it is a Member's
        if at_once:
            if self._timer is not None:
                self._timer.cancel()
            self._tell()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        self._timer = None
        if not self._outlet.opened:
            return  # in a replay, whose size is that of `connected`; `caught_up` tells
        self._write_presence()

    def _write_presence(self) -> None:
        if self._connection.full:
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(RETRY_S, self._tell)
            return
        presence = self._session.presence
        if not presence.encoded:  # the same to all: each of many would take as long again
            presence.encoded = _presence(self._session)
        self._connection.write_text(PRESENCE % (self._member.number, presence.encoded))


def _presence(session: PtySession) -> bytes:
    """What of a presence is the same to all."""
    presence, info = session.presence, session.info
    document = {
        "active": presence.active,
        "policy": presence.policy,
        "cols": info.cols,
        "rows": info.rows,
        "clients": [_describe(member) for member in presence.members],
    }
    return encoded(document, len(presence.members) * SHORT_BYTES)[1:]


def _describe(member: Member) -> dict[str, object]:
    cols, rows = member.size or (None, None)
    return {
        "id": member.number,
        "name": member.name,
        "viewer": not member.may_write,
        "visible": member.visible,
        "cols": cols,
        "rows": rows,
    }


def misunderstood(connection: Connection, error: BadRequest) -> None:
    """Send away a client that doesn't keep to its own sub-protocol."""
    connection.send_away(WSCloseCode.PROTOCOL_ERROR, error.message)
