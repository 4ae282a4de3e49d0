"""WebSockets: messages in, frames out, and the close.

aiohttp parses what comes in. What goes out is written to the transport as frames, since an unmasked
frame is the same bytes for every client and needs encoding only once.

Source: RFC 6455; Process API contract, sections 9.3 and 10.3.
"""

import asyncio
import logging
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, cast

from aiohttp import HttpVersion11, WebSocketError, WSCloseCode, WSMsgType, hdrs, web
from aiohttp.abc import AbstractStreamWriter

from procd.config import ServerConfig
from procd.errors import BadRequest
from procd.http.auth import ACCESS_CONTROL, CALLER
from procd.http.client import asks_websocket, offered, version_token
from procd.http.connection import HttpConnection
from procd.http.keepalive import Keepalive
from procd.http.middleware import WEBSOCKET_VERSION
from procd.metrics import Traffic
from procd.output.frames import CLOSE, PING, PONG, TEXT, encode
from procd.services.tokens import Tokens
from procd.suspend import within

# What may wait in a transport's buffer; a client that lags by more stops its cursor.
HIGH_BYTES: Final = 256 << 10
LOW_BYTES: Final = 64 << 10
# Beyond this not even pongs are written, and the client isn't read.
MAX_ANSWERS_BYTES: Final = 2 * HIGH_BYTES
# What the kernel takes before it can send it. By itself it takes 4 MiB, and the echoes of keys lie
# behind that.
UNSENT_BYTES: Final = 128 << 10
MESSAGES_A_TURN: Final = 64
# A client whose message was refused has sent all of it when it is silent for so long, seconds.
SILENCE_S: Final = 5.0
# A control frame carries 125 bytes, two of them the close code. Source: section 5.5.
MAX_REASON_BYTES: Final = 123
# The largest close code that an application may use. Source: section 7.4.2.
LAST_CODE: Final = 4999

CloseReason = tuple[int, str]
STOPPING: Final = "server shutdown"
STOPPED: Final[CloseReason] = (WSCloseCode.GOING_AWAY, STOPPING)
TOKEN_GONE: Final[CloseReason] = (WSCloseCode.POLICY_VIOLATION, "the token is no longer valid")
TOO_SLOW: Final[CloseReason] = (WSCloseCode.POLICY_VIOLATION, "slow consumer")
TOO_LONG: Final = "the message was too long"
# The types of messages that a client has sent; others tell of the connection.
FRAME_TYPES: Final = frozenset(
    (WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.PING, WSMsgType.PONG, WSMsgType.CLOSE)
)


def close_frame(code: int, reason: str) -> bytes:
    """A Close frame; the reason is cut to what fits, code 0 is none."""
    message = reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore").encode()
    return encode(CLOSE, (struct.pack("!H", code) if code else b"") + message)


def check_handshake(request: web.Request) -> None:
    """Raise BadRequest unless a request is a WebSocket handshake."""
    is_known = asks_websocket(request) and bool(web.WebSocketResponse().can_prepare(request))
    version = request.headers.get(hdrs.SEC_WEBSOCKET_VERSION)
    # aiohttp takes drafts of the protocol as well. HTTP/1.0: RFC 9110, section 7.8.
    if not is_known or version != WEBSOCKET_VERSION or request.version < HttpVersion11:
        raise BadRequest("WebSocket upgrade required")


def cork(request: web.Request, *, on: bool) -> None:
    """Hold back what is written, for 200 ms at most, or send it. Source: tcp(7), TCP_CORK."""
    if request.transport is not None:
        sock = request.transport.get_extra_info("socket")
        with suppress(OSError):  # a unix socket, or closed by now
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, on)


