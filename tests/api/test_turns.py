"""Many are started or ended at once: few in each turn of the event loop; what holds meanwhile."""

import asyncio
import os
import shlex
import signal
import sys
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from procd.api.health import READINESS
from procd.api.interpreter import CONTEXTS
from procd.api.pty import PTYS
from procd.api.pty_replay import PIECE_BYTES
from procd.api.sessions import SESSIONS
from procd.app import PROCESSES
from procd.errors import SessionEnded
from procd.http.websocket import CONNECTIONS
from procd.process.supervisor import SPAWNS_A_TURN
from procd.services.interpreter.context import STATE_LOST
from procd.services.pty.sessions import REPLAY_PIECES
from procd.throttle import STEPS, Turns
from procd.unix.pidfd import wait_ended
from tests.aliases import Client, MakeClient
from tests.api import cells, sessions
from tests.api.clients import Raw, attach, connect, create, delete, listed, program, raw, refused
from tests.opened import opened_files
from tests.trees import members_of
from tests.waiting import until

MANY: Final = 20
CREATE: Final = '/process/pty {{"id": "{}"}}'
Do = Callable[[Client, str], Coroutine[Any, Any, None]]
SESSION: Final = '/process/session {{"sessionId": "{}"}}'


async def served(procd: MakeClient, tmp_path: Path, **config: dict[str, Any]) -> Client:
    """A server whose shells do nothing."""
    return await procd(process={"shell": program(tmp_path, "read x")}, **config)


@asynccontextmanager
async def at_once(client: Client, requests: Iterable[str]) -> AsyncIterator[list[Raw]]:
    """Send requests in one turn of the loop; each a path to upgrade at, or what to post there."""
    async with AsyncExitStack() as stack:
        sent = [(await stack.enter_async_context(raw(client)), each) for each in requests]
        for who, each in sent:
            path, _, body = each.partition(" ")
            if body:
                head = f"POST {path} HTTP/1.1\nContent-Length: {len(body)}"
                await who.request(head, body.encode())
            else:
                await who.ask_upgrade(path)
        yield [who for who, _ in sent]


async def answers(clients: list[Raw]) -> Counter[int]:
    """How often each status is answered."""
    return Counter([(await each.head())[0] for each in clients])


class Rise:
    """By how much a figure rises, and how much of that in one turn of the loop at most."""

    def __init__(self, figure: Callable[[], int]) -> None:
        self._figure = figure
        self._before = self._now = figure()
        self.most = 0
        self._watched = asyncio.get_running_loop().call_soon(self._watch)

    def _watch(self) -> None:
        now = self._figure()
        self.most = max(self.most, now - self._now)
        self._now = now
        self._watched = asyncio.get_running_loop().call_soon(self._watch)

    def stop(self) -> int:
        """Watch no more; by how much it rose."""
        self._watched.cancel()
        return self._figure() - self._before


def starts_of(client: Client) -> Rise:
    """The processes that are started."""
    counts = client.app[PROCESSES].spawn_times.counts
    return Rise(lambda: sum(counts))


@contextmanager
def none_of(turns: Turns) -> Iterator[deque[asyncio.Future[None]]]:
    """Nobody's turn comes in here; those who wait for theirs."""
    pieces, turns._pieces = turns._pieces, 0
    try:
        yield turns._waiting
    finally:
        turns._pieces = pieces
        turns._next()


@pytest.mark.parametrize(
    "request_of",
    [
        '/process/execute {{"command": "x"}}',
        SESSION,
        CREATE,
        "/process/pty/create-connect?id={}",
        "/process/pty/{}/connect",
        "/process/interpreter/context {{}}",
    ],
)
async def test_many_starts_are_spread(procd: MakeClient, tmp_path: Path, request_of: str) -> None:
    client = await served(procd, tmp_path)
    if request_of.endswith("}/connect"):
        for number in range(MANY):
            await create(client, str(number), lazyStart=True)
    starts = starts_of(client)
    async with at_once(client, [request_of.format(number) for number in range(MANY)]) as clients:
        answered = await answers(clients)
    assert starts.stop() == MANY == answered[200] + answered[201] + answered[101]
    assert starts.most <= 2 * SPAWNS_A_TURN  # a turn of ours may have the end of one and the next


@pytest.mark.parametrize(("limit", "refusal"), [(2, 409), (1, 429)])
async def test_what_is_asked_for_is_checked_when_its_turn_comes(
    procd: MakeClient, tmp_path: Path, limit: int, refusal: int
) -> None:
    """Of two who ask for one id, or for the last place, one gets it."""
    places = {"max_sessions": limit}
    client = await served(procd, tmp_path, pty=places, sessions=places)
    ids = ("a", "a") if limit > 1 else ("a", "b")
    for request_of in CREATE, SESSION:
        async with at_once(client, map(request_of.format, ids)) as clients:
            with none_of(client.app[PROCESSES].turns) as waiting:
                await until(lambda: len(waiting) == 2)
            assert await answers(clients) == {201: 1, refusal: 1}


