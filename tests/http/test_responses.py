"""Output as text, with whole characters and marked gaps; replies of any size, in pieces."""

import asyncio
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import ClientPayloadError, web

from procd.http.responses import (
    BATCH_BYTES,
    EVERY_STREAM,
    LONG_STRING,
    EncodedJson,
    OutputText,
    dumps,
    json_pieces,
    respond,
    timestamp,
)
from procd.output.buffer import MERGE_BYTES, Buffer
from procd.process.process import STDERR, STDOUT
from tests.aliases import MakeClient
from tests.api import sessions
from tests.api.clients import json_body


def output(cap_bytes: int, *written: tuple[int, bytes]) -> Buffer:
    """A buffer with a head and a tail of half the cap each."""
    store = Buffer(cap_bytes, cap_bytes // 2)
    for stream, data in written:
        store.append(data, stream)
    return store


def texts(store: Buffer) -> tuple[str, str, str]:
    """All of it, stdout and stderr."""
    both, out, err = (
        "".join(OutputText(store, stream).pieces()) for stream in (EVERY_STREAM, STDOUT, STDERR)
    )
    return both, out, err


def gap(size: int) -> str:
    return f"\n[... {size} bytes dropped ...]\n"


def test_characters_that_a_gap_has_cut_are_dropped_whole() -> None:
    for character in "é", "€", "😀":
        data = character.encode()
        for cap_bytes in range(2, 64, 2):
            store = output(cap_bytes, (STDOUT, data * 50))
            kept = cap_bytes // 2 // len(data)
            dropped = gap(len(data) * (50 - 2 * kept))
            text = character * kept + dropped + character * kept
            assert texts(store) == (text, text, "")


def test_the_rest_of_a_cut_character_may_arrive_in_parts() -> None:
    store = output(8, (STDOUT, b"abcd" + b"\xf0" * 20), *[(STDOUT, b"\x9f")] * 3, (STDOUT, b"!"))
    assert texts(store)[0] == "abcd" + gap(23) + "!"
    written = [(STDOUT, b"abcdef" + b"x" * 20 + b"\xf0\x9f"), (STDERR, b"e"), (STDOUT, b"\x98")]
    both, out, err = texts(output(12, *written, (STDERR, b"e"), (STDOUT, b"\x80!")))
    assert out == "abcdef" + gap(21 + 3) + "!"
    assert both == "abcdef" + gap(21 + 3) + "ee!"
    assert err == "ee"


def test_invalid_bytes_behind_a_gap_stay() -> None:
    """No more is taken for the rest of a character than it can have."""
    store = output(16, (STDOUT, b"\x80" * 100))
    assert texts(store)[1] == "\ufffd" * 8 + gap(87) + "\ufffd" * 5
    written = [(STDOUT, b"abcdef" + b"x" * 20 + b"okk"), (STDERR, b"e"), (STDOUT, b"\x80!")]
    assert texts(output(12, *written))[:2] == (
        "abcdef" + gap(20) + "okke\ufffd!",
        "abcdef" + gap(20) + "okk\ufffd!",
    )


def test_an_incomplete_character_at_the_end() -> None:
    both, out, err = texts(output(100, (STDOUT, b"o\xe2\x82"), (STDERR, b"e\xc3")))
    assert (both, out, err) == ("oe\ufffd\ufffd", "o\ufffd", "e\ufffd")


def test_a_marker_stands_where_the_stream_of_the_text_changes() -> None:
    long = b"x" * MERGE_BYTES
    written = [(STDOUT, b"\xe2"), (STDERR, b"e"), (STDOUT, b"\x82\xac"), (STDOUT, long)]
    text = "".join(OutputText(output(1 << 20, *written), labelled=True).pieces())
    assert text == "\2\2\2e\1\1\1€" + long.decode()


def test_a_stream_without_a_loss_is_whole() -> None:
    """Its character may lie on both sides of a gap in another stream."""
    written = [(STDERR, b"\xe2\x82"), (STDOUT, b"x" * 100), (STDERR, b"\xac"), (STDOUT, b"end")]
    both, out, err = texts(output(16, *written))
    assert err == "€"
    assert out == "x" * 6 + gap(90) + "xxxxend"
    assert both == "x" * 6 + gap(90) + "xxxx€end"


def test_values() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 6, UTC)
    assert json.loads(dumps({"at": moment})) == {"at": timestamp(moment)}
    assert timestamp(moment) == "2026-01-02T03:04:05.000006Z"
    assert dumps({"path": "/a\udcff\n", "at": moment}) == dumps(
        {"path": "/a\ufffd\n"} | {"at": moment}
    )


