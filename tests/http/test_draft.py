"""Replies whose text is encoded while the command runs: the same as any other."""

import asyncio
import errno
import json
import mmap
import os
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from procd.app import PROCESSES
from procd.http.draft import STEP_BYTES, Draft
from procd.http.output_text import OutputText
from procd.output.budget import LEAST_TAIL_BYTES, Budget
from procd.output.buffer import Backlog
from procd.output.log import Log
from procd.process.process import PIPE_BURST_BYTES, STDERR, STDOUT
from tests.aliases import MakeClient
from tests.allocations import ALLOCATIONS, short
from tests.api.clients import Gate, each, execute, until
from tests.api.sessions import create, ended, get, logs, post_exec, run

LINES = b"".join(b"%d\n" % number for number in range(1, 100_001))
TEXT = 'a"\\\x00\x1f\x7f\u20ac\U0001f600\xe9\n'.encode() * 30_000
BYTES = random.Random(1).randbytes(400_000)


@each(
    ("out", "err", "script"),
    [
        (LINES, b"", "cat out"),
        (TEXT, b"", "cat out"),
        (BYTES, b"", "cat out"),
        (LINES, b"", "cat out & wait; echo on"),
        (b"x" * 300_000 + b"\xf0\x9f", b"", "cat out"),
        (b"", LINES, "cat err >&2"),
        (TEXT, b"end", "cat out; cat err >&2"),
        (LINES, TEXT, "cat out; cat err >&2; cat out"),
        (LINES * 4, b"", "cat out"),
    ],
)
async def test_a_long_reply(
    procd: MakeClient, tmp_path: Path, out: bytes, err: bytes, script: str
) -> None:
    client = await procd(process={"work_dir": str(tmp_path)})
    (tmp_path / "out").write_bytes(out)
    (tmp_path / "err").write_bytes(err)
    await create(client)
    body = await run(client, script)
    said = {
        "stdout": (out * script.count("cat out")) + b"on\n" * script.count("echo on"),
        "stderr": err,
    }
    for stream, data in said.items():
        assert body[stream] == data.decode(errors="replace")
    assert body | await logs(client, body["cmdId"]) == body
    assert client.app[PROCESSES].memory.used_bytes == 0


async def test_what_is_no_longer_kept(procd: MakeClient) -> None:
    client = await procd(sessions={"max_log_bytes": 2 << 20})
    await create(client)
    body = await run(client, "seq 500000")
    assert body["truncated"]
    whole = "".join(f"{number}\n" for number in range(1, 500_001))
    assert body["stdout"] == whole[body["firstAvailableOffset"] :]


async def test_memory_that_is_all_in_use(procd: MakeClient) -> None:
    client = await procd()
    memory = client.app[PROCESSES].memory
    await create(client)
    memory.used_bytes = used_bytes = memory.most_bytes - 100_000
    body = await run(client, "seq 200000")
    assert body["stdout"] == "".join(f"{number}\n" for number in range(1, 200_001))
    assert memory.used_bytes == used_bytes
    memory.used_bytes = 0


async def test_a_client_that_goes(procd: MakeClient, gate: Gate) -> None:
    """Its command goes on, and nothing is kept for it."""
    client = await procd()
    memory = client.app[PROCESSES].memory
    await create(client)
    command = f"seq 100000; read x <{gate}; echo over"
    asking = asyncio.ensure_future(post_exec(client, command))

    async def kept() -> bool:
        await get(client, "/process/session/s")
        return memory.used_bytes > len(LINES) - STEP_BYTES - PIPE_BURST_BYTES > 0

    await until(kept)
    asking.cancel()
    with suppress(asyncio.CancelledError):
        await asking

    async def forgotten() -> bool:
        await get(client, "/process/session/s")
        return memory.used_bytes == 0

    await until(forgotten)
    gate.open()
    (command,) = (await get(client, "/process/session/s"))["commands"]
    assert (await ended(client, command["id"]))["exitCode"] == 0
    assert (await logs(client, command["id"]))["stdout"] == LINES.decode() + "over\n"


