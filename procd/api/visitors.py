"""The connections of the server, WebSockets among them: how many, and who goes for a newcomer.

With all places taken, the connection that has been idle for longest is closed. Where none is idle,
a few more are let in, to be told how procd is and otherwise that there is no room.
"""

import resource
from typing import Final

from aiohttp import hdrs, web

from procd.config import ServerConfig
from procd.unix.fd import RESERVED

# Beyond the limit, with nobody idle.
EXTRA: Final = 16


class Visitors:
    """All connections.

    Attributes:
        extra: those that there is no room for; each gets one answer.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._max = config.max_connections
        self._all: set[web.RequestHandler] = set()
        self._idle: dict[web.RequestHandler, None] = {}  # for longest first
        self.extra: set[web.RequestHandler] = set()

    def __len__(self) -> int:
        return len(self._all)

    @property
    def max(self) -> int:
        """How many there may be: no more than leave as many descriptors again to what runs."""
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return min(self._max, max(1, (descriptors - RESERVED) // 2))

    def came(self, visitor: web.RequestHandler, number: int) -> None:
        """Let somebody in whose descriptor is `number`; somebody else may have to go for that."""
        self._all.add(visitor)
        self._idle[visitor] = None
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if len(self._all) <= self.max and number < descriptors - RESERVED // 2:
            return
        idlest = next(iter(self._idle))
        if idlest is visitor and len(self.extra) < EXTRA:
            self.extra.add(visitor)
            return
        idlest.force_close()
        self.left(idlest)

    def left(self, visitor: web.RequestHandler) -> None:
        """Forget one."""
        self._all.discard(visitor)
        self._idle.pop(visitor, None)
        self.extra.discard(visitor)

    def began(self, visitor: web.RequestHandler) -> None:
        """It has a request."""
        self._idle.pop(visitor, None)

    def ended(self, visitor: web.RequestHandler) -> None:
        """That is answered; a WebSocket's is when it is closed."""
        if visitor in self._all:
            self._idle[visitor] = None


VISITORS = web.AppKey("VISITORS", Visitors)


async def dismiss(request: web.Request, response: web.StreamResponse) -> None:
    """Have whom there is no room for leave with the answer."""
    if request.protocol in request.app[VISITORS].extra:
        response.force_close()
        response.headers[hdrs.CONNECTION] = "close"