async def test_who_goes_before_the_turn_comes_gets_nothing(
    procd: MakeClient, tmp_path: Path
) -> None:
    client = await served(procd, tmp_path)
    starts = starts_of(client)
    requests = [CREATE.format("a"), "/process/pty/create-connect?id=b", SESSION.format("c")]
    with none_of(client.app[PROCESSES].turns) as waiting:
        async with at_once(client, requests) as clients:
            await until(lambda: len(waiting) == len(requests))
            for each in clients:
                each.reset()
            await until(lambda: all(each.cancelled() for each in waiting))
    assert starts.stop() == 0
    assert await listed(client) == []


async def test_a_lazy_session_is_deleted_before_the_turn_of_its_start(
    procd: MakeClient, tmp_path: Path
) -> None:
    client = await served(procd, tmp_path)
    await create(client, "lazy", lazyStart=True)
    starts = starts_of(client)
    async with asyncio.TaskGroup() as group:
        with none_of(client.app[PROCESSES].turns) as waiting:
            attaching = group.create_task(attach(client, "/process/pty/lazy/connect"))
            await until(lambda: bool(waiting))
            await delete(client, "lazy")
    assert "not found" in attaching.result().connected["error"]
    assert starts.stop() == 0


async def test_a_context_is_deleted_before_the_turn_of_its_start(procd: MakeClient) -> None:
    client = await procd()
    context_id = await cells.create(client)
    context = client.app[CONTEXTS].get(context_id)
    assert context.pid is not None
    os.kill(context.pid, signal.SIGKILL)
    await until(lambda: context.pid is None)
    starts = starts_of(client)
    async with asyncio.TaskGroup() as group:
        with none_of(client.app[PROCESSES].turns) as waiting:
            asking = group.create_task(client.get(f"{cells.CONTEXTS}/{context_id}/variables"))
            await until(lambda: bool(waiting))
            group.create_task(cells.delete(client, context_id))
            await until(lambda: context_id not in client.app[CONTEXTS]._contexts)
    await refused(asking.result(), 404, "PROCESS_NOT_FOUND")
    assert starts.stop() == 0


async def test_procd_stops_before_the_turn_comes(procd: MakeClient, tmp_path: Path) -> None:
    client = await served(procd, tmp_path)
    starts = starts_of(client)
    async with (
        at_once(client, map(CREATE.format, range(2))) as clients,
        asyncio.TaskGroup() as group,
    ):
        with none_of(client.app[PROCESSES].turns) as waiting:
            await until(lambda: len(waiting) == 2)
            group.create_task(client.close())
            await until(lambda: client.app[READINESS].stopping)
        assert await answers(clients) == {500: 2}
    assert starts.stop() == 0


@pytest.mark.parametrize(
    ("path", "create_it", "delete_it"),
    [
        ("/process/pty/a", create, delete),
        ("/process/session/a", sessions.create, sessions.delete),
    ],
)
async def test_who_is_deleted_waits_for_a_turn_to_be_looked_for(
    procd: MakeClient, tmp_path: Path, path: str, create_it: Do, delete_it: Do
) -> None:
    """To be told and to be killed, but behind nobody who starts; its id is free meanwhile."""
    client = await served(procd, tmp_path)
    await create_it(client, "a")
    processes = client.app[PROCESSES]
    with none_of(processes.turns):
        async with asyncio.TaskGroup() as group:
            group.create_task(delete_it(client, "a"))
            for _ in "told", "killed":
                with none_of(processes.trees.turns) as waiting:
                    await until(lambda: len(waiting) == 1)
                    async with client.get(path) as reply:
                        await refused(reply, 404, "PROCESS_NOT_FOUND")
    assert processes.supervised == 0


async def test_a_context_waits_for_a_turn_to_be_looked_for(procd: MakeClient) -> None:
    """To be told and to be killed, as it is deleted."""
    client = await procd()
    context_id = await cells.create(client)
    async with asyncio.TaskGroup() as group:
        with none_of(client.app[PROCESSES].trees.turns) as waiting:
            group.create_task(cells.delete(client, context_id))
            await until(lambda: len(waiting) == 1)
            waiting.popleft().set_result(None)
            # Its end, if it is heard of first, is a reason to kill what it has left as well.
            await until(lambda: bool(waiting))


async def test_code_whose_time_is_up_waits_for_a_turn_to_be_killed(procd: MakeClient) -> None:
    client = await procd(interpreter={"grace_s": 0.01})
    code = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nsignal.pause()"
    cell = await cells.start(client, code, timeout=1)
    with none_of(client.app[PROCESSES].trees.turns) as waiting:
        await until(lambda: len(waiting) == 1)
    await cell.to_end()
    assert cell.close == (4008, STATE_LOST)