@each(
    ("out", "err", "script"),
    [
        (LINES, b"", "cat out"),
        (TEXT, b"", "cat out"),
        (BYTES, b"", "cat out"),
        (b"x" * 300_000 + b"\xf0\x9f", b"", "cat out"),
        (b"", LINES, "cat err >&2"),
        (TEXT, b"end", "cat out; cat err >&2"),
        (LINES, TEXT, "cat out; cat err >&2; cat out"),
        (LINES * 10, b"", "cat out"),
    ],
)
async def test_a_long_reply_of_execute(
    procd: MakeClient, tmp_path: Path, out: bytes, err: bytes, script: str
) -> None:
    client = await procd(process={"work_dir": str(tmp_path)})
    (tmp_path / "out").write_bytes(out)
    (tmp_path / "err").write_bytes(err)
    body = await execute(client, script)
    assert body["exitCode"] == 0
    assert body["stdout"] == (out * script.count("cat out")).decode(errors="replace")
    assert body["stderr"] == err.decode(errors="replace")
    if not (out and err):
        assert body["result"] == body["stdout"] + body["stderr"]
    memory = client.app[PROCESSES].memory

    async def given_back() -> bool:
        await execute(client, "true")
        return memory.used_bytes == 0 and not memory.caches

    await until(given_back)


async def test_a_long_reply_of_code_run(procd: MakeClient) -> None:
    client = await procd()
    code = "for number in range(1, 300_001): print(number)"
    async with client.post("/process/code-run", json={"code": code, "language": "python"}) as reply:
        body = await reply.json()
    assert body["exitCode"] == 0
    assert body["result"] == "".join(f"{number}\n" for number in range(1, 300_001))


async def test_too_much_output(procd: MakeClient) -> None:
    """Head and tail are what they would be without a draft."""
    client = await procd(execute={"max_output_bytes": 1 << 20})
    body = await execute(client, "seq 500000")
    whole = "".join(f"{number}\n" for number in range(1, 500_001))
    gap = f"\n[... {len(whole) - (1 << 20)} bytes dropped ...]\n"
    assert body["truncated"]
    assert body["stdout"] == whole[: 1 << 19] + gap + whole[-(1 << 19) :] == body["result"]


async def test_output_goes_before_drafts(procd: MakeClient) -> None:
    """A draft is dropped where output would have no room for it, and nobody sees that."""
    client = await procd()
    memory = client.app[PROCESSES].memory
    whole = "".join(f"{number}\n" for number in range(1, 300_001))
    memory.used_bytes = used_bytes = memory.most_bytes - len(whole) - (256 << 10)
    body = await execute(client, "seq 300000")
    assert body["stdout"] == whole == body["result"]
    assert "truncated" not in body

    async def given_back() -> bool:
        async with client.get("/process/session"):
            return memory.used_bytes == used_bytes

    await until(given_back)
    memory.used_bytes = 0


