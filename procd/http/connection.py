"""The HTTP protocol: aiohttp's, with JSON errors, timeouts and limits from the first byte on.

What aiohttp answers to a request that it can't parse is plain text that quotes the request, which
may contain a credential. Here it is the error envelope, and quotes nothing.
"""

import asyncio
import logging
import resource
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any, Final, cast
from urllib.parse import urlsplit

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage, WebSocketReader
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.streams import StreamReader
from multidict import CIMultiDictProxy
from yarl import URL

from procd.config import ServerConfig
from procd.errors import BadRequest, Exhausted, NotFound, ProcdError
from procd.http.client import peer_of
from procd.http.keepalive import WriteTimeout
from procd.http.middleware import AWAITS_CONTINUE, METRICS, RequestMetrics, last_response
from procd.suspend import Countdown
from procd.unix.fd import RESERVED

log = logging.getLogger(__name__)

EXTRA_CONNECTIONS: Final = 256
# How long a whole head may be, in units of `server.max_header_bytes`.
HEAD_TO_HEADER: Final = 3
# How long the reply to a client that sends no more may take to begin, or to go on, seconds. Such a
# client has gone, or has closed its half only, as `nc` does.
HALF_CLOSE_S: Final = 0.25
# A stranger is disconnected after the reply to a longer request: a connection keeps its last
# request until the next one.
SHORT_REQUEST_BYTES: Final = 4 << 10
# After the last reply of a connection, so much of what its client still sends is read and dropped,
# for so long. To close at once would be a reset, which may take the reply from the client. Source:
# RFC 9112, section 9.6.
LINGER_BYTES: Final = 1 << 20
LINGER_S: Final = 2.0
# aiohttp's router takes the square of the number of segments: a longer path is not looked up.
MAX_SEGMENTS: Final = 32

# The reason why a request is refused before it comes to the application.
PROBLEM = web.RequestKey("PROBLEM", ProcdError)


