"""The handshake of a WebSocket: what the client offers, and what of it aiohttp gets to see.

Source: RFC 6455, section 4; Process API contract, sections 2.1 and 9.3.
"""

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from aiohttp import HttpVersion11, hdrs, web
from multidict import CIMultiDict

from procd.errors import BadRequest

WEBSOCKET: Final = "websocket"
VERSION: Final = "13"
VERSION_TOKEN: Final = "X-Daytona-SDK-Version~"  # noqa: S105 - no secret

SWITCHING: Final = 101
# On a request that was answered so: its handler may end without saying it, as its client has gone.
UPGRADED = web.RequestKey("UPGRADED", bool)


def offered(request: web.Request) -> list[str]:
    """The sub-protocols that the client offers, from all header lines."""
    return _listed(request, hdrs.SEC_WEBSOCKET_PROTOCOL)


def asks_websocket(request: web.Request) -> bool:
    """Whether that is among the protocols which the client would go on with.

    Source: RFC 9110, section 7.8.
    """
    return WEBSOCKET in map(str.lower, _listed(request, hdrs.UPGRADE))


def _listed(request: web.Request, header: str) -> list[str]:
    lines = request.headers.getall(header, [])
    tokens = [token.strip() for line in lines for token in line.split(",")]
    return [token for token in tokens if token and token.isascii()]  # RFC 9110, section 5.6.2


def version_token(tokens: list[str]) -> str | None:
    """The one to select where no more is asked for. Source: contract, section 9.3."""
    return next((token for token in tokens if token.startswith(VERSION_TOKEN)), None)


Select = Callable[[list[str]], str | None]


def handshake_of(request: web.Request, select: Select) -> web.Request:
    """The request as aiohttp is to see it: with no other protocol, and no token but the selected.

    When aiohttp finds no token that it knows, it logs them all, and they may carry secrets. And it
    encodes all headers again, and fails where one wasn't UTF-8, as somebody's cookie.

    Raises:
        BadRequest: this isn't a WebSocket handshake.
    """
    token = select(offered(request))
    ascii_only = (item for item in request.headers.items() if item[1].isascii())
    headers = CIMultiDict(ascii_only)
    headers.popall(hdrs.SEC_WEBSOCKET_PROTOCOL, None)
    if token is not None:
        headers[hdrs.SEC_WEBSOCKET_PROTOCOL] = token
    if asks_websocket(request):
        headers[hdrs.UPGRADE] = WEBSOCKET
    handshake = request.clone(headers=headers)
    protocols = () if token is None else (token,)
    known = web.WebSocketResponse(protocols=protocols).can_prepare(handshake)
    is_draft = headers.get(hdrs.SEC_WEBSOCKET_VERSION) != VERSION  # aiohttp takes some
    if not known or is_draft or request.version < HttpVersion11:  # RFC 9110, section 7.8
        raise BadRequest("WebSocket upgrade required")
    return handshake


def cork(request: web.Request, *, on: bool) -> None:
    """Hold back what is written to the client, for 200 ms at most, or send all that was.

    A unix socket holds nothing back. Source: tcp(7), TCP_CORK.
    """
    if request.transport is not None:
        sock = request.transport.get_extra_info("socket")
        with suppress(OSError):  # that it is a unix socket, or closed by now
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, on)


def hang_up(request: web.Request, response: web.StreamResponse) -> None:
    """Close after the answer to who asked for another protocol and doesn't get it.

    Bytes that a proxy takes for a WebSocket's must not become a request; and of a protocol that
    aiohttp doesn't know it drops what came right behind, so that a client which has asked for more
    is to learn that it must ask again. And in which version, if it was a WebSocket of another.

    Source: RFC 6455, section 4.4.
    """
    if hdrs.UPGRADE in request.headers and response.status != SWITCHING:
        response.force_close()
        response.headers[hdrs.CONNECTION] = "close"
        if asks_websocket(request) and request.headers.get(hdrs.SEC_WEBSOCKET_VERSION) != VERSION:
            response.headers[hdrs.SEC_WEBSOCKET_VERSION] = VERSION
