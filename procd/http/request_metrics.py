"""Around every request: its id, its place in the metrics, and at level debug a line in the log.

All that a route needs is bound when the server starts; a request costs a look-up by identity.
"""

import asyncio
import itertools
import logging
import re
import secrets
import time
import traceback
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from procd.http.forwarded import PROXIES
from procd.http.handshake import SWITCHING, UPGRADED
from procd.http.whole import ID_HEADER, WholeResponse
from procd.logging import REQUEST_ID
from procd.metrics import Histogram, Traffic
from procd.unix.malloc import MallocTrimmer

log = logging.getLogger(__name__)

# What others' ids may be: nothing that a log or a header could be confused by.
SANE_ID: Final = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}", re.ASCII)

# Buckets of the time that an answer takes, which is mostly a command's own.
BOUNDS_S: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0,
)  # fmt: skip
# What stands for the status where the client went before there was one, as in nginx.
CLIENT_GONE: Final = 499
# The memory that longer bodies than this took is worth giving back.
LONG_BYTES: Final = 64 << 10

HEAP = web.AppKey("HEAP", MallocTrimmer)


@dataclass(slots=True, eq=False)
class RouteStats:
    """What was asked of one route.

    Attributes:
        pattern: the route's path with names for what varies; all unknown paths share one.
        statuses: how many requests by the status of their reply.
        durations: from the request's header to the reply; WebSockets not included.
    """

    method: str
    pattern: str
    statuses: dict[int, int] = field(default_factory=dict)
    durations: Histogram = field(default_factory=lambda: Histogram(BOUNDS_S))


class Requests:
    """The statistics of all routes."""

    def __init__(self) -> None:
        self.unmatched = RouteStats("any", "unmatched")
        self.all: list[RouteStats] = [self.unmatched]
        self.traffic = Traffic()
        self._by_route: dict[web.AbstractRoute, RouteStats] = {}

    def route(self, method: str, pattern: str) -> RouteStats:
        """New statistics, for one route or for several that are one to the reader."""
        stats = RouteStats(method, pattern)
        self.all.append(stats)
        return stats

    def bind(self, route: web.AbstractRoute, stats: RouteStats) -> None:
        """Count the requests of `route` there."""
        self._by_route[route] = stats

    def count_unparsed(self, status: int) -> None:
        """Count what was answered with `status` and never became a request."""
        self.unmatched.statuses[status] = self.unmatched.statuses.get(status, 0) + 1

    def of(self, request: web.Request) -> RouteStats:
        """Where a request belongs."""
        return self._by_route.get(request.match_info.route, self.unmatched)


REQUESTS = web.AppKey("REQUESTS", Requests)


def observer(requests: Requests) -> Middleware:
    """The outermost middleware."""
    prefix = secrets.token_hex(5)
    numbers = itertools.count(1)
    traffic = requests.traffic

    @web.middleware
    async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
        begin = time.perf_counter()
        request_id = request.headers.get(ID_HEADER)
        if request_id is None or SANE_ID.fullmatch(request_id) is None:
            request_id = f"{prefix}-{next(numbers):x}"
        REQUEST_ID.set(request_id)  # for this task, which is this request's own
        status = CLIENT_GONE
        try:
            response = await handler(request)
            status = response.status
            body = getattr(response, "body", None)
            traffic.sent_bytes += len(body) if isinstance(body, bytes) else response.body_length
            return response
        except web.HTTPException as exc:
            status = exc.status
            raise
        except asyncio.CancelledError as exc:
            # The task of the request keeps this, and its frames keep the request, which keeps the
            # task: what the client sent and what was to be sent would stay until a collection.
            traceback.clear_frames(exc.__traceback__)
            raise
        finally:
            seconds = time.perf_counter() - begin
            if status == CLIENT_GONE and request.get(UPGRADED):
                status = SWITCHING
            stats = requests.of(request)
            stats.statuses[status] = stats.statuses.get(status, 0) + 1
            if status != SWITCHING:
                stats.durations.add(seconds)
            received = request.content.total_bytes
            traffic.received_bytes += received
            passed = received + request.writer.output_size  # of a reply in pieces
            if passed > LONG_BYTES:
                request.app[HEAP].freed(passed)
            if log.isEnabledFor(logging.DEBUG):
                _tell(request, stats, status, seconds)

    return observe


def _tell(request: web.Request, stats: RouteStats, status: int, seconds: float) -> None:
    """The line about a request: never its path or query, which may hold what is secret."""
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


def name_request(_: web.Request, response: web.StreamResponse) -> None:
    """Echo the request's id; called when a reply is about to begin, whatever kind it is."""
    if isinstance(response, WholeResponse):
        response.request_id = REQUEST_ID.get()
    else:
        response.headers[ID_HEADER] = REQUEST_ID.get()
