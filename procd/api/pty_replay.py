"""What a client of a PTY is sent first: its place in the output, or a replay of what was before.

Nothing is kept of a replay, however slow its client is. It is filtered twice: for its size, which
is told in advance, and as it is sent. Until then its client's place in the log is in the replay, so
that what is still to be sent is kept as the output of any other slow client is.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from procd.http.log_sender import Outlet
from procd.http.websocket import Connection
from procd.output.buffer import Buffer
from procd.output.frames import BINARY, encode
from procd.output.replay import ReplayFilter
from procd.services.pty.session import PtySession
from procd.throttle import Turns

# A replay is filtered in pieces; few of all replays' in a turn of the event loop.
PIECE_BYTES: Final = 32 << 10


@dataclass(slots=True)
class Past:
    """What a client is to be sent first.

    Attributes:
        outlet: its place in the log, which it has already.
        live: of a replay, the offset of what follows it; None if the output just goes on from the
            outlet's place.
        start: the offset of the first byte.
        size: of a replay, bytes.
        modes: of a replay, what to write to the terminal before it, for who wants that.
        redraws: whether a full-screen program is to draw anew what it drew before the start.
    """

    outlet: Outlet
    live: int | None = None
    start: int = 0
    size: int = 0
    modes: bytes = b""
    redraws: bool = False


def from_offset(session: PtySession, offset: int) -> Past:
    """The output from `offset` on, as it is."""
    return Past(Outlet(session.log, session.frames, offset), start=offset)


async def recall(session: PtySession, replay_bytes: int, turns: Turns) -> Past:
    """The last so many bytes of output, filtered, and what follows them.

    It takes time, which a client doesn't grant once its handshake is answered (contract, section
    10.5, rule 2). Where others set the pace, less is recalled: as much may be said while it is sent
    as was said meanwhile.
    """
    store = session.log.store
    spare_bytes = 0
    while True:
        live = store.end
        start = min(max(live - replay_bytes, store.start_after(spare_bytes)), live)
        # From here on nothing is missed, whatever is awaited.
        past = Past(Outlet(session.log, session.frames, start), live, start)
        pieces = _filtered(store, start, live)
        try:
            await turns.take()
            while not past.outlet.cursor.lost and (piece := next(pieces, None)) is not None:
                past.size += len(piece[1])
                await turns.take()
        except BaseException:
            past.outlet.close()
            raise
        said_bytes = store.end - live
        if start == live or start >= store.start_after(said_bytes):
            return past
        past.outlet.close()
        spare_bytes = 2 * max(said_bytes, spare_bytes)


async def send(past: Past, connection: Connection, store: Buffer, turns: Turns) -> bool:
    """Send the replay, if there is one; whether all of it was still kept when its turn came.

    Raises:
        ConnectionError: the client has gone.
    """
    cursor = past.outlet.cursor
    if past.live is None:
        return True
    pieces = _filtered(store, past.start, past.live)
    await turns.take()
    while not (cursor.lost or connection.closing):
        offset, piece = next(pieces, (None, b""))
        if offset is None:
            return True
        if piece:
            connection.write(encode(BINARY, piece))
        cursor.advance(offset)
        await connection.drain()
        await turns.take()
    return False


def _filtered(store: Buffer, start: int, live: int) -> Iterator[tuple[int, bytes]]:
    """The output from `start` to `live` without queries, in pieces, each with the offset after it.

    The same pieces each time, or else the filter might let go of another sequence.

    Raises:
        LookupError: it is no longer kept.
    """
    queries = ReplayFilter()
    while start < live:
        output = store.slices(start, min(PIECE_BYTES, live - start))
        piece = b"".join([run.data for run in output])
        start += len(piece)
        yield start, queries.feed(piece)
    yield live, queries.flush()
