"""Clients that offer `procd.pty.v1`: presence, sizes, taking over, acknowledging."""

import asyncio
import json
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import WSCloseCode

from procd.api.pty import PTYS
from procd.api.pty_protocol import PROTOCOL, TAKEN_OVER
from procd.http.websocket import WEBSOCKETS
from tests.aliases import Client, MakeClient
from tests.api.clients import (
    BINARY,
    PING,
    TEXT,
    WAIT_S,
    Fifo,
    Gate,
    Terminal,
    attach,
    connect,
    create,
    delete,
    describe,
    each,
    listed,
    program,
    raw,
    refused,
    sha256,
)
from tests.waiting import until

ECHO = "stty raw -echo; echo ready; exec cat"
# Draws its prompt anew whenever the size changes, and at once.
PROMPT = "export PS1=ready; exec bash --norc --noprofile -i"
WINDOW_BYTES = 64 << 10
FRAME_BYTES = 64 << 10


async def served(procd: MakeClient, tmp_path: Path, text: str = ECHO, **pty: Any) -> Client:
    """A server with a session t1 that does `text`."""
    client = await procd(process={"shell": program(tmp_path, text)}, pty=pty)
    await create(client, "t1")
    return client


async def attended(client: Client, query: str = "") -> Terminal:
    """Attach to t1 as the web terminal does."""
    terminal = await connect(client, "t1", query, PROTOCOL)
    await presence(terminal, lambda _: True)
    return terminal


async def say(terminal: Terminal, **message: object) -> None:
    await terminal.ws.send_str(json.dumps(message))


