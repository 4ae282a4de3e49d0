"""Interpreter contexts as users of the official Python SDK see them, in both of its flavours.

Source: Process API contract, sections 11, 13.3 and 19 (item 11).
"""

import asyncio
import gc
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest
import uvloop
from daytona.common.code_interpreter import ExecutionError, ExecutionResult, OutputMessage
from daytona.common.errors import (
    DaytonaConnectionError,
    DaytonaNotFoundError,
    DaytonaProcessNotFoundError,
    DaytonaTimeoutError,
)

from tests.compat.python.sdk import AsyncSdk, SyncSdk
from tests.daemon.daemon import PATH, PATIENCE_S, Daemon, children, eventually

T = TypeVar("T")

# The default context's and one that waits to become another's.
IDLE_CHILDREN: Final = 2
# `interpreter.max_queued`.
WAITING: Final = 128
SLEEP: Final = "print('up')\nimport time\nwhile True: time.sleep(0.01)"


@pytest.fixture(scope="module")
def daemons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Daemon]]:
    """A daemon of each loop, with interpreters kept ready; that is all that may be left in them."""
    running: dict[str, Daemon] = {}
    idle: dict[str, int] = {}
    try:
        for loop in ("asyncio", "uvloop"):
            settings = {
                "PROCD_SERVER_LOOP": loop,
                "PROCD_INTERPRETER_WARM": "1",
                "PROCD_INTERPRETER_GRACE_S": "1",
                "PATH": PATH,
            }
            cwd = str(tmp_path_factory.mktemp("work"))
            daemon = running[loop] = Daemon.start(env=settings, cwd=cwd)
            assert eventually(lambda pid=daemon.pid: len(children(pid)) == IDLE_CHILDREN)  # type: ignore[misc]  # bound now
            idle[loop] = daemon.idle_descriptors()
        yield running
        gc.collect()  # exceptions of the sync SDK hold its connections
        for loop, daemon in running.items():
            assert daemon.leaks(idle[loop], IDLE_CHILDREN) == []
            assert daemon.stop() == 0, daemon.stderr()
            assert "Traceback" not in daemon.stderr(), daemon.stderr()
    finally:
        for daemon in running.values():
            daemon.discard()


@pytest.fixture
async def daemon(daemons: dict[str, Daemon]) -> Daemon:
    """The one on the kind of loop that this test runs on."""
    loop = asyncio.get_running_loop()
    return daemons["uvloop" if isinstance(loop, uvloop.Loop) else "asyncio"]


async def bounded(awaitable: Awaitable[T]) -> T:
    """The result, unless it never comes."""
    async with asyncio.timeout(PATIENCE_S):
        return await awaitable


class Seen:
    """What the callbacks got so far, from whichever thread they are called."""

    def __init__(self) -> None:
        self.stdout = ""
        self.stderr = ""
        self.errors: list[ExecutionError] = []
        self._loop = asyncio.get_running_loop()
        self._more = asyncio.Event()

    def on_stdout(self, message: OutputMessage) -> None:
        self.stdout += message.output
        self._loop.call_soon_threadsafe(self._more.set)

    def on_stderr(self, message: OutputMessage) -> None:
        self.stderr += message.output
        self._loop.call_soon_threadsafe(self._more.set)

    def on_error(self, error: ExecutionError) -> None:
        self.errors.append(error)

    async def until(self, stdout: str, stderr: str = "") -> None:
        """Wait until this has been printed."""
        async with asyncio.timeout(PATIENCE_S):
            while (self.stdout, self.stderr) != (stdout, stderr):
                self._more.clear()
                await self._more.wait()


class Interpreter:
    """One flavour of the SDK. Calls of the sync one run in threads, so that either can be awaited.

    Attributes:
        is_async: which one.
    """

    def __init__(self, sdk: SyncSdk | AsyncSdk, threads: ThreadPoolExecutor) -> None:
        self._methods = sdk.interpreter
        self._threads = threads
        self.is_async = isinstance(sdk, AsyncSdk)

    async def call(self, method: str, *args: object, **options: object) -> Any:
        """What the method answers, or raises."""
        function = getattr(self._methods, method)
        if self.is_async:
            return await function(*args, **options)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: function(*args, **options))

    async def run(self, code: str, context: Any = None, **options: Any) -> ExecutionResult:
        result = await bounded(self.call("run_code", code, context=context, **options))
        assert isinstance(result, ExecutionResult)
        return result

    async def printed(self, code: str, context: Any = None, **options: Any) -> str:
        """The standard output of code that has nothing to complain of."""
        result = await self.run(code, context, **options)
        assert (result.stderr, result.error) == ("", None)
        return result.stdout

    def start(self, code: str, context: Any, **options: Any) -> tuple[Seen, asyncio.Task[Any]]:
        """What the callbacks get, and the result to come."""
        seen = Seen()
        callbacks = {"on_stdout": seen.on_stdout, "on_stderr": seen.on_stderr}
        running = self.call("run_code", code, context=context, **callbacks, **options)
        return seen, asyncio.create_task(running)


