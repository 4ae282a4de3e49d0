"""WebSocket connections that misbehave, and those that are silent. Source: RFC 6455."""

import asyncio
import struct
import sys
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
import uvloop

from procd.api.pty_protocol import PROTOCOL
from procd.http.connection import CONNECTION_LIMIT
from procd.http.keepalive import queued_bytes
from procd.http.websocket import MESSAGES_A_TURN, WEBSOCKETS
from procd.output.frames import encode
from tests.aliases import Client, MakeClient
from tests.api import sessions
from tests.api.clients import (
    BINARY,
    CLOSE,
    EXIT_TOKEN,
    PING,
    PONG,
    TEXT,
    VERSION_TOKEN,
    Gate,
    PauseWatch,
    Raw,
    connect,
    create,
    delete,
    each,
    listed,
    program,
    raw,
    until,
)
from tests.waiting import until as until_so

# More than the sockets of both ends hold.
LONG = 30 << 20
ECHO = "stty raw -echo; echo ready; cat"


async def served(procd: MakeClient, tmp_path: Path, **sections: dict[str, object]) -> Client:
    """A server with a session t1 that echoes."""
    client = await procd(process={"shell": program(tmp_path, ECHO)}, **sections)
    await create(client, "t1")
    await (await connect(client, "t1")).until(b"ready")
    return client


async def still_serves(client: Client) -> None:
    terminal = await connect(client, "t1", "?replay=0")
    await terminal.type(b"still here")
    await terminal.until(b"still here")


async def closed_with(bare: Raw) -> int | None:
    """The code that the server closes with; None if it closes without a frame."""
    await bare.output(None)
    opcode, payload = await bare.frame()
    assert opcode == CLOSE
    return int.from_bytes(payload[:2], "big") if payload else None


def masked(first: int, size: int, payload: bytes = b"") -> bytes:
    """A frame as bytes: mask 0, so the payload is as it is."""
    if size < 126:
        return struct.pack("!BBI", first, 0x80 | size, 0) + payload
    return struct.pack("!BBQI", first, 0x80 | 127, size, 0) + payload


GARBAGE = {
    "reserved bit": (masked(0xC2, 2, b"hi"), 1002),
    "unknown opcode": (masked(0x83, 2, b"hi"), 1002),
    "unknown control": (masked(0x8B, 2, b"hi"), 1002),
    "long ping": (masked(0x89, 126, b"x" * 126), 1002),
    "cut ping": (masked(0x09, 2, b"hi"), 1002),
    "lone continuation": (masked(0x80, 2, b"hi"), 1002),
    "close of one byte": (masked(0x88, 1, b"x"), 1002),
    "close with bad code": (masked(0x88, 2, b"\x00\x01"), 1002),
    "close with 1006": (masked(0x88, 2, struct.pack("!H", 1006)), 1002),
    "close with 5000": (masked(0x88, 2, struct.pack("!H", 5000)), 1002),
    "too large": (masked(0x82, 4097), 1009),
    "huge": (masked(0x82, 1 << 62), 1009),
}


@each("kind", GARBAGE)
async def test_garbage_frames(procd: MakeClient, tmp_path: Path, kind: str) -> None:
    client = await served(procd, tmp_path, pty={"max_message_bytes": 4096})
    data, code = GARBAGE[kind]
    async with raw(client) as rude:
        await rude.upgrade("/process/pty/t1/connect")
        await rude.send(data)
        assert await closed_with(rude) == code
    await still_serves(client)


async def test_message_above_the_limit_in_fragments(procd: MakeClient, tmp_path: Path) -> None:
    client = await served(procd, tmp_path, pty={"max_message_bytes": 4096})
    async with raw(client) as rude:
        await rude.upgrade("/process/pty/t1/connect")
        for first in (0x02, 0x00, 0x00):
            await rude.send(masked(first, 2000, b"x" * 2000))
        assert await closed_with(rude) == 1009
    await still_serves(client)


async def test_who_still_sends_hears_why(procd: MakeClient, tmp_path: Path) -> None:
    """The rest of a message that is too long is taken, up to the client's answer to the Close."""
    client = await served(procd, tmp_path, pty={"max_message_bytes": 4096})
    async with raw(client) as rude:
        await rude.upgrade("/process/pty/t1/connect")
        await rude.send(masked(0x82, LONG, b"x" * LONG))
        assert await closed_with(rude) == 1009
        await rude.send(b"more" + masked(0x89, 1, b"?"))  # of a second message, as it seems
        await rude.send_frame(CLOSE, struct.pack("!H", 1009))
        assert await rude.rest() == b""
    await still_serves(client)


