"""Request bodies: contract, section 1.1, and bad input of every kind."""

import asyncio
import json
from codecs import BOM_UTF8
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from procd.errors import BadRequest, InvalidBody
from procd.http.schema import MAX_DIGITS, flag, number, parse
from tests.aliases import Client, MakeClient
from tests.api.clients import WAIT_S, each, execute, json_body, listed, raw, refused, unchunked

NOT_A_DOCUMENT = [
    b"",
    b" \n",
    b"{",
    b"}",
    b"null",
    b"[]",
    b'"echo ran"',
    b"17",
    b"{'command': 'echo ran'}",
    b'{"command": "echo ran"',
    b'{"command": "echo ran" "timeout": 1}',
    b'{"command": "echo\nran"}',
    b'{"command": "echo ran", "timeout": NaN}',
    b'{"command": "echo ran", "timeout": Infinity}',
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"\xff\xfe{",
]

# Fields of the schema of a command, and one value each that it must not take.
BAD_EXECUTE: list[dict[str, object]] = [
    {},
    {"command": None},
    {"command": ""},
    {"command": 1},
    {"command": ["echo", "ran"]},
    {"command": {"a": 1}},
    {"command": True},
    {"command": "echo a\0b"},
    {"command": "echo \ud800"},
    {"command": "echo ran", "timeout": -1},
    {"command": "echo ran", "timeout": 1.5},
    {"command": "echo ran", "timeout": 1.0},
    {"command": "echo ran", "timeout": True},
    {"command": "echo ran", "timeout": "3"},
    {"command": "echo ran", "timeout": 1 << 32},
    {"command": "echo ran", "timeout": [3]},
    {"command": "echo ran", "cwd": 1},
    {"command": "echo ran", "cwd": "/\0"},
    {"command": "echo ran", "cwd": "/\udc80"},
    {"command": "echo ran", "envs": []},
    {"command": "echo ran", "envs": "A=1"},
    {"command": "echo ran", "envs": {"A": 1}},
    {"command": "echo ran", "envs": {"A": True}},
    {"command": "echo ran", "envs": {"A": ["x"]}},
    {"command": "echo ran", "envs": {"A": "x\0"}},
    {"command": "echo ran", "envs": {"A": "\ud83d"}},
    {"command": "echo ran", "envs": {"A\0": "x"}},
]

BAD_PTY: list[dict[str, object]] = [
    {},
    {"id": None},
    {"id": ""},
    {"id": 1},
    {"id": "a\ud800"},
    {"id": "a", "cols": -1},
    {"id": "a", "cols": 80.0},
    {"id": "a", "rows": "24"},
    {"id": "a", "rows": True},
    {"id": "a", "rows": 70_000},
    {"id": "a", "lazyStart": 1},
    {"id": "a", "lazyStart": "true"},
    {"id": "a", "lazyStart": []},
    {"id": "a", "cwd": {}},
    {"id": "a", "envs": [["A", "1"]]},
    {"id": "a", "envs": {"A": 1}},
    {"id": "a", "envs": {"A": "\0"}},
]

BAD_SIZE: list[dict[str, object]] = [
    {},
    {"cols": 80},
    {"rows": 24},
    {"cols": None, "rows": 24},
    {"cols": "80", "rows": 24},
    {"cols": 80, "rows": 24.5},
    {"cols": 80, "rows": False},
    {"cols": 80, "rows": 1 << 16},
    {"cols": -80, "rows": 24},
]


async def send(client: Client, path: str, body: bytes) -> None:
    """Post a body that must be refused as one."""
    async with asyncio.timeout(WAIT_S), client.post(path, data=body) as reply:
        try:
            await refused(reply, 400, "INVALID_REQUEST_BODY")
        except AssertionError as exc:
            exc.add_note(f"sent: {body[:80]!r}")
            raise


@each("path", ["/process/execute", "/process/pty", "/process/pty/a/resize"])
async def test_what_is_no_json_object(procd: MakeClient, path: str) -> None:
    client = await procd()
    for body in NOT_A_DOCUMENT:
        await send(client, path, body)
    assert await listed(client) == []


