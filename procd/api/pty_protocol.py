"""The sub-protocol `procd.pty.v1` of PTY clients; docs/wire.md describes its messages."""

import asyncio
from typing import Any, Final

from aiohttp import web
from marshmallow import validate

from procd.errors import BadRequest
from procd.http.client import offered
from procd.http.log_sender import LogSender
from procd.http.responses import dumps
from procd.http.schema import MAX_UINT16, MAX_VALUES, BodySchema, Count, Flag, Text, parse
from procd.http.websocket import WEBSOCKETS, WebSocket
from procd.output.frames import TEXT, encode
from procd.services.pty.presence import Member
from procd.services.pty.session import PtySession, check_size
from procd.suspend import Countdown

PROTOCOL: Final = "procd.pty.v1"
# A private close code: RFC 6455, section 7.4.2.
TAKEN_OVER: Final = 4001
PONG: Final = encode(TEXT, b'{"type":"control","status":"pong"}')
PRESENCE: Final = b'{"type":"control","status":"presence","you":%d,%b'
MAX_OFFSET: Final = (1 << 63) - 1
# How long presence waits while its client reads nothing, seconds.
RETRY_S: Final = 0.1


class MessageSchema(BodySchema):
    type = Text(required=True, validate=validate.OneOf(("ack", "size", "take-over", "ping")))
    offset = Count(MAX_OFFSET, load_default=None)
    cols = Count(MAX_UINT16, load_default=0)
    rows = Count(MAX_UINT16, load_default=0)
    visible = Flag(load_default=True)


MESSAGE: Final = MessageSchema()


class PtyClient:
    """One client's part in a session, from `join` to `leave`."""

    def __init__(
        self,
        request: web.Request,
        websocket: WebSocket,
        session: PtySession,
        sender: LogSender,
        *,
        may_write: bool,
    ) -> None:
        self.speaks_v1 = PROTOCOL in offered(request)
        self.may_write = may_write
        self._websocket = websocket
        self._session = session
        self._sender = sender
        self._window_bytes = session.window_bytes
        self._max_values = request.app[MAX_VALUES]
        self._live = 0
        self._acked = 0
        self._dead_peer_s = request.app[WEBSOCKETS].config.dead_peer_s
        self._ack_timeout: Countdown | None = None
        self._timer: asyncio.Handle | None = None
        self._member = Member(
            name=websocket.caller.name,
            may_write=may_write,
            drop=lambda by: websocket.dismiss(TAKEN_OVER, f"taken over by {by}"),
            changed=self._changed if self.speaks_v1 else None,
        )

    @property
    def size(self) -> dict[str, int]:
        info = self._session.info
        return {"cols": info.cols, "rows": info.rows} if self.speaks_v1 else {}

    def join(self, live: int) -> None:
        """Attach the client, whose live output begins at the offset `live`."""
        self._live = live
        if self.speaks_v1:
            self._sender.on_blocked = self._await_ack
            self._sender.allow(live + self._window_bytes)
        self._session.presence.join(self._member)

    def replay_sent(self) -> None:
        if self.speaks_v1:
            self._send_presence()

    def leave(self) -> None:
        self._session.presence.leave(self._member)
        if self._timer is not None:
            self._timer.cancel()
        self._stop_ack_timeout()

    def _await_ack(self) -> None:
        """Drop the client if it acknowledges nothing more.

        A page that a browser has frozen still answers pings, and the program would wait for it.
        """
        if self._ack_timeout is None:
            self._ack_timeout = Countdown(self._dead_peer_s, self._websocket.drop_silent)

    def _stop_ack_timeout(self) -> None:
        if self._ack_timeout is not None:
            self._ack_timeout.cancel()
            self._ack_timeout = None

    def typed(self) -> bool:
        """Note that the client, which may write, has typed; returns whether another was active."""
        return self._session.presence.typed(self._member)

    async def handle(self, text: bytes) -> None:
        """Do what a text message asks for; raises BadRequest if it can't be understood."""
        message: dict[str, Any] = MESSAGE.load_document(parse(text, self._max_values))
        match message["type"]:
            case "ack":
                self._acknowledge(message["offset"])
            case "size":
                check_size(message["cols"], message["rows"])
                self._session.presence.set_size(
                    self._member, (message["cols"], message["rows"]), visible=message["visible"]
                )
            case "ping":
                await self._websocket.answer(PONG)
            case _:
                if not self.may_write:
                    raise BadRequest("take-over: a viewer may not write")
                self._session.presence.take_over(self._member)

    def _acknowledge(self, offset: int | None) -> None:
        if offset is None:
            raise BadRequest("ack: offset is missing")
        if offset > max(self._sender.cursor.offset, self._live):
            raise BadRequest("ack: offset is beyond what was sent")
        if offset > self._acked:
            self._acked = offset
            self._stop_ack_timeout()
        self._sender.allow(offset + self._window_bytes)

    def _changed(self, at_once: bool) -> None:  # noqa: FBT001 - it is a Member's
        if at_once:
            if self._timer is not None:
                self._timer.cancel()
            self._update()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_soon(self._update)

    def _update(self) -> None:
        self._timer = None
        if self._sender.opened:  # before that, `replay_sent` does it
            self._send_presence()

    def _send_presence(self) -> None:
        if self._websocket.full:
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(RETRY_S, self._update)
            return
        presence = self._session.presence
        if not presence.encoded:  # it is the same for all members
            presence.encoded = _presence(self._session)
        self._websocket.write_text(PRESENCE % (self._member.number, presence.encoded))


def _presence(session: PtySession) -> bytes:
    """What of a presence message is the same for all members."""
    presence, info = session.presence, session.info
    message = {
        "active": presence.active,
        "policy": presence.policy,
        "cols": info.cols,
        "rows": info.rows,
        "clients": [_describe(member) for member in presence.members],
    }
    return dumps(message)[1:]


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
