"""The two flavours of the SDK behind one asynchronous interface, so that each test covers both.

The synchronous flavour blocks the test's loop, in which nothing else has anything to do.

Source: Process API contract, sections 14.1 and 14.2.
"""

import asyncio
import inspect
import ssl
from abc import ABC, abstractmethod
from collections.abc import Awaitable
from typing import Any, Self, TypeVar, cast

import aiohttp
import daytona_toolbox_api_client as sync_client
import daytona_toolbox_api_client_async as async_client
import httpx
from daytona._async.code_interpreter import AsyncCodeInterpreter
from daytona._async.process import AsyncProcess
from daytona._sync.code_interpreter import CodeInterpreter
from daytona._sync.process import Process
from daytona.common.process import ExecuteResponse
from daytona.common.pty import PtyResult, PtySize
from daytona.handle.async_pty_handle import AsyncPtyHandle
from daytona.handle.pty_handle import PtyHandle
from daytona.internal.http_client import build_sync_http_client
from daytona.internal.urllib3_retry import RemoteDisconnectedRetry

VERSION = "0.226.1"
# Connections at a time, as many as the SDK's own sessions allow.
POOL_SIZE = 250

T = TypeVar("T")


async def value(of: T | Awaitable[T]) -> T:
    """What a call gives, whichever flavour made it."""
    return await of if inspect.isawaitable(of) else of


class Terminal(ABC):
    """An attached PTY, with all of its output so far."""

    def __init__(self) -> None:
        self.output = bytearray()

    @abstractmethod
    async def until(self, wanted: bytes) -> bytes:
        """Wait for these bytes; returns the output as far as them, and takes it away."""

    @abstractmethod
    async def wait(self) -> PtyResult:
        """Wait for the end."""

    @abstractmethod
    async def enter(self, text: str | bytes) -> None:
        """Send input."""

    @abstractmethod
    async def resize(self, cols: int, rows: int) -> Any:
        """Change the size; returns the session's information."""

    @abstractmethod
    async def kill(self) -> None:
        """Delete the session."""

    @abstractmethod
    async def disconnect(self) -> None:
        """Leave it running."""

    @property
    @abstractmethod
    def connected(self) -> bool:
        """Whether it is attached."""

    def _take(self, wanted: bytes) -> bytes:
        end = self.output.index(wanted) + len(wanted)
        taken = bytes(self.output[:end])
        del self.output[:end]
        return taken

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.disconnect()


class SyncTerminal(Terminal):
    """By PtyHandle."""

    def __init__(self, handle: PtyHandle) -> None:
        super().__init__()
        self.handle = handle

    async def until(self, wanted: bytes) -> bytes:
        if wanted not in self.output:
            for data in self.handle:
                self.output += data
                if wanted in self.output:
                    break
            else:
                raise AssertionError(f"ended without {wanted!r}: {bytes(self.output)!r}")
        return self._take(wanted)

    async def wait(self) -> PtyResult:
        return self.handle.wait(on_data=self.output.extend)

    async def enter(self, text: str | bytes) -> None:
        self.handle.send_input(text)

    async def resize(self, cols: int, rows: int) -> Any:
        return self.handle.resize(PtySize(rows=rows, cols=cols))

    async def kill(self) -> None:
        self.handle.kill()

    async def disconnect(self) -> None:
        self.handle.disconnect()

    @property
    def connected(self) -> bool:
        return self.handle.is_connected()


class AsyncTerminal(Terminal):
    """By AsyncPtyHandle, which calls back."""

    def __init__(self) -> None:
        super().__init__()
        self.handle: AsyncPtyHandle = cast(AsyncPtyHandle, None)
        self._news = asyncio.Event()

    def received(self, data: bytes) -> None:
        self.output += data
        self._news.set()

    async def until(self, wanted: bytes) -> bytes:
        async with asyncio.timeout(30):
            while wanted not in self.output:
                self._news.clear()
                await self._news.wait()
        return self._take(wanted)

    async def wait(self) -> PtyResult:
        return await self.handle.wait()

    async def enter(self, text: str | bytes) -> None:
        await self.handle.send_input(text)

    async def resize(self, cols: int, rows: int) -> Any:
        return await self.handle.resize(PtySize(rows=rows, cols=cols))

    async def kill(self) -> None:
        await self.handle.kill()

    async def disconnect(self) -> None:
        await self.handle.disconnect()

    @property
    def connected(self) -> bool:
        return self.handle.is_connected()


