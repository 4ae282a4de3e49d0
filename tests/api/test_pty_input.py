"""Input of a PTY session that is long, or that nobody reads. Contract, section 10.5."""

import asyncio
import os
from pathlib import Path
from random import Random

from procd.api.pty import PTYS
from procd.api.pty_protocol import PROTOCOL
from tests.aliases import Client, MakeClient
from tests.api.clients import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    WAIT_S,
    Gate,
    Raw,
    connect,
    create,
    describe,
    each,
    listed,
    masked_frame,
    program,
    random_base64,
    raw,
    sha256,
    until,
)

RAW = "stty raw -echo"
QUEUE_BYTES = 64 << 10
# A message that the terminal's queue takes as its last, and after it no other.
FILL = b"x" * 100_000


def after(gate: Gate, text: str) -> str:
    """A program on a raw terminal that reads nothing until the gate is open."""
    return f"{RAW}; echo ready; read x <{gate}; {text}"


async def attached(client: Client, number: int) -> None:

    async def fact() -> bool:
        await listed(client)  # the server gets to do what it has to
        return len(client.app[PTYS].get("t1").presence.members) == number

    await until(fact)


async def heard(client: Raw) -> None:
    """Wait until the server has taken all that the client has sent."""
    await client.send_frame(PING, b"heard?")
    assert await client.next(PONG) == b"heard?"


async def test_a_paste_that_nobody_reads_keeps_no_ping_waiting(
    procd: MakeClient, tmp_path: Path, gate: Gate
) -> None:
    """10 MB, which clients send in pieces, and then ask whether the server is alive."""
    pieces = [random_base64(64 << 10) for _ in range(160)]
    shell = program(tmp_path, after(gate, f"head -c {160 << 16} | sha256sum"))
    client = await procd(process={"shell": shell})
    await create(client, "t1")
    async with raw(client) as pasting:
        await pasting.upgrade("/process/pty/t1/connect")
        while b"ready" not in await pasting.output(1):
            pass
        for piece in pieces:
            await pasting.send_frame(BINARY, piece)
        await heard(pasting)
        gate.open()
        assert sha256(b"".join(pieces)).encode() in await pasting.output(64)


async def test_10_mb_paste(procd: MakeClient, tmp_path: Path) -> None:
    data = random_base64(10 << 20)
    shell = program(tmp_path, f"{RAW}; echo ready; head -c {len(data)} | sha256sum; read x")
    client = await procd(process={"shell": shell})
    await create(client, "t1")
    terminal = await connect(client, "t1")
    await terminal.until(b"ready")
    await terminal.type(data)
    await terminal.until(sha256(data).encode())


async def test_input_that_nobody_reads_stalls_one_client_only(
    procd: MakeClient, tmp_path: Path, gate: Gate
) -> None:
    text = (
        f"{RAW}; echo ready; [ $N = echo ] && exec cat; "
        f"read x <{gate}; head -c 30000000 | wc -c; read x"
    )
    client = await procd(
        process={"shell": program(tmp_path, text)}, pty={"input_queue_bytes": 65_536}
    )
    await create(client, "t1", envs={"N": "gate"})
    watcher = await connect(client, "t1")
    await watcher.until(b"ready")
    typist = await connect(client, "t1")

    async def paste() -> None:
        for _ in range(30):
            await typist.type(os.urandom(1_000_000))

    async with asyncio.TaskGroup() as group:
        pasting = group.create_task(paste())
        # Meanwhile all else is served, this session included.
        await create(client, "t2", envs={"N": "echo"})
        other = await connect(client, "t2")
        await other.until(b"ready")
        await other.type(b"fluent")
        await other.until(b"fluent")
        assert (await connect(client, "t1")).connected["status"] == "connected"
        assert (await describe(client, "t1"))["active"] is True
        assert not pasting.done()
        gate.open()
        await watcher.until(b"30000000")


async def test_pings_are_answered_while_input_waits(
    procd: MakeClient, tmp_path: Path, gate: Gate
) -> None:
    """Those of the client that pastes, and of another that has one key behind it."""
    shell = program(tmp_path, after(gate, f"head -c {2 * len(FILL) + 2} | sha256sum; read x"))
    client = await procd(process={"shell": shell}, pty={"input_queue_bytes": QUEUE_BYTES})
    await create(client, "t1")
    watcher = await connect(client, "t1")
    await watcher.until(b"ready")
    async with raw(client) as typist, raw(client) as other:
        for each_one in (typist, other):
            await each_one.upgrade("/process/pty/t1/connect")
        for data in (FILL, b"1"):
            await typist.send_frame(BINARY, data)
            await heard(typist)
        await other.send_frame(BINARY, b"2")
        await heard(other)
        await typist.send_frame(BINARY, FILL)
        await heard(typist)
        gate.open()
        await watcher.until(sha256(FILL + b"12" + FILL).encode())  # in order of arrival


