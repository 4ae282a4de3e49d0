"""The limits on connections: how many there are, and how much unauthenticated ones make procd keep.

A connection is a stranger until a request of it is admitted, which the access control decides. Then
it counts against `server.max_connections`: one more than that is admitted only in the place of the
one that has been idle for longest. Strangers may take EXTRA places beyond, so that each client gets
an answer; the oldest one is closed when they take more. So they shut nobody out.
"""

import asyncio
import resource
from contextlib import suppress
from itertools import islice
from typing import Final

from aiohttp import web

from procd.config import ServerConfig
from procd.errors import Exhausted
from procd.unix.fd import RESERVED

EXTRA: Final = 256


class ConnectionLimit:
    """All open connections."""

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
        """Whether no further connection can be admitted."""
        return not self._idle and len(self._busy) >= self.max

    def add(self, connection: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Add a new connection; the oldest strangers are closed if there are too many."""
        self._transports[connection] = transport
        self._strangers[connection] = 0
        descriptors = _descriptors()
        most = self.max + min(EXTRA, (descriptors - RESERVED) // 8)
        if _number(transport) >= descriptors - RESERVED // 4:
            # A second one, as all that come in one turn are accepted before any is closed.
            for stranger in list(islice(self._strangers, 2)):
                self._abort(stranger)
        elif len(self) > most:
            self._abort(next(iter(self._strangers)))

    def remove(self, connection: web.RequestHandler) -> None:
        """Remove a connection that is closed."""
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
        """Return whether no request of a connection was admitted yet."""
        return connection in self._strangers

    def admit(self, connection: web.RequestHandler) -> None:
        """Note that a connection is busy with a request, for which another one may be closed.

        Raises:
            Exhausted: as many connections are busy as there may be.
        """
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
        """Note that the request of a connection was answered."""
        if connection in self._busy:
            self._busy.remove(connection)
            self._idle[connection] = None

    def keep(self, connection: web.RequestHandler, size: int) -> None:
        """Note how much a connection makes procd keep, bytes; only those of strangers count.

        Above `server.max_strangers_bytes`, the strangers with most are closed until a quarter of
        that is free.
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
    """How many descriptors procd may have."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _number(transport: asyncio.Transport) -> int:
    number: int = transport.get_extra_info("socket").fileno()
    return number
