"""The one place where exceptions become replies, all with the error envelope.

Source: Process API contract, section 3.2.
"""

import logging
from datetime import UTC, datetime
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from procd.errors import BadRequest, NotFound, ProcdError, Unauthorized
from procd.http.client import asks_websocket
from procd.http.request_metrics import METRICS
from procd.http.responses import json_response, respond, timestamp

log = logging.getLogger(__name__)

# Errors of these paths have the key `error` as well, for clients before 0.226.
PTY_PATH: Final = "/process/pty"
# The rest of a longer body is not waited for: the reply to a request that leaves it unread is the
# last one of its connection.
SHORT_BODY_BYTES: Final = 64 << 10
WEBSOCKET_VERSION: Final = "13"

# On a request whose client waits for "100 Continue" before it sends the body.
AWAITS_CONTINUE = web.RequestKey("AWAITS_CONTINUE", bool)


def envelope(request: web.BaseRequest | None, error: ProcdError) -> dict[str, object]:
    """The body of an error reply; `request` is None for one that could not be parsed."""
    path = "" if request is None else request.path
    fields: dict[str, object] = {
        "statusCode": error.status,
        "message": error.message,
        "source": "DAYTONA_DAEMON",
        "code": error.code,
        "timestamp": timestamp(datetime.now(UTC)),
        "path": path,
    }
    if request is not None:
        fields["method"] = request.method
    if PTY_PATH in path:
        fields["error"] = error.message
    return fields | error.extra


def last_response(request: web.BaseRequest | None, error: ProcdError) -> web.Response:
    """A short error reply that ends its connection."""
    response = json_response(envelope(request, error), error.status)
    response.force_close()
    return response


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every failure with the envelope."""
    try:
        response = await handler(request)
    except ProcdError as exc:
        response = await _error_response(request, exc)
    except (web.HTTPNotFound, web.HTTPMethodNotAllowed, web.HTTPForbidden):
        # Never 405: contract, section 1. aiohttp-cors refuses with 403 an OPTIONS that is no
        # preflight, or of an unknown path.
        response = await _error_response(request, NotFound("404 page not found"))
    except web.HTTPException as exc:
        response = await _error_response(request, BadRequest(exc.text or exc.reason))
    except ConnectionError:
        raise  # the client has gone
    except Exception:
        # Never the path itself, which may contain secrets.
        log.exception("%s %s failed", request.method, request.app[METRICS].of(request).pattern)
        response = await _error_response(request, ProcdError("internal server error"))
    if isinstance(response, web.Response) and _leaves_body(request):
        response.force_close()
    return response


async def _error_response(request: web.Request, error: ProcdError) -> web.StreamResponse:
    if request.writer.output_size > 0:  # as after an upgrade
        raise ConnectionResetError("part of another reply was sent")
    response = await respond(request, envelope(request, error), error.status)
    if error.status == Unauthorized.status and not response.prepared:
        response.headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
    return response


def _leaves_body(request: web.Request) -> bool:
    """Whether so much of the body may follow that the connection is to end with the reply.

    A client that waits for "100 Continue" may send its body or not: RFC 9110, section 10.1.1.
    """
    if request.content.is_eof():
        return False
    length = request.content_length
    return length is None or length > SHORT_BODY_BYTES or request.get(AWAITS_CONTINUE, False)


async def refuse_upgrade(request: web.Request, response: web.StreamResponse) -> None:
    """End the connection of a client that asked for another protocol and doesn't get it.

    Bytes that a proxy takes for a WebSocket's must not become a request. A client with another
    version of WebSockets is told procd's: RFC 6455, section 4.4. Called before a reply is sent.
    """
    if hdrs.UPGRADE in request.headers and response.status != 101:
        response.force_close()
        response.headers[hdrs.CONNECTION] = "close"
        version = request.headers.get(hdrs.SEC_WEBSOCKET_VERSION)
        if asks_websocket(request) and version != WEBSOCKET_VERSION:
            response.headers[hdrs.SEC_WEBSOCKET_VERSION] = WEBSOCKET_VERSION
