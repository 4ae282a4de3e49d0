"""The error envelope, and routes that are not there: contract, sections 1 and 3."""

import asyncio
import gzip
import json
import re
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler

from procd.app import ROUTES, create_app
from procd.config import Config
from tests.aliases import Client, MakeClient
from tests.api import sessions
from tests.api.clients import (
    WAIT_S,
    Fifo,
    Gate,
    create,
    delete,
    describe,
    each,
    execute,
    listed,
    raw,
    refused,
)
from tests.conftest import DaemonServer

UNKNOWN = [
    ("GET", "/nowhere"),
    ("POST", "/process"),
    ("GET", "/process/execute"),
    ("PUT", "/process/execute"),
    ("DELETE", "/process/execute"),
    ("HEAD", "/process/execute"),
    ("OPTIONS", "/nowhere"),
    ("PATCH", "/process/pty"),
    ("PUT", "/process/pty/a"),
    ("POST", "/process/pty/a"),
    ("GET", "/process/pty/a/resize"),
    ("POST", "/process/pty/a/connect"),
    ("DELETE", "/process/pty/a/connect"),
    ("POST", "/process/pty/create-connect"),
    ("GET", "/process/pty/a/b/c"),
    ("POST", "/version"),
    ("GET", "/env"),
    ("GET", "/toolbox/sb1/nowhere"),
    ("PROPFIND", "/process/pty"),
]


async def test_unknown_routes_and_methods(procd: MakeClient) -> None:
    client = await procd()
    for method, path in UNKNOWN:
        async with client.request(method, path) as reply:
            if method == "HEAD":
                assert reply.status == 404
            else:
                await refused(reply, 404, "NOT_FOUND")


async def test_pty_errors_carry_error_too(procd: MakeClient) -> None:
    client = await procd()
    async with client.get("/process/pty/t1") as reply:
        body = await refused(reply, 404, "PROCESS_NOT_FOUND")
        assert body["message"] == "PTY session not found"
    async with client.delete("/process/pty/t1") as reply:
        await refused(reply, 404, "PROCESS_NOT_FOUND")
    async with client.post("/process/pty/t1/resize", json={"cols": 1, "rows": 1}) as reply:
        body = await refused(reply, 410, "SESSION_ENDED")
        assert body["message"] == "PTY session t1 not found"


async def test_the_path_of_an_error_is_the_client_s(procd: MakeClient) -> None:
    client = await procd()
    for path in ("/toolbox/sb1/process/pty/t1", "/process/pty/t1/", "/process/pty/%C3%BC%20"):
        async with client.get(path) as reply:
            await refused(reply, 404, "PROCESS_NOT_FOUND")


async def test_every_route_under_prefix_and_with_slash(procd: MakeClient) -> None:
    client = await procd()
    for prefix in ("", "/toolbox/sb-1"):
        for slash in ("", "/"):
            for route in ROUTES:
                if "/static/" in route.path or route.path == "/":
                    continue  # files, of which none has that name
                path = prefix + re.sub(r"\{.*?\}", "nope", route.path) + slash
                async with client.request(route.method, path, allow_redirects=False) as reply:
                    text = await reply.text()
                    assert reply.status != 404 or "PROCESS_NOT_FOUND" in text, path
                    assert reply.status < 500


async def test_the_same_sessions_under_the_prefix(procd: MakeClient) -> None:
    client = await procd()
    await create(client, "t1", lazyStart=True)
    async with client.get("/toolbox/sb1/process/pty/t1/") as reply:
        assert await reply.json() == await describe(client, "t1")
    async with client.post(
        "/toolbox/other/process/execute/", json={"command": "echo prefixed"}
    ) as reply:
        assert (await reply.json())["result"] == "prefixed\n"
    async with client.ws_connect("/toolbox/sb1/process/pty/t1/connect/") as ws:
        assert (await ws.receive_json())["status"] == "connected"
    for sandbox in ("a b", "{sandbox}"):
        async with client.get(f"/toolbox/{sandbox}/process/pty/t1") as reply:
            assert reply.status == 200
    await delete(client, "t1")


@each("path", ["/process/pty/t1/connect", "/process/pty/create-connect?id=t2"])
@each(
    "headers",
    [
        {},
        {"Upgrade": "h2c", "Connection": "Upgrade"},
        {"Upgrade": "websocket"},
        {"Upgrade": "websocket", "Connection": "Upgrade"},
        {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"},
        {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "short",
        },
        {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "12",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        },
    ],
)
async def test_no_handshake_on_a_websocket_route(
    procd: MakeClient, path: str, headers: dict[str, str]
) -> None:
    client = await procd()
    await create(client, "t1", lazyStart=True)
    async with client.get(path, headers=headers) as reply:
        await refused(reply, 400, "BAD_REQUEST")
    assert await listed(client) == ["t1"]
    assert (await describe(client, "t1"))["active"] is False


async def test_a_version_of_websockets_that_is_not_ours(procd: MakeClient) -> None:
    """Ours is told: RFC 6455, section 4.4."""
    client = await procd()
    for version, told in (("12", "13"), ("8", "13"), ("7", "13"), ("13", None)):
        headers = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": version,
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==" if told else "short",
        }
        async with client.get("/process/interpreter/execute", headers=headers) as reply:
            await refused(reply, 400, "BAD_REQUEST")
            assert reply.headers.get("Sec-WebSocket-Version") == told