async def test_replays_take_turns(procd: MakeClient, tmp_path: Path) -> None:
    """Those of many clients that attach at once: to be measured, and to be sent."""
    size = 4 * PIECE_BYTES
    text = f"stty raw; head -c {size} /dev/zero | tr '\\0' x; read x"
    client = await procd(process={"shell": program(tmp_path, text)})
    await create(client, "a")
    await (await connect(client, "a")).until_size(size)
    ptys = client.app[PTYS]
    traffic = client.app[CONNECTIONS].traffic
    async with at_once(client, ["/process/pty/a/connect"] * MANY) as clients:
        with none_of(ptys.replays) as waiting:
            await until(lambda: len(waiting) == MANY)
            sent = Rise(lambda: traffic.sent_bytes)
        assert await answers(clients) == {101: MANY}
        for each in clients:
            assert len(await each.output(size)) == size
    assert sent.stop() > MANY * size
    assert sent.most < (2 * REPLAY_PIECES + 1) * PIECE_BYTES


async def test_what_is_cut_off_waits_for_a_turn_to_be_killed(procd: MakeClient) -> None:
    """Whether its time is up or its client has gone; and for each look that follows."""
    client = await procd(execute={"default_timeout_s": 0.1})
    processes = client.app[PROCESSES]
    requests = [
        '/process/execute {"command": "sleep 3600"}',
        '/process/execute {"command": "sleep 3600", "timeout": 3600}',
    ]
    async with at_once(client, requests) as (late, gone):
        with none_of(processes.trees.turns) as waiting:
            assert (await late.head())[0] == 408
            await until(lambda: processes.supervised == 2)
            gone.reset()
            await until(lambda: len(waiting) == 2)
            assert processes.supervised == 2
        with none_of(processes.trees.turns) as waiting:
            await until(lambda: not processes.supervised and len(waiting) == 2)
        await until(lambda: not processes.trees.turns._begun)


async def test_what_a_command_of_a_session_has_started_waits_for_a_turn_to_be_killed(
    procd: MakeClient,
) -> None:
    """As its time is up, and once more for its background."""
    client = await procd()
    await sessions.create(client)
    path = sessions.path_of(await sessions.start(client, "sleep 3600", timeout=1))
    looks = client.app[PROCESSES].trees.turns
    with none_of(looks) as waiting:
        await until(lambda: len(waiting) == 1)
        assert "exitCode" not in await sessions.get(client, path)
    with none_of(looks) as waiting:
        await until(lambda: len(waiting) == 1)
        assert "exitCode" in await sessions.get(client, path)


# Forks so many who stay, and stays.
CROWD: Final = f"""
import os, signal
for _ in range({10 * STEPS}):
    if not os.fork():
        signal.pause()
print("up", flush=True)
signal.pause()
"""


async def _signal(client: Client, command_id: str) -> None:
    url = f"{sessions.path_of(command_id)}/signal"
    async with client.post(url, json={"signal": "SIGTERM"}) as reply:
        assert reply.status == 204


async def _terminate(client: Client, command_id: str) -> None:
    async with client.post(f"{sessions.path_of(command_id)}/terminate") as reply:
        assert reply.status == 204


async def _delete(client: Client, command_id: str) -> None:
    command = client.app[SESSIONS].get("s").commands.get(command_id)
    await sessions.delete(client)
    with pytest.raises(SessionEnded, match="was deleted"):
        await command.done


async def _stop(client: Client, _: str) -> None:
    await client.close()


@pytest.mark.parametrize("end", [_signal, _terminate, _delete, _stop])
async def test_a_large_tree_is_ended_in_several_turns(
    procd: MakeClient, tmp_path: Path, end: Do
) -> None:
    """However it is; nobody of it is left, and whatever it was told comes before."""
    client = await sessions.of_shell(procd, sessions.SHELLS["bash"])
    (tmp_path / "crowd").write_text(CROWD)
    crowd = f"{shlex.quote(sys.executable)} -S -E {tmp_path / 'crowd'}"
    command_id = await sessions.start(client, crowd)
    await (await sessions.follow(client, command_id)).until(b"up")
    processes = client.app[PROCESSES]
    processes.trees.turns._pieces = 1
    (tree,) = (each.record.tree for each in processes._unsettled)
    everyone = members_of(tree, processes.children)
    assert len(everyone) > 10 * STEPS
    with opened_files() as opened:
        looking = Rise(lambda: len(opened))
        await end(client, command_id)
        everyone.pop(tree.leader, None)
        assert await wait_ended(everyone, 10)
        assert looking.stop() > 20 * STEPS
    assert looking.most < 8 * STEPS