async def test_acknowledgements_are_heard_while_input_waits(
    procd: MakeClient, tmp_path: Path, gate: Gate
) -> None:
    """Else a program that says much before it reads would wait for its page, and that for it."""
    shell = program(
        tmp_path, after(gate, "head -c 3000000 /dev/zero; head -c 200000 | wc -c; read x")
    )
    client = await procd(
        process={"shell": shell},
        pty={"input_queue_bytes": QUEUE_BYTES, "window_bytes": 64 << 10},
    )
    await create(client, "t1")
    page = await connect(client, "t1", "", PROTOCOL)
    await page.until(b"ready\n")
    for _ in range(2):
        await page.type(FILL)
    gate.open()
    size = 0
    while not page.output.endswith(b"200000\n"):
        async with asyncio.timeout(WAIT_S):
            assert await page.step()
        if len(page.output) > size:
            size = len(page.output)
            await page.ws.send_json({"type": "ack", "offset": page.offset})


async def test_unread_input_is_bounded_whoever_comes_and_goes(
    procd: MakeClient, tmp_path: Path, gate: Gate
) -> None:
    """The queue takes the first message whole, then no other; one that has gone may leave its."""
    client = await procd(
        process={"shell": program(tmp_path, after(gate, "exec cat"))},
        pty={"input_queue_bytes": QUEUE_BYTES},
    )
    await create(client, "t1")
    terminal = await connect(client, "t1")
    await terminal.until(b"ready\n")
    for _ in range(5):
        async with raw(client) as typist:
            await typist.upgrade("/process/pty/t1/connect")
            await typist.send_frame(BINARY, FILL)
            await heard(typist)
            typist.reset()
        await attached(client, 1)
    await terminal.type(b".")
    gate.open()
    await terminal.until(b".")
    assert terminal.output.count(b"x") in (len(FILL), 2 * len(FILL))


@each(
    ("way", "opcode"),
    [("end", BINARY), ("leave", BINARY), ("leave", TEXT), ("close", BINARY)],
)
async def test_what_was_typed_before_a_client_went_arrives(
    procd: MakeClient, tmp_path: Path, gate: Gate, way: str, opcode: int
) -> None:
    data = random_base64(2 << 20)
    text = f"{RAW}; echo ready; head -c {len(data)} | sha256sum; read x <{gate}"
    client = await procd(
        process={"shell": program(tmp_path, text)}, pty={"input_queue_bytes": QUEUE_BYTES}
    )
    await create(client, "t1")
    watcher = await connect(client, "t1")
    await watcher.until(b"ready")
    async with raw(client) as typist:
        await typist.upgrade("/process/pty/t1/connect?replay=0")
        await typist.next(PING)  # or else what it hasn't read would make a reset of its leaving
        for start in range(0, len(data), 10_007):
            await typist.send_frame(opcode, data[start : start + 10_007])
        if way == "end":
            typist.end_input()
            assert await typist.rest() is not None
        elif way == "close":
            await typist.send_frame(CLOSE, (1000).to_bytes(2, "big"))
            await typist.output(None)
            assert await typist.frame() == (CLOSE, (1000).to_bytes(2, "big"))
        else:
            await typist.leave()
        await watcher.until(sha256(data).encode())
    gate.open()


async def test_a_session_that_ends_frees_those_who_wait_for_it(
    procd: MakeClient, tmp_path: Path, gate: Gate
) -> None:
    shell = program(tmp_path, after(gate, "exit 3"))
    client = await procd(process={"shell": shell}, pty={"input_queue_bytes": 1024})
    await create(client, "t1")
    terminal = await connect(client, "t1")
    await terminal.until(b"ready")
    for _ in range(3):
        await terminal.type(FILL)
    gate.open()
    await terminal.to_end()
    assert terminal.ending["exitCode"] == 3


async def test_keys_keep_their_order(procd: MakeClient, tmp_path: Path) -> None:
    """Messages short and long, whole and in parts, text and binary, cut anywhere on their way."""
    shell = program(tmp_path, f"{RAW}; echo ready; exec cat")
    client = await procd(process={"shell": shell}, pty={"input_queue_bytes": 4096})
    await create(client, "t1")
    generator = Random(2911)
    typed = b"".join(b"%05d," % number for number in range(20_000))
    async with raw(client) as typing:
        await typing.upgrade("/process/pty/t1/connect")
        while b"ready" not in await typing.output(1):
            pass
        at = 0
        while at < len(typed):
            data = b""
            for _ in range(generator.choice((1, 1, 1, 2, 30))):
                size = generator.choice((1, 1, 1, 7, 125, 126, 3000))
                opcode = generator.choice((TEXT, BINARY))
                message = typed[at : at + size]
                at += size
                if generator.random() < 0.2:
                    data += masked_frame(opcode, message[:1])
                    data += masked_frame(0x80, message[1:])
                else:
                    data += masked_frame(0x80 | opcode, message)
            cut = generator.choice((len(data), len(data), generator.randrange(len(data))))
            await typing.send(data[:cut])
            await asyncio.sleep(0)  # the server gets to read it, and not yet to act on it
            await typing.send(data[cut:])
        echoed = b""
        while len(echoed) < len(typed):
            echoed += await typing.output(1)
    assert echoed.lstrip(b"\r\n") == typed
