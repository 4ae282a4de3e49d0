"""Output as text, of characters and gaps; and replies of any size, piece by piece."""

import asyncio
import json
import tracemalloc
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.test_utils import make_mocked_request

from procd.errors import ProcessNotFound
from procd.http.escape import SLICE
from procd.http.output_text import EVERY_STREAM, TURN_RUNS, OutputText
from procd.http.responses import (
    GROUP,
    OBJECT_BYTES,
    PIECE_BYTES,
    ROOM_ON_THE_WAY_BYTES,
    WHOLE_BYTES,
    Item,
    array_json,
    object_json,
    respond,
    respond_json,
    short_ones,
    string_json,
)
from procd.output.budget import Budget
from procd.output.buffer import MERGE_BYTES, Buffer
from procd.process.process import STDERR, STDOUT


def output(cap_bytes: int, *said: tuple[int, bytes], budget: Budget | None = None) -> Buffer:
    """A backlog with a head and a tail of half the cap each."""
    store = Buffer(cap_bytes, cap_bytes // 2, budget)
    for stream, data in said:
        store.append(data, stream)
    return store


def texts(store: Buffer) -> tuple[str, str, str]:
    """All of it, stdout and stderr."""
    both, out, err = (
        "".join(OutputText(store, stream).texts()) for stream in (EVERY_STREAM, STDOUT, STDERR)
    )
    return both, out, err


def gap(size: int) -> str:
    """The mark."""
    return f"\n[... {size} bytes dropped ...]\n"


def test_characters_that_a_gap_has_cut_are_dropped_whole() -> None:
    """Both halves, of whatever length, and they are counted."""
    for character in "é", "€", "😀":
        data = character.encode()
        for cap_bytes in range(2, 64, 2):
            store = output(cap_bytes, (STDOUT, data * 50))
            kept = cap_bytes // 2 // len(data)
            dropped = gap(len(data) * (50 - 2 * kept))
            text = character * kept + dropped + character * kept
            assert texts(store) == (text, text, "")


def test_the_rest_of_a_character_may_arrive_in_parts() -> None:
    """It is no less a rest for that."""
    store = output(8, (STDOUT, b"abcd" + b"\xf0" * 20), *[(STDOUT, b"\x9f")] * 3, (STDOUT, b"!"))
    assert texts(store)[0] == "abcd" + gap(23) + "!"


def test_the_rest_of_a_character_may_arrive_amid_another_stream() -> None:
    said = [(STDOUT, b"abcdef" + b"x" * 20 + b"\xf0\x9f"), (STDERR, b"e"), (STDOUT, b"\x98")]
    both, out, err = texts(output(12, *said, (STDERR, b"e"), (STDOUT, b"\x80!")))
    assert out == "abcdef" + gap(21 + 3) + "!"
    assert both == "abcdef" + gap(21 + 3) + "ee!"
    assert err == "ee"


def test_no_more_is_taken_for_the_rest_of_a_character_than_it_can_have() -> None:
    """However it comes; nor anything behind what is none."""
    said = [(STDOUT, b"abcdefgh" + b"x" * 20 + b"\xf0\x9f"), (STDERR, b"e"), (STDOUT, b"\x98")]
    said += [(STDERR, b"e"), (STDOUT, b"\x80"), (STDERR, b"e"), (STDOUT, b"\x81!")]
    assert texts(output(16, *said))[:2] == (
        "abcdefgh" + gap(21 + 3) + "eee\ufffd!",
        "abcdefgh" + gap(21 + 3) + "\ufffd!",
    )
    said = [(STDOUT, b"abcdef" + b"x" * 20 + b"okk"), (STDERR, b"e"), (STDOUT, b"\x80!")]
    assert texts(output(12, *said))[:2] == (
        "abcdef" + gap(20) + "okke\ufffd!",
        "abcdef" + gap(20) + "okk\ufffd!",
    )


def test_a_character_that_is_never_whole() -> None:
    """It is told at the end, of either stream."""
    both, out, err = texts(output(100, (STDOUT, b"o\xe2\x82"), (STDERR, b"e\xc3")))
    assert (both, out, err) == ("oe\ufffd\ufffd", "o\ufffd", "e\ufffd")


def test_what_takes_no_memory_to_tell() -> None:
    """It is told though there is none for the rest."""
    long = "x" * (OBJECT_BYTES + 1)
    fields = {"text": OutputText(output(10)), "json": iter([b"1"]), "long": long}
    short: dict[str, object] = {"code": 3, "none": None, "short": long[1:]}
    assert short_ones(fields | short) == short


def test_a_marker_stands_where_the_stream_of_the_text_changes() -> None:
    """Not before the first half of a character, which is no text yet; nor within a stream."""
    long = b"x" * MERGE_BYTES
    said = [(STDOUT, b"\xe2"), (STDERR, b"e"), (STDOUT, b"\x82\xac"), (STDOUT, long)]
    text = "".join(OutputText(output(1 << 20, *said), labelled=True).texts())
    assert text == "\2\2\2e\1\1\1€" + long.decode()


def test_each_stream_has_its_own_rest() -> None:
    """The one that comes later, too."""
    said = [(STDOUT, "€".encode()), (STDERR, "ü".encode())] * 20
    halves = [(STDOUT, b"\xac"), (STDERR, b"\xbc"), (STDOUT, b"out"), (STDERR, b"err")]
    store = output(16, *said, *halves)
    both, out, err = texts(store)
    assert out == "€€" + gap(55) + "out"
    assert err == "ü" + gap(39) + "err"
    assert both == "€ü€" + gap(55 + 39) + "outerr"


def test_a_stream_that_has_lost_nothing_is_whole() -> None:
    """Its character may lie on both sides of a gap that is another's."""
    said = [(STDERR, b"\xe2\x82"), (STDOUT, b"x" * 100), (STDERR, b"\xac"), (STDOUT, b"end")]
    both, out, err = texts(output(16, *said))
    assert err == "€"
    assert out == "x" * 6 + gap(90) + "xxxxend"
    assert both == "x" * 6 + gap(90) + "xxxx€end"


def test_what_is_no_utf_8_stays() -> None:
    """No more is taken for the rest of a character than one can have."""
    store = output(16, (STDOUT, b"\x80" * 100))
    assert texts(store)[1] == "\ufffd" * 8 + gap(87) + "\ufffd" * 5


class Greedy(AbstractStreamWriter):
    """The way to a client that takes in whatever there is; it knows in which turn each piece came.

    It is its own transport.

    Attributes:
        turn: of the event loop, counted.
    """

    def __init__(self) -> None:
        self.turn = 0
        self.turns: list[int] = []
        self.longest_bytes = 0
        self.body = b""
        self.keeps = True
        self._tick()

    def _tick(self) -> None:
        self.turn += 1
        self._next = asyncio.get_running_loop().call_soon(self._tick)

    @property
    def transport(self) -> Any:
        return self

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        """Nothing waits in a buffer."""

    def writelines(self, pieces: list[bytes]) -> None:
        head, *body, end = pieces
        chunk = b"".join(body)
        assert head == b"%x\r\n" % len(chunk)
        assert chunk, "that would be the end"
        assert end == b"\r\n"
        self._take(chunk)

    async def write(self, chunk: Any) -> None:
        self._take(chunk)

    def _take(self, chunk: bytes) -> None:
        self.turns.append(self.turn)
        self.longest_bytes = max(self.longest_bytes, len(chunk))
        if self.keeps:
            self.body += chunk

    async def write_eof(self, chunk: bytes = b"") -> None:
        self._next.cancel()

    async def drain(self) -> None:
        pass

    async def write_headers(self, status_line: str, headers: Any) -> None:
        pass

    def enable_compression(self, *_: object, **__: object) -> None:
        pass

    def enable_chunking(self) -> None:
        pass


def fields_of(store: Buffer) -> dict[str, object]:
    """What a command's reply has of its output."""
    return {
        "result": OutputText(store),
        "stdout": OutputText(store, STDOUT),
        "stderr": OutputText(store, STDERR),
    }


async def test_a_long_reply_leaves_turns_to_others() -> None:
    """However fast its client is; each turn has one piece, of a bounded size."""
    run_bytes = 64 << 10
    store = output(64 << 20, *[(STDOUT, bytes(run_bytes)), (STDERR, b"x" * run_bytes)] * 16)
    writer = Greedy()
    await respond(make_mocked_request("POST", "/", writer=writer), fields_of(store))
    assert len(writer.turns) > 10
    assert len(set(writer.turns)) == len(writer.turns)
    assert writer.longest_bytes < PIECE_BYTES + 6 * run_bytes
    body = json.loads(writer.body)
    assert body["stdout"] == "\0" * (16 * run_bytes)
    assert body["stderr"] == "x" * (16 * run_bytes)
    assert body["result"] == ("\0" * run_bytes + "x" * run_bytes) * 16


@pytest.mark.parametrize("runs", [10_000, 100_000])
async def test_a_reply_of_many_short_runs_leaves_turns_to_others(runs: int) -> None:
    """However few bytes they are; what is left out of a text counts."""
    pairs = [(STDOUT, b"o"), (STDERR, "ü".encode())] * (runs // 2)
    store = output(64 << 20, *pairs)
    writer = Greedy()
    await respond(make_mocked_request("POST", "/", writer=writer), fields_of(store))
    assert writer.turn >= 3 * runs // TURN_RUNS
    assert len(set(writer.turns)) == len(writer.turns)
    assert writer.longest_bytes <= 6 * TURN_RUNS, "each is of so many runs"
    half = runs // 2
    body = json.loads(writer.body)
    assert body == {"result": "oü" * half, "stdout": "o" * half, "stderr": "ü" * half}


async def test_a_stream_that_is_left_out_of_a_text_leaves_turns_to_others() -> None:
    """There is nothing to send meanwhile, which is no end of the reply."""
    store = Buffer(1 << 30)
    for number in range(10_000):
        store.append(b"o", 3 if number % 2 else STDOUT)
    store.append(b"e", STDERR)
    writer = Greedy()
    request = make_mocked_request("GET", "/", writer=writer)
    await respond(request, {"stderr": OutputText(store, STDERR, marks_gap=False)})
    assert json.loads(writer.body) == {"stderr": "e"}
    assert writer.turn >= 10_000 // TURN_RUNS


async def peak_of(store: Buffer) -> int:
    """Most memory that a reply with all this output takes."""
    writer = Greedy()
    writer.keeps = False
    request = make_mocked_request("POST", "/", writer=writer)
    tracemalloc.start()
    try:
        await respond(request, fields_of(store))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return peak


async def test_a_long_reply_takes_no_memory_that_is_not_in_the_budget() -> None:
    """Whatever its output is encoded as, and however often it has that in it."""
    said = [(STDOUT, bytes(64 << 10))] * 128
    room = 4 << 20
    budget = Budget((8 << 20) + room)
    store = output(64 << 20, *said, budget=budget)
    assert await peak_of(store) < 16 * PIECE_BYTES + room, "of 96 MiB"
    assert budget.used_bytes <= budget.most_bytes
    del store
    assert budget.used_bytes == 0
    assert await peak_of(output(64 << 20, *said)) < 16 * PIECE_BYTES, "there is no budget"


async def test_what_is_in_a_reply_twice_is_encoded_once() -> None:
    """If there is room for it in between, and if it is the same."""
    said = [(STDOUT, bytes([65 + number]) * (64 << 10)) for number in range(20)]
    budget = Budget(64 << 20)
    for more in [], [(STDERR, b"no")]:
        store = output(64 << 20, *said, *more, budget=budget)
        before = budget.used_bytes
        writer = Greedy()
        await respond(make_mocked_request("POST", "/", writer=writer), fields_of(store))
        text = "".join(data.decode() for _, data in said)
        told = "".join(data.decode() for _, data in more)
        assert json.loads(writer.body) == {"result": text + told, "stdout": text, "stderr": told}
        assert (budget.used_bytes > before + ROOM_ON_THE_WAY_BYTES) == (more == [])


LONG = 'ü"\n\x1b😀' * 200_000
SHORT: dict[str, object] = {"a": "é", "b": [1, None], "c": {"d": True}}


@pytest.mark.parametrize(
    "values",
    [[], [SHORT], [SHORT] * (2 * GROUP), [SHORT] * (2 * GROUP + 1), [LONG, SHORT, SHORT, LONG]],
)
def test_json_in_pieces_is_json(values: list[object]) -> None:
    """Whatever is short or long, empty or nested."""
    items: list[Item] = [
        value if isinstance(value, dict) else object_json({"text": string_json(lambda: LONG)})
        for value in values
    ]
    wanted = [value if isinstance(value, dict) else {"text": value} for value in values]
    pieces = object_json({"list": array_json(items), "none": object_json({}), "x": 1})
    assert json.loads(b"".join(pieces)) == {"list": wanted, "none": {}, "x": 1}


def test_a_text_that_goes_when_all_of_it_is_sent_is_whole() -> None:
    asked = iter(["a" * (SLICE - 1)])
    assert b"".join(string_json(lambda: next(asked))) == b'"' + b"a" * (SLICE - 1) + b'"'


async def test_a_short_list_is_one_piece() -> None:
    """With its length, as any client likes it best."""
    request = make_mocked_request("GET", "/")
    response = await respond_json(request, array_json([SHORT] * 1000))
    assert isinstance(response, web.Response)
    assert isinstance(response.body, bytes)
    assert json.loads(response.body) == [SHORT] * 1000


def items(number: int, size: int) -> Iterator[Item]:
    """Objects of a text each, none of which is there before its turn."""
    for each in range(number):
        text = chr(97 + each % 26) * size
        fields: dict[str, object] = {"text": text}
        yield fields if size <= 100 else object_json({"text": string_json(partial(str, text))})


@pytest.mark.parametrize(("number", "size"), [(64, 1 << 20), (200_000, 100)])
async def test_a_long_list_leaves_turns_to_others_and_takes_little_memory(
    number: int, size: int
) -> None:
    """However few or many are in it."""
    writer = Greedy()
    await respond_json(
        make_mocked_request("GET", "/", writer=writer), array_json(items(number, size))
    )
    assert len(set(writer.turns)) == len(writer.turns) > 10
    texts = [each["text"] for each in json.loads(writer.body)]
    assert texts == [chr(97 + each % 26) * size for each in range(number)]
    writer = Greedy()
    writer.keeps = False
    request = make_mocked_request("GET", "/", writer=writer)
    tracemalloc.start()
    try:
        await respond_json(request, array_json(items(number, size)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < number * size // 3


async def test_what_goes_while_it_is_sent_breaks_the_reply_off() -> None:
    """Nobody may take half a text for the whole; if nothing was sent yet, there is an answer."""
    left = [LONG] * 2

    def text() -> str:
        if not left:
            raise ProcessNotFound("gone")
        return left.pop()

    request = make_mocked_request("GET", "/", writer=Greedy())
    with pytest.raises(ConnectionResetError):
        await respond_json(request, object_json({"text": string_json(text)}))
    with pytest.raises(ProcessNotFound):
        await respond_json(request, object_json({"text": string_json(text)}))
    await request.writer.write_eof()


async def test_a_long_message_is_sent_in_pieces() -> None:
    """It may quote whatever a client has sent."""
    writer = Greedy()
    message = "é" * WHOLE_BYTES * 8
    await respond(make_mocked_request("GET", "/", writer=writer), {"message": message, "code": 1})
    assert len(writer.turns) > 2
    assert json.loads(writer.body) == {"message": message, "code": 1}