class Sdk(ABC):
    """A Process object of the SDK and the generated client below it."""

    process: Any  # Process or AsyncProcess: alike but for what is awaited
    interpreter: Any  # CodeInterpreter or AsyncCodeInterpreter, likewise
    api: Any  # ProcessApi of either client
    models: Any  # the generated client's module, for its models

    async def exec(self, *args: Any, **options: Any) -> ExecuteResponse:
        return cast(ExecuteResponse, await value(self.process.exec(*args, **options)))

    @abstractmethod
    async def create(self, session_id: str, **options: Any) -> Terminal:
        """`process.create_pty_session`."""

    @abstractmethod
    async def connect(self, session_id: str) -> Terminal:
        """`process.connect_pty_session`."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close all connections."""


class SyncSdk(Sdk):
    """Contract, section 14.1."""

    models = sync_client

    def __init__(self, process: Process) -> None:
        self.process: Process = process

    @classmethod
    def at(cls, url: str, language: str = "python") -> "SyncSdk":
        """Against a bare URL, with the language of `code_run`."""
        configuration = sync_client.Configuration(host=url)
        configuration.retries = RemoteDisconnectedRetry(total=3, raise_on_status=False)
        client = sync_client.ApiClient(configuration)
        client.default_headers.update(_headers("sdk-python"))
        http = build_sync_http_client()
        sdk = cls(Process(language, sync_client.ProcessApi(client), http))
        sdk.interpreter = CodeInterpreter(sync_client.InterpreterApi(client), http)
        sdk.api = sync_client.ProcessApi(client)
        sdk._client, sdk._http = client, http
        return sdk

    _client: sync_client.ApiClient | None = None
    _http: httpx.Client | None = None

    async def create(self, session_id: str, **options: Any) -> Terminal:
        return SyncTerminal(self.process.create_pty_session(session_id, **options))

    async def connect(self, session_id: str) -> Terminal:
        return SyncTerminal(self.process.connect_pty_session(session_id))

    async def aclose(self) -> None:
        self.close()

    def close(self) -> None:
        if self._http is not None:
            self._http.close()
        if self._client is not None:
            self._client.rest_client.pool_manager.clear()


class AsyncSdk(Sdk):
    """Contract, section 14.2."""

    models = async_client

    def __init__(self, process: AsyncProcess) -> None:
        self.process: AsyncProcess = process

    _session: aiohttp.ClientSession | None = None

    @classmethod
    def at(
        cls, url: str, language: str = "python", tls: ssl.SSLContext | bool = True
    ) -> "AsyncSdk":
        """Against a bare URL, in a running loop, with the language of `code_run`."""
        client = async_client.ApiClient(async_client.Configuration(host=url))
        client.default_headers.update(_headers("sdk-python-async"))
        connector = aiohttp.TCPConnector(limit=POOL_SIZE, ssl=tls)
        session = aiohttp.ClientSession(connector=connector)
        client.http_session = session  # type: ignore[attr-defined]  # the SDK looks for it there
        client.rest_client.pool_manager = session
        sdk = cls(AsyncProcess(language, async_client.ProcessApi(client)))
        sdk.interpreter = AsyncCodeInterpreter(async_client.InterpreterApi(client))
        sdk.api = async_client.ProcessApi(client)
        sdk._session = session
        return sdk

    async def create(self, session_id: str, **options: Any) -> Terminal:
        terminal = AsyncTerminal()
        terminal.handle = await self.process.create_pty_session(
            session_id, on_data=terminal.received, **options
        )
        return terminal

    async def connect(self, session_id: str) -> Terminal:
        terminal = AsyncTerminal()
        terminal.handle = await self.process.connect_pty_session(
            session_id, on_data=terminal.received
        )
        return terminal

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()


def _headers(source: str) -> dict[str, str]:
    return {
        "Authorization": "Bearer test",
        "X-Daytona-Source": source,
        "X-Daytona-SDK-Version": VERSION,
    }