class WebSockets:
    """The open WebSockets of the server."""

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self.traffic = Traffic()
        self.dropped = {"silent": 0, "slow": 0}  # clients, by reason
        self._open: set[WebSocket] = set()
        self._stopping = False
        # It logs all sub-protocols that are offered, which may carry secrets.
        logging.getLogger("aiohttp.websocket").setLevel(logging.ERROR)

    def __len__(self) -> int:
        return len(self._open)

    @asynccontextmanager
    async def accept(
        self,
        request: web.Request,
        max_message_bytes: int,
        *,
        select: Callable[[list[str]], str | None] = version_token,
        stopped: CloseReason = STOPPED,
        too_long: str = TOO_LONG,
    ) -> "AsyncIterator[WebSocket]":
        """Upgrade a request; the WebSocket is closed when the block ends.

        Args:
            stopped: code and reason of the Close when the server stops.
            too_long: the reason of the Close after a message above `max_message_bytes`.

        Raises:
            BadRequest: it is no handshake.
            ConnectionError: the client has gone, its token is no longer valid, or the server stops.
        """
        check_handshake(request)
        response = _Response(
            autoclose=False,
            autoping=False,
            compress=False,
            decode_text=False,
            max_msg_size=max_message_bytes + 1,  # aiohttp refuses a message of that size
        )
        if (token := select(offered(request))) is not None:
            response.headers[hdrs.SEC_WEBSOCKET_PROTOCOL] = token
        writer = await response.prepare(request)
        if request.transport is None:
            raise ConnectionResetError("the client has gone")
        websocket = WebSocket(self, request, response, writer, stopped, too_long)
        self._open.add(websocket)
        try:
            if not request.app[ACCESS_CONTROL].is_valid(websocket.caller):
                websocket.close(*TOKEN_GONE)
            elif self._stopping:
                websocket.close(*stopped)
            if websocket.closing:
                raise ConnectionResetError("the client was sent away")
            yield websocket
            await websocket.finish()
        finally:
            self._open.discard(websocket)
            websocket.keepalive.stop()
            websocket.released.set_result(None)

    def drop_without(self, tokens: Tokens) -> None:
        for websocket in self._open:
            if websocket.caller not in tokens:
                websocket.dismiss(*TOKEN_GONE)

    def stop(self) -> None:
        """Close all WebSockets, and those to come, because the server stops."""
        self._stopping = True
        for websocket in self._open:
            websocket.close(*websocket.stopped)

    async def aclose(self, within_s: float) -> None:
        """Drop the clients that don't answer to `stop` in time."""
        released = [websocket.released for websocket in self._open]
        if released:
            await asyncio.wait(released, timeout=within_s)
        for websocket in self._open:
            websocket.abort()


WEBSOCKETS = web.AppKey("WEBSOCKETS", WebSockets)


class _Response(web.WebSocketResponse[bool]):
    """aiohttp's side of a WebSocket. `WebSocket` closes it, after the rest of a refused message."""

    async def close(self, **_: Any) -> bool:
        return False


