"""Logs and exec replies over HTTP, in the form that each version knows: contract, 2.3 and 8.7."""

import asyncio
import json
import re
from typing import Any

import pytest

from tests.aliases import MakeClient
from tests.api.clients import Gate, json_body, random_base64, raw, unchunked
from tests.api.sessions import (
    MODERN,
    VERSION,
    create,
    delete,
    ended,
    logs,
    path_of,
    run,
    start,
)

OUT, ERR = "\x01\x01\x01", "\x02\x02\x02"
SPLIT = {"X-Daytona-Split-Output": "true"}


FORMS = [
    ({}, False, False),
    (SPLIT, True, False),
    ({VERSION: "0.20.0"}, False, False),
    (SPLIT | {VERSION: "0.26.1"}, False, False),
    ({VERSION: "0.27.0"}, True, False),
    ({VERSION: "0.150.0"}, True, False),
    ({VERSION: "0.167.0-alpha.1"}, True, True),
    ({VERSION: "0.226.1"}, True, True),
    ({VERSION: "0.0.0-dev"}, True, True),
    ({VERSION: "unknown"}, True, False),
]


async def test_forms(procd: MakeClient) -> None:
    client = await procd()
    await create(client)
    for headers, labelled, modern in FORMS:
        command = json_body({"command": "echo out; printf '\\377\\0' >&2"})
        async with client.post("/process/session/s/exec", data=command, headers=headers) as reply:
            body = await reply.json()
        assert reply.status == 200
        if modern:
            assert (body["stdout"], body["stderr"]) == ("out\n", "\ufffd\0")
            assert sorted(body["output"]) == sorted("out\n\ufffd\0"), "clean"
        else:
            assert (body["stdout"], body["stderr"]) == (None, None)
            assert_text(body["output"], labelled=labelled)
        async with client.get(path_of(body["cmdId"]) + "/logs", headers=headers) as reply:
            if modern:
                assert reply.headers["Content-Type"] == "application/json; charset=utf-8"
                shown = await reply.json()
                assert shown == {name: body[name] for name in ("output", "stdout", "stderr")}
            else:
                assert reply.headers["Content-Type"] == "text/plain; charset=utf-8"
                assert_text(await reply.text(), labelled=labelled)


def assert_text(text: str, *, labelled: bool) -> None:
    """Check a text of both streams, whichever came first."""
    pieces = re.split(f"({OUT}|{ERR})", text)
    if labelled:
        found = dict(zip(pieces[1::2], pieces[2::2], strict=True))
        assert (pieces[0], found) == ("", {OUT: "out\n", ERR: "\ufffd\0"})
    else:
        assert text in ("out\n\ufffd\0", "\ufffd\0out\n")


async def test_head_of_reply(procd: MakeClient) -> None:
    """JSON is what a client without a version gets if it asks for that; `follow` means nothing."""
    client = await procd()
    await create(client)
    command = await run(client, "echo out")
    path = path_of(command["cmdId"]) + "/logs?follow=true"
    for headers in ({"Accept": "application/json"}, MODERN):
        async with client.get(path, headers=headers) as reply:
            assert await reply.json() == {"output": "out\n", "stdout": "out\n", "stderr": ""}


async def test_markers_of_the_users_own_are_exact_in_fields(procd: MakeClient) -> None:
    client = await procd()
    await create(client)
    text = "a" + ERR + "b" + OUT + "c\x01\x02"
    body = await run(client, "printf 'a\\2\\2\\2b\\1\\1\\1c\\1\\2'")
    assert (body["output"], body["stdout"], body["stderr"]) == (text, text, "")
    assert (await logs(client, body["cmdId"]))["stdout"] == text


async def test_streams_in_order_of_arrival(procd: MakeClient, gate: Gate) -> None:
    client = await procd()
    await create(client)
    command_id = await start(
        client, f"echo 1; read x <{gate}; echo 2 >&2; read x <{gate}; printf 3; read x <{gate}"
    )
    for output in ("1\n", "1\n2\n", "1\n2\n3"):
        async with asyncio.timeout(20):
            while (await logs(client, command_id))["output"] != output:
                pass
        gate.open()
    await ended(client, command_id)
    headers = {VERSION: "0.150.0"}
    async with client.get(path_of(command_id) + "/logs", headers=headers) as reply:
        assert await reply.text() == f"{OUT}1\n{ERR}2\n{OUT}3"


