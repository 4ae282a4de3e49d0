"""What a client of a PTY is sent first: output from an offset on, or a replay of past output.

A replay isn't kept, however slow its client is. It is filtered twice: for its size, which the
client is told in advance, and as it is sent. Until then the client's cursor stays in the replay, so
that the log keeps what is to be sent, as for any slow client.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from procd.http.log_sender import LogSender
from procd.http.websocket import WebSocket
from procd.output.buffer import Buffer
from procd.output.frames import BINARY, encode
from procd.output.replay import ReplayFilter
from procd.services.pty.session import PtySession
from procd.throttle import Turns

# A replay is filtered in pieces; few pieces of all replays in one turn of the event loop.
PIECE_BYTES: Final = 32 << 10


@dataclass(slots=True)
class Replay:
    """What a client is sent first.

    Attributes:
        sender: sends what follows; its cursor is at the start already.
        live: the offset where the replay ends; None if the output is sent from `start` on as it is.
        start: the offset of the first byte.
        size: of the filtered replay, bytes.
        modes: what to write to the terminal before it, for clients that ask for that.
        redraws: whether a full-screen program is to redraw what it drew before the start.
    """

    sender: LogSender
    live: int | None = None
    start: int = 0
    size: int = 0
    modes: bytes = b""
    redraws: bool = False


def from_offset(session: PtySession, offset: int) -> Replay:
    """The output from `offset` on, as it is."""
    return Replay(LogSender(session.log, session.frames, offset), start=offset)


async def measure(session: PtySession, replay_bytes: int, turns: Turns) -> Replay:
    """A replay of the last so many bytes of output.

    This takes time, and must come before the handshake is answered (contract, section 10.5, rule
    2). If other clients set the pace of the output, the replay is shorter: as much may be written
    while it is sent as was written meanwhile.
    """
    store = session.log.store
    spare_bytes = 0
    while True:
        live = store.end
        start = min(max(live - replay_bytes, store.start_after(spare_bytes)), live)
        replay = Replay(LogSender(session.log, session.frames, start), live, start)
        pieces = _filtered(store, start, live)
        try:
            await turns.take()
            while not replay.sender.cursor.lost and (piece := next(pieces, None)) is not None:
                replay.size += len(piece[1])
                await turns.take()
        except BaseException:
            replay.sender.close()
            raise
        written_bytes = store.end - live
        if start == live or start >= store.start_after(written_bytes):
            return replay
        replay.sender.close()
        spare_bytes = 2 * max(written_bytes, spare_bytes)


async def send(replay: Replay, websocket: WebSocket, store: Buffer, turns: Turns) -> bool:
    """Send the replay, if there is one; returns whether all of it was still kept.

    Raises:
        ConnectionError: the client has gone.
    """
    cursor = replay.sender.cursor
    if replay.live is None:
        return True
    pieces = _filtered(store, replay.start, replay.live)
    await turns.take()
    while not (cursor.lost or websocket.closing):
        offset, piece = next(pieces, (None, b""))
        if offset is None:
            return True
        if piece:
            websocket.write(encode(BINARY, piece))
        cursor.advance(offset)
        await websocket.drain()
        await turns.take()
    return False


def _filtered(store: Buffer, start: int, live: int) -> Iterator[tuple[int, bytes]]:
    """The output from `start` to `live` without queries, in pieces, each with the offset after it.

    The pieces are the same each time: the filter depends on where they are cut.

    Raises:
        LookupError: the output is no longer kept.
    """
    queries = ReplayFilter()
    while start < live:
        output = store.slices(start, min(PIECE_BYTES, live - start))
        piece = b"".join([run.data for run in output])
        start += len(piece)
        yield start, queries.feed(piece)
    yield live, queries.flush()
