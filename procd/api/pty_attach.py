"""Attaching to PTY sessions by WebSocket. Source: Process API contract, sections 10.3 and 10.5.

A client is first sent output from an offset on, or a replay of past output. A replay is filtered
twice: for its size, which the client is told in advance, and as it is sent. Until then the client's
cursor stays in the replay, so that the log keeps what is to be sent.
"""

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, cast
from urllib.parse import unquote_to_bytes

from aiohttp import WSCloseCode, web

from procd.api.pty import CREATE, CREATING, PTYS
from procd.api.pty_protocol import PROTOCOL, PtyClient
from procd.errors import BadRequest, InvalidBody, ProcdError, SpawnFailed
from procd.http.audit import ending, note
from procd.http.auth import CALLER
from procd.http.client import offered, version_token
from procd.http.log_sender import LogSender
from procd.http.openapi import COUNT, FLAG, TEXT, Doc, about, query
from procd.http.responses import dumps
from procd.http.schema import BodySchema, flag, number, strings
from procd.http.websocket import (
    STOPPING,
    TOO_LONG,
    WEBSOCKETS,
    CloseReason,
    WebSocket,
    check_handshake,
    cork,
    serve_both_ways,
)
from procd.output.buffer import Buffer
from procd.output.frames import BINARY, encode
from procd.output.replay import ReplayFilter
from procd.services.pty.input_queue import InputQueue
from procd.services.pty.session import PtyRequest, PtySession
from procd.services.tokens import Scope
from procd.suspend import Countdown
from procd.tasks import Turns

ENVS_TOKEN: Final = "X-Daytona-Pty-Envs~"  # noqa: S105 - the name of a sub-protocol
BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]+={0,2}", re.ASCII)
EXIT_TOKEN: Final = "X-Daytona-Pty-Exit-Control"  # noqa: S105 - the name of a sub-protocol
EXIT_REASONS: Final = {130: "Ctrl+C", 137: "SIGKILL", 143: "SIGTERM"}
# The SDKs look for errors in the JSON of a Close. Source: contract, 10.5.
STOPPED: Final[CloseReason] = (WSCloseCode.GOING_AWAY, dumps({"error": STOPPING}).decode())
INPUT_TOO_LONG: Final = dumps({"error": TOO_LONG}).decode()
# How long input that the terminal has no room for waits when its client has left.
LAST_INPUT_S: Final = 5.0
# How long a session that was created by a client which never sent a frame waits for another.
UNHEARD_S: Final = 2.0
# How long a client's output gathers while it pours, seconds.
REST_S: Final = 0.001
# A replay is filtered in pieces; few pieces of all replays in one turn of the event loop.
PIECE_BYTES: Final = 32 << 10
# A viewer only types by mistake, or tells the size of its window.
MAX_VIEWER_MESSAGE_BYTES: Final = 256 << 10
READ_ONLY: Final = "input is discarded: it needs the scope 'write', and no viewer=true"


@dataclass(slots=True)
class Replay:
    """What a client is sent first.

    Attributes:
        sender: sends what follows; its cursor is at `start`, the offset of the first byte.
        live: the offset where the replay ends; None if there is no replay.
        size: of the filtered replay, bytes.
        modes: what to write to the terminal before it.
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
    return Replay(_sender(session, offset), start=offset)


def _sender(session: PtySession, offset: int) -> LogSender:
    return LogSender(session.log, session.frames, offset, rest_s=REST_S, rests_alone=False)


async def measure(session: PtySession, replay_bytes: int, turns: Turns) -> Replay:
    """A replay of the last so many bytes of output.

    This takes time, and must come before the handshake is answered (contract, section 10.5, rule
    2). It is shorter if the output pours: as much may be written while it is sent as meanwhile.
    """
    store = session.log.store
    spare_bytes = 0
    while True:
        live = store.end
        start = min(max(live - replay_bytes, store.start_after(spare_bytes)), live)
        replay = Replay(_sender(session, start), live, start)
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
    """Send the replay, if there is one; returns whether all of it was still kept."""
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
    """
    queries = ReplayFilter()
    while start < live:
        output = store.slices(start, min(PIECE_BYTES, live - start))
        piece = b"".join([run.data for run in output])
        start += len(piece)
        yield start, queries.feed(piece)
    yield live, queries.flush()


class EnvsSchema(BodySchema):
    envs = strings(nulls=False, required=True)


ENVS: Final = EnvsSchema()


def select(tokens: list[str]) -> str | None:
    """The sub-protocol to answer with: Node and browsers drop a connection that selects none.

    The environment is not echoed if there is a choice. Source: contract, section 10.3.
    """
    if (token := version_token(tokens)) is not None:
        return token
    if EXIT_TOKEN in tokens:
        return EXIT_TOKEN
    others = [token for token in tokens if not token.startswith(ENVS_TOKEN)]
    return next(iter(others or tokens), None)


