"""Shell sessions as users of the official Python SDK see them, in both of its flavours.

Source: Process API contract, sections 8, 9, 13.5, 13.6 and 19 (items 4 to 7 and 13).
"""

import asyncio
import gc
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest
import uvloop
from daytona import (
    DaytonaBadRequestError,
    DaytonaCommandAlreadyCompletedError,
    DaytonaConflictError,
    DaytonaError,
    DaytonaNotFoundError,
    DaytonaProcessNotFoundError,
    DaytonaSessionEndedError,
    SessionExecuteRequest,
    SessionExecuteResponse,
)
from daytona._async.process import AsyncProcess
from daytona._sync.process import Process
from daytona.common.process import SessionCommandLogsResponse

from tests.compat.python.sdk import AsyncSdk, SyncSdk
from tests.daemon.daemon import PATIENCE_S, Daemon

T = TypeVar("T")

MARKERS: Final = {b"\x01\x01\x01": "stdout", b"\x02\x02\x02": "stderr"}
ENTRYPOINT: Final = ("sh", "-c", "echo it\\'s up; echo careful >&2; exit 4")
# Characters of one to four bytes, whose sum of lengths is prime to any size of a buffer.
TEXT: Final = "aéz€\t😀ñ\n"


StartDaemon = Callable[..., Daemon]


@pytest.fixture(scope="module")
def daemons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartDaemon]:
    """Daemons by arguments, shared by the tests, which must leave nothing in them."""
    home = tmp_path_factory.mktemp("home")
    running: dict[tuple[str, ...], Daemon] = {}
    idle: dict[Daemon, int] = {}

    def daemon(loop: str, *arguments: str) -> Daemon:
        key = (loop, *arguments)
        if key not in running:
            running[key] = Daemon.start(
                *arguments, env={"PROCD_SERVER_LOOP": loop, "HOME": str(home)}
            )
            if not arguments:  # an entrypoint's session lasts, and has descriptors of its own
                idle[running[key]] = running[key].idle_descriptors()
        return running[key]

    yield daemon
    gc.collect()  # exceptions of the sync SDK hold its connections
    try:
        for each in running.values():
            left = each.leaks(idle[each]) if each in idle else []
            assert not left, "\n".join(left)
            assert each.stop() == 0, each.stderr()
            assert "Traceback" not in each.stderr(), each.stderr()
    finally:
        for each in running.values():
            each.discard()


def loop_name() -> str:
    """The kind of event loop that this test runs on; the daemon is to run on it too."""
    return "uvloop" if isinstance(asyncio.get_running_loop(), uvloop.Loop) else "asyncio"


@pytest.fixture
async def daemon(daemons: StartDaemon) -> Daemon:
    return daemons(loop_name())


@pytest.fixture
async def daemon_beside_command(daemons: StartDaemon) -> Daemon:
    return daemons(loop_name(), "--", *ENTRYPOINT)


class Sdk:
    """One flavour of the SDK. Calls of the sync one run in threads, so that either can be awaited.

    Attributes:
        process: `Process` or `AsyncProcess`, whose methods have the same names and arguments.
    """

    def __init__(self, process: Process | AsyncProcess) -> None:
        self.process = process
        self._is_async = isinstance(process, AsyncProcess)

    async def call(self, method: str, *args: object) -> Any:
        """What the method answers, or raises."""
        function = getattr(self.process, method)
        if self._is_async or method.endswith("_async"):
            return await function(*args)
        return await asyncio.to_thread(function, *args)

    async def run(self, session: str, command: str) -> SessionExecuteResponse:
        """Run a command to its end."""
        request = SessionExecuteRequest(command=command)
        reply = await bounded(self.call("execute_session_command", session, request))
        assert isinstance(reply, SessionExecuteResponse)
        return reply

    async def start(self, session: str, command: str, *, suppress_echo: bool = False) -> str:
        """Start a command in the background; its id."""
        request = SessionExecuteRequest(
            command=command, run_async=True, suppress_input_echo=suppress_echo or None
        )
        reply = await self.call("execute_session_command", session, request)
        assert reply.exit_code is None
        assert isinstance(reply.cmd_id, str)
        return reply.cmd_id

    async def ended(self, session: str, command: str) -> int:
        """Ask for the exit code until there is one, as users do."""

        async def poll() -> int:
            while True:
                known = await self.call("get_session_command", session, command)
                if known.exit_code is not None:
                    return int(known.exit_code)
                await asyncio.sleep(0.01)

        return await bounded(poll())

    async def logs(self, session: str, command: str) -> SessionCommandLogsResponse:
        """The logs so far."""
        logs = await self.call("get_session_command_logs", session, command)
        assert isinstance(logs, SessionCommandLogsResponse)
        return logs

    async def follow(self, session: str, command: str) -> tuple[str, str]:
        """What the callbacks get until the stream ends."""
        seen = Seen()
        await bounded(
            self.call(
                "get_session_command_logs_async", session, command, seen.on_stdout, seen.on_stderr
            )
        )
        return seen.stdout, seen.stderr


