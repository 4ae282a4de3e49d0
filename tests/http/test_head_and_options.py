"""HEAD, which is GET without the body, OPTIONS, and where the root leads."""

import asyncio
import re

import pytest

from procd.app import CONTROL_PLANE_ROUTES, ROUTES
from procd.http.auth import UNGUARDED
from tests.aliases import MakeClient
from tests.api.access import Secrets, bearer, guarded
from tests.api.clients import WAIT_S, execute, raw
from tests.http.test_auth import HANDSHAKE

PATHS = {
    re.sub(r"\{.*?\}", "nope", route.path)
    for route in (*ROUTES, *CONTROL_PLANE_ROUTES)
    if route.method == "GET"
}
# Their length depends on the moment.
VARYING = {"/metrics", "/system/metrics"}
PAGE = "https://app.example"


async def test_head_is_get_without_its_body(procd: MakeClient) -> None:
    client = await procd()
    for path in PATHS:
        async with client.get(path, allow_redirects=False) as get:
            await get.read()
        async with client.head(path, allow_redirects=False) as head:
            assert await head.read() == b"", path
        assert head.status == get.status, path
        assert head.headers.get("Content-Type") == get.headers.get("Content-Type"), path
        lengths = [each.headers.get("Content-Length") for each in (get, head)]
        # Errors have the time in them, and what takes long to encode is sent in pieces.
        if head.status < 400 and path not in VARYING and None not in lengths:
            assert lengths[0] == lengths[1], path
    assert (await execute(client, "echo fine"))["result"] == "fine\n", "the connection is in step"


async def test_head_needs_what_get_needs(procd: MakeClient, secrets: Secrets) -> None:
    client = await guarded(procd, secrets)
    open_paths = {re.sub(r"\{.*?\}", "nope", path) for path in UNGUARDED}
    for path in PATHS:
        is_open = path in open_paths
        async with client.head(path, allow_redirects=False) as reply:
            assert (reply.status == 401) != is_open, path
    async with client.head("/process/pty/create-connect", headers=bearer(secrets.read)) as reply:
        assert reply.status == 403


async def test_head_sends_nothing_long_and_waits_for_nothing(procd: MakeClient) -> None:
    """Neither for the end of a command nor for the code that runs in a context."""
    client = await procd()
    async with client.post("/process/session", json={"sessionId": "s"}) as reply:
        assert reply.status == 201
    command = {"command": "head -c 3000000 /dev/zero | tr '\\0' x"}
    async with client.post("/process/session/s/exec", json=command) as reply:
        done = (await reply.json())["cmdId"]
    async with client.head(
        f"/process/session/s/command/{done}/logs", headers={"Accept": "application/json"}
    ) as reply:
        assert reply.status == 200
        assert await reply.read() == b""
    slow = {"command": "sleep 1000", "runAsync": True}
    async with client.post("/process/session/s/exec", json=slow) as reply:
        running = (await reply.json())["cmdId"]
    async with asyncio.timeout(WAIT_S):
        async with client.head(f"/process/session/s/command/{running}?wait=1000") as reply:
            assert reply.status == 200
        async with client.post("/process/interpreter/context", json={}) as reply:
            context = (await reply.json())["id"]
        async with client.ws_connect("/process/interpreter/execute") as cell:
            code = "print(1, flush=True)\nimport time\ntime.sleep(1000)"
            await cell.send_json({"contextId": context, "code": code})
            assert (await cell.receive_json())["type"] == "stdout"
            url = f"/process/interpreter/context/{context}/variables"
            async with client.head(url) as reply:
                assert reply.status == 200


async def test_head_opens_no_websocket(procd: MakeClient) -> None:
    """A handshake is a GET: RFC 6455, section 4.1."""
    client = await procd()
    for path in ("/process/pty/create-connect?id=a", "/process/interpreter/execute"):
        async with client.head(path, headers=HANDSHAKE) as reply:
            assert reply.status == 400
    async with client.get("/process/pty") as reply:
        assert (await reply.json()) == {"sessions": []}, "nothing was created"


@pytest.mark.parametrize("cors", [{}, {"allowed_origins": [PAGE]}], ids=["plain", "cors"])
async def test_options(procd: MakeClient, secrets: Secrets, cors: dict[str, list[str]]) -> None:
    """They are told to anyone, and to those who send half of a preflight."""
    client = await guarded(procd, secrets, cors=cors)
    methods: dict[str, set[str]] = {}
    for route in (*ROUTES, *CONTROL_PLANE_ROUTES):
        if route.method != "*":
            also = {"HEAD", "OPTIONS"} if route.method == "GET" else {"OPTIONS"}
            methods.setdefault(route.path, set()).update({route.method, *also})
    for path, expected in methods.items():
        url = re.sub(r"\{.*?\}", "nope", path)
        for headers in ({}, {"Origin": PAGE}, {"Access-Control-Request-Method": "GET"}):
            async with client.options(url, headers=headers) as reply:
                assert reply.status == 204, path
                assert expected == set(reply.headers["Allow"].split(", ")), path
                assert await reply.read() == b""
    async with client.options("/version") as reply:
        assert reply.headers["Allow"] == "GET, HEAD, OPTIONS"
    async with client.options("/nowhere", headers=bearer(secrets.read)) as reply:
        assert reply.status == 404
        assert "Allow" not in reply.headers
    async with client.options("/nowhere") as reply:
        assert reply.status == 401


async def test_a_preflight_is_answered_as_one(procd: MakeClient) -> None:
    client = await procd(cors={"allowed_origins": [PAGE]})
    headers = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
    async with client.options("/process/execute", headers=headers) as reply:
        assert reply.status == 200
        assert reply.headers["Access-Control-Allow-Origin"] == PAGE
        assert reply.headers["Access-Control-Allow-Methods"] == "POST"


async def test_the_root_leads_to_a_page(procd: MakeClient, secrets: Secrets) -> None:
    for sections, place in ({}, "terminal"), ({"web": {"enabled": False}}, "docs"):
        client = await guarded(procd, secrets, **sections)
        for path in ("/", "/toolbox/box/"):
            for headers in ({}, bearer(secrets.read)):
                async with client.get(path, headers=headers, allow_redirects=False) as reply:
                    assert reply.status == 302
                    assert reply.headers["Location"] == place, "relative: a prefix may be before it"
            async with client.get(path, headers=bearer(secrets.read)) as reply:
                assert reply.status == 200
                assert reply.url.path == path + place


async def test_the_connection_is_in_step_after_head(procd: MakeClient) -> None:
    """No byte of a body is sent that would be taken for the next reply."""
    client = await procd()
    async with raw(client) as bare, asyncio.timeout(WAIT_S):
        await bare.send(
            b"HEAD /version HTTP/1.1\r\nHost: a\r\n\r\n"
            b"GET /version HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        )
        said = await bare.rest()
    assert said.count(b"HTTP/1.1 200") == 2
    first, _, rest = said.partition(b"\r\n\r\n")
    assert rest.startswith(b"HTTP/1.1 200")
    length = re.search(rb"Content-Length: (\d+)", first)
    assert length is not None
    assert len(said.rpartition(b"\r\n\r\n")[2]) == int(length[1])