@each(
    ("path", "documents"),
    [
        ("/process/execute", BAD_EXECUTE),
        ("/process/pty", BAD_PTY),
        ("/process/pty/a/resize", BAD_SIZE),
    ],
)
async def test_wrong_types(
    procd: MakeClient, path: str, documents: list[dict[str, object]]
) -> None:
    client = await procd()
    for document in documents:
        await send(client, path, json.dumps(document).encode())
    assert await listed(client) == []


async def test_what_stands_before_a_document(procd: MakeClient) -> None:
    """A byte order mark and JSON's own blanks, and nothing else."""
    client = await procd()
    document = json.dumps({"command": "echo ran"}).encode()
    body = BOM_UTF8 + b" \t\r\n" * 20_000 + document
    async with client.post("/process/execute", data=body) as reply:
        assert (await reply.json())["result"] == "ran\n"
    for before in (b"\v", b" \f", "\xa0".encode(), BOM_UTF8 + BOM_UTF8, b" " + BOM_UTF8):
        await send(client, "/process/execute", before + document)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('{"a": [1, 2, {"b": []}]}', 6),
        ('{"\\\\\\"": ["\\\\", "[,{", "\\""]}', 4),
        ('["' + "," * 100 + '"]', 1),
        ("[" * 50 + "]" * 50, 50),
    ],
)
def test_values_are_counted_before_any_is_made(text: str, values: int) -> None:
    assert parse(text.encode(), values) == json.loads(text)
    with pytest.raises(InvalidBody, match=f"more than {values - 1} values"):
        parse(text.encode(), values - 1)


def test_a_string_without_an_end_takes_linear_time() -> None:
    with pytest.raises(InvalidBody):
        parse(b'["' + b'\\"' * 2_000_000 + b"," * 100, 10)


def test_a_number_of_a_query() -> None:
    for text in "0", "007", "9" * MAX_DIGITS:
        assert number({"offset": text}, "offset") == int(text)
    for text in "", "-1", "+1", " 1", "1_0", "1.0", "\u0663", "\u00b2", "1" * (MAX_DIGITS + 1):
        with pytest.raises(BadRequest, match="'offset' must be a whole number, 0 or more"):
            number({"offset": text}, "offset")


def test_a_flag_of_a_query() -> None:
    assert [flag(query, "viewer") for query in ({}, {"viewer": "false"}, {"viewer": "true"})] == [
        False,
        False,
        True,
    ]
    for text in "", "1", "True", "yes":
        with pytest.raises(BadRequest, match="'viewer' must be true or false"):
            flag({"viewer": text}, "viewer")


@each(
    "body",
    [
        b'{"command": "echo ran"} trailing',
        b'{"command": "echo ran"}{"command": "echo second"}',
        b'{"command": "echo ran"}\x00\xff',
        b' \r\n\t{"command": "echo ran"}',
        b'{"COMMAND": "echo ran", "TimeOut": 9}',
        b'{"command": "echo ran", "timeout": null, "cwd": null, "envs": null}',
        b'{"command": "echo ran", "timeout": 4294967295}',
        b'{"command": "echo ran", "unknown": {"a": [1, 2.5, null]}}',
        b'{"command": "echo \\u0072an", "envs": {"A": "\\ud83d\\ude00"}}',
    ],
)
@each("content_type", ["application/json", "text/plain", ""])
async def test_what_is_taken(procd: MakeClient, body: bytes, content_type: str) -> None:
    client = await procd()
    headers = {"Content-Type": content_type}
    async with client.post("/process/execute", data=body, headers=headers) as reply:
        assert reply.status == 200
        assert reply.headers["Content-Type"] == "application/json; charset=utf-8"
        assert (await reply.json())["result"] == "ran\n"