async def presence(terminal: Terminal, fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Read until it is told of a presence that fits."""
    async with asyncio.timeout(WAIT_S):
        while True:
            told = [each for each in terminal.controls if each["status"] == "presence"]
            if told and fits(told[-1]):
                return told[-1]
            assert await terminal.step(), terminal.close


def sized(cols: int, rows: int) -> Callable[[dict[str, Any]], bool]:
    """Whether this size was agreed."""
    return lambda told: (told["cols"], told["rows"]) == (cols, rows)


async def test_who_is_attached_is_told_to_who_asked(procd: MakeClient, tmp_path: Path) -> None:
    client = await served(procd, tmp_path)
    first = await attended(client)
    plain = await connect(client, "t1")
    told = await presence(first, lambda told: len(told["clients"]) == 2)
    assert told["you"] == told["active"] == told["clients"][0]["id"]
    assert told["clients"][1] == {
        "id": told["clients"][1]["id"],
        "name": "anyone",
        "viewer": False,
        "visible": True,
        "cols": None,
        "rows": None,
    }
    await plain.type(b"typed")
    await presence(first, lambda told: told["active"] == told["clients"][1]["id"])
    await plain.until(b"typed")
    assert [each["status"] for each in plain.controls] == ["connected"]
    await plain.ws.close()
    await presence(first, lambda told: len(told["clients"]) == 1 and told["active"] == told["you"])


async def test_who_answers_is_told_before_there_may_be_a_question(
    procd: MakeClient, tmp_path: Path
) -> None:
    client = await served(procd, tmp_path, "stty raw echo; echo ready; exec sleep 1000")
    one, two = await attended(client), await attended(client)
    await one.until(b"ready")
    for turn, key in enumerate(string.ascii_uppercase.encode()):
        active = (two, one)[turn % 2]
        await active.type(bytes((key,)))
        for terminal in (one, two):
            await terminal.until(bytes((key,)))  # echoed by the kernel, in no time
            told = terminal.controls[-1]
            assert (told["you"] == told["active"]) == (terminal is active)


async def test_text_is_input_for_who_did_not_ask(procd: MakeClient, tmp_path: Path) -> None:
    """As in the contract: any message is raw input."""
    client = await served(procd, tmp_path)
    plain = await connect(client, "t1")
    await say(plain, type="size", cols=10, rows=10)
    await plain.until(b'{"type": "size", "cols": 10, "rows": 10}')
    assert (await describe(client, "t1"))["cols"] == 80


async def test_the_latest_size_counts(procd: MakeClient, tmp_path: Path) -> None:
    client = await served(procd, tmp_path)
    one, two = await attended(client), await attended(client)
    await say(one, type="size", cols=100, rows=30)
    await presence(two, sized(100, 30))
    await say(two, type="size", cols=90, rows=40)
    told = await presence(one, sized(90, 40))
    assert told["active"] == told["clients"][1]["id"]
    await say(one, type="size", cols=70, rows=20, visible=False)
    told = await presence(two, lambda told: told["clients"][0]["visible"] is False)
    assert told["active"] == told["you"]
    info = await describe(client, "t1")
    assert (info["cols"], info["rows"]) == (90, 40)
    async with client.post("/process/pty/t1/resize", json={"cols": 60, "rows": 10}) as reply:
        assert reply.status == 200
    await presence(one, sized(60, 10))


async def test_the_smallest_visible_size_counts(procd: MakeClient, tmp_path: Path) -> None:
    client = await served(procd, tmp_path, resize_policy="smallest")
    one, two = await attended(client), await attended(client)
    await say(one, type="size", cols=100, rows=30)
    await presence(two, sized(100, 30))
    await say(two, type="size", cols=90, rows=40)
    told = await presence(one, sized(90, 30))
    assert told["policy"] == "smallest"
    await say(two, type="size", cols=90, rows=40, visible=False)
    await presence(one, sized(100, 30))
    await say(two, type="size", cols=90, rows=40)
    await presence(one, sized(90, 30))
    await two.ws.close()
    await presence(one, sized(100, 30))


async def talkative(procd: MakeClient, tmp_path: Path, gate: Gate, alive: Fifo) -> Client:
    """A server with a session t1 that says ten megabytes at the gate, and counts them elsewhere."""
    text = (
        f"stty raw -echo; exec 9>{alive}; read x <{gate}; for i in $(seq 10); do "
        "head -c 1000000 /dev/zero; echo $i >&9; done; cat"
    )
    return await served(procd, tmp_path, text)


async def test_who_was_sent_away_has_no_part_in_it(
    procd: MakeClient, tmp_path: Path, gate: Gate, alive: Fifo
) -> None:
    """Though it doesn't answer the Close, and goes on to send: it holds up nobody."""
    client = await talkative(procd, tmp_path, gate, alive)
    async with raw(client, receive_bytes=4096) as rude:
        await rude.upgrade("/process/pty/t1/connect")
        await rude.next(PING)
        taker = await attended(client)
        await say(taker, type="take-over")
        await presence(taker, lambda told: len(told["clients"]) == 1)
        await taker.ws.close()
        gate.open()
        for i in range(10):
            await rude.send_frame(PING, b"")
            assert await alive.line() == str(i + 1)
    await delete(client, "t1")
    await alive.ended()


async def test_no_more_is_typed_of_who_was_sent_away(
    procd: MakeClient, tmp_path: Path, gate: Gate
) -> None:
    """Not what had no room when it came: what it typed before was dropped."""
    typed = b"x" * 100_000  # the terminal's queue takes no other message after it
    text = (
        f"stty raw -echo; echo ready; read x <{gate}; head -c {len(typed) + 1} | sha256sum; read x"
    )
    client = await served(procd, tmp_path, text, input_queue_bytes=4096)
    async with raw(client) as pasting:
        await pasting.upgrade("/process/pty/t1/connect")
        assert b"ready" in await pasting.output(5)
        for data in (typed, b"y" * 10_000, b"z" * 10_000):
            await pasting.send_frame(BINARY, data)
        await until(lambda: any(each.keepalive.stalled for each in client.app[WEBSOCKETS]._open))
        taker = await attended(client)
        await say(taker, type="take-over")
        await pasting.output(None)
        await taker.type(b".")
        gate.open()
        await taker.until(sha256(typed + b".").encode())


async def test_taking_over(procd: MakeClient, tmp_path: Path) -> None:
    """All others that may write go, with a code that tells a client not to come back."""
    client = await served(procd, tmp_path)
    one, plain, taker = await attended(client), await connect(client, "t1"), await attended(client)
    await say(taker, type="take-over")
    for terminal in (one, plain):
        assert await terminal.to_end() == (TAKEN_OVER, "taken over by anyone")
    await presence(taker, lambda told: len(told["clients"]) == 1)
    await taker.type(b"mine")
    await taker.until(b"mine")


async def test_a_size_that_was_agreed_in_a_replay_comes_before_what_is_drawn_for_it(
    procd: MakeClient, tmp_path: Path
) -> None:
    size = 4_300_000  # more than the sockets hold
    shell = f"stty raw -echo; head -c {size} /dev/zero | tr '\\0' x; exec cat"
    client = await served(procd, tmp_path, shell)
    plain = await connect(client, "t1")
    await plain.until_size(size)
    typist = await attended(client, "?replay=0")
    async with raw(client, receive_bytes=4096) as page:
        await page.upgrade(
            f"/process/pty/t1/connect?replay={8 << 20}", f"Sec-WebSocket-Protocol: {PROTOCOL}"
        )
        assert json.loads(await page.control())["replayBytes"] == size
        await say(typist, type="size", cols=111, rows=33)
        await presence(typist, sized(111, 33))
        await plain.type(b"drawn")
        await plain.until_size(size + len(b"drawn"))
        assert len(await page.output(size)) == size
        told = json.loads(await page.control())
        assert (told["status"], told["cols"]) == ("presence", 111)
        assert await page.output(1) == b"drawn"


async def test_who_looks_on_by_choice_is_a_viewer(procd: MakeClient, tmp_path: Path) -> None:
    """Whatever else it may do: its input goes nowhere, its size doesn't count."""
    client = await served(procd, tmp_path)
    typist, viewer = await attended(client), await attended(client, "?viewer=true")
    told = await presence(typist, lambda told: len(told["clients"]) == 2)
    assert [each["viewer"] for each in told["clients"]] == [False, True]
    await say(viewer, type="size", cols=10, rows=10)
    told = await presence(typist, lambda told: told["clients"][1]["cols"] == 10)
    assert (told["cols"], told["rows"], told["active"]) == (80, 24, told["you"])
    await viewer.type(b"never")
    async with asyncio.timeout(WAIT_S):
        while viewer.controls[-1]["status"] != "read-only":
            assert await viewer.step()
    await typist.type(b"typed")
    await viewer.until(b"typed")
    assert b"never" not in viewer.output
    await say(viewer, type="take-over")
    assert (await viewer.to_end())[0] == WSCloseCode.PROTOCOL_ERROR


async def test_who_looks_on_starts_nothing(procd: MakeClient, tmp_path: Path) -> None:
    client = await procd(process={"shell": program(tmp_path, ECHO)})
    await create(client, "t1", lazyStart=True)
    for query, status in (("true", "error"), ("false", "connected"), ("true", "connected")):
        terminal = await attach(client, f"/process/pty/t1/connect?viewer={query}")
        assert terminal.connected["status"] == status
        await terminal.ws.close()


async def test_a_viewer_is_one_or_not(procd: MakeClient, tmp_path: Path) -> None:
    """What is misspelt doesn't make a typist of who wanted to look on."""
    client = await served(procd, tmp_path)
    for value in ("1", "True", ""):
        async with client.get(f"/process/pty/t1/connect?viewer={value}") as reply:
            await refused(reply, 400, "BAD_REQUEST")


async def test_the_size_that_the_output_is_for(procd: MakeClient, tmp_path: Path) -> None:
    """Told before the output, on attaching and on resuming, to who asked."""
    client = await served(procd, tmp_path)
    async with client.post("/process/pty/t1/resize", json={"cols": 60, "rows": 10}) as reply:
        assert reply.status == 200
    for query in ("", "?offset=0"):
        told = (await connect(client, "t1", query, PROTOCOL)).connected
        assert (told["cols"], told["rows"]) == (60, 10)
        assert "cols" not in (await connect(client, "t1", query)).connected


@each("by", ["request", "message"])
async def test_a_new_size_is_told_before_what_is_drawn_for_it(
    procd: MakeClient, tmp_path: Path, by: str
) -> None:
    client = await served(procd, tmp_path, PROMPT)
    terminals = one, two = await attended(client), await attended(client)
    for terminal in terminals:
        await terminal.until(b"ready")
    for number, key in enumerate(b"bcfgijknopqstuvwxz", 1):  # which drawing has no use for
        before = [len(terminal.output) for terminal in terminals]
        cols, rows = 100 + number, 20 + number
        if by == "request":
            size = {"cols": cols, "rows": rows}
            async with client.post("/process/pty/t1/resize", json=size) as reply:
                assert reply.status == 200
        else:
            await say(one, type="size", cols=cols, rows=rows)
        for terminal, size_before in zip(terminals, before, strict=True):
            await terminal.until_size(size_before + 1)
            told = [each["cols"] for each in terminal.controls if each["status"] == "presence"]
            assert told[-1] == cols
            assert told.count(cols) == 1
        await two.type(bytes((key,)))
        for terminal in terminals:
            await terminal.until(bytes((key,)))  # and all is drawn


async def test_a_ping_is_answered(procd: MakeClient, tmp_path: Path) -> None:
    """For who can't see those of the WebSocket itself; a full window is no obstacle."""
    text = f"stty raw -echo; read go; head -c {4 * WINDOW_BYTES} /dev/zero; exec cat"
    client = await served(procd, tmp_path, text, window_bytes=WINDOW_BYTES)
    terminal = await attended(client)
    await terminal.type(b"\n")
    await terminal.until_size(WINDOW_BYTES)
    await say(terminal, type="ping")
    async with asyncio.timeout(WAIT_S):
        while terminal.controls[-1] != {"type": "control", "status": "pong"}:
            assert await terminal.step()


async def test_output_waits_for_who_acknowledges(procd: MakeClient, tmp_path: Path) -> None:
    """No more than the window runs ahead, and what follows an acknowledgement is complete."""
    size = 1 << 20
    text = f"stty raw -echo; read go; head -c {size} /dev/zero; exec cat"
    client = await served(procd, tmp_path, text, window_bytes=WINDOW_BYTES)
    slow, fast = await attended(client), await connect(client, "t1")
    await slow.type(b"\n")
    await fast.until_size(size)
    acked = cols = 0
    while slow.offset < size:
        cols += 1
        await say(slow, type="size", cols=cols, rows=24)
        await presence(slow, sized(cols, 24))  # what was sent before it has arrived
        assert acked < slow.offset <= acked + WINDOW_BYTES + FRAME_BYTES
        acked = slow.offset
        await say(slow, type="ack", offset=acked)
        await slow.until_size(min(len(slow.output) + 1, size))
    assert bytes(slow.output) == bytes(fast.output)


async def test_who_stops_acknowledging_beside_a_fast_one(procd: MakeClient, tmp_path: Path) -> None:
    """It is closed when its place is no longer kept, not only when it asks for more."""
    size = 4 << 20
    text = f"stty raw -echo; read go; head -c {size} /dev/zero; exec cat"
    client = await served(procd, tmp_path, text, window_bytes=WINDOW_BYTES, backlog_bytes=1 << 20)
    stopped, fast = await attended(client), await connect(client, "t1")
    await fast.type(b"\n")
    await fast.until_size(size)
    assert await stopped.to_end() == (WSCloseCode.POLICY_VIOLATION, "slow consumer")
    assert WINDOW_BYTES <= len(stopped.output) < WINDOW_BYTES + FRAME_BYTES
    assert client.app[WEBSOCKETS].dropped == {"silent": 0, "slow": 1}
    await fast.type(b"still")
    await fast.until(b"still")


async def test_who_only_answers_pings_holds_up_no_program(
    procd: MakeClient, tmp_path: Path
) -> None:
    """Nothing that is shown is acknowledged any more, as of a page that its browser has frozen."""
    size = 4 << 20
    done = tmp_path / "done"
    text = f"stty raw -echo; read go; head -c {size} /dev/zero; >{done}; exec cat"
    client = await procd(
        process={"shell": program(tmp_path, text)},
        pty={"window_bytes": WINDOW_BYTES},
        server={"ping_s": 0.1, "dead_peer_s": 1},
    )
    await create(client, "t1")
    frozen = await attended(client)
    await frozen.type(b"\n")
    await frozen.until_size(WINDOW_BYTES)
    await say(frozen, type="ack", offset=frozen.offset)
    reading = asyncio.ensure_future(frozen.to_end())  # which answers pings
    await until(done.exists)
    await reading
    assert frozen.close == (WSCloseCode.ABNORMAL_CLOSURE, "")
    assert client.app[WEBSOCKETS].dropped == {"silent": 1, "slow": 0}
    back = await attended(client, f"?offset={frozen.offset}")
    await back.until_size(1)


async def test_the_end_comes_after_all_that_is_acknowledged(
    procd: MakeClient, tmp_path: Path
) -> None:
    """Though the terminal was deleted meanwhile."""
    size = 1 << 20
    text = f"stty raw -echo; read go; head -c {size} /dev/zero; exec cat"
    client = await served(procd, tmp_path, text, window_bytes=WINDOW_BYTES)
    slow, fast = await attended(client), await connect(client, "t1")
    await fast.type(b"\n")
    await fast.until_size(size)
    await delete(client, "t1")
    await fast.to_end()
    async with asyncio.timeout(WAIT_S):
        acked = 0
        while await slow.step():
            if slow.offset > acked:
                acked = slow.offset
                await say(slow, type="ack", offset=acked)
    assert slow.close == fast.close
    assert slow.ending["exitCode"] == 137
    assert slow.output == fast.output


@each(
    "message",
    [
        "",
        "nonsense",
        "[]",
        '{"type": "nope"}',
        '{"type": "ack"}',
        '{"type": "ack", "offset": null}',
        '{"type": "ack", "offset": -1}',
        '{"type": "ack", "offset": 1000000}',
        '{"type": "size", "cols": 0, "rows": 1}',
        '{"type": "size", "cols": 80}',
        '{"type": "size", "cols": 1001, "rows": 1}',
    ],
)
async def test_what_can_not_be_understood(procd: MakeClient, tmp_path: Path, message: str) -> None:
    tmp_path = tmp_path / str(abs(hash(message)))
    tmp_path.mkdir()
    client = await served(procd, tmp_path)
    terminal = await attended(client)
    await terminal.ws.send_str(message)
    assert (await terminal.to_end())[0] == WSCloseCode.PROTOCOL_ERROR


async def test_who_can_not_be_understood_holds_up_nobody(
    procd: MakeClient, tmp_path: Path, gate: Gate, alive: Fifo
) -> None:
    """Though it doesn't answer the Close, and goes on to send."""
    client = await talkative(procd, tmp_path, gate, alive)
    async with raw(client) as rude:
        await rude.upgrade("/process/pty/t1/connect", f"Sec-WebSocket-Protocol: {PROTOCOL}")
        await rude.send_frame(TEXT, b"nonsense")
        await rude.output(None)
        gate.open()
        for i in range(10):
            await rude.send_frame(PING, b"")
            assert await alive.line() == str(i + 1)


FULL_SCREEN = r"""
stty raw -echo
printf '\033[?1049h\033[?1006h'
seq 1000
trap 'printf "<%s>" "$(stty size)"' WINCH
echo ready
while :; do read line; done
"""


async def test_a_full_screen_program_is_shown_whole(procd: MakeClient, tmp_path: Path) -> None:
    """Though a replay begins long after it has begun."""
    client = await served(procd, tmp_path, FULL_SCREEN)
    await (await connect(client, "t1", "?offset=0")).until(b"ready")
    looks_on = await connect(client, "t1", "?replay=9&modes=true&viewer=true")
    assert looks_on.connected["modes"] == "\x1b[?1049h\x1b[?1006h"
    whole = await connect(client, "t1", "", PROTOCOL)
    assert "modes" not in whole.connected
    plain = await connect(client, "t1", "?replay=9")
    assert "modes" not in plain.connected
    terminal = await connect(client, "t1", "?replay=9", PROTOCOL)
    assert terminal.connected["modes"] == "\x1b[?1049h\x1b[?1006h"
    assert (terminal.connected["cols"], terminal.connected["rows"]) == (80, 24)
    await terminal.until(b"<24 80>")
    await plain.until(b"<24 80>")
    assert bytes(plain.output) == b"00\nready\n<23 80><24 80>"
    told = await presence(terminal, sized(80, 24))
    assert len(told["clients"]) == 5
    assert [each["rows"] for each in terminal.controls if "rows" in each] == [24, 24]


async def test_who_comes_back_has_a_full_screen_drawn_anew(
    procd: MakeClient, tmp_path: Path
) -> None:
    client = await served(procd, tmp_path, FULL_SCREEN)
    first = await connect(client, "t1", "?offset=0")
    await first.until(b"ready")
    end = first.output.index(b"ready")
    await connect(client, "t1", f"?offset={end}")
    await connect(client, "t1", f"?offset={end}", PROTOCOL)
    await connect(client, "t1", f"?offset={end}&modes=true&viewer=true")
    await listed(client)  # the server gets to do what it has to
    assert client.app[PTYS].get("t1")._redraw_timer is None, "who doesn't ask for it, or may not"
    terminal = await connect(client, "t1", f"?offset={end}&modes=true")
    assert "modes" not in terminal.connected
    await terminal.until(b"<24 80>")
    assert bytes(terminal.output) == b"ready\n<23 80><24 80>"


async def test_a_program_that_has_left_the_screen_is_left_alone(
    procd: MakeClient, tmp_path: Path
) -> None:
    text = FULL_SCREEN.replace("echo ready", r"printf '\033[?1049l'; echo ready")
    client = await served(procd, tmp_path, text)
    await (await connect(client, "t1", "?offset=0")).until(b"ready")
    terminal = await connect(client, "t1", "?replay=99", PROTOCOL)
    assert terminal.connected["modes"] == "\x1b[?1049h\x1b[?1006h"
    await presence(terminal, lambda _: True)
    await say(terminal, type="size", cols=90, rows=30)
    await terminal.until(b"<30 90>")
    assert b"<23 80>" not in terminal.output