async def bounded(awaitable: Awaitable[T]) -> T:
    """The result, unless it never comes."""
    async with asyncio.timeout(PATIENCE_S):
        return await awaitable


class Seen:
    """What the callbacks of a follower got so far; one of them plain, the other a coroutine."""

    def __init__(self) -> None:
        self.stdout = ""
        self.stderr = ""
        self._more = asyncio.Event()

    def on_stdout(self, text: str) -> None:
        self.stdout += text
        self._more.set()

    async def on_stderr(self, text: str) -> None:
        self.stderr += text
        self._more.set()

    async def until(self, fact: Callable[[], bool]) -> None:
        """Wait until what was seen makes `fact` hold."""
        async with asyncio.timeout(PATIENCE_S):
            while not fact():
                self._more.clear()
                await self._more.wait()


@pytest.fixture(params=["sync", "async"])
async def connect(request: pytest.FixtureRequest) -> AsyncIterator[Callable[[Daemon], Sdk]]:
    """Make an SDK object for a daemon."""
    made: list[SyncSdk | AsyncSdk] = []

    def connect(daemon: Daemon) -> Sdk:
        flavour = SyncSdk if request.param == "sync" else AsyncSdk
        made.append(flavour.at(daemon.url))
        return Sdk(made[-1].process)

    yield connect
    for each in made:
        await each.aclose()


@pytest.fixture
async def sdk(connect: Callable[[Daemon], Sdk], daemon: Daemon) -> Sdk:
    return connect(daemon)


@pytest.fixture
async def session(sdk: Sdk) -> AsyncIterator[str]:
    """A session of the test's own."""
    name = f"s-{uuid.uuid4()}"
    await sdk.call("create_session", name)
    yield name
    with suppress(DaytonaNotFoundError):  # the test did it
        await sdk.call("delete_session", name)


async def test_life_of_a_session(sdk: Sdk) -> None:
    name = f"ann's session-{uuid.uuid4()}"
    await sdk.call("create_session", name)
    assert (await sdk.call("get_session", name)).session_id == name
    assert name in [each.session_id for each in await sdk.call("list_sessions")]
    ran = await sdk.run(name, "echo hi")
    (command,) = (await sdk.call("get_session", name)).commands
    assert (command.id, command.command, command.exit_code) == (ran.cmd_id, "echo hi", 0)

    with pytest.raises(DaytonaConflictError) as conflict:
        await sdk.call("create_session", name)
    assert conflict.value.status_code == 409
    assert (conflict.value.source, conflict.value.code) == ("DAYTONA_DAEMON", "CONFLICT")
    assert str(conflict.value) == "Failed to create session: session already exists"

    await sdk.call("delete_session", name)
    for method in ("get_session", "delete_session"):
        with pytest.raises(DaytonaProcessNotFoundError) as unknown:
            await sdk.call(method, name)
        assert unknown.value.status_code == 404
        assert unknown.value.source == "DAYTONA_DAEMON"
    assert name not in [each.session_id for each in await sdk.call("list_sessions")]

    await sdk.call("create_session", name)  # the id is free at once
    assert (await sdk.call("get_session", name)).commands == []
    await sdk.call("delete_session", name)


