"""What is answered by a look into a table is what aiohttp's router would have answered."""

from typing import Any

from aiohttp import web

from procd.api.dispatch import Bound
from procd.app import create_app
from procd.config import Config
from procd.configfile import from_mapping
from tests.api.clients import each, raw
from tests.conftest import Client, DaemonServer, MakeClient


@each(
    ("target", "bound"),
    [
        ("GET /version", True),
        ("GET /version/", True),
        ("POST /process/execute", True),
        ("GET /process/pty", True),
        ("DELETE /version", False),
        ("HEAD /version", False),
        ("OPTIONS /version", False),
        ("GET /version?", False),
        ("GET /version?a=b", False),
        ("GET /version#a", False),
        ("GET /%76ersion", False),
        ("GET //version", False),
        ("GET /process/../version", False),
        ("GET http://localhost/version", False),
        ("GET /toolbox/one/version", False),
        ("GET /process/pty/none", False),
        ("GET /", False),
        ("GET *", None),
        ("OPTIONS *", False),
        ("get /version", None),
        ("GET /VERSION", False),
    ],
)
async def test_the_same_route_as_by_the_router(
    aiohttp_client: Any, *, target: str, bound: bool | None
) -> None:
    found = []

    async def compare(request: web.Request, _: web.StreamResponse) -> None:
        match, routers = request.match_info, await request.app.router.resolve(request)
        assert dict(match) == dict(routers)
        assert match.apps == (request.app,)
        assert type(match.http_exception) is type(routers.http_exception)
        assert match.http_exception is not None or match.route is routers.route
        found.append(isinstance(match, Bound))

    config: Config = from_mapping({"interpreter": {"warm": 0}})
    app = create_app(config)
    app.on_response_prepare.append(compare)
    client: Client = await aiohttp_client(DaemonServer(app, config))
    async with raw(client) as one:
        await one.request(f"{target} HTTP/1.1\nConnection: close")
        answer = await one.rest()
    if bound is None:  # it never becomes a request
        assert not found
        assert answer.split()[1] == b"400"
    else:
        assert found == [bound]


async def test_a_body_that_waits_to_be_asked_for(procd: MakeClient) -> None:
    client = await procd()
    async with raw(client) as one:
        body = b'{"command": "echo hi"}'
        await one.request(
            f"POST /process/execute HTTP/1.1\nExpect: 100-continue\nContent-Length: {len(body)}"
        )
        assert (await one.head())[0] == 100
        await one.send(body)
        assert (await one.head())[0] == 200