async def test_fragments_are_one_message(procd: MakeClient, tmp_path: Path) -> None:
    client = await served(procd, tmp_path)
    async with raw(client) as bare:
        await bare.upgrade("/process/pty/t1/connect?replay=0")
        await bare.send(masked(0x02, 3, b"abc") + masked(0x89, 1, b"?") + masked(0x80, 3, b"def"))
        assert await bare.next(PONG) == b"?"
        assert await bare.output(6) == b"abcdef"


@each(
    ("payload", "answer"),
    [
        (b"", b""),
        (b"\x03\xe8", b"\x03\xe8"),
        (b"\x03\xe8bye", b"\x03\xe8"),
        (b"\x0f\xa0" + b"x" * 123, b"\x0f\xa0"),
        (b"\x03\xee", b"\x03\xea"),  # 1006 is never sent
        (b"\x13\x87", b"\x13\x87"),  # 4999 is the last that is anybody's
        (b"\x13\x88", b"\x03\xea"),
    ],
)
async def test_close_is_answered(
    procd: MakeClient, tmp_path: Path, payload: bytes, answer: bytes
) -> None:
    client = await served(procd, tmp_path)
    async with raw(client) as bare:
        await bare.upgrade("/process/pty/t1/connect")
        await bare.send_frame(CLOSE, payload)
        await bare.output(None)
        opcode, code = await bare.frame()
        assert opcode == CLOSE
        assert code[:2] in (answer, b"\x03\xe8")
        assert await bare.rest() == b""
    await still_serves(client)


async def test_who_leaves_before_it_has_asked_for_anything(procd: MakeClient) -> None:
    """It is answered, and not waited for."""
    client = await procd()
    async with raw(client) as bare:
        await bare.upgrade("/process/interpreter/execute")
        await bare.send_frame(CLOSE, b"\x03\xe8")
        opcode, code = await bare.frame()
        assert (opcode, code[:2]) == (CLOSE, b"\x03\xea")
        assert await bare.rest() == b""


@each(
    ("offered", "selected"),
    [("foo, bar", None), (f"foo, {EXIT_TOKEN}", None), (f"foo, {VERSION_TOKEN}", VERSION_TOKEN)],
)
async def test_only_terminals_select_what_they_do_not_know(
    procd: MakeClient, caplog: pytest.LogCaptureFixture, offered: str, selected: str | None
) -> None:
    """Nor is it logged, as it may carry a secret."""
    client = await procd()
    await sessions.create(client)
    command_id = (await sessions.run(client, "echo x"))["cmdId"]
    logs = sessions.path_of(command_id) + "/logs?follow=true"
    for path in (logs, "/process/interpreter/execute", "/terminal/ptys"):
        async with raw(client) as bare:
            reply = await bare.upgrade(path, f"Sec-WebSocket-Protocol: {offered}")
            chosen = [line.partition(": ")[2] for line in reply if "protocol" in line.lower()]
            assert chosen == ([] if selected is None else [selected]), path
    assert "foo" not in caplog.text


async def test_headers_that_are_no_utf_8(procd: MakeClient) -> None:
    """As cookies may be, which a browser sends to all ports of a host."""
    client = await procd()
    await sessions.create(client)
    command_id = (await sessions.run(client, "echo x"))["cmdId"]
    logs = sessions.path_of(command_id) + "/logs?follow=true"
    terminal = "/process/pty/create-connect?id=t1"
    for path in (logs, "/process/interpreter/execute", "/terminal/ptys", terminal):
        async with raw(client) as bare:
            offer = f"Sec-WebSocket-Protocol: \udcff, {VERSION_TOKEN}\udcff"
            reply = await bare.upgrade(path, "Cookie: name=J\udcfcrgen", offer)
            assert not [line for line in reply if "protocol" in line.lower()], path