class ConnectionLimit:
    """The limits on connections: how many there are, and how much strangers make procd keep.

    A connection is a stranger until the access control admits a request of it. Then it counts
    against `server.max_connections`: one more is admitted only in the place of the one that has
    been idle for longest. Strangers may take EXTRA_CONNECTIONS beyond; then the oldest is closed.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._max = config.max_connections
        self._max_kept_bytes = config.max_strangers_bytes
        self._kept_bytes = 0
        self._transports: dict[web.RequestHandler, asyncio.Transport] = {}
        # Each connection is in one of these, in order of time.
        self._strangers: dict[web.RequestHandler, int] = {}  # what each makes procd keep, bytes
        self._idle: dict[web.RequestHandler, None] = {}
        self._busy: set[web.RequestHandler] = set()
        self._empty = asyncio.Event()

    def __len__(self) -> int:
        return len(self._transports)

    @property
    def max(self) -> int:
        """How many may be admitted: `server.max_connections`, at most half of all descriptors."""
        return min(self._max, max(1, (_descriptors() - RESERVED) // 2))

    @property
    def is_full(self) -> bool:
        return not self._idle and len(self._busy) >= self.max

    def add(self, connection: web.RequestHandler, transport: asyncio.Transport) -> None:
        self._transports[connection] = transport
        self._strangers[connection] = 0
        descriptors = _descriptors()
        most = self.max + min(EXTRA_CONNECTIONS, (descriptors - RESERVED) // 8)
        if _number(transport) >= descriptors - RESERVED // 4:
            # A second one, as all that come in one turn are accepted before any is closed.
            for stranger in list(islice(self._strangers, 2)):
                self._abort(stranger)
        elif len(self) > most:
            self._abort(next(iter(self._strangers)))

    def remove(self, connection: web.RequestHandler) -> None:
        self._transports.pop(connection, None)
        self._kept_bytes -= self._strangers.pop(connection, 0)
        self._idle.pop(connection, None)
        self._busy.discard(connection)
        if not self._transports:
            self._empty.set()

    async def wait_closed(self, timeout_s: float) -> None:
        """Wait until all connections are closed, or for so long."""
        self._empty.clear()
        if self._transports:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._empty.wait()

    def is_stranger(self, connection: web.RequestHandler) -> bool:
        return connection in self._strangers

    def admit(self, connection: web.RequestHandler) -> None:
        """Note that a connection is busy with a request; raises Exhausted if too many are."""
        if connection in self._strangers:
            has_room = len(self._idle) + len(self._busy) < self.max
            number = _number(self._transports[connection])
            if not has_room or number >= _descriptors() - RESERVED // 2:
                if not self._idle:
                    limit = "open files" if has_room else f"{self.max} connections"
                    raise Exhausted(f"limit of {limit} is reached")
                longest_idle = next(iter(self._idle))
                longest_idle.force_close()
                self.remove(longest_idle)
            self._kept_bytes -= self._strangers.pop(connection)
        elif connection not in self._transports:
            return
        self._idle.pop(connection, None)
        self._busy.add(connection)

    def finish(self, connection: web.RequestHandler) -> None:
        if connection in self._busy:
            self._busy.remove(connection)
            self._idle[connection] = None

    def keep(self, connection: web.RequestHandler, size: int) -> None:
        """Note how much a connection makes procd keep, bytes; only those of strangers count.

        Above `server.max_strangers_bytes` the strangers with most are closed, to free a quarter.
        """
        if connection not in self._strangers:
            return
        self._kept_bytes += size - self._strangers[connection]
        self._strangers[connection] = size
        if self._kept_bytes > self._max_kept_bytes:
            for stranger in sorted(self._strangers, key=self._strangers.__getitem__, reverse=True):
                if self._kept_bytes <= self._max_kept_bytes * 3 // 4:
                    break
                self._abort(stranger)

    def _abort(self, connection: web.RequestHandler) -> None:
        self._transports[connection].abort()
        self.remove(connection)


CONNECTION_LIMIT = web.AppKey("CONNECTION_LIMIT", ConnectionLimit)


def _descriptors() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _number(transport: asyncio.Transport) -> int:
    number: int = transport.get_extra_info("socket").fileno()
    return number


class HttpConnection(web.RequestHandler):
    """One connection of a client.

    Attributes:
        heard_at: when the client sent something last, the loop's time.
        request: in progress.
        peername: the address of the client, for `request.remote`, also after it has gone.
    """

    peername: Any = None

    def __init__(self, server: web.Server, app: web.Application, config: ServerConfig) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # which is how aiohttp switches it off
            auto_decompress=False,
            keepalive_timeout=1e9,  # `_idle` has the timeout: it doesn't count a suspended sandbox
            lingering_time=LINGER_S,
            max_field_size=config.max_header_bytes,
            max_line_size=config.max_header_bytes,
        )
        self._config = config
        self._limit = app[CONNECTION_LIMIT]
        self._metrics = app[METRICS]
        self._wire: asyncio.Transport | None = None  # aiohttp drops its own when it closes it
        self.request: web.BaseRequest | None = None
        self._body: StreamReader | None = None  # of the last request that was parsed
        self._head_bytes = 0  # of a head that isn't complete
        self._kept_bytes = 0  # received since there was no request
        self._failed = False  # whether the parser has failed: nothing more is parsed
        self._too_long = False  # and that for a head that was too long
        self._websocket: WebSocketReader | None = None
        self._idle: Countdown | None = None
        self._half_close: Countdown | None = None
        self._write_timeout: WriteTimeout | None = None
        self.heard_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = cast("asyncio.Transport", transport)  # uvloop's isn't derived from it
        self.peername = peer_of(transport)
        self.heard_at = asyncio.get_running_loop().time()
        super().connection_made(transport)
        self._idle = Countdown(self._config.keepalive_s, self._close_if_idle)
        self._limit.add(self, self._wire)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop, and by aiohttp without data to parse what is left."""
        self.heard_at = asyncio.get_running_loop().time()
        if self._websocket is not None:
            self._websocket.feed_data(data)  # aiohttp drops it when the server stops
        elif self._failed:
            self._kept_bytes += len(data)
            if self._kept_bytes > LINGER_BYTES and self._wire is not None:
                self._wire.pause_reading()
        else:
            self._parse(data)

    def _parse(self, data: bytes) -> None:
        waiting = self._messages  # private, only read: nothing public tells of what waits
        before = len(waiting)
        in_body = self._body is not None and not self._body.is_eof()
        try:
            super().data_received(data)
        except (ValueError, LookupError):  # raised by yarl for some targets
            self._fail()
        if len(waiting) > before:
            self._head_bytes = 0
            message, body = waiting[-1]
            if isinstance(message, RawRequestMessage):
                self._body = body
            else:
                self._failed = True
                if in_body and self._body is not None:  # which aiohttp doesn't tell its reader
                    self._body.set_exception(web.RequestPayloadError("malformed chunk"))
                self._kept_bytes = 0
        elif in_body:
            return
        else:
            self._head_bytes += len(data)
            if self._head_bytes > self._config.max_header_bytes * HEAD_TO_HEADER:
                self._too_long = True
                self._fail()
        self._kept_bytes += len(data)
        self._count_kept()

    def _fail(self) -> None:
        """Have aiohttp's parser fail, so that the error is answered in turn."""
        self._failed = True
        super().data_received(b"\0")

    def _count_kept(self) -> None:
        if self._wire is not None:
            self._limit.keep(self, self._kept_bytes + self._wire.get_write_buffer_size())

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Called by aiohttp to send a reply that isn't sent yet."""
        if self._kept_bytes > SHORT_REQUEST_BYTES and self._limit.is_stranger(self):
            resp.force_close()
        result = await super().finish_response(request, resp, start_time)
        self.request = None
        self._limit.finish(self)
        if self._idle is not None:
            self._idle.cancel()
            self._idle = Countdown(self._config.keepalive_s, self._close_if_idle)
        self._watch_writing()
        if not self._messages:
            self._kept_bytes = 0
            self._count_kept()
            if self._failed:
                await self._linger()
        return result

    async def _linger(self) -> None:
        if self._wire is not None and not self._wire.is_closing():
            with suppress(OSError):  # the client has reset the connection
                self._wire.write_eof()
            await asyncio.sleep(LINGER_S)  # until `connection_lost` cancels it

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Called by aiohttp for a request that can't be parsed, or failed unexpectedly."""
        if isinstance(exc, ConnectionError) or request.writer.output_size > 0:
            raise ConnectionError("the client has gone, or part of a reply was sent") from exc
        if not isinstance(exc, HttpProcessingError):
            log.error("a request failed beyond its handler", exc_info=exc)
            return last_response(request, ProcdError("internal server error"))
        self._metrics.unmatched.count(BadRequest.status)
        if self._too_long or isinstance(exc, LineTooLong):
            reason = "the request line or the headers are too long"
        elif exc.message == "Too many headers received":  # what aiohttp's parser says
            reason = "there are more than 128 header fields"
        else:
            reason = "this is no well-formed request of HTTP/1.1"
        return last_response(None, BadRequest(f"bad request: {reason}"))

    def set_parser(self, parser: Any, data_received_cb: Any = None) -> None:
        """Called by aiohttp when the connection becomes a WebSocket."""
        self._websocket = parser
        super().set_parser(parser, data_received_cb)

    def eof_received(self) -> bool:  # type: ignore[override]  # as asyncio has it
        """Called by the event loop when the client sends no more; returns whether to stay open."""
        if self._wire is None:
            return False
        if self._websocket is not None:
            self._websocket.feed_eof()  # its handler ends when it has read what came before
            return True
        if self._half_close is None and self._reply_progress() is not None:
            self._await_reply()
        return self._half_close is not None

    def _await_reply(self) -> None:
        """Close the connection when HALF_CLOSE_S has passed without progress of a reply."""
        before = self._reply_progress()

        def check() -> None:
            progress = self._reply_progress()
            if progress is not None and progress is not before:
                self._await_reply()
            elif self._wire is not None:
                self._wire.close()

        self._half_close = Countdown(HALF_CLOSE_S, check)

    def _reply_progress(self) -> object | None:
        """Another object whenever a reply makes progress; None if none is due."""
        if self.request is None:
            return next(iter(self._messages), None)
        return object() if self.request.writer.output_size else self.request

    def pause_writing(self) -> None:
        """Called by the event loop when the client reads more slowly than it is written to."""
        super().pause_writing()
        self._count_kept()
        if self._websocket is None:  # which has a keepalive
            self._watch_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timeout is not None:
            self._write_timeout.cancel()
            self._write_timeout = None

    def _watch_writing(self) -> None:
        """Drop the client if it doesn't read what is left to send."""
        has_unsent = self._wire is not None and self._wire.get_write_buffer_size() > 0
        if has_unsent and self._write_timeout is None and self._wire is not None:
            self._write_timeout = WriteTimeout(self._wire, self._config)

    def _close_if_idle(self) -> None:
        if self.request is None and not self._messages:
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        for timeout in self._idle, self._half_close, self._write_timeout:
            if timeout is not None:
                timeout.cancel()
        self._idle = self._half_close = self._write_timeout = None
        self._limit.remove(self)
        self._wire = self.request = self._body = self._websocket = None
        super().connection_lost(exc)