async def test_null_in_a_map_or_a_list_is_the_empty_string(procd: MakeClient) -> None:
    # As Go's decoder has it; in place of a field it is as good as absent.
    client = await procd()
    body = await execute(client, 'echo "<${A-unset}>"', envs={"A": None})
    assert body["result"] == "<>\n"
    document = {
        "language": "python",
        "code": "import os, sys; print(sys.argv[1:], repr(os.environ['A']))",
        "argv": ["x", None],
        "envs": {"A": None},
    }
    async with client.post("/process/code-run", json=document) as reply:
        assert (await reply.json())["result"] == "['x', ''] ''\n"
    async with client.post("/env", json={"set": {"A": None}, "unset": [None]}) as reply:
        assert reply.status == 200
    assert (await execute(client, 'echo "<${A-unset}>"'))["result"] == "<>\n"


async def test_the_message_names_the_field(procd: MakeClient) -> None:
    client = await procd()
    document = {"command": "true", "envs": {"A": "s3cret", "B": 1}}
    async with client.post("/process/execute", json=document) as reply:
        body = await refused(reply, 400, "INVALID_REQUEST_BODY")
    assert "envs" in body["message"]
    assert "s3cret" not in body["message"]


@each(
    ("path", "body"),
    [
        ("/process/execute", b'{"command": "true", "envs": {"\\ud800": "x"}}'),
        ("/process/code-run", b'{"code": "1", "language": "python", "envs": {"\\ud800": "x"}}'),
        ("/env", b'{"set": {"\\ud800": "x"}}'),
        ("/process/session", b'{"sessionId": "s", "env": {"\\ud800": "x"}}'),
        ("/process/pty", b'{"id": "s", "envs": {"\\ud800": "x"}}'),
    ],
)
async def test_a_message_may_quote_what_cannot_be_sent(
    procd: MakeClient, path: str, body: bytes
) -> None:
    client = await procd()
    async with client.post(path, data=body) as reply:
        message = (await refused(reply, 400, "INVALID_REQUEST_BODY"))["message"]
    assert "\\ud800: must not contain lone surrogates" in message


async def in_chunks(body: bytes) -> AsyncIterator[bytes]:
    """A body of unknown length."""
    for start in range(0, len(body), 500):
        yield body[start : start + 500]


@each("path", ["/process/execute", "/process/pty"])
@each("chunked", [False, True])
async def test_body_above_the_limit(procd: MakeClient, path: str, chunked: bool) -> None:
    client = await procd(server={"max_body_bytes": 2048})
    body = b'{"command": "echo ran", "id": "x", "more": "' + b"x" * 2048 + b'"}'
    async with client.post(path, data=in_chunks(body) if chunked else body) as reply:
        await refused(reply, 413, "PAYLOAD_TOO_LARGE")
    fits = b'{"command": "echo ran", "more": "' + b"x" * 2000 + b'"}'
    data = in_chunks(fits) if chunked else fits
    async with client.post("/process/execute", data=data) as reply:
        assert (await reply.json())["result"] == "ran\n"


async def test_a_body_that_is_announced_above_the_limit(procd: MakeClient) -> None:
    """It is refused before any of it has come, and one that waits to be asked for never is."""
    client = await procd(server={"max_body_bytes": 2048})
    for length in (2049, 1 << 30):
        head = f"POST /process/execute HTTP/1.1\nContent-Length: {length}"
        async with raw(client) as bare:
            await bare.request(head)
            assert (await bare.head())[0] == 413
        async with raw(client) as polite:
            await polite.request(f"{head}\nExpect: 100-continue")
            reply = await polite.rest()  # to the connection's end: the body could be a request
        assert reply.startswith(b"HTTP/1.1 413 ")
        assert b"\r\nConnection: close\r\n" in reply


async def test_a_body_that_was_asked_for_and_is_above_the_limit(procd: MakeClient) -> None:
    """It is sent to its end, by a proxy for instance, before the answer is looked for."""
    client = await procd(server={"max_body_bytes": 2048})
    async with raw(client) as polite:
        head = "POST /process/execute HTTP/1.1\nTransfer-Encoding: chunked"
        await polite.request(f"{head}\nExpect: 100-continue")
        assert (await polite.head())[0] == 100
        for _ in range(5):
            await polite.send(b"%x\r\n%b\r\n" % (100_000, b"x" * 100_000))
            await execute(client, "true")  # meanwhile a reset would have come
        await polite.send(b"0\r\n\r\n")
        assert (await polite.head())[0] == 413