async def test_large_output(procd: MakeClient, tmp_path: Any) -> None:
    client = await procd()
    await create(client)
    text = random_base64(5_000_000)
    (tmp_path / "text").write_bytes(text)
    body = await run(client, f"cat {tmp_path}/text; seq 100000 >&2")
    numbers = "".join(f"{number}\n" for number in range(1, 100_001))
    assert (body["stdout"].encode(), body["stderr"]) == (text, numbers)
    assert len(body["output"]) == len(text) + len(numbers)
    shown = await logs(client, body["cmdId"])
    assert {name: body[name] for name in shown} == shown
    async with client.get(path_of(body["cmdId"]) + "/logs") as reply:
        assert await reply.text() == body["output"]


async def test_oldest_output_of_a_command_goes_and_that_is_said(procd: MakeClient) -> None:
    client = await procd(sessions={"max_log_bytes": 4 << 20})
    await create(client)
    body = await run(client, "seq 1000000 1999999")  # 8 MB
    first = body["firstAvailableOffset"]
    assert body["truncated"] is True
    assert first >= 8_000_000 - (4 << 20)
    whole = "".join(f"{number}\n" for number in range(1_000_000, 2_000_000))
    assert (body["stdout"], body["stderr"]) == (whole[first:], ""), "nothing is made up"
    shown = await logs(client, body["cmdId"])
    assert (shown["truncated"], shown["firstAvailableOffset"]) == (True, first)
    assert shown["output"] == body["output"]
    async with client.get(path_of(body["cmdId"]) + "/logs") as reply:
        assert await reply.text() == body["output"]


async def test_finished_logs_go_first(procd: MakeClient, gate: Gate) -> None:
    client = await procd(sessions={"max_total_log_bytes": 6 << 20})
    await create(client)
    await create(client, "t")
    small = await run(client, "head -c 100 /dev/zero")
    large = await run(client, "head -c 4000000 /dev/zero")
    live = await start(client, f"head -c 3000000 /dev/zero; read x <{gate}", "t")
    async with asyncio.timeout(20):
        while len((await logs(client, live, "t"))["output"]) < 3_000_000:
            pass
    assert (await logs(client, large["cmdId"]))["truncated"] is True
    for command_id, session_id in ((small["cmdId"], "s"), (live, "t")):
        assert "truncated" not in await logs(client, command_id, session_id)
    gate.open()
    await delete(client)
    await delete(client, "t")
    await create(client)
    assert "truncated" not in await run(client, "head -c 5000000 /dev/zero"), "all was given back"


LONG = 20_000_000


@pytest.mark.parametrize("goes", ["session", "command"])
@pytest.mark.parametrize("form", ["json", "text", "exec"])
async def test_a_long_reply_is_whole_though_its_log_goes(
    procd: MakeClient, goes: str, form: str
) -> None:
    """Who reads slowly gets all that there was, as followers do."""
    client = await procd(sessions={"grace_s": 0.2, "max_commands": 1})
    await create(client)
    generate = f"head -c {LONG} /dev/zero | tr '\\0' a"
    async with raw(client, receive_bytes=1 << 16) as reading:
        if form == "exec":
            wanted = json.dumps({"command": generate}).encode()
            head = f"POST /process/session/s/exec HTTP/1.1\nContent-Length: {len(wanted)}"
            await reading.request(f"{head}\n{VERSION}: 0.226.1", wanted)
        else:
            path = path_of((await run(client, generate))["cmdId"]) + "/logs"
            version = f"\n{VERSION}: 0.226.1" if form == "json" else ""
            await reading.request(f"GET {path} HTTP/1.1{version}")
        status, _ = await reading.head()
        assert status == 200
        if goes == "session":
            await delete(client)
        else:
            await run(client, "true")
        body = await unchunked(reading)
    if form == "text":
        assert body == b"a" * LONG
        return
    document = json.loads(body)
    assert document["output"] == document["stdout"] == "a" * LONG
    assert "truncated" not in document


async def test_a_long_reply_whose_log_is_dropped_is_broken_off(procd: MakeClient) -> None:
    """It doesn't end as if it were whole."""
    client = await procd(sessions={"max_total_log_bytes": LONG + (4 << 20)})
    await create(client)
    command_id = (await run(client, f"head -c {LONG} /dev/zero | tr '\\0' a"))["cmdId"]
    async with raw(client, receive_bytes=1 << 16) as reading:
        await reading.request(f"GET {path_of(command_id)}/logs HTTP/1.1\n{VERSION}: 0.226.1")
        assert (await reading.head())[0] == 200
        await run(client, f"head -c {LONG} /dev/zero")
        assert not (await reading.rest()).endswith(b"0\r\n\r\n")
    assert (await logs(client, command_id))["truncated"] is True