LONG = 'ü"\n\x1b😀' * LONG_STRING


@pytest.mark.parametrize(
    "value",
    [{}, [], {"a": "é", "b": [1, None], "c": {"d": True}}, {"long": LONG, "none": {}}, LONG, 1],
)
def test_pieces_are_the_same_json(value: object) -> None:
    assert json.loads(b"".join(json_pieces(value))) == value
    assert json.loads(b"".join(json_pieces(iter([value, value])))) == [value, value]
    assert json.loads(b"".join(json_pieces({"x": map(EncodedJson, [b"[1]"])}))) == {"x": [[1]]}


async def serve(aiohttp_client: Any, value: Callable[[], object]) -> Any:
    """A client of a server that answers GET / with the value."""

    async def handler(request: web.Request) -> web.StreamResponse:
        return await respond(request, value())

    app = web.Application()
    app.router.add_get("/", handler)
    return await aiohttp_client(app)


@pytest.mark.parametrize(
    ("written", "stream"),
    [
        ([(STDOUT, b"o" * (1 << 20))] * 20, EVERY_STREAM),
        ([(STDOUT, b"o"), (STDERR, b"e")] * 200_000, EVERY_STREAM),
        ([(STDOUT, b"o"), (STDERR, b"e")] * 200_000, STDERR),
    ],
    ids=["long", "short runs", "left out"],
)
async def test_a_long_reply_leaves_turns_to_others(
    aiohttp_client: Any, written: list[tuple[int, bytes]], stream: int
) -> None:
    text = OutputText(output(256 << 20, *written), stream)
    client = await serve(aiohttp_client, lambda: {"text": text})
    turns: list[int] = []
    turn = 0
    handle: asyncio.Handle

    def tick() -> None:
        nonlocal turn, handle
        turn += 1
        handle = asyncio.get_running_loop().call_soon(tick)

    handle = asyncio.get_running_loop().call_soon(tick)
    async with client.get("/") as reply:
        assert reply.headers["Transfer-Encoding"] == "chunked"
        body = b""
        async for piece in reply.content.iter_any():
            turns.append(turn)
            body += piece
    handle.cancel()
    assert json.loads(body)["text"] == "".join(text.pieces())
    assert turns[-1] - turns[0] >= 10


async def test_a_reply_that_breaks_off_is_aborted(aiohttp_client: Any) -> None:
    """Nobody may take a part of the text for the whole."""

    def items() -> Iterator[object]:
        yield "x" * (3 * BATCH_BYTES)
        raise OSError(5, "Input/output error")

    client = await serve(aiohttp_client, items)
    async with client.get("/") as reply:
        assert reply.status == 200
        with pytest.raises(ClientPayloadError):
            await reply.read()


async def test_a_long_list_and_a_long_message(procd: MakeClient) -> None:
    client = await procd()
    await sessions.create(client)
    text = f"true {'x' * 10_000}"
    for _ in range(100):
        await sessions.run(client, text)
    async with client.get("/process/session") as reply:
        (session,) = await reply.json()
    assert [command["command"] for command in session["commands"]] == [text] * 100
    name = "é" * 2_000_000
    async with client.post("/process/execute", data=json_body({"command": "x", name: 1})) as reply:
        assert reply.status == 200
    async with client.post(
        "/process/code-run", data=json_body({"code": "1", "language": name})
    ) as reply:
        assert name in (await reply.json())["message"]
