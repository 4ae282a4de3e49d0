"""Following logs by WebSocket: contract, section 9."""

import asyncio
import json
import os
from pathlib import Path

import pytest

from procd.api.sessions import SESSIONS
from tests.aliases import Client, MakeClient
from tests.api.clients import Gate, raw, refused, sha256, until
from tests.api.sessions import (
    VERSION,
    check_framing,
    create,
    delete,
    ended,
    follow,
    get,
    path_of,
    run,
    start,
    type_in,
)

UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


async def readers(client: Client, command_id: str, number: int) -> None:
    log = client.app[SESSIONS].get("s").commands.get(command_id).log

    async def attached() -> bool:
        await get(client, path_of(command_id))
        return log.readers == number

    await until(attached)


async def test_two_followers_and_a_late_one_get_every_byte(
    procd: MakeClient, tmp_path: Path, gate: Gate
) -> None:
    # Binary, but free of markers, which no labelled stream can carry.
    size = 10_000_000
    out, err = (os.urandom(size).translate(None, b"\x01\x02") for _ in range(2))
    (tmp_path / "out").write_bytes(out)
    (tmp_path / "err").write_bytes(err)
    client = await procd()
    await create(client)
    command_id = await start(
        client, f"read x <{gate}; cat {tmp_path}/err >&2 & cat {tmp_path}/out; wait"
    )
    fast = await follow(client, command_id)
    slow = await follow(client, command_id)
    await readers(client, command_id, 2)
    gate.open()
    await fast.to_end()
    late = await follow(client, command_id)
    await late.to_end()
    await slow.to_end()  # which has not read a byte until now
    for follower in (fast, slow, late):
        check_framing(follower.messages)
        assert sha256(bytes(follower.streams[1])) == sha256(out)
        assert sha256(bytes(follower.streams[2])) == sha256(err)
        assert follower.joined == fast.joined


