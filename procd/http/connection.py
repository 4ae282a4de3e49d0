"""The edge of HTTP: clients' connections, where no middleware is yet, or is no more.

What aiohttp answers there by itself is plain text that quotes what was sent, which may hold a key.
Here it is the envelope, as everywhere, and quotes nothing.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, cast

from aiohttp import web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.streams import StreamReader

from procd.config import ServerConfig
from procd.errors import BadRequest, ProcdError
from procd.http.connection_limit import VISITORS
from procd.http.envelope import envelope
from procd.http.forwarded import peer_of
from procd.http.frame_reader import FRAMES, Incoming
from procd.http.keepalive import Parting, Patience, has_taken, has_unread
from procd.http.refusal import Farewell, break_off, error_in_place, judged, reason
from procd.http.request_metrics import HEAP, LONG_BYTES, REQUESTS
from procd.http.responses import json_response
from procd.http.sockopt import spare_pacing

log = logging.getLogger(__name__)

# How much longer than `server.max_header_bytes` a whole head may be: a request line and a header
# that are as long as that, and as much again for all others. What comes with its end isn't counted:
# that may be a body.
HEAD_TO_HEADER: Final = 3


class HttpConnection(web.RequestHandler):
    """One connection of a client.

    While it isn't read, since a client has sent more than was asked for, the event loop doesn't
    learn that the client has gone; the poller does.

    Attributes:
        answered: how much was sent with the answer to a WebSocket's handshake, where that matters.
        incoming: what the client of a WebSocket sends, while there is one.
        last_words: whether its client, before it went, has sent something that nobody has read: the
            event loop drops that where it learns of the end by a write that failed.
        took_answer: whether it had read that answer when it went.
    """

    __slots__ = ("_body", "_config", "_farewell", "_frames", "_head_bytes", "_heads_bytes",
                 "_heap", "_max_head_bytes", "_parting", "_patience", "_peername", "_poller",
                 "_refused", "_requests", "_sent", "_visitors", "_was_held", "_wire",
                 "answered", "incoming", "last_words", "took_answer")  # fmt: skip

    def __init__(
        self, server: web.Server, app: web.Application, config: ServerConfig, **options: Any
    ) -> None:
        super().__init__(server, **options)
        self._config = config
        self._peername: Any = None
        self._wire: asyncio.Transport | None = None  # aiohttp forgets it as soon as it closes it
        self._patience: Patience | None = None
        self._parting: Parting | None = None
        self._requests = app[REQUESTS]
        self._heap = app[HEAP]
        self._visitors = app[VISITORS]
        self._frames = app[FRAMES]
        self._was_held = False  # its parser may have kept something back then
        self._max_head_bytes = config.max_header_bytes * HEAD_TO_HEADER
        self._head_bytes = 0  # of one that isn't whole
        self._heads_bytes = 0  # of all heads of a stranger since it was last owed nothing
        self._refused = False  # and nothing that comes is heard
        self._body: StreamReader | None = None  # one that isn't whole
        self._sent: asyncio.Future[None] | None = None
        self._farewell: Farewell | None = None
        self.incoming: Incoming | None = None
        self.answered, self.last_words, self.took_answer = 0, False, False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop for a new connection."""
        self._wire = cast("asyncio.Transport", transport)  # uvloop's only says that it is one
        sock = transport.get_extra_info("socket")
        self._peername = peer_of(transport)
        spare_pacing(sock, self._peername)
        super().connection_made(transport)
        self._visitors.came(self, sock.fileno())

    @property
    def peername(self) -> Any:
        """What a request's `remote` is made of: an address and more, or UNIX; None if unknown."""
        return self._peername

    def data_received(self, data: bytes) -> None:
        """Called by the event loop for what has come."""
        if self.incoming is not None:
            # Without aiohttp, which hears nobody any more when the server stops.
            self.incoming.feed_data(data)
            return
        if self._refused:
            if self._farewell is not None:
                self._farewell.heard(len(data))
            return
        if not self._is_asking:
            self._heads_bytes = 0
        queued = len(self._messages)
        body = self._body
        size = len(data) + (0 if body is None else body.total_bytes)
        super().data_received(data)
        size -= 0 if body is None else body.total_bytes
        if len(self._messages) > queued:
            self._judge(queued)
            if self._head_bytes:
                self._forget_head()
            self._body = self._messages[-1][1]
            size -= self._body.total_bytes
        elif self._body is None and not self._upgraded:
            self._head_bytes += len(data)
            if self._head_bytes > self._max_head_bytes:
                # It only looks at each header, and at how many there are.
                self._refuse(LineTooLong(b"", self._max_head_bytes))
        if size > 0 and self._visitors.is_stranger(self):
            self._heads_bytes += size
            self._visitors.keep(size)
        if self._body is not None and self._body.is_eof():
            self._body = None
        if self._messages and not isinstance(error := self._messages[-1][0], RawRequestMessage):
            error.exc.__traceback__ = None  # it leads to what has come, which would stay with it
            self._break_off_body()

    def eof_received(self) -> Any:
        """Called by the event loop when the client sends no more; whether it may still hear."""
        if self._wire is None or self._owed() is None:
            return False
        self._parting = self._parting or Parting(self._wire, self._owed)
        return True

    def _owed(self) -> object | None:
        """What is to be answered next; something new whenever an answer is on its way."""
        if self._upgraded:
            return None  # whose client has gone when it sends no more
        if (request := self._current_request) is None or request.writer.output_size:
            return object() if self._request_in_progress else next(iter(self._messages), None)
        return request

    def _judge(self, first: int) -> None:
        """Have each new request refused that is strange, or be the last where that is safer."""
        for index in range(first, len(self._messages)):
            message, body = self._messages[index]
            if isinstance(message, RawRequestMessage):
                self._messages[index] = judged(message, body)

    def _forget_head(self) -> None:
        """There is none, or what the parser has kept of it goes on its way."""
        if self._head_bytes > LONG_BYTES:
            self._heap.freed(self._head_bytes)
        self._head_bytes = 0

    def _refuse(self, error: Exception) -> None:
        """Have an error answered, as aiohttp has it of a head that it refuses itself."""
        self._refused = True
        self._messages.append(error_in_place(error))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    @property
    def _is_asking(self) -> bool:
        """Whether there is a request, or a beginning of one, that has no answer yet."""
        return bool(
            self._messages
            or self._head_bytes
            or self._current_request is not None
            or self._request_in_progress
        )

    @property
    def kept_bytes(self) -> int:
        """What is kept of a stranger: requests without an answer, and answers that it hasn't taken.

        Bodies aren't counted.
        """
        if self._refused or self._wire is None:
            return 0
        return self._heads_bytes * self._is_asking + self._wire.get_write_buffer_size()

    def turn_away(self, error: ProcdError) -> None:
        """Close it after this answer, or without one if it hasn't taken those before."""
        self._heap.freed(self.kept_bytes)
        if self._wire is not None and self._has_unsent:
            self._refused = True
            self._wire.abort()
        else:
            self._messages.clear()  # this is the answer to what it has asked
            self._refuse(error)
            self._break_off_body()

    def see_off(self) -> None:
        """Its last answer is out: drop what still comes, for a moment, then close."""
        self._refused = True
        self._resume_transport_reading()
        self.transport = None  # or aiohttp would close it now
        self.force_close()
        self._messages.clear()
        if self._wire is not None and not self._wire.is_closing():
            self._farewell = Farewell(self._wire)

    def _break_off_body(self) -> None:
        """Tell whoever waits for the rest of a body that it isn't well-formed.

        aiohttp only queues the error, as another request behind that one.
        """
        if len(self._messages) > 1:
            body = self._messages[-2][1]
        elif self._current_request is not None:
            body = self._current_request.content
        else:
            return
        if not body.is_eof():
            break_off(body)

    def begin(self, request: web.BaseRequest) -> None:
        """Take a request up, a turn of the loop before it is aiohttp's current one."""
        self._current_request = request
        self._visitors.began(self)

    def _pause_transport_reading(self) -> None:
        self._was_held = True
        super()._pause_transport_reading()

    def _process_keepalive(self) -> None:
        # After a standstill time is up before the event loop has read what came meanwhile.
        if self.has_asked:
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        super()._process_keepalive()

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109 - aiohttp's
        """Called by aiohttp at the end, which comes with the event loop's, sent or not."""
        await super().shutdown(timeout)
        if self._farewell is not None:
            self._farewell.end()
        if self._has_unsent:
            self._sent = self._loop.create_future()
            await asyncio.wait([self._sent], timeout=timeout)

    async def start(self) -> None:
        """Serve it, until there is no more to be done than to send what is left."""
        try:
            await super().start()
        finally:
            self._be_patient()

    def pause_writing(self) -> None:
        """Called by the event loop when so much waits to be sent that the rest has to wait, too."""
        super().pause_writing()
        if self.incoming is None:  # else its Pulse is felt
            self._be_patient()

    def resume_writing(self) -> None:
        """Called by the event loop when there is room for more."""
        super().resume_writing()
        if self._patience is not None and self._wire is not None and not self._wire.is_closing():
            self._patience.stop()
            self._patience = None

    def _be_patient(self) -> None:
        if self._patience is None and self._wire is not None and self._has_unsent:
            self._patience = Patience(self._wire, self._config)

    @property
    def _has_unsent(self) -> bool:
        return self._wire is not None and self._wire.get_write_buffer_size() > 0

    @property
    def _is_owed_nothing(self) -> bool:
        """Whether it has had its last answer, or is a stranger that asks for more than it takes."""
        return self._farewell is not None or (
            self._visitors.is_stranger(self) and (self._has_unsent or len(self._messages) > 1)
        )

    @property
    def has_asked(self) -> bool:
        """Whether it has a request that isn't answered yet, if only in its socket."""
        if self._is_owed_nothing:
            return False
        return bool(self._messages) or self._request_in_progress or has_unread(self.transport)

    def make_way(self) -> None:
        """Close it, for another; what it hasn't taken is dropped if nothing is owed to it."""
        if self._wire is not None and self._is_owed_nothing:
            self._wire.abort()
        self.force_close()

    def set_parser(self, parser: Any, data_received_cb: Callable[[], None] | None = None) -> None:
        """Called by aiohttp when the connection is a WebSocket's from now on."""
        self.incoming = Incoming(parser, self, self._frames)
        guarded: Any = self.incoming  # aiohttp only feeds it
        self._upgraded = True  # which its parser doesn't know where there was a choice of protocols
        super().set_parser(guarded, data_received_cb)

    @property
    def awaited(self) -> bool:
        """Whether there is room for messages of a WebSocket."""
        return not self._reading_paused

    def hold(self) -> None:
        """Read no more of a WebSocket for now."""
        self._pause_reading_for_buffer()

    def release(self) -> None:
        """Read again, once there is room."""
        self._resume_reading_for_buffer()

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001,FBT002 - as above
        """Called by aiohttp when there is room again, and twice with each body, held or not."""
        if self._was_held:
            self._was_held = not resume_parser
            super().resume_reading(resume_parser)
        if self.incoming is not None:
            self.incoming.go_on()

    async def finish_response(self, *answer: Any) -> tuple[web.StreamResponse, bool]:
        """Called by aiohttp to send an answer."""
        sent = await super().finish_response(*answer)
        if self._refused and self._farewell is None and not self._messages:  # that was the last
            self.see_off()
        return sent

    def connection_lost(self, exc: BaseException | None) -> None:
        """Called by the event loop before it closes the socket."""
        if self._upgraded:
            self.last_words = has_unread(self.transport)
            self.took_answer = has_taken(self.transport, self.answered, exc)
        for waiting in self._patience, self._parting, self._farewell:
            if waiting is not None:
                waiting.stop()
        self._forget_head()
        self._wire = self._patience = self._parting = None
        self.incoming = None  # it has what came of a message
        self._visitors.left(self)
        super().connection_lost(exc)
        # A body knows its connection. Neither is to wait for a collection with what has come of it.
        self._body = None
        self._messages.clear()
        if self._sent is not None:
            self._sent.set_result(None)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what can't be parsed, or failed where no middleware catches it, and close."""
        if isinstance(exc, ConnectionError) or request.writer.output_size > 0:
            raise ConnectionError("nobody is there to answer, or half of an answer is out") from exc
        if isinstance(exc, HttpProcessingError):
            self._refused = True
            exc = BadRequest(reason(exc))
        if isinstance(exc, ProcdError):
            self._requests.count_unparsed(exc.status)
            response = json_response(envelope(None, exc), exc.status)
        else:
            log.error("a request failed beyond its handler", exc_info=exc)
            body = envelope(request, ProcdError("internal server error"))
            response = json_response(body, ProcdError.status)
        response.force_close()
        return response
