"""WebSocket connections: messages in and frames out, the close.

aiohttp parses what comes in. What goes out is written to the transport frame by frame, since an
unmasked frame is the same bytes for every client and needs encoding only once.

Source: RFC 6455; Process API contract, section 10.3.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Final

from aiohttp import EofStream, WebSocketError, WSCloseCode, WSMsgType, hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_websocket import WSMessageNoDecodeText

from procd.config import ServerConfig
from procd.http.auth import CALLER, GATE
from procd.http.connection import HttpConnection
from procd.http.frame_reader import Incoming, Listener
from procd.http.goodbye import (
    STOPPED,
    TOKEN_GONE,
    TOO_LONG,
    TOO_SLOW,
    Goodbye,
    answer_to,
    close_frame,
)
from procd.http.handshake import UPGRADED, Select, handshake_of, version_token
from procd.http.keepalive import Pulse
from procd.http.sockopt import limit_unsent
from procd.metrics import Traffic
from procd.output.frames import PING, PONG, TEXT, encode
from procd.services.access import Token, Tokens

# What may wait in a socket's own buffer; a client that lags by more stops its cursor.
HIGH_BYTES: Final = 256 << 10
LOW_BYTES: Final = 64 << 10
# Beyond this even pongs wait, and what else the client sends with them.
MOST_BYTES: Final = 2 * HIGH_BYTES
# A client whose message was refused has sent all that it will when it is silent for so long.
REST_S: Final = 5.0

PING_FRAME: Final = encode(PING, b"")


class Connections:
    """The open connections of the server, so that they can be told when it stops."""

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self.traffic = Traffic()
        self.dropped = {"silent": 0, "slow": 0}
        self._open: set[Connection] = set()
        self._stopping = False

    def __len__(self) -> int:
        """How many are open."""
        return len(self._open)

    async def accept(
        self,
        request: web.Request,
        max_message_bytes: int,
        select: Select = version_token,
        stopped: Goodbye = STOPPED,
    ) -> "Connection":
        """Answer the handshake.

        Args:
            select: picks from the sub-protocols that are offered the one to answer with.
            stopped: what the Close says when the server stops.

        Raises:
            BadRequest: it isn't one.
            ConnectionError: the client has gone, or it was sent away: since the gate has let it in,
                time has passed, in which its token went or the server began to stop.
        """
        handshake = handshake_of(request, select)
        token = handshake.headers.get(hdrs.SEC_WEBSOCKET_PROTOCOL)
        ws = web.WebSocketResponse[bool](
            autoclose=False,
            autoping=False,
            compress=False,
            decode_text=False,
            max_msg_size=max_message_bytes + 1,  # aiohttp refuses what is as large as this
            protocols=() if token is None else (token,),
        )
        request[UPGRADED] = True
        writer = await ws.prepare(handshake)
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client has gone")
        protocol = request.protocol
        assert isinstance(protocol, HttpConnection)
        incoming = protocol.incoming
        if incoming is None:
            raise ConnectionResetError("the client has gone")
        connection = Connection(self, ws, incoming, writer, transport, request[CALLER], stopped)
        self._open.add(connection)
        if not request.app[GATE].still_admits(connection.caller):
            connection.close(*TOKEN_GONE)
        elif self._stopping:
            connection.close(*stopped)
        if connection.closing:
            connection.release()
            raise ConnectionResetError("the client was sent away")
        return connection

    def closed(self, connection: "Connection") -> None:
        """Forget a connection."""
        self._open.discard(connection)

    def drop_without(self, tokens: Tokens) -> None:
        """Close the connections whose caller's token is gone; what they still send is dropped."""
        for connection in self._open:
            if connection.caller not in tokens:
                connection.send_away(*TOKEN_GONE)

    def stop(self) -> None:
        """Tell every client that the server stops."""
        self._stopping = True
        for connection in self._open:
            connection.close(*connection.stopped)

    async def aclose(self, within_s: float) -> None:
        """Drop the clients that don't answer to `stop` in time."""
        ends = [connection.released for connection in self._open]
        if ends:
            await asyncio.wait(ends, timeout=within_s)
        for connection in self._open:
            connection.abort()


CONNECTIONS = web.AppKey("CONNECTIONS", Connections)


