"""Runner: serves the application by connections of our own, within the server's limits."""

import asyncio
import logging
from contextlib import suppress
from typing import Any, cast

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import BadHttpMessage
from aiohttp.streams import StreamReader
from multidict import CIMultiDictProxy

from procd.config import ServerConfig
from procd.http.connection import HttpConnection
from procd.http.dispatch import Dispatch

log = logging.getLogger(__name__)


class Visit(HttpConnection):
    """A connection whose client is dropped where it can't be served, for want of memory, say.

    Else it would wait for ever: the event loops only report what is raised here.
    """

    __slots__ = ()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop for a new connection."""
        try:
            super().connection_made(transport)
        except Exception:
            _drop(transport)
            raise

    def data_received(self, data: bytes) -> None:
        """Called by the event loop for what has come."""
        try:
            super().data_received(data)
        except (ValueError, LookupError):  # of what it takes for a URL's host: yarl's split_url
            self._refuse(BadHttpMessage(""))

    async def start(self) -> None:
        """Called by aiohttp to serve it to its end."""
        try:
            await super().start()
        except Exception:
            if self._wire is not None:
                _drop(self._wire)
            raise


class NoRoom(asyncio.Protocol):
    """Drops whoever comes, where there is no memory for more."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop for a new connection."""
        _drop(transport)


def _drop(transport: asyncio.BaseTransport) -> None:
    cast("asyncio.Transport", transport).abort()  # uvloop's only says that it is one


class HttpServer(web.Server):
    """Makes a connection of each client that comes."""

    def __init__(self, app: web.Application, config: ServerConfig, **options: Any) -> None:
        super().__init__(Dispatch(app).handle, request_factory=self._make, **options)
        self._app = app
        self._config = config
        self._no_room = NoRoom()

    def __call__(self) -> Visit | NoRoom:  # type: ignore[override]  # it is a factory of protocols
        """A connection, for the event loop to serve."""
        try:
            return Visit(self, self._app, self._config, loop=self._loop, **self._kwargs)
        except Exception:  # from whoever raises here, uvloop never accepts a client again
            with suppress(MemoryError):
                log.exception("a client is dropped")
            return self._no_room

    def _make(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: "asyncio.Task[None]",
    ) -> web.BaseRequest:
        """A request; it expects nothing that the server doesn't know of.

        Source: RFC 9110, section 10.1.1. aiohttp would refuse it before any middleware.
        """
        expected = message.headers.get(hdrs.EXPECT)
        if expected is not None and expected.lower() != "100-continue":
            headers = message.headers.copy()
            del headers[hdrs.EXPECT]
            message = message._replace(headers=CIMultiDictProxy(headers))
        limit = self._config.max_body_bytes
        request = web.Request(
            message, payload, protocol, writer, task, self._loop, client_max_size=limit
        )
        assert isinstance(protocol, HttpConnection)
        protocol.begin(request)
        return request


class Runner(web.AppRunner):
    """Serves an application within the server's limits; its handlers end with their clients."""

    def __init__(self, app: web.Application, config: ServerConfig) -> None:
        super().__init__(
            app,
            access_log=None,
            handler_cancellation=True,
            auto_decompress=False,  # what it can't decode it would take for no request
            keepalive_timeout=config.keepalive_s,
            max_field_size=config.max_header_bytes,
            max_line_size=config.max_header_bytes,
            # aiohttp grants it twice, before it cancels the handlers and after, and connections to
            # what is still to be sent.
            shutdown_timeout=config.shutdown_s / 3,
        )
        self._config = config

    async def _make_server(self) -> web.Server:
        await super()._make_server()  # which starts the application; the server is another
        return HttpServer(self.app, self._config, **self._kwargs)
