"""The connections of the server, WebSockets among them: how many, and who goes for a newcomer.

With all places taken, the connection that has been idle for longest is closed. Where none is idle,
some more are let in, to be told how procd is and otherwise that there is no room.

None is idle whose request may be on its way: a client that gets no answer sends it again. But two
count as idle even amid a request: a stranger, who has asked for nothing yet that not everybody may
ask for, if it has sent more requests than it reads replies to; and whoever was refused and may
still send a body. Who shows a token has the place even of one who has just come and said nothing.

What is kept of strangers, requests and answers, is limited, all together: those with most are
refused. And as a connection keeps what it was asked last until it is asked for more, that of a
stranger who has asked with much is closed after the answer.
"""

import resource
import time
from collections.abc import Container
from typing import Final, Protocol

from aiohttp import hdrs, web

from procd.config import ServerConfig
from procd.errors import Exhausted, ProcdError
from procd.unix.fd import RESERVED

# Beyond the limit, with nobody idle; the more where descriptors abound.
FEW_EXTRA: Final = 16
MANY_EXTRA: Final = 256
# How long a newcomer may take to say something while there is room for more, seconds.
SHY_S: Final = 0.5
# What a stranger may have asked with that stays for more: no more than it takes itself.
FEW_BYTES: Final = 4 << 10


class Visitor(Protocol):
    """A connection."""

    @property
    def has_asked(self) -> bool:
        """Whether it has a request that isn't answered yet, if only in its socket."""

    @property
    def kept_bytes(self) -> int:
        """What is kept of a stranger: requests without an answer, and answers that it hasn't taken.

        Bodies aren't counted.
        """

    def make_way(self) -> None:
        """Close it, for another."""

    def turn_away(self, error: ProcdError) -> None:
        """Answer this, and close."""

    def see_off(self) -> None:
        """Its last answer is out: drop what still comes, for a moment, then close."""


class Visitors:
    """All connections.

    Attributes:
        extra: those that there is no room for; each gets one answer.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._max = config.max_connections
        self._max_kept_bytes = config.max_strangers_bytes
        self._kept_bytes = 0  # of strangers, at the most
        self._all: dict[object, Visitor] = {}
        # Since when, for longest first: those whose last request was answered, and newcomers.
        self._idle: dict[object, Visitor] = {}
        self._new: dict[object, tuple[Visitor, float]] = {}
        self.extra: dict[object, Visitor] = {}
        self._known: set[object] = set()

    def __len__(self) -> int:
        return len(self._all)

    @property
    def max(self) -> int:
        """How many there may be: no more than leave as many descriptors again to what runs."""
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return min(self._max, max(1, (descriptors - RESERVED) // 2))

    @property
    def _abound(self) -> bool:
        """Whether there are descriptors for many beyond the limit: a half is for connections."""
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return len(self._all) + FEW_EXTRA < (descriptors - RESERVED) * 5 // 8

    def came(self, visitor: Visitor, number: int) -> None:
        """Let somebody in whose descriptor is `number`; somebody else may have to go for that."""
        now = time.monotonic()
        self._all[visitor] = visitor
        self._new[visitor] = visitor, now
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        last = descriptors - RESERVED // 2
        if len(self._all) - len(self.extra) <= self.max and number < last:
            return
        leaves = self._idlest(now - SHY_S)
        if leaves is None:
            most = self.max + (MANY_EXTRA if self._abound else FEW_EXTRA)
            if len(self._all) <= most and number < last + FEW_EXTRA:
                self.extra[visitor] = visitor
                return
            # One that is only told that there is no room: no command has run for it.
            leaves = self._idlest(now) or next(iter(self.extra.values()), visitor)
        leaves.make_way()
        if leaves in self.extra:  # which makes no room but beyond the limit
            self.extra[visitor] = visitor
        self.left(leaves)

    def _idlest(self, before: float, but: Container[object] = ()) -> Visitor | None:
        """The longest idle `but` these; of newcomers, only one that came `before`."""
        for visitor in self._idle.values():
            if visitor not in but and not visitor.has_asked:
                return visitor
        for visitor, since in self._new.values():
            if since > before:
                break
            if visitor not in but and not visitor.has_asked:
                return visitor
        return None

    def left(self, visitor: object) -> None:
        """Forget one."""
        self._all.pop(visitor, None)
        self._idle.pop(visitor, None)
        self._new.pop(visitor, None)
        self._known.discard(visitor)
        self.extra.pop(visitor, None)

    def is_stranger(self, visitor: object) -> bool:
        """Whether it has asked for nothing yet that not everybody may ask for."""
        return visitor not in self._known

    def let_in(self, visitor: object) -> None:
        """It may have what it asks for, which not everybody may."""
        if visitor in self._all:
            self._known.add(visitor)

    def keep(self, size: int) -> None:
        """So much more is kept of a stranger, at the most."""
        self._kept_bytes += size
        if self._kept_bytes > self._max_kept_bytes:
            self._turn_away()

    def _turn_away(self) -> None:
        """Refuse those with most until a quarter is free, so that this is not done all the time."""
        strangers = [each for each in self._all.values() if self.is_stranger(each)]
        sizes = {each: each.kept_bytes for each in strangers}
        self._kept_bytes = sum(sizes.values())
        error = Exhausted(f"limit of {self._max_kept_bytes} bytes kept of strangers is reached")
        for visitor in sorted(sizes, key=sizes.__getitem__, reverse=True):
            if self._kept_bytes <= self._max_kept_bytes * 3 // 4:
                break
            self._kept_bytes -= sizes[visitor]
            visitor.turn_away(error)

    def see_off(self, visitor: object) -> None:
        """It was told the last: its place is anybody's, while what it still sends is dropped."""
        if (known := self._all.get(visitor)) is not None:
            known.see_off()

    def began(self, visitor: object) -> None:
        """It has a request; if there was no room for it, one that has none makes way."""
        self._idle.pop(visitor, None)
        self._new.pop(visitor, None)
        if visitor in self.extra:  # a newcomer's own may be on its way
            self._make_room(visitor, SHY_S if self._abound else 0)

    def showed_token(self, visitor: object) -> None:
        """It has shown a token: for it, even a newcomer makes way that may be about to ask."""
        if visitor in self.extra:
            self._make_room(visitor, 0)

    def _make_room(self, visitor: object, shy_s: float) -> None:
        """There was none for it: have the idlest leave; newcomers may be silent for `shy_s`."""
        leaves = self._idlest(time.monotonic() - shy_s, self.extra)
        if leaves is not None:
            leaves.make_way()
            self.left(leaves)
            self.extra.pop(visitor, None)

    def ended(self, visitor: object) -> None:
        """That is as good as answered; a WebSocket's is when it is closed."""
        if (known := self._all.get(visitor)) is not None:
            self._idle[visitor] = known

    def dismiss(self, request: web.Request, response: web.StreamResponse) -> None:
        """Close after the answer if there is no room for the client.

        Or if it is a stranger that has asked with much.
        """
        visitor = request.protocol
        stranger = self._all.get(visitor) if self.is_stranger(visitor) else None
        asked_much = stranger is not None and stranger.kept_bytes > FEW_BYTES
        if stranger is not None:
            self.keep(response.content_length or 0)  # it may itself be turned away for that
        if asked_much or visitor in self.extra:
            response.force_close()
            response.headers[hdrs.CONNECTION] = "close"


VISITORS = web.AppKey("VISITORS", Visitors)