async def connect(request: web.Request) -> web.StreamResponse:
    """Attach to a terminal by WebSocket.

    Binary messages are output and input, and text messages say what happens. If there is no
    such terminal, the client is told after the upgrade. docs/wire.md has the messages.
    """
    ptys = request.app[PTYS]
    offset = number(request.query, "offset")
    replay_bytes = number(request.query, "replay")
    is_viewer = flag(request.query, "viewer")
    wants_modes = flag(request.query, "modes")
    check_handshake(request)  # before anything is started
    may_write = request[CALLER].scope >= Scope.WRITE and not is_viewer
    try:
        session = await ptys.to_attach(
            request.match_info["id"], resume=offset is not None, may_start=may_write
        )
        if offset is not None and offset > session.log.store.end:
            raise BadRequest(f"offset {offset} is beyond the end of the output")
    except ProcdError as exc:
        return await _refuse(request, f"Failed to connect to PTY session: {exc.message}")
    if offset is not None:
        replay = from_offset(session, offset)
        replay.redraws = wants_modes
    else:
        most = ptys.config.replay_bytes if replay_bytes is None else replay_bytes
        replay = await measure(session, most, ptys.replays)
        if wants_modes or PROTOCOL in offered(request):
            replay.modes = session.modes.at(replay.start)
            replay.redraws = bool(replay.modes)
    try:
        async with _accept(request, may_write=may_write) as websocket:
            await _serve(request, websocket, session, replay, may_write=may_write)
    finally:
        replay.sender.close()
    return websocket.response


async def create_connect(request: web.Request) -> web.StreamResponse:
    """Create a terminal and attach to it by WebSocket.

    Its output is sent from the beginning. docs/wire.md has the messages.
    """
    ptys = request.app[PTYS]
    check_handshake(request)  # before anything is created
    wanted = _wanted(request)
    try:
        session = await ptys.create(wanted)
    except SpawnFailed as exc:
        return await _refuse(request, f"Failed to start PTY session: {exc.message}")
    note(id=session.id)
    session.on_end = ending(request)
    replay = from_offset(session, 0)
    is_accepted = is_there = False
    try:
        async with _accept(request, may_write=True) as websocket:
            is_accepted = True
            try:
                await _serve(request, websocket, session, replay, may_write=True)
            finally:
                is_there = websocket.heard
    finally:
        replay.sender.close()
        if not is_accepted:
            ptys.discard(session)
        elif not is_there:
            # Its client may never have got the session, or have closed at once: a reset loses its
            # Close. Another client that comes soon keeps the session.
            Countdown(UNHEARD_S, partial(ptys.discard, session))
    return websocket.response


def _wanted(request: web.Request) -> PtyRequest:
    query = request.query
    try:
        unquote_to_bytes(request.rel_url.raw_query_string).decode()
    except UnicodeDecodeError as exc:  # `query` has U+FFFD
        raise BadRequest("query is not UTF-8") from exc
    if not query.get("id"):
        raise BadRequest("session ID is required (query param 'id')")
    envs: Mapping[str, str] = {}
    for token in offered(request):
        if token.startswith(ENVS_TOKEN):
            envs = _decode_envs(token.removeprefix(ENVS_TOKEN))
    document = {
        "id": query["id"],
        "cwd": query.get("cwd", ""),
        "cols": number(query, "cols"),
        "rows": number(query, "rows"),
        "envs": envs,
    }
    try:
        return cast("PtyRequest", CREATE.load_document(document))
    except InvalidBody as exc:
        raise BadRequest(exc.message.replace("request body", "query", 1)) from exc


def _decode_envs(token: str) -> Mapping[str, str]:
    try:
        if not BASE64URL.fullmatch(token):
            raise ValueError("not base64url")
        text = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()
        envs: Mapping[str, str] = ENVS.load_document({"envs": json.loads(text)})["envs"]
    except (ValueError, RecursionError, ProcdError) as exc:
        # The cause may quote a value, which may be a secret.
        raise BadRequest("environment token is not base64url of a JSON object of strings") from exc
    return envs


@asynccontextmanager
async def _accept(request: web.Request, *, may_write: bool) -> AsyncIterator[WebSocket]:
    """Answer the handshake, together with the first message, after which `cork` is to be off.

    The SDK waits only 100 ms for that message. Source: contract, section 10.5.
    """
    most = request.app[PTYS].config.max_message_bytes
    if not may_write:
        most = min(most, MAX_VIEWER_MESSAGE_BYTES)
    cork(request, on=True)
    async with request.app[WEBSOCKETS].accept(
        request, most, select=select, stopped=STOPPED, too_long=INPUT_TOO_LONG
    ) as websocket:
        yield websocket


def _control(status: str, **fields: object) -> bytes:
    return dumps({"type": "control", "status": status} | fields)


async def _refuse(request: web.Request, message: str) -> web.StreamResponse:
    async with _accept(request, may_write=True) as websocket:
        websocket.write_text(_control("error", error=message))
        websocket.close(WSCloseCode.INTERNAL_ERROR, message)
        cork(request, on=False)
        await websocket.wait_closed()
    return websocket.response


