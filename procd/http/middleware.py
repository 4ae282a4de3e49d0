"""What is done for every request: it gets an id, is counted, and answered also if it fails.

Source: Process API contract, section 3.2.
"""

import itertools
import logging
import re
import secrets
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from procd.errors import BadRequest, NotFound, ProcdError, Unauthorized
from procd.http.client import PROXIES, asks_websocket, is_preflight
from procd.http.responses import json_response, respond, timestamp
from procd.logging import REQUEST_ID
from procd.metrics import Histogram, Traffic

log = logging.getLogger(__name__)

ID_HEADER: Final = "X-Request-Id"
# Ids of clients that can't do harm in a log or a header.
SAFE_ID: Final = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}", re.ASCII)

# Buckets of the time to answer, which is mostly the command's own.
BOUNDS_S: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0,
)  # fmt: skip
SWITCHING: Final = 101
CLIENT_GONE: Final = 499  # as in nginx

UPGRADED = web.RequestKey("UPGRADED", bool)
# Errors of these paths have the key `error` as well, for clients before 0.226.
PTY_PATH: Final = "/process/pty"
# The rest of a longer body is not waited for: the reply to a request that leaves it unread is the
# last one of its connection.
SHORT_BODY_BYTES: Final = 64 << 10
WEBSOCKET_VERSION: Final = "13"

# Set on a request whose client waits for "100 Continue".
AWAITS_CONTINUE = web.RequestKey("AWAITS_CONTINUE", bool)


@dataclass(slots=True, eq=False)
class RouteStats:
    """The requests of one route; all unknown paths are one."""

    method: str
    pattern: str
    statuses: dict[int, int] = field(default_factory=dict)  # how many, by status
    durations: Histogram = field(default_factory=lambda: Histogram(BOUNDS_S))

    def count(self, status: int) -> None:
        self.statuses[status] = self.statuses.get(status, 0) + 1


class RequestMetrics:
    """The statistics of all routes."""

    def __init__(self) -> None:
        self.unmatched = RouteStats("any", "unmatched")  # of requests that match no route
        self.traffic = Traffic()
        self._by_pattern: dict[tuple[str, str], RouteStats] = {}
        self._by_route: dict[web.AbstractRoute, RouteStats] = {}
        self._id_prefix = secrets.token_hex(5)
        self._numbers = itertools.count(1)

    def add_route(self, route: web.AbstractRoute, method: str, pattern: str) -> None:
        """Count the requests of `route` with those of all variants of `method` and `pattern`."""
        stats = self._by_pattern.setdefault((method, pattern), RouteStats(method, pattern))
        self._by_route[route] = stats

    @property
    def all(self) -> list[RouteStats]:
        return [self.unmatched, *self._by_pattern.values()]

    def of(self, request: web.Request) -> RouteStats:
        return self._by_route.get(request.match_info.route, self.unmatched)

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Count a request; the outermost middleware."""
        begin = time.perf_counter()
        request_id = request.headers.get(ID_HEADER)
        if request_id is None or SAFE_ID.fullmatch(request_id) is None:
            request_id = f"{self._id_prefix}-{next(self._numbers):x}"
        REQUEST_ID.set(request_id)  # in the request's own task
        status = CLIENT_GONE
        try:
            response = await handler(request)
            status = response.status
            body = response.body if isinstance(response, web.Response) else None
            if request.method == hdrs.METH_HEAD or not isinstance(body, bytes):
                sent_bytes = response.body_length
            else:
                sent_bytes = len(body)
            self.traffic.sent_bytes += sent_bytes
            return response
        finally:
            seconds = time.perf_counter() - begin
            if status == CLIENT_GONE and request.get(UPGRADED):
                status = SWITCHING
            stats = self.of(request)
            stats.count(status)
            if status != SWITCHING:
                stats.durations.add(seconds)
            self.traffic.received_bytes += request.content.total_bytes
            if log.isEnabledFor(logging.DEBUG):
                _log_request(request, stats, status, seconds)


METRICS = web.AppKey("METRICS", RequestMetrics)


def _log_request(request: web.Request, stats: RouteStats, status: int, seconds: float) -> None:
    """Log a request, without its path and query, which may contain secrets."""
    log.debug(
        "request",
        extra={
            "method": request.method,
            "route": stats.pattern,
            "status": status,
            "duration_ms": round(seconds * 1000, 3),
            "client": request.app[PROXIES].client_of(request),
        },
    )


async def add_id(request: web.Request, response: web.StreamResponse) -> None:
    """Tell the client the id of its request, and note an upgrade; called before a reply is sent."""
    response.headers[ID_HEADER] = REQUEST_ID.get()
    if response.status == SWITCHING:
        request[UPGRADED] = True


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
        # Never 405: contract, section 1. The 403 is of aiohttp-cors, for a preflight that fails.
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


@web.middleware
async def options(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer OPTIONS of a known path with its methods, which are no secret, but for preflights."""
    if request.method != hdrs.METH_OPTIONS or is_preflight(request):
        return await handler(request)
    for resource in request.app.router.resources():
        _, methods = await resource.resolve(request)
        if methods and hdrs.METH_ANY not in methods:  # which `api.not_supported` refuses
            allow = ", ".join(sorted({*methods, hdrs.METH_OPTIONS}))
            return web.Response(status=204, headers={hdrs.ALLOW: allow})
    return await handler(request)


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
    version of WebSockets is told procd's: RFC 6455, section 4.4.
    """
    if hdrs.UPGRADE in request.headers and response.status != 101:
        response.force_close()
        response.headers[hdrs.CONNECTION] = "close"
        version = request.headers.get(hdrs.SEC_WEBSOCKET_VERSION)
        if asks_websocket(request) and version != WEBSOCKET_VERSION:
            response.headers[hdrs.SEC_WEBSOCKET_VERSION] = WEBSOCKET_VERSION
