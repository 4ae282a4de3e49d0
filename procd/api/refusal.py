"""Refusals of requests whose body may be still to come: it isn't asked for, or dropped, or left."""

import asyncio
from contextlib import suppress
from typing import Final

from aiohttp import HttpVersion11, hdrs, web

from procd.api.gate import GATE
from procd.errors import Exhausted, Refused, TooLarge, Unauthorized

# A refused request's connection is kept if its body is known to be no longer than this.
SMALL_BODY_BYTES: Final = 64 << 10
# Else so much of the body, for so long, is still taken off the socket and dropped. Who sends it, a
# proxy for instance, would meet a reset before it has read the answer.
LINGER_BYTES: Final = 1 << 20
LINGER_S: Final = 2.0

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
    """Complete a refusal, so that it costs no more than its own bytes.

    A body that is too large is read on for a while and dropped, for its client to read the answer.
    One that waits to be asked for should never come.
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
    """Say no more than this to this client, and soon hear no more."""
    response.force_close()
    await response.prepare(request)
    await response.write_eof()
    if request.transport is not None:
        request.transport.write_eof()
    left = LINGER_BYTES
    with suppress(TimeoutError, web.RequestPayloadError):
        async with asyncio.timeout(LINGER_S):
            while left > 0 and not request.content.is_eof():
                left -= len(await request.content.readany())
    request.protocol.force_close()
