"""Random operations of many clients at once, and a model of what must come of them.

With a seed always the same is done, but not always at the same times: those are the machine's.
"""

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from tests.aliases import Client, MakeClient
from tests.api.clients import Terminal, attach, connect
from tests.api.sessions import (
    create,
    delete,
    ended,
    follow,
    keeps_session,
    logs,
    post_exec,
    run,
    start,
    terminate,
    type_in,
)

# Writes as many numbered lines more as it is told, and nothing else.
NUMBERS = """
import os, tty
tty.setraw(0)
os.write(1, b"begin\\n")
number, typed = 0, b""
while True:
    typed += os.read(0, 65536)
    *lines, typed = typed.split(b"\\n")
    for line in lines:
        if line.startswith(b"exit"):
            os._exit(int(line[4:]))
        output = b"".join(b"%09d\\n" % each for each in range(number, number + int(line)))
        number += int(line)
        while output:
            output = output[os.write(1, output) :]
"""
LINE_BYTES = 10


async def pause(rng: Random) -> None:
    """Let others go on for a moment; there is nothing to wait for: any moment is to do."""
    await asyncio.sleep(rng.choice((0, rng.random() * 0.003, rng.random() * 0.03)))


@dataclass
class Numbers:
    """A terminal whose output is known by heart from offset `begin` on.

    Attributes:
        lines: how many have been asked for.
    """

    client: Client
    id: str
    begin: int = 0
    lines: int = 0

    @property
    def end(self) -> int:
        """The offset after all that was asked for."""
        return self.begin + self.lines * LINE_BYTES

    async def ask(self, terminal: Terminal, rng: Random) -> None:
        lines = rng.choice((0, 1, 100, 10_000))
        self.lines += lines
        await terminal.type(b"%d\n" % lines)

    def check(self, offset: int, output: bytes | bytearray) -> None:
        number, skip = divmod(offset - self.begin, LINE_BYTES)
        known = range(number, number + len(output) // LINE_BYTES + 2)
        text = b"".join(b"%09d\n" % each for each in known)[skip:][: len(output)]
        assert output == text, f"at {offset}"

    async def visits(self, rng: Random) -> None:
        """A client that comes, asks, reads or not, goes, and comes again where it was."""
        offset = self.begin
        for _ in range(rng.randint(1, 5)):
            terminal = await connect(self.client, self.id, f"?offset={offset}")
            assert terminal.connected["offset"] == offset
            for _ in range(rng.randint(0, 4)):
                if rng.random() < 0.5:
                    await self.ask(terminal, rng)
                await pause(rng)
            if rng.random() < 0.5:  # it reads, and is cut off
                await terminal.until_size(self.end - offset)
                terminal.ws._writer.transport.abort()
            await terminal.ws.close()
            self.check(offset, terminal.output)
            offset += len(terminal.output)


async def a_terminal(
    client: Client, rng: Random, name: str, directory: Path, *, kept: bool
) -> None:
    """Nobody misses or gets twice what a terminal says, and all that is typed comes to it."""
    path = directory / name
    path.write_text(NUMBERS)
    first = await attach(client, f"/process/pty/create-connect?id={name}")
    await first.type(f"exec {sys.executable} -IS {path}\n".encode())
    await first.until(b"begin\n")
    numbers = Numbers(client, name, begin=len(first.output))
    await asyncio.gather(*[numbers.visits(Random(rng.random())) for _ in range(3)])
    code = rng.choice((0, 3))
    await numbers.ask(first, rng)
    await first.type(b"exit %d\n" % code)
    last = await connect(client, name, f"?offset={numbers.begin}")
    for terminal in first, last:
        await terminal.to_end()
        assert terminal.ending["exitCode"] == code
        await terminal.ws.close()
    assert first.output[numbers.begin :] == last.output
    assert len(last.output) == numbers.lines * LINE_BYTES
    numbers.check(numbers.begin, last.output)


async def a_shell(client: Client, rng: Random, name: str, _: Path, *, kept: bool) -> None:
    """Each command has its own output and exit code, and finds what those before have left."""
    await create(client, name)
    state = 0
    for number in range(rng.randint(3, 10)):
        out, err, code = "", "", 0
        match rng.randint(0, 3):
            case 0:
                command, state = f"state={number}", number
            case 1:
                command, out = "echo ${state:-0}", f"{state}\n"
            case 2:
                count, code = rng.choice((10, 3000)), rng.choice((0, 7))
                out = err = "".join(f"{each}\n" for each in range(1, count + 1))
                command = f"seq {count}; seq {count} >&2; (exit {code})"
            case _:
                command, out = f"cat <<E\n{number}\nE", f"{number}\n"
        command_id = await start(client, command, name)
        await pause(rng)
        follower = await follow(client, command_id, name)
        if rng.random() < 0.7:
            await follower.to_end()
            assert follower.streams == {1: out.encode(), 2: err.encode()}
        await follower.ws.close()
        assert (await ended(client, command_id, name))["exitCode"] == code
        said = await logs(client, command_id, name)
        assert (said["stdout"], said["stderr"]) == (out, err)
    last, code = rng.choice((("exit 5", 5), ("kill -9 $$", 137), ("exec sh -c 'exit 6'", 6)))
    assert (await run(client, last, name))["exitCode"] == code
    assert (await post_exec(client, "true", name)).status == 410
    await delete(client, name)


# What ends amid one of these is not to come to its end, and so to make the file.
AMID = (
    "cat >{0}.part && mv {0}.part {0}",
    "cat >{0}.part; mv {0}.part {0}",
    "read -r x; read -r y; echo >{0}",
    "while read -r x; do :; done; echo >{0}",
    "sleep 1000; echo >{0}",
    "sh -c 'sleep 1000; echo >{0}'; echo >{0}",
    "(sleep 1000; echo >{0}) & wait; echo >{0}",
)


async def ends_at_once(
    client: Client, rng: Random, name: str, directory: Path, *, kept: bool
) -> None:
    """What is ended does nothing more, and nobody takes half of its input for all of it."""
    way = rng.choice(("terminate", "terminate", "timeout", "delete"))
    names = [f"{name}-{number}" for number in range(rng.choice((3, 12)))]
    text = rng.choice(AMID)
    files = [directory / each for each in names]
    limit = {"timeout": 1} if way == "timeout" else {}

    async def end(session_id: str, command_id: str) -> None:
        if way == "terminate":
            await terminate(client, command_id, session_id, kept=kept)
        if way == "delete":
            await delete(client, session_id)
            return
        assert (await ended(client, command_id, session_id))["exitCode"] not in {0, None}
        if kept:
            assert (await run(client, "echo $state", session_id))["output"] == "kept\n"
        else:
            assert (await post_exec(client, "echo $state", session_id)).status == 410

    await asyncio.gather(*[create(client, each) for each in names])
    await asyncio.gather(*[run(client, "state=kept", each) for each in names])
    ids = await asyncio.gather(
        *[
            start(client, text.format(file), each, **limit)
            for each, file in zip(names, files, strict=True)
        ]
    )
    if rng.random() < 0.7:
        typing = [
            type_in(client, command, "half", each) for each, command in zip(names, ids, strict=True)
        ]
        late = {410} if way == "timeout" else set()  # on a machine that is busy
        assert {reply.status for reply in await asyncio.gather(*typing)} <= {204} | late
    await pause(rng)
    await asyncio.gather(*map(end, names, ids))
    if way != "delete":
        await asyncio.gather(*[delete(client, each) for each in names])
    assert not [file for file in files if file.exists()], (way, text)


ACTORS = (a_terminal, a_shell, ends_at_once)


@pytest.mark.parametrize("seed", range(4))
async def test_random_operations(procd: MakeClient, shell: str, tmp_path: Path, seed: int) -> None:
    rng = Random(seed)
    client = await procd(process={"shell": shell}, sessions={"grace_s": 1.0})
    async with asyncio.TaskGroup() as actors:
        for number in range(5):
            actor, chance = rng.choice(ACTORS), Random(rng.random())
            kept = keeps_session(shell)
            actors.create_task(actor(client, chance, f"o{number}", tmp_path, kept=kept))
    for path, nothing in (("session", b"[]"), ("pty", b'{"sessions":[]}')):
        async with client.get(f"/process/{path}") as reply:
            assert await reply.read() == nothing
