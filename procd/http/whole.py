"""Whole: a JSON reply that is there from its first byte to its last, and goes out in one piece.

And what completes a reply of any kind just before it goes out.
"""

from collections.abc import Callable
from typing import Final

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import SERVER_SOFTWARE
from aiohttp.web_response import REASON_PHRASES
from multidict import CIMultiDict

CONTENT_TYPE: Final = "application/json; charset=utf-8"
ID_HEADER: Final = "X-Request-Id"
# Those of a status with which HTTP has no body: RFC 9110, sections 15.3.5 and 15.4.5.
BODILESS: Final = (204, 304)

# One of those called in turn with a request and the reply to it, of which nothing is out yet.
Complete = Callable[[web.Request, web.StreamResponse], None]
COMPLETIONS: web.AppKey[list[Complete]] = web.AppKey("COMPLETIONS", list)


async def complete(request: web.Request, response: web.StreamResponse) -> None:
    """Complete a reply that aiohttp is about to begin."""
    if not isinstance(response, WholeResponse):
        for completion in request.app[COMPLETIONS]:
            completion(request, response)
    elif response.request_id:  # completed by itself, but for its headers, of which it had none then
        response.headers[ID_HEADER] = response.request_id


class WholeResponse(web.Response):
    """A JSON reply.

    Most have the same headers, and go out with their bytes made by one format: the same bytes that
    aiohttp makes of headers in a mapping, with a third of the instructions. A reply with any other
    header, or to a client that wants its connection closed, or speaks 1.0, is left to aiohttp.

    Args:
        body: the JSON.

    Attributes:
        request_id: what the client is told that its request was called.
    """

    def __init__(self, body: bytes, status: int = 200) -> None:
        # Not as aiohttp has it: there are no headers until somebody asks for them.
        self._state = {}
        self._status = status
        self._reason = REASON_PHRASES.get(status, "")
        self._body = body
        self._made: CIMultiDict[str] | None = None
        self.request_id = ""

    @property
    def _headers(self) -> CIMultiDict[str]:  # type: ignore[override]  # found here by aiohttp, too
        if self._made is None:
            self._made = CIMultiDict({hdrs.CONTENT_TYPE: CONTENT_TYPE})
        return self._made

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Complete it and send it; what aiohttp calls next, `write_eof`, then has nothing to do.

        Raises:
            ConnectionError: the client has gone.
        """
        if self.prepared:
            return await super().prepare(request)
        usual = request.version == HttpVersion11 and request.method != hdrs.METH_HEAD
        if (match := getattr(request, "_match_info", None)) is not None:
            app = match.current_app
            for completion in app[COMPLETIONS]:
                completion(request, self)
            usual = usual and len(app.on_response_prepare) == 1
        keep_alive = request.keep_alive if self._keep_alive is None else self._keep_alive
        if not (usual and keep_alive) or self._made is not None or self._status in BODILESS:
            return await super().prepare(request)
        body = self._body
        assert isinstance(body, bytes)
        name = f"{ID_HEADER}: {self.request_id}\r\n" if self.request_id else ""
        head = (
            f"HTTP/1.1 {self._status} {self._reason}\r\n"
            f"Content-Type: {CONTENT_TYPE}\r\n"
            f"Content-Length: {len(body)}\r\n"
            f"Date: {rfc822_formatted_time()}\r\n"
            f"Server: {SERVER_SOFTWARE}\r\n"
            f"{name}\r\n"
        )
        self._keep_alive = True
        await request.writer.write_eof(head.encode() + body)
        self._eof_sent = True
        return None