@each(
    ("first", "payload", "kind", "pong"),
    [
        (0x89, b"x" * 125, PONG, b"x" * 125),
        (0x81, b'{"type":"ping"}', TEXT, b'{"type":"control","status":"pong"}'),
    ],
)
async def test_a_client_that_does_not_read_its_pongs_is_not_read(
    procd: MakeClient, tmp_path: Path, first: int, payload: bytes, kind: int, pong: bytes
) -> None:
    is_uvloop = isinstance(asyncio.get_running_loop(), uvloop.Loop)
    if (3, 12) <= sys.version_info < (3, 15) and not is_uvloop:
        pytest.skip("there asyncio goes through all that waits to be sent for each piece more")
    client = await served(procd, tmp_path)
    traffic = client.app[WEBSOCKETS].traffic
    pings = (13 << 20) // len(pong)  # more pongs than go out to one who doesn't read
    async with raw(client, receive_bytes=4096) as rude, asyncio.TaskGroup() as group:
        await rude.upgrade("/process/pty/t1/connect", f"Sec-WebSocket-Protocol: {PROTOCOL}")
        await rude.next(PING)
        assert b"presence" in await rude.next(TEXT)
        group.create_task(rude.send(masked(first, len(payload), payload) * pings))
        while True:
            before = traffic.sent_bytes
            for _ in range(20):
                await listed(client)
            if traffic.sent_bytes == before > 1 << 19:
                break
        assert traffic.sent_bytes < 10 << 20
        await still_serves(client)
        while pings:  # it is read as it reads
            pings -= await rude.next(kind) == pong


@each(
    ("path", "code", "reason"),
    [
        ("/process/pty/t1/connect", 1001, b'{"error":"server shutdown"}'),
        ("/process/pty/create-connect?id=t2", 1001, b'{"error":"server shutdown"}'),
        ("/process/interpreter/execute", 1011, b"server shutdown"),
        ("/terminal/ptys", 1001, b"server shutdown"),
    ],
)
async def test_who_comes_while_the_server_stops_is_told(
    procd: MakeClient, tmp_path: Path, path: str, code: int, reason: bytes
) -> None:
    client = await served(procd, tmp_path)
    connections = client.app[WEBSOCKETS]
    connections.stop()
    others = len(connections)
    async with raw(client) as late:
        await late.upgrade(path)
        assert await late.frame() == (CLOSE, code.to_bytes(2, "big") + reason)
        await late.rest()
    assert len(connections) == others
    assert await listed(client) == ["t1"]


async def test_who_answers_a_server_that_stops_is_heard(procd: MakeClient) -> None:
    """It isn't kept until the time for that is over, and what it asks meanwhile is answered."""
    client = await procd(server={"shutdown_s": 60.0})
    await create(client, "t1")
    async with raw(client) as bare, asyncio.TaskGroup() as group:
        await bare.upgrade("/process/pty/t1/connect?replay=0")
        await bare.control()
        group.create_task(client.server.close())
        assert (await bare.next(CLOSE)).startswith(b"\x03\xe9")
        async with asyncio.timeout(10):
            await bare.send_frame(PING, b"there?")
            assert await bare.frame() == (PONG, b"there?")
            await bare.send_frame(CLOSE, b"\x03\xe9")
            assert await bare.rest() == b""


async def test_server_pings(procd: MakeClient, tmp_path: Path) -> None:
    client = await served(procd, tmp_path, server={"ping_s": 0.05, "dead_peer_s": 0.5})
    async with raw(client) as bare:
        await bare.upgrade("/process/pty/t1/connect")
        # It lives for longer than a dead peer would, since it answers.
        for _ in range(15):
            await bare.send_frame(PONG, await bare.next(PING))
        await bare.send_frame(BINARY, b"alive")
        assert b"alive" in await bare.output(5)


async def test_dead_peer_is_found(procd: MakeClient, tmp_path: Path) -> None:
    client = await served(
        procd, tmp_path, server={"ping_s": 0.05, "dead_peer_s": 0.3}, pty={"max_clients": 1}
    )
    async with raw(client) as dead:
        await dead.upgrade("/process/pty/t1/connect")

        async def room() -> bool:
            async with client.ws_connect("/process/pty/t1/connect") as ws:
                return bool((await ws.receive_json())["status"] == "connected")

        assert not await room()
        await until(room)
        await dead.rest()
    await still_serves(client)


async def to_close(bare: Raw, client: Client, kind: str) -> None:
    """Attach to something that ends, and read up to the Close."""
    if kind == "terminal":
        await bare.upgrade("/process/pty/t1/connect")
        await bare.send_frame(BINARY, b"\n")
    elif kind == "log":
        await sessions.create(client)
        command_id = (await sessions.run(client, "echo x"))["cmdId"]
        await bare.upgrade(sessions.path_of(command_id) + "/logs?follow=true")
    else:
        await bare.upgrade("/process/interpreter/execute")
        await bare.send_frame(TEXT, b'{"code": "1"}')
    while (frame := await bare.frame())[0] != CLOSE:
        if frame[0] == PING:
            await bare.send_frame(PONG, frame[1])


