"""Browsers: keys and one-time tickets in the URL of a WebSocket, and nowhere else."""

from pathlib import Path

import pytest
from aiohttp import WSServerHandshakeError

from procd.app import reload
from tests.aliases import Client, MakeClient
from tests.api.access import Secrets, bearer, guarded
from tests.api.clients import attach, each, program, refused

CONNECT = "/process/pty/t1/connect"


async def ticket_for(client: Client, route: str, secret: str) -> str:
    async with client.post("/tickets", json={"route": route}, headers=bearer(secret)) as reply:
        body = await reply.json()
        assert reply.status == 201, body
        assert reply.headers["Cache-Control"] == "no-store"
        assert 0 < body["expiresInSeconds"] <= 30
        ticket: str = body["ticket"]
        return ticket


async def is_refused(client: Client, path: str, status: int = 401) -> None:
    with pytest.raises(WSServerHandshakeError) as caught:
        await client.ws_connect(path)
    assert caught.value.status == status


async def served(procd: MakeClient, secrets: Secrets, **sections: dict[str, object]) -> Client:
    """A server with a terminal t1."""
    client = await guarded(procd, secrets, **sections)
    async with client.post(
        "/process/pty", json={"id": "t1"}, headers=bearer(secrets.write)
    ) as reply:
        assert reply.status == 201
    return client


async def test_a_key_opens_a_websocket_and_nothing_else(
    procd: MakeClient, secrets: Secrets
) -> None:
    client = await served(procd, secrets)
    key = f"DAYTONA_SANDBOX_AUTH_KEY={secrets.write}"
    terminal = await attach(client, f"{CONNECT}?{key}")
    assert terminal.connected["status"] == "connected"
    for path in ("/version", "/process/pty", "/process/pty/t1", CONNECT):
        async with client.get(f"{path}?{key}") as reply:
            body = await refused(reply, 401, "UNAUTHORIZED")
            assert secrets.write not in str(body)
    handshake = {"Upgrade": "websocket", "Connection": "Upgrade"}
    async with client.get(f"/process/pty?{key}", headers=handshake) as reply:
        await refused(reply, 401, "UNAUTHORIZED")
    # A header that is wrong isn't made good by a key that is right.
    async with client.get(f"{CONNECT}?{key}", headers=handshake | bearer("x")) as reply:
        await refused(reply, 401, "UNAUTHORIZED")
    await is_refused(client, f"/process/pty/create-connect?id=t2&{key[:-1]}")
    key = f"DAYTONA_SANDBOX_AUTH_KEY={secrets.read}"
    await is_refused(client, f"/process/pty/create-connect?id=t2&{key}", 403)


@each("route", [CONNECT, f"{CONNECT}/", f"/toolbox/sb1{CONNECT}", "/process/pty/%74%31/connect"])
async def test_a_ticket_is_good_once(
    procd: MakeClient, secrets: Secrets, tmp_path: Path, route: str
) -> None:
    shell = program(tmp_path, "stty raw -echo; cat")
    client = await served(procd, secrets, process={"shell": shell})
    ticket = await ticket_for(client, route, secrets.write)
    terminal = await attach(client, f"/toolbox/other{CONNECT}?ticket={ticket}&replay=0")
    await terminal.type(b"typed")
    await terminal.until(b"typed")
    await is_refused(client, f"{CONNECT}?ticket={ticket}")


async def test_a_ticket_is_for_one_route(procd: MakeClient, secrets: Secrets) -> None:
    client = await served(procd, secrets)
    for wrong in ("/process/pty/create-connect?id=t2", "/process/pty/t2/connect?x=1"):
        ticket = await ticket_for(client, CONNECT, secrets.write)
        await is_refused(client, f"{wrong}&ticket={ticket}")
        await is_refused(client, f"{CONNECT}?ticket={ticket}")
    ticket = await ticket_for(client, "/process/pty", secrets.write)
    async with client.get(f"/process/pty?ticket={ticket}") as reply:
        await refused(reply, 401, "UNAUTHORIZED")
    async with client.get("/process/pty", headers=bearer(ticket)) as reply:
        await refused(reply, 401, "UNAUTHORIZED")


async def test_a_ticket_has_the_scope_of_its_maker(procd: MakeClient, secrets: Secrets) -> None:
    client = await served(procd, secrets)
    ticket = await ticket_for(client, "/process/pty/create-connect", secrets.read)
    await is_refused(client, f"/process/pty/create-connect?id=t2&ticket={ticket}", 403)
    ticket = await ticket_for(client, "/process/pty/create-connect", secrets.write)
    terminal = await attach(client, f"/process/pty/create-connect?id=t2&ticket={ticket}")
    assert terminal.connected["status"] == "connected"


async def test_a_ticket_expires(procd: MakeClient, secrets: Secrets) -> None:
    client = await served(procd, secrets, auth={"ticket_s": 0.1, "max_tickets": 1})
    ticket = await ticket_for(client, CONNECT, secrets.write)
    reply = None
    while reply is None or reply.status == 429:  # until the first one's time is over
        reply = await client.post(
            "/tickets", json={"route": CONNECT}, headers=bearer(secrets.write)
        )
    assert reply.status == 201
    await is_refused(client, f"{CONNECT}?ticket={ticket}")


async def test_tickets_are_bounded(procd: MakeClient, secrets: Secrets) -> None:
    client = await served(procd, secrets, auth={"max_tickets": 2})
    tickets = [await ticket_for(client, CONNECT, secrets.write) for _ in range(2)]
    body = {"route": CONNECT}
    async with client.post("/tickets", json=body, headers=bearer(secrets.write)) as reply:
        await refused(reply, 429, "LIMIT_REACHED")
    await attach(client, f"{CONNECT}?ticket={tickets[0]}")
    await ticket_for(client, CONNECT, secrets.write)


async def test_a_ticket_goes_with_its_maker_s_token(procd: MakeClient, secrets: Secrets) -> None:
    client = await served(procd, secrets)
    gone = await ticket_for(client, CONNECT, secrets.write)
    kept = await ticket_for(client, CONNECT, secrets.admin)
    secrets.remove("writer")
    reload(client.app)
    await is_refused(client, f"{CONNECT}?ticket={gone}")
    assert (await attach(client, f"{CONNECT}?ticket={kept}")).connected["status"] == "connected"


@each(
    "body",
    [{}, {"route": ""}, {"route": "process"}, {"route": 1}, {"route": "http://x/y"},
     {"route": "/x?y=1"}, {"route": "/x#y"}, {"route": "/" + "x" * 5000}],
)  # fmt: skip
async def test_a_route_is_a_path(
    procd: MakeClient, secrets: Secrets, body: dict[str, object]
) -> None:
    client = await guarded(procd, secrets)
    async with client.post("/tickets", json=body, headers=bearer(secrets.read)) as reply:
        await refused(reply, 400, "INVALID_REQUEST_BODY")


async def test_tickets_where_nobody_asks_for_them(procd: MakeClient) -> None:
    """A page works with and without tokens alike."""
    client = await procd()
    async with client.post("/tickets", json={"route": "/process/pty/create-connect"}) as reply:
        ticket = (await reply.json())["ticket"]
    terminal = await attach(client, f"/process/pty/create-connect?id=t1&ticket={ticket}")
    assert terminal.connected["status"] == "connected"