SCRIPTS: Final = {
    "both streams": ("echo out; echo err >&2; (exit 7)", "out\n", "err\n", 7),
    "wait": ("sleep 0.01 & sleep 0.01 & wait; echo done", "done\n", "", 0),
    "here-document": ("cat <<'END'\nit's \"so\" $HOME\nEND", "it's \"so\" $HOME\n", "", 0),
    "end of input": ("cat; echo $?; read x || echo none", "0\nnone\n", "", 0),
    "NUL bytes": (r"printf 'a\000b\000'", "a\0b\0", "", 0),
    "no final newline": ("printf out; printf err >&2", "out", "err", 0),
    "nothing": ("true", "", "", 0),
    "blank lines": (r"printf '\n\n x \n\n'", "\n\n x \n\n", "", 0),
    "carriage returns": (r"printf '1\r2\r\n'", "1\r2\r\n", "", 0),
    "comment at the end": ("echo x # and 'so on", "x\n", "", 0),
    "a marker": (r"printf '\1\1\1'; printf '\2\2\2' >&2", "\1\1\1", "\2\2\2", 0),
}  # fmt: skip


@pytest.mark.parametrize("name", SCRIPTS)
async def test_script(sdk: Sdk, session: str, name: str) -> None:
    command, stdout, stderr, exit_code = SCRIPTS[name]
    ran = await sdk.run(session, command)
    assert (ran.stdout, ran.stderr, ran.exit_code) == (stdout, stderr, exit_code)
    logs = await sdk.logs(session, str(ran.cmd_id))
    assert (logs.stdout, logs.stderr) == (ran.stdout, ran.stderr)
    assert logs.output is not None
    assert sorted(logs.output) == sorted(f"{ran.stdout}{ran.stderr}")
    assert (await sdk.run(session, "echo on")).stdout == "on\n"


ENDS: Final = {
    "exit": ("echo bye; exit 3", 3),
    "failure under set -e": ("set -e; echo bye; false; echo never", 1),
    "exec": ("exec sh -c 'echo bye; exit 5'", 5),
    "SIGKILL": ("echo bye; kill -9 $$", 137),
}


@pytest.mark.parametrize("name", ENDS)
async def test_end_of_the_shell(sdk: Sdk, session: str, name: str) -> None:
    command, exit_code = ENDS[name]
    ran = await sdk.run(session, command)
    assert (ran.stdout, ran.exit_code) == ("bye\n", exit_code)

    with pytest.raises(DaytonaSessionEndedError) as ended:
        await sdk.run(session, "echo more")
    assert (ended.value.status_code, ended.value.code) == (410, "SESSION_ENDED")
    assert str(ended.value).startswith("Failed to execute session command: ")
    with pytest.raises(DaytonaConflictError):
        await sdk.call("create_session", session)

    assert (await sdk.logs(session, str(ran.cmd_id))).stdout == "bye\n"
    assert await sdk.follow(session, str(ran.cmd_id)) == ("bye\n", "")
    (known,) = (await sdk.call("get_session", session)).commands
    assert known.exit_code == exit_code


async def test_queued_command_of_an_ended_shell(sdk: Sdk, session: str) -> None:
    first = await sdk.start(session, "read code; exit $code", suppress_echo=True)
    queued = await sdk.start(session, "echo never")
    waiting = asyncio.create_task(sdk.run(session, "echo nor this"))
    async with asyncio.timeout(PATIENCE_S):
        while len((await sdk.call("get_session", session)).commands) < 3:
            await asyncio.sleep(0.01)
    await sdk.call("send_session_command_input", session, first, "3")
    with pytest.raises(DaytonaSessionEndedError):
        await waiting
    assert await sdk.ended(session, first) == 3
    with pytest.raises(DaytonaSessionEndedError):
        await sdk.call("send_session_command_input", session, queued, "x")
    assert await sdk.follow(session, queued) == ("", "")


async def test_background_command(sdk: Sdk, session: str) -> None:
    command = await sdk.start(session, "read x; echo out; echo err >&2; (exit 4)")
    known = await sdk.call("get_session_command", session, command)
    assert (known.id, known.exit_code) == (command, None)
    await sdk.call("send_session_command_input", session, command, "go")
    assert await sdk.ended(session, command) == 4
    logs = await sdk.logs(session, command)
    assert (logs.stdout, logs.stderr) == ("go\nout\n", "err\n")