@each("kind", ["terminal", "log", "cell"])
async def test_who_is_to_answer_a_close_may_take_its_time(
    procd: MakeClient, tmp_path: Path, kind: str
) -> None:
    """As long as it pings, it is alive: there may be much before the Close that it hasn't read."""
    patience_s = 0.3
    client = await procd(
        process={"shell": program(tmp_path, "read x") if kind == "terminal" else ""},
        server={"ping_s": 0.05, "dead_peer_s": patience_s},
    )
    await create(client, "t1")
    async with raw(client) as slow:
        await to_close(slow, client, kind)
        loop = asyncio.get_running_loop()
        end = loop.time() + 3 * patience_s
        while loop.time() < end:
            await slow.send_frame(PING, b"there?")
            assert await slow.frame() == (PONG, b"there?")
        assert client.app[WEBSOCKETS].dropped["silent"] == 0
        await slow.send_frame(CLOSE, b"")
        assert await slow.rest() == b""


@each("nonsense", [masked(0x81, 8, b"nonsense"), masked(0x83, 0)])
async def test_who_was_sent_away_and_goes_on_is_dropped(procd: MakeClient, nonsense: bytes) -> None:
    """Whether procd could make nothing of its message, or the parser of its frame."""
    # It isn't silent for so long even on a busy machine.
    client = await procd(server={"ping_s": 0.05, "dead_peer_s": 1.0})
    await create(client, "t1")
    async with raw(client) as rude, asyncio.TaskGroup() as group:
        await rude.upgrade("/process/pty/t1/connect", f"Sec-WebSocket-Protocol: {PROTOCOL}")

        async def chatter() -> None:
            with suppress(ConnectionError, RuntimeError):  # uvloop's word for a closed transport
                while True:
                    await rude.send_frame(PING, b"")
                    await listed(client)

        await rude.send(nonsense)
        assert await closed_with(rude) == 1002
        group.create_task(chatter())
        with suppress(ConnectionError):  # what it sends may come too late
            await rude.rest()
    assert client.app[WEBSOCKETS].dropped["silent"] == 1


@each("stage", ["idle", "input unread", "output unread", "neither read"])
async def test_a_host_that_vanishes_is_found(
    procd: MakeClient, tmp_path: Path, gate: Gate, stage: str
) -> None:
    """It acknowledges nothing any more, whatever it was doing."""
    pours = f"read x <{gate}; exec yes" if stage in ("output unread", "neither read") else "cat"
    reads = "" if stage in ("idle", "output unread") else f"read x <{gate}; "
    shell = program(tmp_path, f"stty raw -echo; echo ready; {reads}{pours}")
    client = await procd(
        process={"shell": shell},
        server={"ping_s": 0.2, "dead_peer_s": 1.0},
        pty={"input_queue_bytes": 1024},
    )
    await create(client, "t1")
    connections = client.app[WEBSOCKETS]
    dropped = connections.dropped["silent"]
    async with raw(client, receive_bytes=4096) as gone:
        await gone.upgrade("/process/pty/t1/connect")
        assert b"ready" in await gone.output(5)
        if reads:
            received = connections.traffic.received_bytes
            for _ in range(3):  # in the queue, at the keyboard, and in hand
                await gone.send_frame(BINARY, b"x" * 100_000)
            await until_so(lambda: connections.traffic.received_bytes == received + 300_000)
        if "exec yes" in pours:
            gate.open(2)
            await PauseWatch(client, "t1").paused()
        gone.vanish()
        await until_so(lambda: connections.dropped["silent"] > dropped)
    await delete(client, "t1")


async def test_a_client_that_reads_slowly_is_alive(procd: MakeClient, tmp_path: Path) -> None:
    """Its kernel's window is always shorter than a segment, and no pong ever comes."""
    client = await procd(
        process={"shell": program(tmp_path, "stty raw; exec yes")},
        server={"ping_s": 0.6, "dead_peer_s": 3.0},
    )
    await create(client, "t1")
    async with raw(client, receive_bytes=4096, ahead_bytes=1000) as slow:
        await slow.upgrade("/process/pty/t1/connect")
        loop = asyncio.get_running_loop()
        end = loop.time() + 7
        while loop.time() < end:
            await slow.exactly(1000)
            await asyncio.sleep(0.05)  # its own pace
        assert client.app[WEBSOCKETS].dropped["silent"] == 0


