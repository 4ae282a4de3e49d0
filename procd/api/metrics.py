"""GET /metrics: what Prometheus scrapes."""

from aiohttp import hdrs, web

from procd.http.figures import FIGURES
from procd.http.openapi import Doc
from procd.tasks import loop_lag_s


async def metrics(request: web.Request) -> web.Response:
    """Show figures for Prometheus.

    The format is the one that the scraper prefers: text or OpenMetrics.
    """
    # Slow to import, and not everybody scrapes.
    from procd.http.exposition import encode

    accept = request.headers.get(hdrs.ACCEPT, "")
    body, content_type = encode(request.app[FIGURES], await loop_lag_s(), accept)
    return web.Response(body=body, headers={hdrs.CONTENT_TYPE: content_type})


routes = [
    web.get(
        "/metrics", metrics, doc=Doc(id="getMetrics", content={"text/plain": "procd_ptys 1.0\n"})
    )
]
