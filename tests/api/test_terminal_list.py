"""The list of PTYs that is pushed."""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import ClientWebSocketResponse

from procd.api import terminal_list as live
from procd.api.pty import PTYS
from procd.http.websocket import WEBSOCKETS
from tests.aliases import MakeClient
from tests.api.clients import TEXT, WAIT_S, connect, create, delete, raw, refused
from tests.waiting import until


async def listed(
    feed: ClientWebSocketResponse[bool], fits: Callable[[list[dict[str, Any]]], bool]
) -> list[dict[str, Any]]:
    """Read lists until one fits."""
    async with asyncio.timeout(WAIT_S):
        while True:
            ptys: list[dict[str, Any]] = (await feed.receive_json())["ptys"]
            if fits(ptys):
                return ptys


async def test_what_changes_is_told(procd: MakeClient) -> None:
    client = await procd(process={"shell": "/bin/sh"})
    feed = await client.ws_connect("/terminal/ptys")
    assert await listed(feed, lambda _: True) == []
    await create(client, "t1", lazyStart=True)
    (pty,) = await listed(feed, bool)
    assert (pty["id"], pty["active"], pty["clients"], pty["exitCode"]) == ("t1", False, 0, None)
    async with client.post("/process/pty/t1/resize", json={"cols": 101, "rows": 31}) as reply:
        assert reply.status == 200
    await listed(feed, lambda ptys: (ptys[0]["cols"], ptys[0]["rows"]) == (101, 31))
    terminal = await connect(client, "t1")
    await listed(feed, lambda ptys: ptys[0]["active"] and ptys[0]["clients"] == 1)
    async with client.patch("/terminal/ptys/t1", json={"title": " build "}) as reply:
        assert (reply.status, (await reply.json())["title"]) == (200, "build")
    await listed(feed, lambda ptys: bool(ptys[0]["title"] == "build"))
    await terminal.type(b"exit 3\n")
    await terminal.to_end()
    await listed(feed, lambda ptys: ptys[0]["exitCode"] == 3 and ptys[0]["clients"] == 0)
    await create(client, "t2")
    await delete(client, "t2")
    assert [pty["id"] for pty in await listed(feed, lambda ptys: len(ptys) == 1)] == ["t1"]
    await feed.close()


async def test_many_changes_make_few_lists(procd: MakeClient) -> None:
    client = await procd(process={"shell": "/bin/sh"})
    feed = await client.ws_connect("/terminal/ptys")
    for number in range(40):
        await create(client, f"t{number}", lazyStart=True)
    count = 0

    def complete(ptys: list[dict[str, Any]]) -> bool:
        nonlocal count
        count += 1
        return len(ptys) == 40

    await listed(feed, complete)
    assert count < 20
    await feed.close()


async def test_who_does_not_read_is_sent_the_last_list(
    procd: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As soon as there is room for it, though nothing changes any more."""
    monkeypatch.setattr(live, "PAUSE_S", 0)
    client = await procd(process={"shell": "/bin/sh"})
    await create(client, "t1", lazyStart=True)
    pty = client.app[PTYS].get("t1")
    async with raw(client, 4096, 1000) as slow:
        await slow.upgrade("/terminal/ptys")
        (connection,) = client.app[WEBSOCKETS]._open
        titles = (f"{number:0100000}" for number in itertools.count())

        def is_full() -> bool:
            pty.set_title(next(titles))
            return connection.full

        await until(is_full)
        pty.set_title("last")
        for _ in range(10):
            await asyncio.sleep(0)
        while b'"last"' not in await slow.next(TEXT):
            pass


async def test_titles_that_are_refused(procd: MakeClient) -> None:
    client = await procd(process={"shell": "/bin/sh"})
    await create(client, "t1", lazyStart=True)
    for body in ({}, {"title": "x" * 101}, {"title": 1}):
        async with client.patch("/terminal/ptys/t1", json=body) as reply:
            await refused(reply, 400, "INVALID_REQUEST_BODY")
    async with client.patch("/terminal/ptys/nope", json={"title": "x"}) as reply:
        await refused(reply, 404, "PROCESS_NOT_FOUND")


async def test_it_is_sent_again_when_asked_for(procd: MakeClient) -> None:
    """However often: no more of them than of other lists."""
    client = await procd()
    feed = await client.ws_connect("/terminal/ptys")
    await listed(feed, lambda _: True)
    for _ in range(100):
        await feed.send_str("ping")
    await listed(feed, lambda _: True)
    await create(client, "t1", lazyStart=True)
    count = 0

    def complete(ptys: list[dict[str, Any]]) -> bool:
        nonlocal count
        count += 1
        return bool(ptys)

    await listed(feed, complete)
    assert count < 20
    await feed.close()