async def test_little_waits_in_the_kernel(procd: MakeClient, tmp_path: Path) -> None:
    """Behind it are the pongs and the echoes of a client that is slow; however fast it was."""
    client = await procd(process={"shell": program(tmp_path, "stty raw; exec yes")})
    await create(client, "t1")
    watch = PauseWatch(client, "t1")
    received = 128 << 10
    async with raw(client, receive_bytes=received, ahead_bytes=1000) as slow:
        await slow.upgrade("/process/pty/t1/connect")
        await slow.exactly(20 << 20)
        await watch.paused()
        (connection,) = client.app[WEBSOCKETS]._open
        queued = queued_bytes(connection._transport.get_extra_info("socket"))
        assert queued < 1 << 20, "without a limit it is some 4 MiB"


async def test_who_leaves_with_a_close_and_reads_no_more_is_let_go(
    procd: MakeClient, tmp_path: Path
) -> None:
    client = await procd(
        process={"shell": program(tmp_path, "stty raw; exec yes")},
        server={"ping_s": 0.05, "dead_peer_s": 0.3},
    )
    await create(client, "t1")
    others = len(client.app[CONNECTION_LIMIT])

    async def alone() -> bool:
        await listed(client)  # which keeps the other connection
        return len(client.app[CONNECTION_LIMIT]) == others

    async with raw(client, receive_bytes=4096) as rude:
        await rude.upgrade("/process/pty/t1/connect")
        await PauseWatch(client, "t1").paused()
        await rude.send_frame(CLOSE, b"")
        await until(alone)


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_who_stalls_as_the_end_comes_still_gets_it(procd: MakeClient) -> None:
    """Contract, section 9.3: nobody is dropped before 60 s of silence."""
    show = "head -c 300000 /dev/zero | tr '\\0' x"
    client = await procd(process={"shell": "/bin/sh"})
    await create(client, "t1")
    await sessions.create(client)
    logs = sessions.path_of(await sessions.start(client, show)) + "/logs?follow=true"
    async with (
        raw(client, receive_bytes=4096) as terminal,
        raw(client, receive_bytes=4096) as follower,
        raw(client, receive_bytes=4096) as cell,
    ):
        await terminal.upgrade("/process/pty/t1/connect", f"Sec-WebSocket-Protocol: {EXIT_TOKEN}")
        await follower.upgrade(logs)
        await cell.upgrade("/process/interpreter/execute")
        await cell.send_frame(TEXT, b'{"code": "print(\'x\' * 300000)"}')
        await terminal.send_frame(BINARY, f"{show}; exit 3\n".encode())
        await asyncio.sleep(40)
        for stalled in (terminal, follower, cell):
            await stalled.send_frame(PING, b"")  # as the SDKs do
        for stalled, code in ((terminal, 1011), (follower, 1000), (cell, 1000)):
            output = b""
            while (frame := await stalled.frame())[0] != CLOSE:
                output += frame[1]
            assert output.count(b"x") >= 300_000
            assert int.from_bytes(frame[1][:2], "big") == code
            await stalled.send_frame(CLOSE, frame[1][:2])
            assert await stalled.rest() in (b"", encode(PONG, b""))


async def test_many_messages_at_once(procd: MakeClient, tmp_path: Path) -> None:
    """They are dealt with in order, and others have their turns between; the Close comes last."""
    client = await served(procd, tmp_path)
    traffic = client.app[WEBSOCKETS].traffic
    watcher = await connect(client, "t1", "?replay=0")
    text = b"".join(b"%d " % number for number in range(10_000))
    taken: list[int] = []

    def watch() -> None:
        if not taken or taken[-1] != traffic.received_bytes:
            taken.append(traffic.received_bytes)
        if traffic.received_bytes < begin + len(text):
            asyncio.get_running_loop().call_soon(watch)

    async with raw(client) as talker:
        await talker.upgrade("/process/pty/t1/connect?replay=0")
        begin = traffic.received_bytes
        watch()
        frames = [masked(0x80 | BINARY, 1, bytes([byte])) for byte in text]
        await talker.send(b"".join([*frames, masked(0x80 | CLOSE, 0)]))
        assert await closed_with(talker) is None
    await watcher.until(text)
    steps = [later - sooner for sooner, later in pairwise(taken)]
    assert sum(steps) == len(text)
    assert max(steps) <= 2 * MESSAGES_A_TURN  # what has come may have two turns in one of ours
