"""GET /terminal: the web terminal's page and what it loads: package data of `procd/web`, read once.

They contain no secrets and are served without a token: the page asks its user for one.
"""

import hashlib
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final, NamedTuple

from aiohttp import ETag, hdrs, web

from procd.errors import NotFound
from procd.http.openapi import Doc

TYPES: Final = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".svg": "image/svg+xml",
}
# Scripts come from here alone and none is in the page. Styles may be in it, since xterm.js builds
# its style sheets at run time; they can't run anything. What a cell shows as HTML is put into a
# sandboxed frame, which inherits all this. Source: Content Security Policy Level 3.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # A changed file is seen at once; an unchanged one costs a 304.
    hdrs.CACHE_CONTROL: "no-cache",
}


class Asset(NamedTuple):
    body: bytes
    content_type: str
    etag: str


# The page's files by their path below `procd/web`.
ASSETS = web.AppKey("ASSETS", dict[str, Asset])


def read_assets() -> dict[str, Asset]:
    return dict(_read(files("procd") / "web", ""))


def _read(directory: Traversable, prefix: str) -> Iterator[tuple[str, Asset]]:
    for entry in directory.iterdir():
        name = prefix + entry.name
        if entry.is_dir():
            yield from _read(entry, f"{name}/")
        elif (kind := TYPES.get(f".{name.rpartition('.')[2]}")) is not None:
            body = entry.read_bytes()
            yield name, Asset(body, kind, hashlib.sha256(body).hexdigest()[:32])


def _answer(request: web.Request, name: str) -> web.Response:
    asset = request.app[ASSETS].get(name)
    if asset is None:
        raise NotFound("404 page not found")
    # Not by aiohttp's list, which takes 20 ms of a long header: no tag has a quote in it.
    known = request.headers.get(hdrs.IF_NONE_MATCH, "")
    if known.strip() == "*" or f'"{asset.etag}"' in known:
        reply = web.Response(status=304, headers=HEADERS)
    else:
        reply = web.Response(
            body=asset.body, content_type=asset.content_type, charset="utf-8", headers=HEADERS
        )
    reply.etag = ETag(asset.etag)
    return reply


async def page(request: web.Request) -> web.Response:
    """Show the web terminal.

    The page needs no token: it asks its user for one.
    """
    # Its references are relative, so that it works below any prefix.
    if request.path.endswith("/"):
        return web.Response(status=308, headers={hdrs.LOCATION: "../terminal"})
    return _answer(request, "index.html")


async def asset(request: web.Request) -> web.Response:
    """Load a file of the web terminal.

    It is a script or a style sheet.
    """
    parts = [request.match_info[each] for each in ("folder", "name") if each in request.match_info]
    return _answer(request, "/".join(parts))


FILE: Final = {"text/javascript": "export {};", "text/css": "body { margin: 0; }"}

routes = [
    web.get(
        "/terminal",
        page,
        doc=Doc(
            id="getTerminalPage",
            content={"text/html": "<!doctype html>"},
            also={304: None, 308: None},
        ),
    ),
    web.get(
        "/terminal/static/{name}",
        asset,
        doc=Doc(id="getTerminalFile", content=FILE, also={304: None}),
    ),
    web.get(
        "/terminal/static/{folder}/{name}",
        asset,
        doc=Doc(id="getTerminalFileInFolder", content=FILE, also={304: None}),
    ),
]
