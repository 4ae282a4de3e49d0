"""Attaching to a PTY session: output, input, replay and fan-out. Contract, section 10.5."""

import asyncio
import json
from pathlib import Path

from procd.api.pty import PTYS
from procd.http.websocket import WEBSOCKETS
from tests.aliases import Client, MakeClient
from tests.api.clients import (
    BINARY,
    CLOSE,
    WAIT_S,
    Fifo,
    Gate,
    PauseWatch,
    Terminal,
    attach,
    connect,
    create,
    delete,
    describe,
    each,
    listed,
    program,
    random_base64,
    raw,
    refused,
    sha256,
)
from tests.waiting import until as happens

RAW = "stty raw -echo"


def later(gate: Gate, text: str) -> str:
    """A program on a raw terminal that does `text` once the gate is open."""
    return f"{RAW}; read x <{gate}; {text}"


async def printed(client: Client, session_id: str, size: int) -> None:
    """Wait until a session has printed so much, without taking part in its pace for long."""
    terminal = await connect(client, session_id)
    await terminal.until(lambda _: terminal.offset >= size)
    await terminal.ws.close()


@each(
    "path",
    ["/process/pty/t1/connect", "/process/pty/create-connect?id=t2", "/process/pty/nobody/connect"],
)
async def test_the_first_message_comes_with_the_answer(
    procd: MakeClient, tmp_path: Path, path: str
) -> None:
    """The SDK waits 100 ms for it, and a busy machine may keep procd longer between two writes."""
    client = await procd(process={"shell": program(tmp_path, "read x")})
    await create(client, "t1")
    async with raw(client) as bare:
        await bare.upgrade(path)
        await bare.control()
        assert bare.segments() == 1


async def test_output_is_bytes_as_they_are(procd: MakeClient, tmp_path: Path, gate: Gate) -> None:
    every = bytes(range(256)) * 40
    (tmp_path / "data").write_bytes(every)
    shell = program(tmp_path, later(gate, f"cat {tmp_path}/data; read x"))
    client = await procd(process={"shell": shell})
    await create(client, "t1")
    terminal = await connect(client, "t1")
    gate.open()
    await terminal.until_size(len(every))
    assert terminal.output == every


@each("text", [False, True])
async def test_input(procd: MakeClient, tmp_path: Path, text: bool) -> None:
    client = await procd(process={"shell": program(tmp_path, f"{RAW}; echo ready; cat")})
    await create(client, "t1")
    terminal = await connect(client, "t1")
    await terminal.until(b"ready")
    if text:
        await terminal.ws.send_str("ü {} \x03 end")
    else:
        for data in b"\xff\x00", b"", b"\x03 end":
            await terminal.ws.send_bytes(data)
    await terminal.until(b"end")
    assert terminal.output.endswith("ü {} \x03 end".encode() if text else b"\xff\x00\x03 end")


async def test_detaching_leaves_the_session_running(procd: MakeClient, tmp_path: Path) -> None:
    text = "while read x; do echo [$x]; done"
    client = await procd(process={"shell": program(tmp_path, text)})
    await create(client, "t1")
    first = await connect(client, "t1")
    await first.type(b"one\n")
    await first.until(b"[one]")
    await first.ws.close()
    assert await listed(client) == ["t1"]
    assert (await describe(client, "t1"))["active"] is True
    second = await connect(client, "t1", "?replay=0")
    await second.type(b"two\n")
    await second.until(b"[two]")
    assert b"one" not in second.output


# ---- what was printed before


LINES = "".join(f"{i:07d}\n" for i in range(50_000)).encode()  # 400,000 bytes


def numbers(gate: Gate | None = None) -> str:
    """A program that prints LINES, and more when it is let."""
    more = f"read x <{gate}; printf MORE; read x" if gate else "read x"
    return f"{RAW}; seq -f %07.0f 0 49999; {more}"


