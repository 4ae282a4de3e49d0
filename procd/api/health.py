"""Liveness and readiness, for probes."""

from aiohttp import web

from procd.errors import NotReady
from procd.http.connection_limit import CONNECTION_LIMIT
from procd.http.openapi import LIST, STRINGS, Doc, Shape, error_with
from procd.http.responses import json_response
from procd.services.readiness import Readiness
from procd.throttle import loop_lag_s

READINESS = web.AppKey("READINESS", Readiness)
# What /healthz answers.
HEALTH = web.AppKey("HEALTH", dict[str, str])


async def healthz(request: web.Request) -> web.Response:
    """Alive: the event loop answers."""
    return json_response(request.app[HEALTH])


async def readyz(request: web.Request) -> web.Response:
    """Ready for work.

    Raises:
        NotReady: with the reasons why not.
    """
    reasons = request.app[READINESS].reasons(await loop_lag_s())
    limit = request.app[CONNECTION_LIMIT]
    if limit.is_full:
        reasons.append(f"limit of {limit.max} connections is reached")
    if reasons:
        raise NotReady(f"not ready: {'; '.join(reasons)}", {"reasons": reasons})
    return json_response({"status": "ready"})


NOT_READY = error_with(Shape("NotReady", {"reasons": LIST}))

routes = [
    web.get("/healthz", healthz, doc=Doc(reply=STRINGS)),
    web.get(
        "/readyz",
        readyz,
        doc=Doc(reply=STRINGS, errors=(NotReady,), bodies={NotReady: NOT_READY}),
    ),
]