class WebSocket:
    """One WebSocket of a client.

    Attributes:
        response: what the handler is to return.
        heard: whether the client has sent a frame of any kind.
        heard_text: whether the last message was a text message.
        closing: whether a Close was sent.
        released: done when the handler has ended.
    """

    def __init__(
        self,
        websockets: WebSockets,
        request: web.Request,
        response: _Response,
        writer: AbstractStreamWriter,
        stopped: CloseReason,
        too_long: str,
    ) -> None:
        transport = request.transport
        assert transport is not None
        self.response = response
        self.caller = request[CALLER]
        self.stopped = stopped
        self.heard = False
        self.heard_text = False
        self.closing = False
        self.on_dismiss: Callable[[], None] | None = None
        self.released: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._too_long = too_long
        self._connection = cast("HttpConnection", request.protocol)
        self._websockets = websockets
        self._writer = writer
        self._transport = transport
        self._client_code: int | None = None  # of the client's Close
        self._over = False  # nothing more will be received
        self._refused = False  # since the client has sent what can't be parsed
        self._messages = 0
        transport.set_write_buffer_limits(HIGH_BYTES, LOW_BYTES)
        _limit_unsent(transport.get_extra_info("socket"))
        self.keepalive = Keepalive(
            transport,
            websockets.config,
            heard_at=lambda: self._connection.heard_at,
            ping=self.ping,
            drop=self.drop_silent,
        )

    def write(self, frame: bytes) -> None:
        if not self.closing:
            self._send(frame)

    def _send(self, frame: bytes) -> None:
        if not self._transport.is_closing():
            self._websockets.traffic.sent_bytes += len(frame)
            self.keepalive.written_bytes += len(frame)
            self._transport.write(frame)

    def write_text(self, payload: bytes) -> None:
        self.write(encode(TEXT, payload))

    def ping(self) -> None:
        self.write(encode(PING, b""))

    async def answer(self, frame: bytes) -> None:
        """Write an answer to a message; a client that doesn't read answers isn't read meanwhile."""
        await self._drain_answers()
        self.write(frame)

    async def _drain_answers(self) -> None:
        if self._transport.get_write_buffer_size() > MAX_ANSWERS_BYTES:
            await self.drain()

    @property
    def full(self) -> bool:
        return self._transport.get_write_buffer_size() > HIGH_BYTES

    async def drain(self) -> None:
        """Wait until it is no longer full; raises ConnectionError if the client has gone."""
        await self._writer.drain()

    async def receive(self) -> bytes | None:
        """The payload of the next message; None when the client has closed or gone.

        Once `close` was called, messages are dropped until the client answers: if they were left
        unread, the kernel would drop what the client hasn't read. Its pings are answered.
        """
        while not self._over:
            self._messages += 1
            if self._messages % MESSAGES_A_TURN == 0:
                await asyncio.sleep(0)  # messages that are there already are not waited for
            message = await self.response.receive()
            self.heard = self.heard or message.type in FRAME_TYPES
            match message.type:
                case WSMsgType.BINARY | WSMsgType.TEXT:
                    self.heard_text = message.type is WSMsgType.TEXT
                    self._websockets.traffic.received_bytes += len(message.data)
                    if not self.closing:
                        return cast("bytes", message.data)
                case WSMsgType.PING:
                    await self._drain_answers()
                    if not self.keepalive.must_close:
                        self._send(encode(PONG, message.data))  # also after a Close
                case WSMsgType.PONG:
                    pass
                case WSMsgType.CLOSE:
                    self._client_code = message.data
                    self._over = True
                case WSMsgType.ERROR if isinstance(message.data, WebSocketError):
                    code = message.data.code
                    self.close(code, self._too_long if code == WSCloseCode.MESSAGE_TOO_BIG else "")
                    self.heard = self._refused = self._over = True
                case _:
                    self._over = True
        return None

    def abort(self) -> None:
        self._transport.abort()

    def drop_silent(self) -> None:
        self._websockets.dropped["silent"] += 1
        self.abort()

    def close(self, code: int, reason: str) -> None:
        """Send a Close, once; `receive` then waits for the answer of a client that is alive."""
        if not self.closing:
            self.write(close_frame(code, reason))
            self.closing = True
            self.keepalive.close_sent()

    def dismiss(self, code: int, reason: str) -> None:
        """Send a Close and detach the client; it is dropped if it doesn't answer soon."""
        self.close(code, reason)
        self.keepalive.must_close = True
        if self.on_dismiss is not None:
            self.on_dismiss()

    def drop_slow(self) -> None:
        if not self.closing:
            self._websockets.dropped["slow"] += 1
        self.close(*TOO_SLOW)
        self.keepalive.must_close = True

    async def wait_closed(self) -> None:
        while await self.receive() is not None:
            pass

    async def finish(self) -> None:
        """Complete the close, when the handler has ended."""
        if self._client_code is not None:
            code = self._client_code
            if code == WSCloseCode.ABNORMAL_CLOSURE or code > LAST_CODE:
                code = WSCloseCode.PROTOCOL_ERROR  # aiohttp lets these in
            self.close(code, "")
            self._transport.close()
        elif self._refused:
            self.keepalive.must_close = True
            await self._linger()
            self._transport.close()

    async def _linger(self) -> None:
        """Drop the rest of a refused message: a reset might take the Close from the client."""
        if not self._transport.is_closing():
            with suppress(OSError):  # the client has reset the connection
                self._transport.write_eof()
        heard_at = None
        while heard_at != self._connection.heard_at:
            heard_at = self._connection.heard_at
            with suppress(TimeoutError):
                await within(SILENCE_S, asyncio.Event().wait)  # until the handler is cancelled


def _limit_unsent(sock: socket.socket) -> None:
    """Source: ip-sysctl.rst, tcp_notsent_lowat."""
    with suppress(OSError):  # a unix socket, or closed by now
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)


async def serve_both_ways(
    reading: Coroutine[object, None, None], writing: Coroutine[object, None, None], name: str
) -> None:
    """Write to a client while it is read from; the end of reading ends both."""
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(writing, name=name)
            try:
                await reading
            finally:
                task.cancel()
    except* ConnectionError:
        pass  # the client has gone