async def test_deprecated_name_of_run_async(sdk: Sdk, session: str) -> None:
    with pytest.warns(DeprecationWarning, match="var_async"):
        request = SessionExecuteRequest(command="read x", var_async=True)
    reply = await bounded(sdk.call("execute_session_command", session, request))
    assert reply.exit_code is None
    await sdk.call("send_session_command_input", session, reply.cmd_id, "go")
    assert await sdk.ended(session, reply.cmd_id) == 0


async def test_input(sdk: Sdk, session: str) -> None:
    command = await sdk.start(session, "read x; echo got $x; read y; echo and $y")
    await sdk.call("send_session_command_input", session, command, "zz")
    await sdk.call("send_session_command_input", session, command, "with newline\n")
    assert await sdk.ended(session, command) == 0
    logs = await sdk.logs(session, command)
    assert logs.stdout is not None
    # Input comes before what was printed in response; both lines may have come before the first.
    assert sorted(logs.stdout.splitlines()) == sorted(
        ["zz", "got zz", "with newline", "and with newline"]
    )
    assert logs.stdout.index("zz") < logs.stdout.index("got zz")
    assert logs.stderr == ""


async def test_follow_while_running(sdk: Sdk, session: str) -> None:
    """Each step waits for what the one before it printed: nothing is held back."""
    command = await sdk.start(
        session,
        "printf ready; read x; printf \"$x?\" >&2; read y; echo; echo last",
        suppress_echo=True,
    )  # fmt: skip
    seen = Seen()
    following = asyncio.create_task(
        sdk.call("get_session_command_logs_async", session, command, seen.on_stdout, seen.on_stderr)
    )
    await seen.until(lambda: seen.stdout == "ready")
    await sdk.call("send_session_command_input", session, command, "sure")
    await seen.until(lambda: seen.stderr == "sure?")
    await sdk.call("send_session_command_input", session, command, "go")
    await bounded(following)
    assert (seen.stdout, seen.stderr) == ("ready\nlast\n", "sure?")
    assert (await sdk.logs(session, command)).output == "readysure?\nlast\n"
    assert await sdk.ended(session, command) == 0


async def test_delete_while_a_command_is_awaited(sdk: Sdk, session: str, tmp_path: Path) -> None:
    waiting = asyncio.create_task(sdk.run(session, f"touch '{tmp_path}/up'; sleep 1000"))
    async with asyncio.timeout(PATIENCE_S):
        while not (tmp_path / "up").exists():
            await asyncio.sleep(0.01)
    await bounded(sdk.call("delete_session", session))
    with pytest.raises(DaytonaSessionEndedError):
        await waiting


INTERLEAVE: Final = """
import os
size = 1
streams = [(1, open("out", "rb").read()), (2, open("err", "rb").read())]
while any(data for _, data in streams):
    for index, (number, data) in enumerate(streams):
        size = size * 7919 % 9973  # a few bytes to some thousand
        part, rest = data[:size], data[size:]
        while part:
            part = part[os.write(number, part):]
        streams[index] = number, rest
"""


async def test_five_megabytes_of_both_streams(sdk: Sdk, session: str, tmp_path: Path) -> None:
    """Written in turns, in pieces that cut characters in two; seen live, late, and at once."""
    out = "".join(f"{number} {TEXT}" for number in range(120_000))
    err = "".join(f"{number} €rr\n" for number in range(220_000))
    assert len(out.encode()) + len(err.encode()) > 5_000_000
    (tmp_path / "out").write_text(out)
    (tmp_path / "err").write_text(err)
    (tmp_path / "interleave.py").write_text(INTERLEAVE)
    await sdk.run(session, f"cd '{tmp_path}'")
    program = f"'{sys.executable}' -IS interleave.py"
    command = await sdk.start(session, f"read x; {program}", suppress_echo=True)
    live = asyncio.create_task(sdk.follow(session, command))
    await sdk.call("send_session_command_input", session, command, "go")
    stdout, stderr = await live
    assert (stdout == out, stderr == err) == (True, True)
    stdout, stderr = await sdk.follow(session, command)
    assert (stdout == out, stderr == err) == (True, True)
    logs = await sdk.logs(session, command)
    assert (logs.stdout == out, logs.stderr == err) == (True, True)
    assert await sdk.ended(session, command) == 0
    ran = await sdk.run(session, program)
    assert (ran.stdout == out, ran.stderr == err, ran.exit_code) == (True, True, 0)


