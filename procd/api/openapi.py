"""GET /openapi.json and /docs: the API's description."""

from aiohttp import web

from procd.http.openapi import DESCRIPTION, PAGE_HEADERS, Doc
from procd.http.responses import json_response


async def openapi(request: web.Request) -> web.Response:
    """This description of the API."""
    return json_response(request.app[DESCRIPTION].document)


async def page(request: web.Request) -> web.Response:
    """This description as a page for people."""
    return web.Response(body=request.app[DESCRIPTION].page, headers=PAGE_HEADERS)


routes = [
    web.get("/openapi.json", openapi, doc=Doc(reply={"type": "object"})),
    web.get("/docs", page, doc=Doc(content=("text/html",))),
]