async def test_no_memory_for_a_draft(procd: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reply is encoded at the end then."""
    asked: list[int] = []
    whole = mmap.mmap

    def refuse_once(fileno: int, size: int, flags: int) -> mmap.mmap:
        asked.append(size)
        if len(asked) == 1:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        return whole(fileno, size, flags)

    def refuse_text(value: object, dumps: Callable[..., str] = json.dumps, **how: object) -> str:
        if how:
            raise MemoryError
        return dumps(value)  # what this test says itself

    monkeypatch.setattr(mmap, "mmap", refuse_once)
    monkeypatch.setattr("procd.http.encoder.json.dumps", refuse_text)
    line = "the quick brown fox jumps over the lazy dog"
    body = await execute(await procd(), f"yes '{line}' | head -n 30000")
    assert len(asked) > 1
    assert body["stdout"] == f"{line}\n" * 30_000


def drafted(memory: Budget, *said: tuple[int, bytes], most_bytes: int = 1 << 30) -> Draft:
    """A draft of a log to which this was said, in long pieces."""
    log = Log(Backlog(64 << 20), 0)  # which is counted nowhere
    draft = Draft(memory, most_bytes)
    draft.follow(log)
    for stream, data in said:
        log.append(data, stream)
    return draft


SAID = (STDOUT, b"x" * STEP_BYTES)


def test_a_draft_goes_where_others_need_its_memory() -> None:
    """As long as it isn't being sent."""
    memory = Budget(1 << 20)
    for is_sent in False, True:
        draft = drafted(memory, SAID, SAID)
        assert memory.used_bytes == 2 * STEP_BYTES
        text = OutputText(Backlog(0))
        if is_sent:
            assert draft.of(text)
        memory.relieve(memory.most_bytes - LEAST_TAIL_BYTES)
        assert (memory.used_bytes > 0) == bool(draft.of(text)) == is_sent
        draft.close()
        assert memory.used_bytes == 0


@pytest.mark.parametrize(
    ("most_bytes", "room_bytes", "stream", "kept"),
    [
        (3 * STEP_BYTES, 4 * STEP_BYTES, STDOUT, True),
        (3 * STEP_BYTES - 1, 4 * STEP_BYTES, STDOUT, False),
        (3 * STEP_BYTES, 3 * STEP_BYTES, STDOUT, False),
        (3 * STEP_BYTES, 4 * STEP_BYTES, STDERR, False),
    ],
    ids=["fits", "too long", "no room", "another stream"],
)
def test_a_draft_is_given_up(most_bytes: int, room_bytes: int, stream: int, kept: bool) -> None:
    """When it gets too long, or leaves no room for output, or a second stream comes."""
    memory = Budget(room_bytes)
    draft = drafted(memory, SAID, SAID, (stream, SAID[1]), most_bytes=most_bytes)
    assert bool(draft.of(OutputText(Backlog(0)))) == kept
    assert memory.used_bytes == (3 * STEP_BYTES if kept else 0)
    assert not memory.caches
    draft.close()
    assert memory.used_bytes == 0


def test_no_memory_to_hear_with() -> None:
    """Nothing is left out of a draft: it has all that was said, or there is none."""
    made = 0
    for number in ALLOCATIONS:
        memory = Budget(1 << 30)
        log = Log(Backlog(1 << 20, budget=memory), 0)
        draft = Draft(memory)
        draft.follow(log)
        log.append(LINES[:100_000], STDOUT)
        if short(number, lambda log=log: log.append(LINES[100_000:200_000], STDOUT)):  # type: ignore[misc]  # it takes no argument
            log.append(LINES[100_000:200_000], STDOUT)
        log.append(LINES[200_000:], STDOUT)
        text = OutputText(log.store)
        made_of = draft.of(text)
        if made_of:
            made += 1
            (pieces,) = made_of.values()
            assert json.loads(b"".join(pieces)).encode() == LINES
        draft.close()
        del log, text, draft, made_of
    assert 0 < made < len(ALLOCATIONS)


@pytest.mark.parametrize(
    ("end", "status", "known"),
    [
        ("exit 3", 500, {"message": "no memory for the reply", "exitCode": 3}),
        ("sleep 1000", 408, {"message": "command execution timeout; no memory for the reply"}),
    ],
)
async def test_no_memory_for_a_reply(
    procd: MakeClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    end: str,
    status: int,
    known: dict[str, object],
) -> None:
    """That is said, and with it what takes none."""

    def refuse(fileno: int, size: int, flags: int) -> mmap.mmap:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    def refuse_text(*_: object, **__: object) -> str:
        raise MemoryError

    monkeypatch.setattr(mmap, "mmap", refuse)
    monkeypatch.setattr("procd.http.encoder.json.dumps", refuse_text)
    client = await procd()
    words = "the quick brown fox jumps over the lazy dog"
    command = f"yes '{words}' | head -n 30000; {end}"
    body = {"command": command, "timeout": 3}
    async with client.post("/process/execute", json=body) as reply:
        assert reply.status == status
        told = await reply.json()
    assert told.items() >= known.items()
    assert told["statusCode"] == status
    assert "failed" not in caplog.text
