"""GET /openapi.json and /docs: the API's description."""

from aiohttp import hdrs, web

from procd.http.openapi import DESCRIPTION, PAGE_HEADERS, Doc
from procd.http.responses import json_response

# Where `/` leads: a path relative to it.
START_PAGE = web.AppKey("START_PAGE", str)


async def start_page(request: web.Request) -> web.Response:
    """Lead a browser to the web terminal, or to this description where that is switched off."""
    # Relative, so that it holds below any prefix.
    return web.Response(status=302, headers={hdrs.LOCATION: request.app[START_PAGE]})


async def openapi(request: web.Request) -> web.Response:
    """This description of the API."""
    return json_response(request.app[DESCRIPTION].document)


async def page(request: web.Request) -> web.Response:
    """This description as a page for people."""
    return web.Response(body=request.app[DESCRIPTION].page, headers=PAGE_HEADERS)


routes = [
    web.get("/", start_page, doc=Doc(status=302)),
    web.get("/openapi.json", openapi, doc=Doc(reply={"type": "object"})),
    web.get("/docs", page, doc=Doc(content=("text/html",))),
]
