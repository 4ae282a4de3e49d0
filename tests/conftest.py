"""What every test gets: both event loops, and the proof that it left nothing behind."""

import asyncio
import atexit
import gc
import itertools
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import uvloop
from aiohttp import web
from aiohttp.test_utils import TestServer
from blockbuster import BlockBuster, blockbuster_ctx

from procd.api.openapi import Description
from procd.app import CONTROL_PLANE_PREFIXES, CONTROL_PLANE_ROUTES, PREFIXES, ROUTES, create_app
from procd.config import Config
from procd.config_file import from_mapping
from procd.http.connection import HttpConnection, Runner
from procd.unix.fd import SO_PASSRIGHTS, OwnedFd, pipe
from tests.aliases import Client, MakeClient
from tests.api.access import Secrets
from tests.api.clients import Fifo, Gate
from tests.api.sessions import SHELLS

# Login shells are started and killed by the hundred: they are not to run what this user's profile
# says, nor to leave it half done. What others keep below HOME is where it was.
_USER_HOME = Path.home()
for _variable, _place in {
    "NPM_CONFIG_USERCONFIG": ".npmrc",
    "NPM_CONFIG_CACHE": ".npm",
    "PLAYWRIGHT_BROWSERS_PATH": ".cache/ms-playwright",
    "PYENV_ROOT": ".pyenv",
}.items():
    if (_USER_HOME / _place).exists():
        os.environ.setdefault(_variable, str(_USER_HOME / _place))
_HOME = tempfile.mkdtemp(prefix="procd-test-home-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
os.environ["HOME"] = _HOME
# A script's background job ignores SIGINT and SIGQUIT, and so would all that is started here.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGQUIT) is signal.SIG_IGN:
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)


def _can_refuse_descriptors() -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)
        except OSError:
            return False
        return True


passing_can_be_refused = pytest.mark.skipif(
    not _can_refuse_descriptors(), reason="a kernel before Linux 6.16"
)


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run each asynchronous test on both loops."""
    if item.get_closest_marker("slow") is not None:
        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.new_event_loop}


# How many tests have begun in this process.
BEGUN = itertools.count()


def _descriptors() -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the listing's own
            continue
    return found


def _children() -> set[str]:
    found: set[str] = set()
    for thread in os.listdir("/proc/self/task"):
        try:
            found.update(Path(f"/proc/self/task/{thread}/children").read_text().split())
        except FileNotFoundError:  # it has ended: one of the SDK's
            continue
    return found


@pytest.fixture
def complaints() -> list[BaseException | None]:
    """What the loop has told that nobody took, such as a callback's error; a test may take it."""
    return []