def _problem_of(message: RawRequestMessage) -> ProcdError | None:
    """What is wrong with a request that aiohttp's parser accepts.

    It accepts HTTP/0.9 and 2.0; chunks in HTTP/1.0, whose clients may not know where they end (RFC
    9112, section 6.1); and hosts that yarl can't decode.
    """
    if message.path.partition("?")[0].count("/") > MAX_SEGMENTS:
        return NotFound("404 page not found")
    try:
        if not message.path.startswith("/") or message.method == hdrs.METH_CONNECT:
            _ = urlsplit(message.path), message.url.host
    except ValueError:
        pass
    else:
        if message.version == HttpVersion11:
            return None
        if message.version == HttpVersion10 and not message.chunked:
            return None
    return BadRequest("bad request: this is no well-formed request of HTTP/1.1")


def _make_request(
    make: Any,
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: web.RequestHandler,
    writer: AbstractStreamWriter,
    task: "asyncio.Task[None]",
) -> web.BaseRequest:
    """Make a request: aiohttp's request factory.

    A body in chunks is the last of its connection: aiohttp's parser puts a field of its trailer
    among the headers of the next request, which behind a proxy may be another client's.

    An expectation is hidden from aiohttp, which would ask for the body of a refused request:
    `schema.load` asks for it. RFC 9110, section 10.1.1.
    """
    problem = _problem_of(message)
    if isinstance(problem, BadRequest):
        message = message._replace(path="/", url=URL("/"), version=HttpVersion10)
    expected = message.headers.get(hdrs.EXPECT, "")
    if expected:
        headers = message.headers.copy()
        headers.popall(hdrs.EXPECT)
        message = message._replace(headers=CIMultiDictProxy(headers))
    if message.chunked:
        message = message._replace(should_close=True)
    request: web.BaseRequest = make(message, payload, protocol, writer, task)
    if problem is not None:
        request[PROBLEM] = problem
    if expected.lower() == "100-continue" and message.version == HttpVersion11:
        request[AWAITS_CONTINUE] = True
    cast("HttpConnection", protocol).request = request
    return request