@pytest.fixture(params=["sync", "async"])
async def interpreter(request: pytest.FixtureRequest, daemon: Daemon) -> AsyncIterator[Interpreter]:
    with ThreadPoolExecutor(WAITING + 8) as threads:
        flavour = SyncSdk if request.param == "sync" else AsyncSdk
        sdk = flavour.at(daemon.url)
        yield Interpreter(sdk, threads)
        await sdk.aclose()


@pytest.fixture
async def context(interpreter: Interpreter) -> AsyncIterator[Any]:
    """A context of the test's own."""
    context = await interpreter.call("create_context")
    yield context
    with suppress(DaytonaNotFoundError):  # the test did it
        await bounded(interpreter.call("delete_context", context))


async def test_state_persists(interpreter: Interpreter, context: Any) -> None:
    assert await interpreter.printed("import math\nx = 41\ndef f(n): return n + 1", context) == ""
    assert await interpreter.printed("x = f(x)\nprint(x, math.floor(2.5))", context) == "42 2\n"
    assert await interpreter.printed("x", context) == ""  # a value alone is not shown


async def test_default_context(interpreter: Interpreter, context: Any, daemon: Daemon) -> None:
    name = f"v{uuid.uuid4().hex}"
    await interpreter.printed(f"{name} = 'kept'")
    assert await interpreter.printed(f"print({name})") == "kept\n"
    assert await interpreter.printed("import os; print(os.getcwd())") == f"{work_dir(daemon)}\n"
    elsewhere = await interpreter.run(f"print({name})", context)
    assert elsewhere.error is not None
    assert elsewhere.error.name == "NameError"
    assert "default" not in [each.id for each in await interpreter.call("list_contexts")]


async def test_life_of_a_context(interpreter: Interpreter, daemon: Daemon, tmp_path: Path) -> None:
    context = await interpreter.call("create_context", cwd=str(tmp_path))
    assert (context.cwd, context.language, context.active) == (str(tmp_path), "python", True)
    assert await interpreter.printed("import os; print(os.getcwd())", context) == f"{tmp_path}\n"
    other = await interpreter.call("create_context")
    assert other.cwd == work_dir(daemon)
    (listed,) = [each for each in await interpreter.call("list_contexts") if each.id == context.id]
    assert listed == context

    await interpreter.call("delete_context", context)
    known = [each.id for each in await interpreter.call("list_contexts")]
    assert context.id not in known
    assert other.id in known
    with pytest.raises(DaytonaProcessNotFoundError) as unknown:
        await interpreter.call("delete_context", context)
    assert (unknown.value.status_code, unknown.value.source) == (404, "DAYTONA_DAEMON")
    assert f"context with ID '{context.id}' not found" in str(unknown.value)
    with pytest.raises(DaytonaConnectionError, match=f"context not found: {context.id}"):
        await interpreter.run("print(1)", context)
    await interpreter.call("delete_context", other)


async def test_callbacks(interpreter: Interpreter, context: Any, tmp_path: Path) -> None:
    """Each step waits for what the one before it printed: nothing is held back."""
    os.mkfifo(tmp_path / "go")
    seen, running = interpreter.start(
        f"import sys\nprint('one')\nopen({str(tmp_path / 'go')!r}).read()\n"
        f"print('two', file=sys.stderr)\nopen({str(tmp_path / 'go')!r}).read()\n"
        "sys.stdout.write('thr'); print('ee é€😀', end='')\nraise ValueError('é')",
        context,
        on_error=(errors := Seen()).on_error,
    )
    await seen.until("one\n")
    (tmp_path / "go").write_text("")
    await seen.until("one\n", "two\n")
    (tmp_path / "go").write_text("")
    result = await bounded(running)
    assert (seen.stdout, seen.stderr) == ("one\nthree é€😀", "two\n")
    assert (result.stdout, result.stderr) == (seen.stdout, seen.stderr)
    assert errors.errors == [result.error]
    assert (result.error.name, result.error.value) == ("ValueError", "é")