async def _serve(
    request: web.Request,
    websocket: WebSocket,
    session: PtySession,
    replay: Replay,
    *,
    may_write: bool,
) -> None:
    sender = replay.sender
    client = PtyClient(request, websocket, session, sender, may_write=may_write)
    input_queue = InputQueue(session.input)

    def detach() -> None:
        client.leave()
        input_queue.close()
        sender.close()

    websocket.on_dismiss = detach
    try:
        _send_connected(websocket, session, replay, client.size)
        websocket.ping()  # a pong proves that the client got the answer to its handshake
        cork(request, on=False)
        client.join(sender.cursor.offset if replay.live is None else replay.live)
        if replay.live is None:
            sender.open(websocket)
        queue_bytes = request.app[PTYS].config.input_queue_bytes
        await serve_both_ways(
            _read(websocket, input_queue, client, queue_bytes),
            _write(request, websocket, session, replay, client),
            f"pty output {session.id}",
        )
    finally:
        detach()
        websocket.on_dismiss = None
    note(exitCode=session.exit_code)


def _send_connected(
    websocket: WebSocket, session: PtySession, replay: Replay, size: Mapping[str, int]
) -> None:
    cursor = replay.sender.cursor
    if replay.live is None:
        if cursor.lost:
            cursor.advance(session.log.store.start)
        websocket.write_text(_control("connected", offset=cursor.offset, **size))
        return
    fields = {"offset": replay.start, "replayBytes": replay.size, "liveOffset": replay.live, **size}
    modes = {"modes": replay.modes.decode()} if replay.modes else {}
    websocket.write_text(_control("connected", **fields, **modes))


async def _read(
    websocket: WebSocket, input_queue: InputQueue, client: PtyClient, queue_bytes: int
) -> None:
    """Type what the client sends; a viewer that types is told once that it is one."""
    was_told = False
    try:
        while (data := await websocket.receive()) is not None:
            if client.speaks_v1 and websocket.heard_text:
                try:
                    await client.handle(data)
                except BadRequest as exc:
                    websocket.dismiss(WSCloseCode.PROTOCOL_ERROR, exc.message)
            elif client.may_write:
                await _type(websocket, input_queue, client, data, queue_bytes)
            elif not was_told:
                websocket.write_text(_control("read-only", message=READ_ONLY))
                was_told = True
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_INPUT_S):
                await input_queue.wait(0)
    except asyncio.CancelledError:  # the client has gone without a Close
        input_queue.close(LAST_INPUT_S)
        raise


async def _type(
    websocket: WebSocket, input_queue: InputQueue, client: PtyClient, data: bytes, queue_bytes: int
) -> None:
    try:
        if client.typed():
            # Members learn who answers the program's questions before it can ask any.
            await asyncio.sleep(0)
        if input_queue.waiting_bytes > queue_bytes:
            websocket.keepalive.stalled = True
            await input_queue.wait(queue_bytes)
            websocket.keepalive.stalled = False
    finally:
        input_queue.put(data)


async def _write(
    request: web.Request,
    websocket: WebSocket,
    session: PtySession,
    replay: Replay,
    client: PtyClient,
) -> None:
    sender = replay.sender
    complete = await send(replay, websocket, session.log.store, request.app[PTYS].replays)
    if websocket.closing:
        sender.close()
        return
    if complete:
        if not sender.opened:
            client.replay_sent()
            sender.open(websocket)
        if replay.redraws and client.may_write and session.modes.full_screen(replay.start):
            session.redraw()
        complete = await sender.run()
    sender.close()
    if not complete:
        client.leave()
        websocket.drop_slow()
        return
    code = session.exit_code
    assert code is not None, "the log has ended"
    result: dict[str, object] = {"exitCode": code}
    if code != 0:
        result["exitReason"] = _exit_reason(code)
    if EXIT_TOKEN in offered(request):
        websocket.write_text(_control("exited", **result))
    websocket.close(
        WSCloseCode.OK if code == 0 else WSCloseCode.INTERNAL_ERROR, dumps(result).decode()
    )


def _exit_reason(code: int) -> str:
    """The reason for an exit code that is not 0. Source: contract, section 10.5, "Exit"."""
    if code in EXIT_REASONS:
        return EXIT_REASONS[code]
    return f"signal {code - 128}" if code > 128 else "non-zero exit"


ATTACH: Final = (
    query("replay", COUNT | about("Bytes of past output to begin with.", 65536)),
    query("offset", COUNT | about("Offset in the output to go on from.", 0)),
    query("viewer", FLAG | about("Only watch: input is discarded.", example=True)),
    query(
        "modes", FLAG | about("Send the terminal's modes, and redraw a full screen.", example=True)
    ),
)
SIZE: Final = (
    query("id", TEXT | about("Id of the new terminal.", "main"), required=True),
    query("cwd", TEXT | about("Where its shell starts.", "/")),
    query("cols", COUNT | about("Columns.", 120)),
    query("rows", COUNT | about("Rows.", 40)),
)

routes = [
    # Before those of `pty`, whose `{id}` it would be.
    web.get(
        "/process/pty/create-connect",
        create_connect,
        doc=Doc(id="createAndConnectPtySession", websocket="only", query=SIZE, errors=CREATING),
    ),
    web.get(
        "/process/pty/{id}/connect",
        connect,
        doc=Doc(id="connectPtySession", websocket="only", query=ATTACH),
    ),
]