@each(
    ("query", "size"),
    [
        ("", 1000),  # as configured
        ("?replay=0", 0),
        ("?replay=1", 1),
        ("?replay=100000", 100_000),
        ("?replay=999999999", 400_000),
    ],
)
async def test_replay(procd: MakeClient, tmp_path: Path, gate: Gate, query: str, size: int) -> None:
    client = await procd(
        process={"shell": program(tmp_path, numbers(gate))}, pty={"replay_bytes": 1000}
    )
    await create(client, "t1")
    await printed(client, "t1", len(LINES))
    terminal = await connect(client, "t1", query)
    gate.open()
    await terminal.until(b"MORE")
    expected = (LINES[-size:] if size else b"") + b"MORE"
    assert sha256(bytes(terminal.output)) == sha256(expected)
    assert terminal.offset == len(LINES) + 4


async def in_two_parts(procd: MakeClient, tmp_path: Path, data: bytes, gate: Gate) -> Client:
    """A server with a terminal t1 that says 8 MiB of `data`, and when the gate opens the rest."""
    (tmp_path / "data").write_bytes(data)
    show = f"head -c {8 << 20} {tmp_path}/data; read x <{gate}; tail -c +{(8 << 20) + 1}"
    shell = program(tmp_path, f"{RAW}; {show} {tmp_path}/data; read x")
    client = await procd(process={"shell": shell})
    await create(client, "t1")
    return client


async def test_a_lone_slow_client_gets_all_of_a_replay(
    procd: MakeClient, tmp_path: Path, gate: Gate
) -> None:
    """As much as is kept, while the program goes on to print."""
    data = random_base64(24 << 20)
    client = await in_two_parts(procd, tmp_path, data, gate)
    await printed(client, "t1", 8 << 20)
    async with raw(client, receive_bytes=4096) as slow:
        await slow.upgrade(f"/process/pty/t1/connect?replay={8 << 20}")
        assert json.loads(await slow.control())["replayBytes"] == 8 << 20
        gate.open()
        await PauseWatch(client, "t1").paused()
        assert sha256(await slow.output(len(data))) == sha256(data)


async def test_a_slow_client_beside_a_fast_one_falls_out_of_its_replay(
    procd: MakeClient, tmp_path: Path, gate: Gate
) -> None:
    """What it got is a run of the output, and it is told why it ends."""
    data = random_base64(24 << 20)
    client = await in_two_parts(procd, tmp_path, data, gate)
    fast = await connect(client, "t1", "?offset=0")
    await fast.until_size(8 << 20)
    async with raw(client, receive_bytes=4096) as slow:
        await slow.upgrade(f"/process/pty/t1/connect?replay={8 << 20}")
        assert json.loads(await slow.control())["replayBytes"] == 8 << 20
        gate.open()
        await fast.until_size(len(data))
        seen = await slow.output(None)
        assert await slow.frame() == (CLOSE, (1008).to_bytes(2, "big") + b"slow consumer")
        assert seen == data[: len(seen)]
        assert 0 < len(seen) < 8 << 20
    assert fast.output == data