async def test_input_that_nobody_takes(sdk: Sdk, session: str) -> None:
    ran = await sdk.run(session, "(exit 6)")
    with pytest.raises(DaytonaCommandAlreadyCompletedError) as completed:
        await sdk.call("send_session_command_input", session, ran.cmd_id, "x")
    assert completed.value.status_code == 410
    assert completed.value.code == "COMMAND_ALREADY_COMPLETED"
    assert str(completed.value).endswith("command has already completed with exit code 6")

    command = await sdk.start(session, "read x")
    with pytest.raises(DaytonaBadRequestError):
        await sdk.call("send_session_command_input", session, command, "")
    waiting = asyncio.create_task(sdk.run(session, "read y; echo $?"))
    async with asyncio.timeout(PATIENCE_S):
        while len(commands := (await sdk.call("get_session", session)).commands) < 3:
            await asyncio.sleep(0.01)
    with pytest.raises(DaytonaBadRequestError, match="takes no input"):
        await sdk.call("send_session_command_input", session, commands[2].id, "x")
    await sdk.call("send_session_command_input", session, command, "go")
    assert (await waiting).stdout == "1\n"


async def test_bad_requests(sdk: Sdk, session: str) -> None:
    for command in ("", " \n\t"):
        with pytest.raises(DaytonaBadRequestError):
            await sdk.run(session, command)
    for name in ("", "entrypoint"):
        with pytest.raises(DaytonaBadRequestError):
            await sdk.call("create_session", name)


async def test_unknown_names(sdk: Sdk, session: str) -> None:
    request = SessionExecuteRequest(command="true")
    with pytest.raises(DaytonaProcessNotFoundError, match="session not found"):
        await sdk.call("execute_session_command", "nobody", request)
    for name, message in (("nobody", "session not found"), (session, "command not found")):
        for method, *more in (
            ("get_session_command",),
            ("get_session_command_logs",),
            ("send_session_command_input", "x"),
        ):
            with pytest.raises(DaytonaProcessNotFoundError, match=message):
                await sdk.call(method, name, "nothing", *more)
        with pytest.raises(DaytonaError):
            await sdk.follow(name, "nothing")


async def test_no_entrypoint(sdk: Sdk) -> None:
    for method in ("get_entrypoint_session", "get_entrypoint_logs"):
        with pytest.raises(DaytonaProcessNotFoundError):
            await sdk.call(method)
    seen = Seen()
    with pytest.raises(DaytonaError):
        await sdk.call("get_entrypoint_logs_async", seen.on_stdout, seen.on_stderr)


async def test_entrypoint(connect: Callable[[Daemon], Sdk], daemon_beside_command: Daemon) -> None:
    sdk = connect(daemon_beside_command)
    seen = Seen()
    await bounded(sdk.call("get_entrypoint_logs_async", seen.on_stdout, seen.on_stderr))
    assert (seen.stdout, seen.stderr) == ("it's up\n", "careful\n")
    known = await sdk.call("get_entrypoint_session")
    assert known.session_id == "entrypoint"
    assert [(each.id, each.exit_code) for each in known.commands] == [("entrypoint_command", 4)]
    logs = await sdk.call("get_entrypoint_logs")
    assert (logs.stdout, logs.stderr) == ("it's up\n", "careful\n")
    logs = await sdk.logs("entrypoint", "entrypoint_command")
    assert (logs.stdout, logs.stderr) == ("it's up\n", "careful\n")
    assert await sdk.follow("entrypoint", "entrypoint_command") == ("it's up\n", "careful\n")
    assert await sdk.call("list_sessions") == []

    with pytest.raises(DaytonaBadRequestError, match="can't execute command in entrypoint session"):
        await sdk.run("entrypoint", "true")
    with pytest.raises(DaytonaBadRequestError, match="can't send input to entrypoint session"):
        await sdk.call("send_session_command_input", "entrypoint", "entrypoint_command", "x")
    with pytest.raises(DaytonaBadRequestError, match="can't delete entrypoint session"):
        await sdk.call("delete_session", "entrypoint")