async def _handle(
    handler: Any, metrics: RequestMetrics, request: web.BaseRequest
) -> web.StreamResponse:
    """Handle a request, unless it is refused before it comes to the application."""
    problem = request.get(PROBLEM)
    if problem is None:
        return cast("web.StreamResponse", await handler(request))
    metrics.unmatched.count(problem.status)
    return last_response(request if isinstance(problem, NotFound) else None, problem)


class Runner(web.AppRunner):
    """Serves an application by `HttpConnection`s; its handlers are cancelled with their clients."""

    def __init__(self, app: web.Application, config: ServerConfig) -> None:
        # aiohttp grants this twice: before it cancels the handlers, and after.
        self._third_s = config.shutdown_s / 3
        super().__init__(app, handler_cancellation=True, shutdown_timeout=self._third_s)
        self._config = config

    async def setup(self) -> None:
        await super().setup()
        server = self.server
        assert server is not None
        server.request_factory = partial(_make_request, server.request_factory)
        server.request_handler = partial(_handle, server.request_handler, self.app[METRICS])

    def connect(self) -> HttpConnection:
        """Make a connection: the protocol factory for `loop.create_server`."""
        assert self.server is not None
        return HttpConnection(self.server, self.app, self._config)

    async def cleanup(self) -> None:
        await super().cleanup()
        await self.app[CONNECTION_LIMIT].wait_closed(self._third_s)