async def test_messages_are_large_when_there_is_much(procd: MakeClient) -> None:
    client = await procd()
    await create(client)
    body = await run(client, "seq 100000")
    listener = await follow(client, body["cmdId"])
    assert await listener.to_end() == body["stdout"].encode()
    check_framing(listener.messages)
    assert len(listener.messages) == -(-len(listener.joined) // (16 << 10))


async def test_lines_of_both_streams_have_a_marker_each(procd: MakeClient, gate: Gate) -> None:
    client = await procd()
    await create(client)
    command_id = await start(client, f"echo a; read x <{gate}; echo b >&2; read x <{gate}; echo é")
    listener = await follow(client, command_id)
    for text in ("a\n", "b\n"):
        await listener.until(text.encode())
        gate.open()
    await listener.to_end()
    expected = [b"\x01\x01\x01a\n", b"\x02\x02\x02b\n", b"\x01\x01\x01" + "é\n".encode()]
    assert listener.messages == expected


FORMS = [
    ({}, False),
    ({"X-Daytona-Split-Output": "true"}, True),
    ({VERSION: "0.20.0"}, False),
    ({VERSION: "0.150.0"}, True),
    ({VERSION: "0.226.1"}, True),
    ({VERSION: "unknown"}, True),
]


async def test_form_by_version(procd: MakeClient) -> None:
    client = await procd()
    await create(client)
    command_id = (await run(client, "printf 'a\\0b'"))["cmdId"]
    for headers, labelled in FORMS:
        listener = await follow(client, command_id, headers=headers, labelled=labelled)
        assert await listener.to_end() == b"a\0b"
    token = "X-Daytona-SDK-Version~0.226.1"
    ws = await client.ws_connect(path_of(command_id) + "/logs?follow=true", protocols=(token,))
    assert ws.protocol == token
    assert await ws.receive_bytes() == b"\x01\x01\x01a\0b"
    await ws.close()


async def test_without_follow_it_ends_after_what_there_is(procd: MakeClient, gate: Gate) -> None:
    client = await procd()
    await create(client)
    command_id = await start(client, f"seq 100000; echo END; read x <{gate}; echo more")
    listener = await follow(client, command_id)
    await listener.until(b"END\n")
    for query in ("", "?follow=false", "?follow=1", "?follow=TRUE"):
        short = await follow(client, command_id, query=query)
        assert await short.to_end() == bytes(listener.joined)
    gate.open()
    assert (await listener.to_end()).endswith(b"END\nmore\n")


@pytest.mark.parametrize("runs", [False, True])
async def test_offset(procd: MakeClient, gate: Gate, runs: bool) -> None:
    client = await procd()
    await create(client)
    command_id = await start(client, f"printf 0123456789; read x <{gate}")
    listener = await follow(client, command_id)
    await listener.until(b"0123456789")
    if not runs:
        gate.open()
        await listener.to_end()
    url = path_of(command_id) + "/logs"
    for offset, text in ((0, b"0123456789"), (4, b"456789"), (10, b"")):
        part = await follow(
            client, command_id, query=f"?follow={'false' if runs else 'true'}&offset={offset}"
        )
        assert await part.to_end() == text
    async with client.get(url + "?offset=11", headers=UPGRADE) as reply:
        body = await refused(reply, 400, "BAD_REQUEST")
        assert body["message"] == "offset 11 is beyond the end of the output"
    for bad in ("-1", "x", "1.5", "", "9" * 40):
        for headers in (UPGRADE, {}):
            async with client.get(f"{url}?offset={bad}", headers=headers) as reply:
                await refused(reply, 400, "BAD_REQUEST")


async def test_what_is_refused_before_the_upgrade(procd: MakeClient) -> None:
    client = await procd()
    await create(client)
    for path in (path_of("x"), path_of("x", "nope")):
        async with raw(client) as connection:
            await connection.ask_upgrade(path + "/logs?follow=true")
            status, _ = await connection.head()
            assert status == 404
    path = path_of((await run(client, "true"))["cmdId"]) + "/logs"
    async with client.get(path, headers={"Upgrade": "WebSocket"}) as reply:
        await refused(reply, 400, "BAD_REQUEST")


async def test_follower_that_never_reads_slows_nobody(procd: MakeClient, gate: Gate) -> None:
    client = await procd()
    await create(client)
    command_id = await start(client, f"read x <{gate}; seq 3000000")
    async with raw(client, receive_bytes=4096) as stuck:
        await stuck.upgrade(path_of(command_id) + "/logs?follow=true")
        listener = await follow(client, command_id)
        await readers(client, command_id, 2)
        gate.open()
        assert len(await listener.to_end()) == 22_888_896
        assert (await ended(client, command_id))["exitCode"] == 0
        assert (await run(client, "echo next"))["output"] == "next\n"
        stuck.reset()
    await readers(client, command_id, 0)


@pytest.mark.parametrize("how", ["reset", "close"])
async def test_follower_that_vanishes(procd: MakeClient, gate: Gate, how: str) -> None:
    client = await procd()
    await create(client)
    command_id = await start(client, f"yes | head -c 5000000; read x <{gate}; echo end")
    listener = await follow(client, command_id)
    async with raw(client, receive_bytes=4096) as vanishing:
        await vanishing.upgrade(path_of(command_id) + "/logs?follow=true")
        await vanishing.frame()
        if how == "reset":
            vanishing.reset()
        else:
            await vanishing.leave()
    await readers(client, command_id, 1)
    gate.open()
    assert len(await listener.to_end()) == 5_000_004


async def test_messages_of_a_follower_are_ignored(procd: MakeClient, gate: Gate) -> None:
    client = await procd()
    await create(client)
    command_id = await start(client, f"echo a; read x <{gate}; echo b")
    async with raw(client) as talker:
        await talker.upgrade(path_of(command_id) + "/logs?follow=true")
        assert await talker.next(2) == b"a\n"
        for opcode, size in [(1, 5), (2, 1000), (9, 3), (2, 1)]:
            await talker.send_frame(opcode, bytes(size))
        assert await talker.next(10) == bytes(3)
        gate.open()
        assert await talker.next(2) == b"b\n"
        assert await talker.frame() == (8, b"\x03\xe8")


@pytest.mark.parametrize("end", ["exit 3", "kill -KILL $$", "exec true", "false"])
async def test_end_of_the_shell_ends_followers(procd: MakeClient, gate: Gate, end: str) -> None:
    client = await procd()
    await create(client)
    command_id = await start(client, f"echo last words; read x <{gate}; {end}")
    listener = await follow(client, command_id)
    await listener.until(b"words")
    gate.open()
    assert await listener.to_end() == b"last words\n"


async def test_session_deleted_while_followed(procd: MakeClient, gate: Gate) -> None:
    """What was logged is sent, also to one that has not read any of it yet."""
    client = await procd(sessions={"grace_s": 0.2})
    await create(client)
    command_id = await start(client, f"seq 1000000; echo END; read x <{gate}")
    queued = await start(client, "echo never")
    listener, waiting = await follow(client, command_id), await follow(client, queued)
    late = await follow(client, command_id)
    await listener.until(b"END\n")
    await delete(client)
    whole = b"".join(b"%d\n" % number for number in range(1, 1_000_001)) + b"END\n"
    assert await listener.to_end() == whole
    assert await late.to_end() == whole
    assert await waiting.to_end() == b""


async def test_log_ends_though_the_shell_keeps_its_pipe(procd: MakeClient, gate: Gate) -> None:
    """Output of the command's children comes first; that of later commands isn't part of it."""
    client = await procd()
    await create(client)
    reply = await run(client, f"exec 3>&1; (read x <{gate}; echo late) & echo early")
    listener = await follow(client, reply["cmdId"])
    await listener.until(b"early\n")
    gate.open()
    assert await listener.to_end() == b"early\nlate\n"
    assert (await run(client, "echo elsewhere >&3"))["output"] == ""
    reply = await run(client, "exec 3>&1; echo alone")
    assert await (await follow(client, reply["cmdId"])).to_end() == b"alone\n"


async def test_trap_is_heard_at_deletion(procd: MakeClient) -> None:
    client = await procd(sessions={"grace_s": 10.0})
    await create(client)
    command_id = await start(
        client, "sh -c 'trap \"echo bye; exit\" TERM; echo ready; while :; do read x; done'"
    )
    listener = await follow(client, command_id)
    await listener.until(b"ready\n")
    await delete(client)
    assert await listener.to_end() == b"ready\nbye\n"


async def test_input_shows_up(procd: MakeClient) -> None:
    client = await procd()
    await create(client)
    command_id = await start(client, 'while read x; do echo "<$x>"; [ $x != end ] || break; done')
    listener = await follow(client, command_id)
    await type_in(client, command_id, "one")
    await listener.until(b"<one>\n")
    await type_in(client, command_id, "end")
    assert await listener.to_end() == b"one\n<one>\nend\n<end>\n"


@pytest.mark.parametrize("counts", [False, True])
async def test_follower_that_falls_behind_a_log_at_its_limit(
    procd: MakeClient, gate: Gate, counts: bool
) -> None:
    """It goes on behind the gap; where that is, is told to a client that gave an offset."""
    client = await procd(sessions={"max_log_bytes": 2 << 20})
    await create(client)
    command_id = await start(client, f"read x <{gate}; seq 1000000 3999999")
    whole = b"".join(b"%d\n" % number for number in range(1_000_000, 4_000_000))
    async with raw(client, receive_bytes=1 << 16) as stuck:
        query = "/logs?follow=true" + ("&offset=0" if counts else "")
        await stuck.upgrade(path_of(command_id) + query, f"{VERSION}: 0.226.1")
        await readers(client, command_id, 1)
        gate.open()
        body = await ended(client, command_id)
        offset = gaps = 0
        received = bytearray()
        while (frame := await stuck.frame())[0] != 8:
            if frame[0] == 1:
                told = json.loads(frame[1])
                assert told == {"type": "gap", "firstAvailableOffset": told["firstAvailableOffset"]}
                assert told["firstAvailableOffset"] > offset
                offset = told["firstAvailableOffset"]
                gaps += 1
            elif frame[0] == 2:
                data = frame[1][3:]
                assert not counts or data == whole[offset : offset + len(data)]
                offset += len(data)
                received += data
    assert frame == (8, b"\x03\xe8")
    assert len(received) < len(whole), "there must be a gap"
    assert received.startswith(whole[:1000])
    assert received.endswith(whole[-1000:])
    assert bool(gaps) == counts
    if counts:
        assert offset == body["outputBytes"] == len(whole)


@pytest.mark.parametrize("follows", ["true", "false"])
async def test_a_gap_from_before(procd: MakeClient, follows: str) -> None:
    client = await procd(sessions={"max_log_bytes": 2 << 20})
    await create(client)
    command_id = (await run(client, "seq 1000000 1999999"))["cmdId"]
    first = (await get(client, path_of(command_id) + "/logs"))["firstAvailableOffset"]
    whole = b"".join(b"%d\n" % number for number in range(1_000_000, 2_000_000))
    listener = await follow(client, command_id, query=f"?follow={follows}")
    assert await listener.to_end() == whole[first:]
    for offset in (0, first - 1, first, first + 1):
        listener = await follow(client, command_id, query=f"?follow={follows}&offset={offset}")
        if offset < first:
            told = await listener.ws.receive_json()
            assert told == {"type": "gap", "firstAvailableOffset": first}
        assert await listener.to_end() == whole[max(first, offset) :]


async def test_a_follower_of_much_output_sees_it_while_the_command_runs(
    procd: MakeClient, gate: Gate
) -> None:
    size = 50_000_000
    client = await procd()
    await create(client)
    command_id = await start(client, f"yes 0123456789 | head -c {size}; read x <{gate}")
    listener = await follow(client, command_id)
    while len(listener.joined) < size:
        await listener.step()
    gate.open()
    await listener.to_end()


@pytest.mark.parametrize("runs", [False, True])
async def test_two_followers_within_part_of_a_marker(
    procd: MakeClient, gate: Gate, runs: bool
) -> None:
    """Neither is held back for ever by the other."""
    client = await procd()
    await create(client)
    rest = f"; read x <{gate}; echo end" if runs else ""
    command_id = await start(client, rf"printf 'abc\001\001'{rest}")
    first = await follow(client, command_id)
    await first.until(b"abc\1\1")
    followers = await asyncio.gather(
        *[
            follow(client, command_id, query=f"?follow=true&offset={offset}")
            for offset in (3, 4, 3, 4)
        ]
    )
    for follower, part in zip(followers, [b"\1\1", b"\1"] * 2, strict=True):
        await follower.until(part)
    gate.open()
    found = await asyncio.gather(*[follower.to_end() for follower in (first, *followers)])
    end = b"end\n" if runs else b""
    assert found == [b"abc\1\1" + end, *[b"\1\1" + end, b"\1" + end] * 2]


async def test_halves_of_characters_are_held_back_only_for_a_moment(
    procd: MakeClient, gate: Gate
) -> None:
    """Each of them, though nothing follows."""
    client = await procd()
    await create(client)
    says = [rf"printf 'x\303'; read x <{gate}"] * 3
    follower = await follow(client, await start(client, "; ".join(says)))
    for number in range(1, 4):
        await follower.until(b"x\xc3" * number)
        gate.open()
    assert await follower.to_end() == b"x\xc3" * 3
