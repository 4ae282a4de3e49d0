"""GET /openapi.json and /docs: the API's description. GET /: a page to begin with."""

from collections.abc import Sequence
from functools import cached_property
from importlib.resources import files
from typing import Final

from aiohttp import hdrs, web

from procd.errors import NotFound
from procd.http import docs_page
from procd.http.openapi import OBJECT, Doc, Json, about
from procd.http.responses import JSON_TYPE, dumps

# Of the page; beside `procd.http.docs_page`.
FILES: Final = {"docs.css": "text/css", "docs.js": "text/javascript"}


class Description:
    """The document of a route table, as JSON and as a page; each is made when first asked for."""

    def __init__(self, routes: Sequence[web.RouteDef], *, guarded: bool) -> None:
        self._routes = routes
        self._guarded = guarded

    @cached_property
    def document(self) -> Json:
        from procd.http.document import document  # it imports what a start has no time for

        return document(self._routes, guarded=self._guarded)

    @cached_property
    def json(self) -> bytes:
        return dumps(self.document)

    @cached_property
    def page(self) -> bytes:
        return docs_page.page(self.document)

    @cached_property
    def files(self) -> dict[str, bytes]:
        return {name: (files("procd.http") / name).read_bytes() for name in FILES}


DESCRIPTION = web.AppKey("DESCRIPTION", Description)
# Where `/` leads: a path relative to it.
START_PAGE = web.AppKey("START_PAGE", str)


async def start_page(request: web.Request) -> web.Response:
    """Lead a browser to a page.

    It is the web terminal, or this description where the web terminal is switched off.
    """
    # Relative, so that it holds below any prefix.
    return web.Response(status=302, headers={hdrs.LOCATION: request.app[START_PAGE]})


async def openapi(request: web.Request) -> web.Response:
    """Show this description of the API.

    It is an OpenAPI 3.1 document, and has the routes that this server serves.
    """
    headers = {hdrs.CONTENT_TYPE: JSON_TYPE}
    return web.Response(body=request.app[DESCRIPTION].json, headers=headers)


async def page(request: web.Request) -> web.Response:
    """Show this description as a page.

    The page needs no token. The requests that it sends do.
    """
    if request.path.endswith("/"):  # its references are relative
        return web.Response(status=308, headers={hdrs.LOCATION: "../docs"})
    body = request.app[DESCRIPTION].page
    return web.Response(
        body=body, content_type="text/html", charset="utf-8", headers=docs_page.HEADERS
    )


async def file(request: web.Request) -> web.Response:
    """Load a file of the page of this description.

    It is a script or a style sheet.
    """
    name = request.match_info["name"]
    if name not in FILES:
        raise NotFound("404 page not found")
    body = request.app[DESCRIPTION].files[name]
    return web.Response(
        body=body, content_type=FILES[name], charset="utf-8", headers=docs_page.HEADERS
    )


DOCUMENT: Final = OBJECT | about("The document.", {"openapi": "3.1.0"})

routes = [
    web.get("/", start_page, doc=Doc(id="getStartPage", status=302)),
    web.get("/openapi.json", openapi, doc=Doc(id="getOpenApi", reply=DOCUMENT)),
    web.get(
        "/docs",
        page,
        doc=Doc(id="getDocs", content={"text/html": "<!doctype html>"}, also={308: None}),
    ),
    web.get(
        "/docs/static/{name}",
        file,
        doc=Doc(
            id="getDocsFile",
            content={"text/javascript": "export {};", "text/css": "body { margin: 0; }"},
        ),
    ),
]