@each(
    ("path", "status"),
    [
        ("/process/pty/create-connect", 400),
        ("/process/pty/create-connect?id=t1", 409),
        ("/process/session/s1/command/c1/logs?follow=true", 404),
        ("/nowhere", 404),
    ],
)
async def test_a_failed_upgrade_closes_the_connection(
    procd: MakeClient, path: str, status: int
) -> None:
    """What a proxy lets through after it, as a WebSocket's bytes, is no request."""
    client = await procd()
    await create(client, "t1", lazyStart=True)
    async with raw(client) as bare, asyncio.timeout(WAIT_S):
        await bare.request(
            f"GET {path} HTTP/1.1\nUpgrade: websocket\nConnection: Upgrade\n"
            "Sec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n",
        )
        rest = await bare.rest()
    assert rest.startswith(f"HTTP/1.1 {status} ".encode())
    assert rest.count(b"HTTP/1.1") == 1


@each("streamed", [False, True])
async def test_who_asks_for_another_protocol_hears_that_it_is_over(
    procd: MakeClient, streamed: bool
) -> None:
    """What came right behind is lost: the client is to send it again."""
    client = await procd()
    path = "/version"
    if streamed:
        await sessions.create(client)
        path = sessions.path_of((await sessions.run(client, "echo x"))["cmdId"]) + "/logs"
    async with raw(client) as bare, asyncio.timeout(WAIT_S):
        await bare.request(
            f"GET {path} HTTP/1.1\nUpgrade: h2c\nConnection: Upgrade",
            b"GET /work-dir HTTP/1.1\r\nHost: localhost\r\n\r\n",
        )
        rest = await bare.rest()
    assert rest.startswith(b"HTTP/1.1 200 ")
    assert rest.count(b"HTTP/1.1") == 1
    assert b"\r\nConnection: close\r\n" in rest
    assert b"Sec-WebSocket" not in rest


async def test_no_upgrade_from_http_1_0(procd: MakeClient) -> None:
    client = await procd()
    async with raw(client) as bare, asyncio.timeout(WAIT_S):
        await bare.request(
            "GET /process/pty/create-connect?id=t1 HTTP/1.0\nUpgrade: websocket\n"
            "Connection: Upgrade\nSec-WebSocket-Version: 13\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
        )
        assert (await bare.rest()).startswith(b"HTTP/1.0 400 ")
    assert await listed(client) == []


