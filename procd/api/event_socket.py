"""The event socket that Daytona's clients before 2.0 hold open. No event is ever sent on it.

Replies have the final state of a sandbox already. Without the socket, a program in TypeScript ends
three minutes late, as its client tries again. Source: Engine.IO protocol, revision 4, over a
WebSocket; Socket.IO protocol, revision 5.
"""

import secrets
from contextlib import suppress
from typing import Final

import orjson
from aiohttp import WSCloseCode, web

from procd.http.auth import ACCESS_CONTROL
from procd.http.connection import CONNECTION_LIMIT
from procd.http.openapi import Doc
from procd.http.responses import dumps
from procd.http.websocket import WEBSOCKETS
from procd.services.tokens import ANYONE, Token
from procd.suspend import within

MAX_MESSAGE_BYTES: Final = 4096
FIRST_MESSAGE_S: Final = 20
# The WebSocket has pings of its own: those of Engine.IO are put off for as long as a client's timer
# can count, milliseconds.
PING_INTERVAL_MS: Final = 2_000_000_000
PING_TIMEOUT_MS: Final = 20_000

# Types of packets: in Engine.IO, and of messages (4) in Socket.IO after it.
OPEN: Final = b"0"
CLOSE: Final = b"1"
CONNECT: Final = b"40"
DISCONNECT: Final = b"41"
CONNECT_ERROR: Final = b"44"


async def connect(request: web.Request) -> web.StreamResponse:
    """Hold the event socket of Daytona's clients, by WebSocket.

    The first message brings the token. No event is ever sent.
    """
    async with request.app[WEBSOCKETS].accept(request, MAX_MESSAGE_BYTES) as websocket:
        opening = {
            "sid": secrets.token_hex(8),
            "upgrades": [],
            "pingInterval": PING_INTERVAL_MS,
            "pingTimeout": PING_TIMEOUT_MS,
            "maxPayload": MAX_MESSAGE_BYTES,
        }
        websocket.write_text(OPEN + dumps(opening))
        token = None
        with suppress(TimeoutError):
            message = await within(FIRST_MESSAGE_S, websocket.receive)
            token = _token(request, message)
        if token is None:
            websocket.write_text(CONNECT_ERROR + dumps({"message": "Unauthorized"}))
            websocket.close(WSCloseCode.POLICY_VIOLATION, "a valid token is required")
            await websocket.wait_closed()
            return websocket.response
        websocket.caller = token
        request.app[CONNECTION_LIMIT].admit(request.protocol)
        websocket.write_text(CONNECT + dumps({"sid": secrets.token_hex(8)}))
        while (message := await websocket.receive()) is not None:
            if message in (CLOSE, DISCONNECT):
                websocket.close(WSCloseCode.OK, "")
    return websocket.response


def _token(request: web.Request, message: bytes | None) -> Token | None:
    """The token that a client's first message has; None if it isn't valid."""
    if message is None or not message.startswith(CONNECT):
        return None
    access = request.app[ACCESS_CONTROL].access
    if not access.required:
        return ANYONE
    try:
        given = orjson.loads(message.removeprefix(CONNECT))
    except ValueError:
        return None
    secret = given.get("token") if isinstance(given, dict) else None
    return access.tokens.find(secret) if isinstance(secret, str) else None


routes = [web.get("/socket.io", connect, doc=Doc(id="connectEventSocket", websocket="only"))]