@pytest.fixture(autouse=True)
async def settled(complaints: list[BaseException | None]) -> AsyncIterator[None]:
    """Fail a test that leaves a task, a child, a descriptor or a thread, or a complaint."""
    # The collection at its end is to look through little more than this test has made: pytest keeps
    # so much of thousands that most of their time was spent in collections.
    if next(BEGUN) % 16 == 0:
        gc.collect()
        gc.freeze()
    # The official SDK, tested in this process as well, has threads that it never ends.
    before, threads, children = _descriptors(), set(threading.enumerate()), _children()
    own = asyncio.current_task()

    def complain(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        complaints.append(context.get("exception"))
        loop.default_exception_handler(context)

    asyncio.get_running_loop().set_exception_handler(complain)
    yield
    assert not complaints
    gc.collect()
    left = {task for task in asyncio.all_tasks() if task not in (own, asyncio.current_task())}
    assert not left, f"tasks left: {left}"
    new = {
        number: path
        for number, path in _descriptors().items()
        # libuv keeps /dev/null open to have a descriptor to spare when accept runs out of them.
        if number not in before and path != os.devnull
    }
    assert not new, f"descriptors left open: {new}"
    assert _children() <= children, "a child was left"
    for thread in set(threading.enumerate()) - threads:
        if thread.name.startswith(
            "asyncio-waitpid-"
        ):  # it has told of a test's own child, and ends
            thread.join(timeout=10)
    # The SDK's threads start timers of their own whenever they like.
    new_threads = {
        thread
        for thread in set(threading.enumerate()) - threads
        if not isinstance(thread, threading.Timer) and not thread.name.startswith("daytona")
    }
    assert not new_threads, new_threads


@pytest.fixture(autouse=True)
def no_blocking() -> Iterator[BlockBuster]:
    """Fail a test in which procd blocks the event loop."""
    with blockbuster_ctx("procd") as blockbuster:
        # Files, directories and /proc answer in microseconds and have no other way of being read;
        # what this is for is sleep, sockets, locks and the like.
        for name, function in blockbuster.functions.items():
            if name.startswith(("os.", "io.")):
                function.deactivate()
        yield blockbuster


class DaemonServer(TestServer):
    """A server as the daemon has it: with its limits, and handlers that end with their clients."""

    def __init__(self, app: web.Application, config: Config) -> None:
        super().__init__(app)
        self._config = config

    async def _make_runner(self, **_: object) -> web.AppRunner:
        return _Runner(self.app, self._config.server)


class _Runner(Runner):
    """Has aiohttp's test server make the connections that procd's own listeners make."""

    async def setup(self) -> None:
        await super().setup()
        assert self.server is not None
        self.server.__class__ = _Server
        self.server.connect = self.connect  # type: ignore[attr-defined]


class _Server(web.Server):
    connect: Callable[[], HttpConnection]

    def __call__(self) -> HttpConnection:
        return self.connect()


@pytest.fixture(scope="session")
def described() -> dict[str, Any]:
    """What is said of each path."""
    paths: dict[str, Any] = Description([*ROUTES, *CONTROL_PLANE_ROUTES], guarded=False).document[
        "paths"
    ]
    return paths


@pytest.fixture
def procd(aiohttp_client: Any, described: dict[str, Any]) -> Iterator[MakeClient]:
    """Start a server in this loop: `await procd(pty={"linger_s": 1.0})` gives its client.

    No test may come upon an answer that the API's description doesn't know.
    """
    unheard: set[str] = set()

    async def look_up(request: web.Request, response: web.StreamResponse) -> None:
        resource = request.match_info.route.resource
        path = resource.canonical if resource is not None else ""
        for prefix in (*PREFIXES[1:], *CONTROL_PLANE_PREFIXES[1:2]):
            path = path.removeprefix(prefix)
        operation = described.get(path.rstrip("/"), {}).get(request.method.lower())
        if response.status == 500 or operation is None:
            return  # the machine has failed procd, whatever was asked
        if str(response.status) not in operation["responses"]:
            unheard.add(f"{request.method} {path}: {response.status}")

    async def make(**sections: dict[str, Any]) -> Client:
        # No interpreters beside what a test asks for: most tests have no use for them.
        interpreter = {"warm": 0} | sections.pop("interpreter", {})
        config: Config = from_mapping(sections | {"interpreter": interpreter})
        app = create_app(config)
        app.on_response_prepare.append(look_up)
        client: Client = await aiohttp_client(DaemonServer(app, config))
        return client

    yield make
    assert not unheard


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    """End what a test leaves."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def ends(closing: ExitStack) -> tuple[OwnedFd, OwnedFd]:
    reading, writing = pipe()
    closing.callback(reading.close)
    closing.callback(writing.close)
    return reading, writing


@pytest.fixture
def alive(tmp_path: Path) -> Iterator[Fifo]:
    """A FIFO that a program's processes inherit: it ends when the last of them has."""
    with Fifo(tmp_path / "alive") as fifo:
        yield fifo


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """A FIFO that programs wait at."""
    with Gate(tmp_path / "gate") as gate:
        yield gate


@pytest.fixture
def secrets(tmp_path: Path) -> Secrets:
    return Secrets(tmp_path / "tokens")


@pytest.fixture(params=list(SHELLS))
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Each shell that a session may have."""
    path = SHELLS[request.param]
    if not os.access(path, os.X_OK):
        pytest.skip(f"{request.param} is not installed")
    if request.param == "busybox":
        (tmp_path / "sh").symlink_to(path)
        return str(tmp_path / "sh")
    return path