@each(
    "noise",
    [
        b"\x00\x01\x02\x03\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /version HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n",
        b"POST /process/execute HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        b"GET /?key=s3cret HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET /?key=s3cret\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /?key=s3cret" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /version HTTP/1.1\r\nHost: x\r\nAuthorization: s3cret\1\r\n\r\n",
        b"GET /version HTTP/1.1\r\n\r\n",
        b"GET /version HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    ],
)
async def test_noise_instead_of_http(procd: MakeClient, noise: bytes) -> None:
    client = await procd()
    async with raw(client) as rude:
        async with asyncio.timeout(WAIT_S):
            await rude.send(noise)
            if noise[0] != 0x16:  # that one is the beginning of something, it seems
                head, _, body = (await rude.rest()).partition(b"\r\n\r\n")
                assert head.partition(b" ")[2].startswith(b"400 ")
                assert b"Content-Type: application/json; charset=utf-8" in head.split(b"\r\n")
                document = json.loads(body)
                assert document.keys() == {
                    "statusCode", "message", "source", "code", "timestamp", "path",
                }  # fmt: skip
                assert (document["statusCode"], document["code"]) == (400, "BAD_REQUEST")
                assert b"s3cret" not in body
                async with client.get("/metrics") as reply:
                    unmatched = '{method="any",route="unmatched",status="400"}'
                    assert f"procd_http_requests_total{unmatched} 1.0" in await reply.text()
    assert (await execute(client, "echo fine"))["result"] == "fine\n"


@pytest.mark.parametrize("noise", [b"\r\0\r\n" + b"a" * 200_000, b"GET /" + b"a" * 200_000])
async def test_noise_behind_a_request(
    procd: MakeClient, alive: Fifo, gate: Gate, noise: bytes
) -> None:
    """Both are answered in turn, and what comes between them and behind is dropped."""
    client = await procd()
    command = json.dumps({"command": f"echo up >{alive}; read x <{gate}; echo done"}).encode()
    async with raw(client) as rude:
        head = f"POST /process/execute HTTP/1.1\nContent-Length: {len(command)}"
        await rude.request(head, command)
        assert await alive.line() == "up"
        await rude.send(noise)
        gate.open()
        async with asyncio.timeout(WAIT_S):
            answers = await rude.rest()
    assert b'"result":"done\\n"' in answers
    assert re.findall(rb"HTTP/1\.[01] (\d+)", answers) == [b"200", b"400"]


@each("encoding", ["br", "zstd", "gzip", "deflate"])
async def test_no_encoding_of_bodies_is_known(procd: MakeClient, encoding: str) -> None:
    client = await procd()
    headers = {"Content-Encoding": encoding, "X-Request-Id": "r1"}
    for data in b"{}", gzip.compress(b"{}"):
        async with client.post("/init", data=data, headers=headers) as reply:
            body = await refused(reply, 400, "INVALID_REQUEST_BODY")
            assert "Content-Encoding" in body["message"]
            assert reply.headers["X-Request-Id"] == "r1"
    async with client.get("/version", headers=headers) as reply:
        assert reply.status == 200


@each("path", ["/nowhere", "/init"])
@each("expectation", ["foo", "100-continue, foo", "100-Continue"])
async def test_an_expectation_that_nobody_knows(
    procd: MakeClient, path: str, expectation: str
) -> None:
    client = await procd()
    async with client.post(path, data=b"{}", headers={"Expect": expectation}) as reply:
        if path == "/init":
            assert reply.status == 200
        else:
            await refused(reply, 404, "NOT_FOUND")


async def test_a_failure_that_no_middleware_catches(
    aiohttp_client: Callable[..., Awaitable[Client]], caplog: pytest.LogCaptureFixture
) -> None:
    @web.middleware
    async def failing(request: web.Request, handler: Handler) -> web.StreamResponse:
        raise RuntimeError("s3cret")

    config = Config()
    server = DaemonServer(create_app(config), config)
    server.app.middlewares.insert(0, failing)
    client = await aiohttp_client(server)
    async with client.get("/version") as reply:
        body = await refused(reply, 500, "INTERNAL_SERVER_ERROR")
        assert body["message"] == "internal server error"
        assert reply.headers["Connection"] == "close"
    assert "a request failed beyond its handler" in caplog.text


async def test_the_line_about_a_failure_says_which_route(
    aiohttp_client: Callable[..., Awaitable[Client]], caplog: pytest.LogCaptureFixture
) -> None:
    """By its pattern: what stands in its place, or behind it, may be secret."""

    @web.middleware
    async def failing(request: web.Request, handler: Handler) -> web.StreamResponse:
        raise RuntimeError("why")

    config = Config()
    server = DaemonServer(create_app(config), config)
    server.app.middlewares.append(failing)
    client = await aiohttp_client(server)
    for path in ("/process/pty/s3cret?key=s3cret", "/toolbox/s3cret/process/pty/a/", "/s3cret"):
        async with client.get(path) as reply:
            body = await refused(reply, 500, "INTERNAL_SERVER_ERROR")
            assert body["message"] == "internal server error"
    told = [record.getMessage() for record in caplog.records if record.exc_info is not None]
    route = "GET /process/pty/{id} failed"
    assert told == [route, route, "GET unmatched failed"]
    assert "s3cret" not in caplog.text


CHUNKED = "POST /process/execute HTTP/1.1\nTransfer-Encoding: chunked"


@each("begin", [b"", b'5\r\n{"com', b'5\r\n{"com\r\n', b'14\r\n{"command":"echo 1"}\r\n'])
async def test_a_chunk_that_is_malformed(procd: MakeClient, begin: bytes) -> None:
    """The request is answered at once, and nothing is run."""
    client = await procd()
    async with raw(client) as bare, asyncio.timeout(WAIT_S):
        await bare.request(CHUNKED, begin)
        async with client.get("/version"):  # meanwhile it is read
            pass
        await bare.send(b"zz\r\n")
        head, _, body = (await bare.rest()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["message"] == "invalid request body: can't be decoded"


@each(
    "request_",
    [
        b"GET /version\r\n\r\n",
        b"GET /version HTTP/0.9\r\nHost: localhost\r\n\r\n",
        b"POST /version HTTP/2.0\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n12345",
        b"POST /process/execute HTTP/1.0\r\nConnection: keep-alive\r\n"
        b'Transfer-Encoding: chunked\r\n\r\n13\r\n{"command": "true"}\r\n0\r\n\r\n',
    ],
)
async def test_another_version(procd: MakeClient, request_: bytes) -> None:
    """An answer of that version would be none of ours; 1.0 knows no chunks."""
    client = await procd()
    good = b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for before in (b"", good):
        async with raw(client) as bare, asyncio.timeout(WAIT_S):
            await bare.send(before + request_)
            rest = await bare.rest()
        one, _, other = rest.partition(b"HTTP/1.0 400 ")
        assert one.startswith(b"HTTP/1.1 200 ") == bool(before)
        assert b"no well-formed request" in other
