"""A whole response is, byte for byte, what aiohttp makes of the same."""

import re
from typing import Any

from aiohttp import web

from procd.api.whole import WholeResponse
from tests.api.clients import each, raw
from tests.conftest import Client

CASES = [
    (f"{method} {{}} {version}{connection}", status, body)
    for method, version, connection in [
        ("GET", "HTTP/1.1", ""),
        ("GET", "HTTP/1.1", "\nConnection: close"),
        ("GET", "HTTP/1.1", "\nConnection: keep-alive"),
        ("GET", "HTTP/1.0", ""),
        ("GET", "HTTP/1.0", "\nConnection: keep-alive"),
        ("HEAD", "HTTP/1.1", ""),
        ("HEAD", "HTTP/1.0", "\nConnection: keep-alive"),
    ]
    for status, body in [(200, b"{}"), (200, b""), (404, b"x" * 9000), (204, b""), (304, b"{}")]
] + [("GET {} HTTP/1.1", 599, b"{}")]


@each(("request", "status", "body"), CASES)
async def test_the_same_bytes(aiohttp_client: Any, request: str, status: int, body: bytes) -> None:
    async def answer(request: web.Request) -> web.Response:
        kind = WholeResponse if request.path == "/whole" else web.Response
        response = kind(status=status, body=body, headers={"Content-Type": "text/x"})
        if "close" in request.headers.get("Connection", ""):
            response.force_close()
        return response

    async def name(_: web.Request, response: web.StreamResponse) -> None:
        response.headers["X-One"] = "1"

    app = web.Application()
    app.on_response_prepare.append(name)
    app.router.add_route("*", "/{kind}", answer)
    client: Client = await aiohttp_client(app)
    sent = []
    for kind in ("/whole", "/plain"):
        async with raw(client) as one:
            await one.request(request.format(kind))
            one.end_input()
            sent.append(re.sub(rb"Date: [^\r]+", b"Date: now", await one.rest()))
    assert sent[0] == sent[1]