ERRORS: Final = {
    "exception": (
        "def f():\n    raise ValueError('a')\n\nf()",
        ("ValueError", "a"),
        'Traceback (most recent call last):\n  File "<stdin>", line 4, in <module>\n',
    ),
    "syntax": ("print('never')\nif x", ("SyntaxError", "expected ':'"), '  File "<stdin>", line 2'),
    "interrupt of its own": ("raise KeyboardInterrupt", ("KeyboardInterrupt", ""), "Traceback"),
    "own class": ("class E(Exception): pass\nraise E(1, 2)", ("E", "(1, 2)"), "Traceback"),
    "module": ("import no_such", ("ModuleNotFoundError", "No module named 'no_such'"), "Traceback"),
}


@pytest.mark.parametrize("name", ERRORS)
async def test_error(interpreter: Interpreter, context: Any, name: str) -> None:
    code, (kind, value), traceback = ERRORS[name]
    result = await interpreter.run(code, context)
    assert result.error is not None
    assert result.error.name == kind
    assert result.error.value.startswith(value)
    assert result.error.traceback.startswith(traceback)
    assert "procd" not in result.error.traceback
    assert (result.stdout, result.stderr) == ("", "")
    assert await interpreter.printed("print('on')", context) == "on\n"


async def test_timeout_keeps_the_state(interpreter: Interpreter, context: Any) -> None:
    await interpreter.printed("import os\nx = 'kept'\npid = os.getpid()", context)
    seen, running = interpreter.start(SLEEP, context, timeout=3)
    with pytest.raises(DaytonaTimeoutError, match="timed out"):
        await bounded(running)
    assert seen.stdout == "up\n"
    assert await interpreter.printed("print(x, os.getpid() == pid)", context) == "kept True\n"


async def test_timeout_of_code_that_will_not_stop(interpreter: Interpreter, context: Any) -> None:
    """It is killed, and the context begins anew."""
    stubborn = "x = 1\nimport signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n" + SLEEP
    with pytest.raises(DaytonaTimeoutError):
        await interpreter.run(stubborn, context, timeout=3)
    assert await interpreter.printed("print('x' in globals())", context) == "False\n"


DEATHS: Final = {
    "exit": "import os\nprint('bye')\nos._exit(0)",
    "SIGKILL": "import os\nprint('bye')\nos.kill(os.getpid(), 9)",
    "fault": "import ctypes\nprint('bye')\nctypes.string_at(0)",
}


@pytest.mark.parametrize("name", DEATHS)
@pytest.mark.parametrize("default", [False, True], ids=["created", "default"])
async def test_death_of_the_worker(
    interpreter: Interpreter, context: Any, name: str, default: bool
) -> None:
    where = None if default else context
    await interpreter.printed("x = 1", where)
    seen, running = interpreter.start(DEATHS[name], where)
    with pytest.raises(DaytonaConnectionError, match=r"worker process ended \(close code 1011\)"):
        await bounded(running)
    assert seen.stdout == "bye\n"
    (listed,) = [each for each in await interpreter.call("list_contexts") if each.id == context.id]
    assert listed.active is default
    assert await interpreter.printed("print('x' in globals())", where) == "False\n"


@pytest.mark.parametrize("character", ["x", "😀"])
async def test_two_mebibytes_in_one_line(
    interpreter: Interpreter, context: Any, character: str
) -> None:
    count = (2 << 20) // len(character.encode())
    result = await interpreter.run(
        f"import sys\nprint({character!r} * {count})\nprint('e' * {2 << 20}, file=sys.stderr)",
        context,
    )
    assert result.error is None
    assert result.stdout == character * count + "\n"
    assert result.stderr == "e" * (2 << 20) + "\n"


async def test_deletion_while_running(interpreter: Interpreter, context: Any) -> None:
    seen, running = interpreter.start(SLEEP, context)
    await seen.until("up\n")
    await bounded(interpreter.call("delete_context", context))
    with pytest.raises(DaytonaConnectionError, match=r"context deleted \(close code 1011\)"):
        await bounded(running)


async def test_client_that_goes(interpreter: Interpreter, context: Any) -> None:
    """Its code is interrupted, and the context is free for others."""
    if not interpreter.is_async:
        pytest.skip("a thread cannot be made to go")
    await interpreter.printed("x = 'kept'", context)
    seen, running = interpreter.start(SLEEP, context)
    await seen.until("up\n")
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert await interpreter.printed("print(x)", context) == "kept\n"


def work_dir(daemon: Daemon) -> str:
    return os.readlink(f"/proc/{daemon.pid}/cwd")