async def test_a_body_of_tens_of_mib_is_taken_by_default(procd: MakeClient) -> None:
    client = await procd()
    body = json_body({"command": "echo ran", "more": "x" * (40 << 20)})
    async with client.post("/process/execute", data=body) as reply:
        assert (await reply.json())["result"] == "ran\n"


@each(
    ("header", "body"),
    [
        ("Content-Length: 5000", b'{"command": "echo ran >{file}"'),
        ("Content-Length: 5000", b'{"command": "echo ran >{file}"}'),
        ("Transfer-Encoding: chunked", b'1388\r\n{"command": "echo ran >{file}"}'),
    ],
)
@each("way", ["reset", "leave"])
async def test_vanishing_in_the_middle_of_a_body(
    procd: MakeClient, tmp_path: Path, header: str, body: bytes, way: str
) -> None:
    client = await procd()
    file = tmp_path / "ran"
    async with raw(client) as rude:
        await rude.request(f"POST /process/execute HTTP/1.1\n{header}")
        await rude.send(body.replace(b"{file}", str(file).encode()))
        assert await execute(client, "true")
        rude.reset() if way == "reset" else await rude.leave()
    assert await execute(client, "true")
    assert not file.exists()


@each(
    ("number", "reason"),
    [
        ("1" * 501, "a number has too many digits"),
        ("-" + "1" * 5000, "a number has too many digits"),
        ("1" * 500, "timeout: must be an integer from 0 to 4294967295"),
        ("NaN", "NaN is not JSON"),
        ("-Infinity", "-Infinity is not JSON"),
    ],
)
async def test_numbers_that_cannot_be_taken(procd: MakeClient, number: str, reason: str) -> None:
    client = await procd()
    body = f'{{"command": "echo ran", "timeout": {number}}}'
    async with client.post("/process/execute", data=body) as reply:
        refusal = await refused(reply, 400, "INVALID_REQUEST_BODY")
    assert refusal["message"] == f"invalid request body: {reason}"


@each(("path", "status"), [("/process/execute", 400), ("/process/nope", 404)])
async def test_the_connection_outlives_a_bad_request(
    procd: MakeClient, path: str, status: int
) -> None:
    """What is asked next is answered, and what is left of a body that nobody reads is dropped."""
    client = await procd()
    body = b"{" * 100
    late = len(body) if status == 400 else 50
    async with raw(client) as patient:
        for _ in range(3):
            await patient.request(f"POST {path} HTTP/1.1\nContent-Length: {len(body)}", body[:late])
            answer, headers = await patient.head()
            assert answer == status
            (size,) = (line[16:] for line in headers if line.startswith("Content-Length: "))
            await patient.exactly(int(size))
            await patient.send(body[late:])


@each("framing", ["length", "chunked"])
@each("size", [1000, 65_536, 131_073, 600_000, 3_000_000])
async def test_what_is_asked_right_behind_a_long_body(
    procd: MakeClient, size: int, framing: str
) -> None:
    """It is answered, wherever reading was held meanwhile; behind a body in chunks nothing is."""
    client = await procd()
    begin = b'{"command": "echo first", "unknown": "'
    body = begin + b"x" * (size - len(begin) - 2) + b'"}'
    header = f"Content-Length: {size}"
    if framing == "chunked":
        header = "Transfer-Encoding: chunked"
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (size, body)
    async with raw(client) as eager:
        head = f"POST /process/execute HTTP/1.1\r\nHost: localhost\r\n{header}\r\n\r\n".encode()
        last = b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n"
        answers = [b'"first\\n"', b'"first\\n"', b'"version"']
        if framing == "chunked":
            del answers[1:]
            await eager.send(head + body)
        else:
            await eager.send(2 * (head + body) + last)
        for said in answers:
            status, headers = await eager.head()
            assert status == 200
            lengths = [line[16:] for line in headers if line.startswith("Content-Length: ")]
            # A reply that takes long to encode, on a machine under load, comes in chunks.
            reply = await (eager.exactly(int(lengths[0])) if lengths else unchunked(eager))
            assert said in reply
