"""Alive, and ready for work: for the probes of whatever keeps procd running."""

import asyncio
import time

from aiohttp import web

from procd.api.describe import STRINGS, Doc
from procd.api.reply import json_response
from procd.api.visitors import VISITORS
from procd.errors import NotReady
from procd.services.readiness import Readiness

READINESS = web.AppKey("READINESS", Readiness)
# Facts that never change while procd runs, shown by /healthz.
HEALTH = web.AppKey("HEALTH", dict[str, str])


async def loop_lag_s() -> float:
    """How long whoever is ready has to wait for the event loop, now; seconds.

    Measured when somebody asks, so that an idle procd is never woken for it.
    """
    begin = time.perf_counter()
    # Between the two are all who were ready before, and the sockets that are ready now.
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return time.perf_counter() - begin


async def healthz(request: web.Request) -> web.Response:
    """Alive: the event loop answers."""
    return json_response(request.app[HEALTH])


async def readyz(request: web.Request) -> web.Response:
    """Accepting work.

    Raises:
        NotReady: with the reasons.
    """
    reasons = request.app[READINESS].reasons(await loop_lag_s())
    visitors = request.app[VISITORS]
    if request.protocol in visitors.extra:
        reasons.append(f"limit of {visitors.max} connections is reached")
    if reasons:
        raise NotReady(f"not ready: {'; '.join(reasons)}", {"reasons": reasons})
    return json_response({"status": "ready"})


routes = [
    web.get("/healthz", healthz, doc=Doc(reply=STRINGS)),
    web.get("/readyz", readyz, doc=Doc(reply=STRINGS, errors=(NotReady,))),
]
