"""How a request is refused whose body may still be on its way."""

import asyncio
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import BadHttpMessage, HttpProcessingError, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import _ErrInfo

from procd.errors import BadRequest, Exhausted, Refused, TooLarge, Unauthorized
from procd.http.auth import GATE
from procd.http.connection_limit import VISITORS

# A refused request's connection is kept if its body is known to be no longer than this.
SMALL_BODY_BYTES: Final = 64 << 10
# Else it is closed so much later, and so much of the body is still taken off the socket meanwhile.
# Who sends it, a proxy for instance, would meet a reset before it has read the answer.
LINGER_BYTES: Final = 1 << 20
LINGER_S: Final = 2.0

# What aiohttp's parser says of more header fields than it takes.
TOO_MANY_HEADERS: Final = "Too many headers received"

INVITED: Final = web.RequestKey("INVITED", bool)


async def expect(request: web.Request) -> None:
    """Ask for a body that waits to be asked for, unless its request will be refused.

    Source: RFC 9110, section 10.1.1.
    """
    if hdrs.UPGRADE in request.headers or request.version < HttpVersion11:
        return
    if (request.content_length or 0) > request.client_max_size:
        return  # who reads it comes to that by itself
    try:
        request.app[GATE].admit(request)
    except (Refused, Exhausted):
        return  # the middleware comes to the same and answers
    if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
        request[INVITED] = True
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # of the reply, nothing is out yet


async def turn_away(request: web.Request, response: web.Response) -> None:
    """Complete an answer to who may go on with a body that isn't wanted, as after a refusal.

    It is to cost no more than its own bytes. Where a body is too large, it is read on for a while
    and dropped, for its client to read the answer. One that waits to be asked for should never
    come.
    """
    waits = hdrs.EXPECT in request.headers and INVITED not in request
    if response.status == TooLarge.status and not waits:
        return
    if response.status == Unauthorized.status:
        response.headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
    length = request.content_length
    if request.content.is_eof() or (
        length is not None and length <= SMALL_BODY_BYTES and not waits
    ):
        return
    await answer_and_close(request, response)


async def answer_and_close(request: web.Request, response: web.Response) -> None:
    """Send a client its last answer; what it still sends is dropped for a while (`Farewell`)."""
    response.force_close()
    await response.prepare(request)
    await response.write_eof()
    request.app[VISITORS].see_off(request.protocol)


class Farewell:
    """Drops what a client sends after its last answer, for a while, and then closes."""

    __slots__ = ("_left", "_timer", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._left = LINGER_BYTES
        self._timer = asyncio.get_running_loop().call_later(LINGER_S, self.end)
        with suppress(OSError):  # the client has reset the connection
            transport.write_eof()

    def heard(self, size: int) -> None:
        """So many bytes have come."""
        self._left -= size
        if self._left <= 0:
            self._transport.pause_reading()  # to close now would be a reset again

    def end(self) -> None:
        """Hear no more."""
        self._transport.close()

    def stop(self) -> None:
        """It is closed."""
        self._timer.cancel()


def error_in_place(exc: Exception) -> tuple[_ErrInfo, StreamReader]:
    """What the parser would have in place of a request that it refuses."""
    return _ErrInfo(BadRequest.status, exc, ""), EMPTY_PAYLOAD


def break_off(body: StreamReader) -> None:
    """Tell whoever waits for the rest of a body that it isn't well-formed."""
    problem = web.RequestPayloadError("it isn't well-formed")
    body.set_exception(problem)
    # Whoever waits for it may have been woken already, by the end of a chunk in the same piece, and
    # looks no more before he waits again.
    asyncio.get_running_loop().call_soon(body.set_exception, problem)


def is_strange(message: RawRequestMessage) -> bool:
    """Whether a request is of a version of HTTP not spoken here, or has what its own has not.

    The parser takes 0.9 and 2.0 as well, and the answer would say that it is of the same. Who
    speaks 1.0 may not know where a body in chunks ends: RFC 9112, section 6.1. And a target may
    name a host that only the parser takes for one, and nobody behind it.
    """
    if not message.path.startswith("/") or message.method == hdrs.METH_CONNECT:
        try:
            _ = urlsplit(message.path), message.url.host
        except ValueError:
            return True
    if message.version == HttpVersion10:
        return message.chunked
    return message.version != HttpVersion11


def judged(
    message: RawRequestMessage, body: StreamReader
) -> tuple[RawRequestMessage | _ErrInfo, StreamReader]:
    """A new request and its body, as they are to be served.

    A body in chunks is the last of its connection: of the fields that may come behind it (a
    trailer) aiohttp's parser puts one among the headers of the next request, and nothing tells
    whether there were any. By way of a proxy that may be another client's request, and have a
    token or an Origin that this one was given.
    """
    if is_strange(message):
        return error_in_place(BadHttpMessage(""))
    if message.chunked:
        return message._replace(should_close=True), body
    return message, body


def reason(exc: HttpProcessingError) -> str:
    """What is said of a request that the parser refuses."""
    if isinstance(exc, LineTooLong):
        return "bad request: the request line or the headers are too long"
    if exc.message == TOO_MANY_HEADERS:
        return "bad request: there are more than 128 header fields"
    return "bad request: this is no well-formed request of HTTP/1.1"