class Connection:
    """One WebSocket of a client.

    Attributes:
        at_once: is offered each short message for which `receive` waits, in the turn of the event
            loop that has brought it: to wake the handler takes as long again.
        caller: whose token it was opened with.
        heard: whether the client has sent a frame of any kind.
        heard_text: whether the last message was a text message.
        stopped: what the Close says when the server stops.
        closing: whether this side has sent its Close.
        stalled: set while its input isn't read on purpose; its silence proves nothing then.
        on_sent_away: called by `send_away`.
        on_nonsense: called when the client has sent what is refused; nothing more of it is heard.
        released: done when the handler has ended.
    """

    def __init__(
        self,
        connections: Connections,
        ws: "web.WebSocketResponse[bool]",
        incoming: Incoming,
        writer: AbstractStreamWriter,
        transport: asyncio.Transport,
        caller: Token,
        stopped: Goodbye,
    ) -> None:
        self._ws = ws
        self._incoming = incoming
        self.caller = caller
        self.stopped = stopped
        self.too_long = TOO_LONG  # the reason of a Close for that
        self.heard = False
        self.heard_text = False
        self.closing = False
        self.stalled = False
        self.on_sent_away: Callable[[], None] | None = None
        self.on_nonsense: Callable[[], None] | None = None
        self.at_once: Listener | None = None
        self._left_with: int | None = None  # the code of the client's Close
        self._over = False  # nothing more will be received
        self._connections = connections
        self._traffic = connections.traffic
        self._writer = writer
        self._transport = transport
        transport.set_write_buffer_limits(HIGH_BYTES, LOW_BYTES)
        limit_unsent(transport.get_extra_info("socket"))
        self.released: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pulse = Pulse(self, transport, connections.config)

    def write(self, frame: bytes) -> None:
        """Write a frame, or drop it if the connection is closing."""
        if not self.closing:
            self._send(frame)

    def _send(self, frame: bytes) -> None:
        if self._transport.is_closing():
            return
        self._traffic.sent_bytes += len(frame)
        self._pulse.written_bytes += len(frame)
        try:
            self._transport.write(frame)
        except MemoryError:  # nobody knows how much of it is out
            self._transport.abort()

    def write_text(self, payload: bytes) -> None:
        """Write a text message."""
        self.write(encode(TEXT, payload))

    async def answer(self, frame: bytes) -> None:
        """Write what a message asks for; who doesn't read such answers is not read until it does.

        Raises:
            ConnectionError: the client has gone.
        """
        await self._answers_read()
        self.write(frame)

    async def _answers_read(self) -> None:
        if self._transport.get_write_buffer_size() > MOST_BYTES:
            await self.drain()

    def ping(self) -> None:
        """Ask for a sign of life."""
        self.write(PING_FRAME)

    @property
    def heard_at(self) -> float:
        """When the client sent something last; the loop's time, which is monotonic(3)'s."""
        return self._incoming.heard_at

    @property
    def full(self) -> bool:
        """Whether the client is behind by more than its socket may hold."""
        return self._transport.get_write_buffer_size() > HIGH_BYTES

    async def drain(self) -> None:
        """Wait until it is no longer full.

        Raises:
            ConnectionError: the client has gone.
        """
        await self._writer.drain()

    async def receive(self) -> bytes | None:
        """The next message's payload; None when the client has closed or gone.

        A client's Close is answered by `release`, when all that came before it is dealt with.

        Once `close` was called, what the client still sends is read and dropped until it answers:
        to leave it unread would have the kernel drop what the client hasn't read, too. Its pings
        are answered: who has much to read first asks meanwhile whether anybody is there.
        """
        while not self._over:
            message = await self._next()
            if message is None:
                break
            kind = message.type
            if kind is WSMsgType.BINARY or kind is WSMsgType.TEXT:
                data: bytes = message.data
                self._received(data, is_text=kind is WSMsgType.TEXT)
                if self.closing:
                    continue
                return data
            if kind is WSMsgType.PING:
                await self._answers_read()
                self._send(encode(PONG, message.data))
            elif kind is WSMsgType.CLOSE:
                self.heard = True
                code: int = message.data
                self._left_with = answer_to(code)
                break
            self.heard = True
        self._over = True
        return None

    async def _next(self) -> WSMessageNoDecodeText | None:
        """The next message of any kind; None when the client has gone, or has sent nonsense.

        aiohttp's `receive` closes the TCP connection in the midst of a message that is too long,
        and the client, which is still sending, never gets to read why. Nor may one that has sent
        nonsense, if the answer to a ping is on its way behind that.
        """
        reader = self._ws._reader  # noqa: SLF001
        assert reader is not None
        if self.at_once is not None:
            self._incoming.listener = self._offer
        try:
            return await reader.read()
        except (EofStream, ConnectionError):
            return None
        except WebSocketError as exc:
            self.heard = True
            is_too_long = exc.code == WSCloseCode.MESSAGE_TOO_BIG
            self.close(exc.code, self.too_long if is_too_long else "")
            self._pulse.sent_away()
            if self.on_nonsense is not None:
                self.on_nonsense()
            if not (is_too_long or self._transport.is_closing()):
                with suppress(OSError):  # the client has reset the connection
                    self._transport.write_eof()  # whose answer may be no frame, either
            await self._incoming.answered(REST_S)
            self._transport.close()
            return None
        finally:
            # Where a message lay there already, the parser took none since. What comes next isn't
            # to be heard before that, which the handler may have to wait with.
            self._incoming.listener = None

    def _offer(self, data: bytes, is_text: bool) -> bool:  # noqa: FBT001 - it is a Listener
        if self.closing or self.at_once is None or not self.at_once(data, is_text):
            return False
        self._received(data, is_text=is_text)
        return True

    def _received(self, data: bytes, *, is_text: bool) -> None:
        self.heard = True
        self.heard_text = is_text
        self._traffic.received_bytes += len(data)

    def ignore_messages(self) -> None:
        """Drop what the client sends from now on but control frames, however long it is."""
        self._incoming.deaf = True

    async def unread(self) -> AsyncIterator[bytes]:
        """The messages of a client that has gone, before its Close, that `receive` didn't return.

        aiohttp's own returns no more of them. Only their turns are waited for.
        """
        reader = self._ws._reader  # noqa: SLF001
        with suppress(EofStream, ConnectionError, WebSocketError):
            while reader is not None and self._incoming.gone:
                message = await reader.read()
                if message.type is WSMsgType.CLOSE:
                    break
                if message.type is WSMsgType.BINARY or message.type is WSMsgType.TEXT:
                    self.heard_text = message.type is WSMsgType.TEXT
                    yield message.data

    def abort(self) -> None:
        """Drop the connection."""
        self._transport.abort()

    def drop_silent(self) -> None:
        """Drop the connection because the client is dead."""
        self._connections.dropped["silent"] += 1
        self.abort()

    def close(self, code: int, reason: str) -> None:
        """Say why and begin to close; `receive` then waits for the client's answer.

        As long as the client shows life: what it hasn't read yet lies before the Close, and would
        be lost with the connection. A second call does nothing.
        """
        if self.closing:
            return
        self.write(close_frame(code, reason))
        self.closing = True
        self._pulse.closed()

    def send_away(self, code: int, reason: str) -> None:
        """Begin to close, and cut the client off at once from what it is attached to.

        It is dropped if it doesn't answer, whatever it goes on to send.
        """
        self.close(code, reason)
        self._pulse.sent_away()
        if self.on_sent_away is not None:
            self.on_sent_away()

    def drop_slow(self) -> None:
        """Begin to close because the client has fallen too far behind."""
        if not self.closing:
            self._connections.dropped["slow"] += 1
        self.close(*TOO_SLOW)
        self._pulse.sent_away()

    async def finish(self) -> None:
        """Wait for the client's answer to `close`."""
        while await self.receive() is not None:
            continue

    def release(self) -> web.StreamResponse:
        """The handler has ended, and is to return this.

        What aiohttp has parsed of a message hangs on it, so it isn't kept: whoever still knows
        this connection may have to wait for the cycle collector.
        """
        if self._left_with is not None:
            self.close(self._left_with, "")
            self._transport.close()
        self._pulse.stop()
        self._connections.closed(self)
        self.released.set_result(None)
        response = self._ws
        del self._ws, self._incoming
        return response
