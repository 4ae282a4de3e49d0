"""A whole reply is, byte for byte, what aiohttp makes of the same."""

import re
from typing import Any

from aiohttp import web

from procd.http.whole import COMPLETIONS, CONTENT_TYPE, Complete, WholeResponse, complete
from tests.aliases import Client
from tests.api.clients import each, raw

CLIENTS = [
    ("GET", "HTTP/1.1", ""),
    ("GET", "HTTP/1.1", "\nConnection: close"),
    ("GET", "HTTP/1.1", "\nConnection: keep-alive"),
    ("GET", "HTTP/1.0", ""),
    ("GET", "HTTP/1.0", "\nConnection: keep-alive"),
    ("HEAD", "HTTP/1.1", ""),
    ("HEAD", "HTTP/1.0", "\nConnection: keep-alive"),
]
REPLIES = [
    (200, b"{}", ""),
    (200, b"", ""),
    (204, b"", ""),
    (304, b"{}", ""),
    (404, b"x" * 9000, ""),
    (599, b"{}", ""),
    (200, b"{}", "header"),
    (200, b"{}", "close"),
    (200, b"{}", "nameless"),
    (204, b"", "nameless"),
    (200, b"{}", "begun"),
]


@each(("method", "version", "connection"), CLIENTS)
async def test_the_same_bytes(
    aiohttp_client: Any, *, method: str, version: str, connection: str
) -> None:
    completed: list[web.StreamResponse] = []
    count = 0

    async def answer(request: web.Request) -> web.Response:
        status, body, what = REPLIES[int(request.match_info["number"])]
        response: web.Response = WholeResponse(body, status)
        if request.match_info["kind"] == "plain":
            headers = {"Content-Type": CONTENT_TYPE}
            response = web.Response(status=status, body=body, headers=headers)
        if what == "close":
            response.force_close()
        if what == "header":
            response.headers["Cache-Control"] = "no-store"
        if what == "begun":
            await response.prepare(request)
        return response

    def name(request: web.Request, response: web.StreamResponse) -> None:
        completed.append(response)
        if REPLIES[int(request.match_info["number"])][2] == "nameless":
            return
        if isinstance(response, WholeResponse):
            response.request_id = "one"
        else:
            response.headers["X-Request-Id"] = "one"

    app = web.Application()
    completions: list[Complete] = [name]
    app[COMPLETIONS] = completions
    app.on_response_prepare.append(complete)
    app.router.add_route("*", "/{kind}/{number}", answer)
    client: Client = await aiohttp_client(app)
    kept = "keep-alive" in connection or (version == "HTTP/1.1" and not connection)
    for number, (_, _, what) in enumerate(REPLIES):
        sent = []
        for kind in ("whole", "plain"):
            async with raw(client) as one:
                await one.request(f"{method} /{kind}/{number} {version}{connection}")
                if kept:
                    await one.request("GET /plain/0 HTTP/1.1\nConnection: close")
                sent.append(re.sub(rb"Date: [^\r]+", b"Date: now", await one.rest()))
        assert sent[0] == sent[1]
        replies = 2 if kept and what != "close" else 1
        assert sent[0].count(b"HTTP/1.") == replies
        assert sent[0].count(b"X-Request-Id: one") == replies - (what == "nameless")
        count += 2 * replies
        assert len(set(completed)) == len(completed) == count


async def test_what_else_completes_replies_does_so(aiohttp_client: Any) -> None:
    """Somebody's own hook, which may look at the headers and add some."""

    async def answer(_: web.Request) -> web.Response:
        return WholeResponse(b"{}", 201)

    async def add(_: web.Request, response: web.StreamResponse) -> None:
        response.headers["X-Type"] = response.headers["Content-Type"]

    app = web.Application()
    app[COMPLETIONS] = []
    app.on_response_prepare.append(complete)
    app.on_response_prepare.append(add)
    app.router.add_get("/", answer)
    client: Client = await aiohttp_client(app)
    async with client.get("/") as reply:
        assert reply.status == 201
        assert reply.headers["X-Type"] == reply.headers["Content-Type"] == CONTENT_TYPE
        assert await reply.read() == b"{}"