async def test_replay_of_a_terminal_that_pours_for_another(
    procd: MakeClient, tmp_path: Path
) -> None:
    """Less is recalled than is kept, and what follows goes on from there.

    One or the other of them may be too slow for that on a busy machine, and is told so.
    """
    client = await procd(
        process={"shell": program(tmp_path, f"{RAW}; exec yes {'x' * 60}")},
        pty={"backlog_bytes": 4 << 20},
    )
    await create(client, "t1")
    async with asyncio.TaskGroup() as group:
        fast = await connect(client, "t1")
        reading = group.create_task(fast.to_end())
        await printed(client, "t1", 8 << 20)
        went_on = 0
        for _ in range(10):
            late = await connect(client, "t1", f"?replay={4 << 20}")
            told = late.connected
            assert told["liveOffset"] - told["offset"] == told["replayBytes"] <= 4 << 20
            while len(late.output) <= told["replayBytes"] and await late.step():
                pass
            assert late.close in (None, (1008, "slow consumer"))
            went_on += late.close is None
            at = told["offset"] % 61
            line = ("x" * 60 + "\n").encode() * (len(late.output) // 61 + 2)
            assert late.output == line[at : at + len(late.output)]
            await late.ws.close()
        assert went_on
        reading.cancel()


async def test_a_sequence_that_goes_on_behind_a_replay(
    procd: MakeClient, tmp_path: Path, gate: Gate
) -> None:
    shell = program(tmp_path, f"{RAW}; printf 'x\\033[3'; read x <{gate}; printf 1mred; read x")
    client = await procd(process={"shell": shell})
    await create(client, "t1")
    await printed(client, "t1", len("x\033[3"))
    terminal = await connect(client, "t1")
    gate.open()
    await terminal.until(b"red")
    assert terminal.output == b"x\x1b[31mred"


async def test_replay_of_a_terminal_that_is_printing(procd: MakeClient, tmp_path: Path) -> None:
    """Less than is kept: all of it, however much comes while it is filtered."""
    lines = b"".join(b"%d\n" % number for number in range(1, 100_001))
    shell = program(tmp_path, f"{RAW}; for i in $(seq 100000); do echo $i; done; read x")
    client = await procd(process={"shell": shell}, pty={"replay_bytes": len(lines)})
    await create(client, "t1")
    seen = 0
    while seen < len(lines):
        terminal = await connect(client, "t1")
        assert terminal.connected["offset"] == 0
        seen = terminal.connected["liveOffset"]
        await terminal.until_size(seen)
        assert terminal.output == lines[: len(terminal.output)]
        await terminal.ws.close()


async def test_nothing_is_lost_between_replay_and_live_output(
    procd: MakeClient, tmp_path: Path, gate: Gate
) -> None:
    # Clients come at any moment of it; each must get one whole run up to the end.
    data = random_base64(3 << 20)
    (tmp_path / "data").write_bytes(data)
    shell = program(tmp_path, later(gate, f"cat {tmp_path}/data; read x <{gate}"))
    client = await procd(process={"shell": shell})
    await create(client, "t1")
    first = await connect(client, "t1")
    gate.open()
    late: list[Terminal] = []
    async with asyncio.TaskGroup() as group:
        for size in range(0, len(data), len(data) // 8):
            await first.until_size(size)
            late.append(await connect(client, "t1", f"?replay={len(data) // 20}"))
            group.create_task(late[-1].to_end())
        await first.until_size(len(data))
        gate.open()
    assert first.output == data
    for terminal in late:
        assert terminal.offset == len(data)
        assert len(terminal.output) >= int(terminal.connected["replayBytes"]) > -1
        assert sha256(bytes(terminal.output)) == sha256(data[len(data) - len(terminal.output) :])
    assert len({len(terminal.output) for terminal in late}) > 2, "they came at different moments"


QUERIES = [
    b"\x1b[c",
    b"\x1b[>c",
    b"\x1b[5n",
    b"\x1b[6n",
    b"\x1b[?6n",
    b"\x1b]10;?\x07",
    b"\x1b]11;?\x1b\\",
    b"\x1b]4;1;?\x07",
    b"\x1b[?25$p",
    b"\x1bP+q544e\x1b\\",
    b"\x1bP$qm\x1b\\",
    b"\x1b[>q",
    b"\x1b[?u",
    b"\x1b[18t",
    b"\x1bZ",
    b"\x05",
]
KEPT = [
    b"\x1b[31mred\x1b[m",
    b"\x1b]0;title?\x07",
    b"\x1b]11;#000000\x07",
    b"\x1b[?2004h",
    b"\x1b[2J\x1b[H",
    b"\x00\xff\xc3\x28 caf\xc3\xa9",
    b"\x1b[8;24;80t",
    b"\x1b(B",
    b"\r\n",
]


async def test_queries_are_taken_out_of_the_replay_only(
    procd: MakeClient, tmp_path: Path, gate: Gate
) -> None:
    output = b"".join(a + b for a, b in zip(QUERIES * 2, KEPT * 4, strict=False)) + b"<end>"
    kept = b"".join(b for _, b in zip(QUERIES * 2, KEPT * 4, strict=False)) + b"<end>"
    (tmp_path / "data").write_bytes(output)
    shell = program(tmp_path, later(gate, f"cat {tmp_path}/data; read x"))
    client = await procd(process={"shell": shell})
    await create(client, "t1")
    live = await connect(client, "t1")
    gate.open()
    await live.until(b"<end>")
    assert live.output == output
    replayed = await connect(client, "t1")
    await replayed.until(b"<end>")
    assert replayed.output == kept
    resumed = await connect(client, "t1", "?offset=0")
    await resumed.until(b"<end>")
    assert resumed.output == output, "a client that has been away gets all, as if it hadn't"


@each("offset", [0, 65_535, 400_000])
async def test_resume_at_an_offset(
    procd: MakeClient, tmp_path: Path, gate: Gate, offset: int
) -> None:
    client = await procd(process={"shell": program(tmp_path, numbers(gate))})
    await create(client, "t1")
    await printed(client, "t1", len(LINES))
    terminal = await connect(client, "t1", f"?offset={offset}")
    assert terminal.connected["offset"] == offset
    gate.open()
    await terminal.until(b"MORE")
    assert sha256(bytes(terminal.output)) == sha256(LINES[offset:] + b"MORE")


async def test_resume_where_each_connection_was_cut(
    procd: MakeClient, tmp_path: Path, gate: Gate
) -> None:
    client = await procd(process={"shell": program(tmp_path, numbers(gate))})
    await create(client, "t1")
    output = bytearray()
    for size in (50_000, 60_000, 70_000):  # each gets a frame more at the most
        terminal = await connect(client, "t1", f"?offset={len(output)}")
        await terminal.until_size(size)
        await terminal.ws.close()
        output += terminal.output
    gate.open()
    terminal = await connect(client, "t1", f"?offset={len(output)}")
    await terminal.until(b"MORE")
    assert sha256(bytes(output + terminal.output)) == sha256(LINES + b"MORE")


async def test_resume_at_an_offset_that_is_no_longer_kept(
    procd: MakeClient, tmp_path: Path
) -> None:
    client = await procd(
        process={"shell": program(tmp_path, numbers())}, pty={"backlog_bytes": 150_000}
    )
    await create(client, "t1")
    await printed(client, "t1", len(LINES))
    terminal = await connect(client, "t1", "?offset=5")
    kept = len(LINES) - terminal.connected["offset"]
    assert 150_000 <= kept < 300_000
    await terminal.until_size(kept)
    assert terminal.output == LINES[-kept:]


async def test_resume_beyond_the_end(procd: MakeClient, tmp_path: Path) -> None:
    client = await procd(process={"shell": program(tmp_path, "read x")})
    await create(client, "t1")
    terminal = await attach(client, "/process/pty/t1/connect?offset=1000")
    assert terminal.controls[0]["status"] == "error"
    assert "1000" in terminal.controls[0]["error"]
    assert (await terminal.to_end())[0] == 1011
    assert await listed(client) == ["t1"]


@each("query", ["offset=-1", "offset=1.5", "offset=", "replay=x", "replay=-1"])
async def test_bad_numbers_in_the_query(procd: MakeClient, query: str) -> None:
    client = await procd()
    await create(client, "t1", lazyStart=True)
    path = f"/process/pty/t1/connect?{query}"
    async with client.get(path, headers={"Upgrade": "websocket"}) as reply:
        body = await refused(reply, 400, "BAD_REQUEST")
        assert query.partition("=")[0] in body["message"]
    assert (await describe(client, "t1"))["active"] is False


# ---- many clients, fast and slow


async def test_all_clients_get_equal_bytes(procd: MakeClient, tmp_path: Path, gate: Gate) -> None:
    data = random_base64(4 << 20)
    (tmp_path / "data").write_bytes(data)
    shell = program(tmp_path, later(gate, f"cat {tmp_path}/data"))
    client = await procd(process={"shell": shell})
    await create(client, "t1")
    terminals = [await connect(client, "t1") for _ in range(10)]
    gate.open()
    async with asyncio.TaskGroup() as group:
        for terminal in terminals:
            group.create_task(terminal.to_end())
    for terminal in terminals:
        assert terminal.close == (1000, '{"exitCode":0}')
        assert sha256(bytes(terminal.output)) == sha256(data)


async def test_20_mb_to_a_client_that_stalls(procd: MakeClient, tmp_path: Path, gate: Gate) -> None:
    data = random_base64(20 << 20)
    (tmp_path / "data").write_bytes(data)
    shell = program(tmp_path, later(gate, f"cat {tmp_path}/data; read x"))
    client = await procd(process={"shell": shell})
    await create(client, "t1")
    async with raw(client, receive_bytes=65_536) as slow:
        await slow.upgrade("/process/pty/t1/connect")
        watch = PauseWatch(client, "t1")
        gate.open()
        output = bytearray()
        for _ in range(3):
            await watch.paused()  # nothing is read until the program is held back
            output += await slow.output(1 << 20)
        output += await slow.output(len(data) - len(output))
    assert sha256(bytes(output)) == sha256(data)


@each(
    "sections",
    [{"pty": {"backlog_bytes": 128 << 10}}, {"process": {"max_total_output_bytes": 1 << 20}}],
)
async def test_a_lone_slow_client_loses_nothing_of_a_short_backlog(
    procd: MakeClient, tmp_path: Path, sections: dict[str, dict[str, object]]
) -> None:
    data = random_base64(12 << 20)
    (tmp_path / "data").write_bytes(data)
    show = f"cat {tmp_path}/data; read x"
    process = {"shell": program(tmp_path, f"{RAW}; {show}; {show}")}
    client = await procd(**sections | {"process": process | sections.get("process", {})})
    for session_id in ("t1", "t2"):
        await create(client, session_id, lazyStart=True)
    for session_id in ("t1", "t2"):  # both have said much when the slow client comes
        await printed(client, session_id, len(data))
    async with raw(client, receive_bytes=4096) as slow:
        await slow.upgrade("/process/pty/t1/connect?replay=0")
        watch = PauseWatch(client, "t1")
        await slow.send_frame(BINARY, b"\n")
        output = bytearray()
        for _ in range(3):
            await watch.paused()
            output += await slow.output(1 << 20)
        output += await slow.output(len(data) - len(output))
    assert sha256(bytes(output)) == sha256(data)


async def test_program_of_a_stalled_client_stops(
    procd: MakeClient, tmp_path: Path, alive: Fifo
) -> None:
    # Each MB that is out is reported; the program is stopped long before the last.
    text = (
        f"{RAW}; exec 9>{alive}; for i in $(seq 40); do "
        "head -c 1000000 /dev/zero; echo $i >&9; done; read x"
    )
    client = await procd(process={"shell": program(tmp_path, text)})
    await create(client, "t1", lazyStart=True)
    async with raw(client, receive_bytes=4096) as slow:
        await slow.upgrade("/process/pty/t1/connect")
        watch = PauseWatch(client, "t1")
        await watch.paused()
        assert (await describe(client, "t1"))["active"] is True
        slow.reset()
    # Once it is detached the program goes on to its end.
    for i in range(40):
        assert await alive.line() == str(i + 1)
    await delete(client, "t1")
    await alive.ended()


async def test_slow_client_beside_a_fast_one(procd: MakeClient, tmp_path: Path, gate: Gate) -> None:
    data = random_base64(24 << 20)
    (tmp_path / "data").write_bytes(data)
    shell = program(tmp_path, later(gate, f"cat {tmp_path}/data; printf '<END>'; read x"))
    client = await procd(process={"shell": shell}, pty={"backlog_bytes": 1 << 20})
    await create(client, "t1")
    fast = await connect(client, "t1")
    async with raw(client, receive_bytes=4096) as slow:
        await slow.upgrade("/process/pty/t1/connect")
        gate.open()
        await fast.until_size(len(data) + 5)
        assert sha256(bytes(fast.output)) == sha256(data + b"<END>")
        # Now it reads: what it was sent is a run of the output, and then it is told why it ends.
        seen = await slow.output(None)
        assert await slow.frame() == (8, (1008).to_bytes(2, "big") + b"slow consumer")
        assert len(client.app[PTYS].get("t1").presence.members) == 1  # though not answered yet
        assert seen == data[: len(seen)]
        assert 0 < len(seen) < len(data)
    assert client.app[WEBSOCKETS].dropped == {"silent": 0, "slow": 1}
    assert await listed(client) == ["t1"]
    again = await connect(client, "t1", "?replay=5")
    await again.until(b"<END>")


async def test_detached_session_is_drained(procd: MakeClient, tmp_path: Path, alive: Fifo) -> None:
    text = f"{RAW}; yes 1234567 | head -c 30000000; echo done >{alive}; printf '<END>'; read x"
    client = await procd(process={"shell": program(tmp_path, text)})
    await create(client, "t1")
    assert await alive.line() == "done"
    terminal = await connect(client, "t1", "?replay=21")
    await terminal.until(b"<END>")
    assert terminal.offset == 30_000_005
    assert terminal.output.endswith(b"1234567\n1234567\n<END>")


# ---- how it ends


@each(
    ("ending", "code", "reason"),
    [
        ("exit 0", 1000, '{"exitCode":0}'),
        ("exit 3", 1011, '{"exitCode":3,"exitReason":"non-zero exit"}'),
        ("exit 128", 1011, '{"exitCode":128,"exitReason":"non-zero exit"}'),
        ("exit 130", 1011, '{"exitCode":130,"exitReason":"Ctrl+C"}'),
        ("exit 255", 1011, '{"exitCode":255,"exitReason":"signal 127"}'),
        ("kill -KILL $$", 1011, '{"exitCode":137,"exitReason":"SIGKILL"}'),
        ("kill -TERM $$", 1011, '{"exitCode":143,"exitReason":"SIGTERM"}'),
        ("kill -SEGV $$", 1011, '{"exitCode":139,"exitReason":"signal 11"}'),
        ("kill -HUP $$", 1011, '{"exitCode":129,"exitReason":"signal 1"}'),
    ],
)
@each("offered", [False, True])
async def test_exit(
    procd: MakeClient, tmp_path: Path, ending: str, code: int, reason: str, offered: bool
) -> None:
    shell = program(tmp_path, f"read x; printf 'last words'; {ending}")
    client = await procd(process={"shell": shell})
    await create(client, "t1")
    tokens = ["X-Daytona-Pty-Exit-Control"] if offered else []
    terminal = await connect(client, "t1", "", *tokens)
    await terminal.type(b"\n")
    assert await terminal.to_end() == (code, reason)
    assert terminal.output.endswith(b"last words")
    exited = {"type": "control", "status": "exited", **terminal.ending}
    assert terminal.controls[1:] == ([exited] if offered else [])
    assert await listed(client) == []
    await create(client, "t1")


async def test_a_program_that_lets_go_of_its_terminal(
    procd: MakeClient, tmp_path: Path, gate: Gate, alive: Fifo
) -> None:
    """It runs on, may come back, is typed to meanwhile, and tells its own exit code."""
    text = (
        f"exec 9>{alive} </dev/null >/dev/null 2>&1; echo gone >&9; read x <{gate}; "
        "exec </dev/tty >/dev/tty; echo back; read x; echo got $x; exec </dev/null >/dev/null; "
        f"echo gone >&9; read x <{gate}; exit 22"
    )
    client = await procd(process={"shell": program(tmp_path, f"echo here; {text}")})
    await create(client, "t1")
    terminal = await connect(client, "t1")
    assert await alive.line() == "gone"
    await terminal.until(b"here")
    await terminal.type(b"word\n")
    gate.open()
    await terminal.until(b"got word")
    assert await alive.line() == "gone"
    assert await listed(client) == ["t1"]
    gate.open()
    ending = '{"exitCode":22,"exitReason":"non-zero exit"}'
    assert await terminal.to_end() == (1011, ending)
    assert terminal.output.replace(b"word\r\n", b"", 1) == b"here\r\nback\r\ngot word\r\n"


async def test_exit_with_a_background_child_on_the_terminal(
    procd: MakeClient, tmp_path: Path, alive: Fifo
) -> None:
    text = (
        f"read x; exec 9>{alive}; (trap '' HUP; echo begun >&9; exec sleep 3600) & read x; exit 4"
    )
    client = await procd(process={"shell": program(tmp_path, text)})
    await create(client, "t1")
    terminal = await connect(client, "t1")
    await terminal.type(b"\n")
    assert await alive.line() == "begun"
    await terminal.type(b"\n")
    assert (await terminal.to_end())[0] == 1011
    assert terminal.ending["exitCode"] == 4


async def test_all_output_before_the_exit_arrives(
    procd: MakeClient, tmp_path: Path, gate: Gate
) -> None:
    client = await procd(process={"shell": program(tmp_path, f"{numbers(gate)} <{gate}; exit 3")})
    await create(client, "t1")
    terminals = [await connect(client, "t1", "?offset=0") for _ in range(3)]
    gate.open(2)
    for terminal in terminals:
        await terminal.to_end()
        assert terminal.ending["exitCode"] == 3
        assert sha256(bytes(terminal.output)) == sha256(LINES + b"MORE")


# ---- resume after the end


async def end_session(client: Client, session_id: str, gate: Gate) -> Terminal:
    """Have a session end and return the client that saw it."""
    terminal = await connect(client, session_id, "?offset=0")
    gate.open()
    await terminal.to_end()
    return terminal


@each("offset", [0, 5, 11])
async def test_resume_of_an_ended_session(
    procd: MakeClient, tmp_path: Path, offset: int, gate: Gate
) -> None:
    shell = program(tmp_path, later(gate, "printf 'hello world'; exit 3"))
    client = await procd(process={"shell": shell})
    await create(client, "t1")
    seen = await end_session(client, "t1", gate)
    for tokens in ([], ["X-Daytona-Pty-Exit-Control"]):
        resumed = await connect(client, "t1", f"?offset={offset}", *tokens)
        assert await resumed.to_end() == seen.close
        assert resumed.output == b"hello world"[offset:]
        exited = {"type": "control", "status": "exited", **seen.ending}
        assert resumed.controls[1:] == ([exited] if tokens else [])


async def test_plain_connect_to_an_ended_session(
    procd: MakeClient, tmp_path: Path, gate: Gate
) -> None:
    client = await procd(process={"shell": program(tmp_path, f"read x <{gate}; exit 0")})
    await create(client, "t1")
    await end_session(client, "t1", gate)
    for query in ("", "?replay=0"):
        late = await attach(client, f"/process/pty/t1/connect{query}")
        error = (
            "Failed to connect to PTY session: "
            "PTY session 't1' has terminated and is no longer available"
        )
        assert late.controls == [{"type": "control", "status": "error", "error": error}]
        assert await late.to_end() == (1011, error)
    async with client.get("/process/pty/t1") as reply:
        await refused(reply, 404, "PROCESS_NOT_FOUND")
    async with client.delete("/process/pty/t1") as reply:
        await refused(reply, 404, "PROCESS_NOT_FOUND")
    async with client.post("/process/pty/t1/resize", json={"cols": 9, "rows": 9}) as reply:
        await refused(reply, 410, "SESSION_ENDED")
    assert await listed(client) == []


async def test_new_session_of_an_ended_one_s_id(
    procd: MakeClient, tmp_path: Path, gate: Gate
) -> None:
    shell = program(tmp_path, f"{RAW}; printf $N; read x <{gate}; exit 3")
    client = await procd(process={"shell": shell})
    await create(client, "t1", envs={"N": "old"})
    await end_session(client, "t1", gate)
    await create(client, "t1", envs={"N": "new"})
    terminal = await connect(client, "t1", "?offset=0")
    await terminal.until(b"new")
    assert b"old" not in terminal.output


async def test_resume_is_over_after_a_while(procd: MakeClient, tmp_path: Path, gate: Gate) -> None:
    client = await procd(
        process={"shell": program(tmp_path, f"read x <{gate}")}, pty={"linger_s": 0.05}
    )
    await create(client, "t1")
    await end_session(client, "t1", gate)
    async with asyncio.timeout(WAIT_S):
        while (terminal := await attach(client, "/process/pty/t1/connect?offset=0")).controls[0][
            "status"
        ] == "connected":
            await terminal.to_end()
    assert "PTY session t1 not found" in terminal.controls[0]["error"]


async def test_who_is_refused_may_answer_the_close(procd: MakeClient) -> None:
    """Up to then the connection stays, so that no reset loses what was sent."""
    client = await procd()
    connections = client.app[WEBSOCKETS]
    async with raw(client) as bare:
        await bare.upgrade("/process/pty/nope/connect")
        assert json.loads(await bare.control())["status"] == "error"
        opcode, payload = await bare.frame()
        assert (opcode, len(connections)) == (CLOSE, 1)
        await bare.send_frame(CLOSE, payload[:2])
        assert await bare.rest() == b""
    await happens(lambda: not len(connections))


async def test_unknown_id(procd: MakeClient) -> None:
    client = await procd()
    for query in ("", "?offset=0", "?replay=9"):
        terminal = await attach(
            client, f"/process/pty/t1/connect{query}", "X-Daytona-Pty-Exit-Control"
        )
        error = "Failed to connect to PTY session: PTY session t1 not found"
        assert terminal.controls == [{"type": "control", "status": "error", "error": error}]
        assert await terminal.to_end() == (1011, error)


async def test_lazy_session_whose_shell_cannot_start(procd: MakeClient, tmp_path: Path) -> None:
    client = await procd()
    cwd = tmp_path / "later"
    await create(client, "t1", lazyStart=True, cwd=str(cwd))
    terminal = await attach(client, "/process/pty/t1/connect")
    assert terminal.controls[0]["status"] == "error"
    assert terminal.controls[0]["error"].startswith("Failed to connect to PTY session: ")
    assert str(cwd) in terminal.controls[0]["error"]
    assert (await terminal.to_end())[0] == 1011
    cwd.mkdir()
    assert (await connect(client, "t1")).connected["status"] == "connected"


async def test_long_reason_is_cut_to_a_close_frame(procd: MakeClient) -> None:
    client = await procd()
    terminal = await attach(client, "/process/pty/" + "%C3%BC" * 200 + "/connect")
    assert "ü" * 200 in terminal.controls[0]["error"]
    code, reason = await terminal.to_end()
    assert code == 1011
    assert 100 < len(reason.encode()) <= 123


async def test_server_that_stops_closes_with_1001(
    procd: MakeClient, tmp_path: Path, alive: Fifo
) -> None:
    text = f"exec 9>{alive}; trap '' HUP TERM; echo begun >&9; read x; sleep 3600"
    client = await procd(process={"shell": program(tmp_path, text)})
    await create(client, "t1")
    assert await alive.line() == "begun"
    terminal = await connect(client, "t1")
    async with asyncio.TaskGroup() as group:
        group.create_task(client.server.close())
        assert await terminal.to_end() == (1001, '{"error":"server shutdown"}')
    await alive.ended()
