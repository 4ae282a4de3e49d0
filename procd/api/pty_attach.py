"""Attaching to PTY sessions by WebSocket. Source: Process API contract, sections 10.3 and 10.5."""

import asyncio
import base64
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Final
from urllib.parse import unquote_to_bytes

from aiohttp import WSCloseCode, web

from procd.api.pty import CREATE, CREATING, PTYS
from procd.api.pty_protocol import PROTOCOL, Attendant, misunderstood
from procd.api.pty_replay import Past, from_offset, recall, send
from procd.errors import BadRequest, InvalidBody, ProcdError, SpawnFailed
from procd.http.audit import ending, note
from procd.http.auth import CALLER
from procd.http.connection import HttpConnection
from procd.http.describe import FLAG, TEXT, Doc, Query
from procd.http.duplex import serve_both_ways
from procd.http.encoder import encoded
from procd.http.forwarded import is_forwarded
from procd.http.goodbye import STOPPING, TOO_LONG, Goodbye
from procd.http.handshake import cork, handshake_of, offered, version_token
from procd.http.keepalive import sent_bytes
from procd.http.schema import BodySchema, flag, number, strings
from procd.http.websocket import CONNECTIONS, Connection
from procd.services.access import Scope
from procd.services.pty.input_queue import InputQueue
from procd.services.pty.session import PtyRequest, PtySession

ENVS_TOKEN: Final = "X-Daytona-Pty-Envs~"  # noqa: S105 - names the header, holds no secret
BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]+={0,2}", re.ASCII)
EXIT_TOKEN: Final = "X-Daytona-Pty-Exit-Control"  # noqa: S105 - no secret
EXIT_REASONS: Final = {130: "Ctrl+C", 137: "SIGKILL", 143: "SIGTERM"}
# The SDKs look for what is wrong in the JSON of a Close, as of an end. Source: contract, 10.5.
STOPPED: Final[Goodbye] = (WSCloseCode.GOING_AWAY, encoded({"error": STOPPING}).decode())
TYPED_TOO_MUCH: Final = encoded({"error": TOO_LONG}).decode()
# A client that has sent its Close is answered when all that it typed before is in the terminal's
# queue, or this much later. What a client typed that goes without a Close waits as long.
LAST_INPUT_S: Final = 5.0
# Of who only looks on: what it sends is dropped, or tells its window's size, and isn't worth more.
MAX_VIEWER_MESSAGE_BYTES: Final = 256 << 10


class EnvsSchema(BodySchema):
    """The environment in a sub-protocol token."""

    envs = strings(nulls=False, required=True)


ENVS: Final = EnvsSchema()


def selected(tokens: list[str]) -> str | None:
    """The sub-protocol to answer with: Node and browsers drop a connection that selects none.

    The environment is not echoed where there is a choice. Source: contract, section 10.3.
    """
    if (token := version_token(tokens)) is not None:
        return token
    if EXIT_TOKEN in tokens:
        return EXIT_TOKEN
    shown = [token for token in tokens if not token.startswith(ENVS_TOKEN)]
    return next(iter(shown or tokens), None)


async def connect(request: web.Request) -> web.StreamResponse:
    """Attach to a session; what is wrong with it is said after the upgrade, by WebSocket."""
    ptys = request.app[PTYS]
    offset = number(request.query, "offset")
    replay = number(request.query, "replay")
    looks_on = flag(request.query, "viewer")
    wants_modes = flag(request.query, "modes") or PROTOCOL in offered(request)
    handshake_of(request, selected)  # before anything is started
    may_write = request[CALLER].scope >= Scope.WRITE and not looks_on
    try:
        session = await ptys.to_attach(
            request.match_info["id"],
            resume=offset is not None,
            may_start=may_write,
        )
        if offset is not None and offset > session.log.store.end:
            raise BadRequest(f"offset {offset} is beyond the end of the output")
    except ProcdError as exc:
        message = f"Failed to connect to PTY session: {exc.message}"
        return await _refuse(request, message, may_write=may_write)
    if offset is None:
        replay_bytes = ptys.config.replay_bytes if replay is None else replay
        past = await recall(session, replay_bytes, ptys.replays)
        if wants_modes:
            past.modes = session.modes.at(past.start)
            past.redraws = bool(past.modes)
    else:
        past = from_offset(session, offset)
        past.redraws = flag(request.query, "modes")
    try:
        connection = await _accept(request, may_write=may_write)
        return await _serve(request, connection, session, past, may_write=may_write)
    finally:
        past.outlet.close()


async def create_connect(request: web.Request) -> web.StreamResponse:
    """Create a session and attach to it."""
    ptys = request.app[PTYS]
    handshake_of(request, selected)  # before anything is created
    wanted = _wanted(request)
    try:
        session = await ptys.create(wanted)
    except SpawnFailed as exc:
        message = f"Failed to start PTY session: {exc.message}"
        return await _refuse(request, message, may_write=True)
    note(id=session.id)
    session.on_end = ending(request)
    past = from_offset(session, 0)
    connection = None
    try:
        connection = await _accept(request, may_write=True)
        if isinstance(request.protocol, HttpConnection) and request.transport is not None:
            request.protocol.answered = sent_bytes(request.transport)
        return await _serve(request, connection, session, past, may_write=True)
    finally:
        past.outlet.close()
        if connection is None or not (connection.heard or _was_there(request)):
            ptys.discard(session)  # nobody ever got hold of it


def _was_there(request: web.Request) -> bool:
    """Whether the client of this WebSocket, by how it went, has seen the answer to its handshake.

    It has if it sent something that nobody has read, or if it had read that answer and no proxy may
    have done so in its stead.
    """
    protocol = request.protocol
    if not isinstance(protocol, HttpConnection):
        return False
    return protocol.last_words or (protocol.took_answer and not is_forwarded(request))


def _wanted(request: web.Request) -> PtyRequest:
    query = request.query
    try:
        unquote_to_bytes(request.rel_url.raw_query_string).decode()
    except UnicodeDecodeError as exc:  # in `query` it is U+FFFD
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
        wanted: PtyRequest = CREATE.load_document(document)
    except InvalidBody as exc:
        raise BadRequest(exc.message.replace("request body", "query", 1)) from exc
    return wanted


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


async def _accept(request: web.Request, *, may_write: bool) -> Connection:
    """Answer the handshake; the answer goes out with the first message, when `cork` is off again.

    The SDK gives the message 100 ms from the answer on, and a busy machine may run the client, and
    then others, between two writes. Source: contract, section 10.5.
    """
    most_bytes = request.app[PTYS].config.max_message_bytes
    if not may_write:
        most_bytes = min(most_bytes, MAX_VIEWER_MESSAGE_BYTES)
    cork(request, on=True)
    connection = await request.app[CONNECTIONS].accept(request, most_bytes, selected, STOPPED)
    connection.too_long = TYPED_TOO_MUCH
    return connection


def _control(status: str, **fields: object) -> bytes:
    return encoded({"type": "control", "status": status} | fields)


async def _refuse(request: web.Request, message: str, *, may_write: bool) -> web.StreamResponse:
    connection = await _accept(request, may_write=may_write)
    try:
        connection.write_text(_control("error", error=message))
        connection.close(WSCloseCode.INTERNAL_ERROR, message)
        cork(request, on=False)
        await connection.finish()
    finally:
        response = connection.release()
    return response


async def _serve(
    request: web.Request,
    connection: Connection,
    session: PtySession,
    past: Past,
    *,
    may_write: bool,
) -> web.StreamResponse:
    """Pass bytes both ways until either side ends."""
    outlet = past.outlet
    attendant = Attendant(request, connection, session, outlet, may_write=may_write)
    input_queue = InputQueue(session.input)
    queue_bytes = request.app[PTYS].config.input_queue_bytes

    def part() -> None:
        attendant.leave()
        input_queue.close()
        outlet.close()

    def at_once(data: bytes, is_text: bool) -> bool:  # noqa: FBT001 - it is a Listener
        may = attendant.is_active and not (is_text and attendant.asked)
        if may and (may := input_queue.waiting_bytes <= queue_bytes):
            input_queue.put(data)
        return may

    connection.on_sent_away = part
    connection.at_once = at_once
    try:
        _begin(connection, session, past, attendant.size)
        connection.ping()  # a pong proves that the handshake was complete
        cork(request, on=False)
        attendant.join(outlet.cursor.offset if past.live is None else past.live)
        if past.live is None:
            outlet.open(connection)
        await serve_both_ways(
            _read(connection, input_queue, attendant, queue_bytes),
            _write(request, connection, session, past, attendant),
            f"pty output {session.id}",
        )
    finally:
        part()
        connection.on_sent_away = connection.at_once = None
        response = connection.release()
    note(exitCode=session.exit_code)
    return response


def _begin(
    connection: Connection, session: PtySession, past: Past, size: Mapping[str, int]
) -> None:
    """Send `connected`."""
    cursor = past.outlet.cursor
    if past.live is None:
        # What was asked for may be gone, or have gone just now. The output follows in this turn.
        if cursor.lost:
            cursor.advance(session.log.store.start)
        connection.write_text(_control("connected", offset=cursor.offset, **size))
        return
    modes = {"modes": past.modes.decode()} if past.modes else {}
    connection.write_text(
        _control(
            "connected",
            offset=past.start,
            replayBytes=past.size,
            liveOffset=past.live,
            **size,
            **modes,
        )
    )


async def _read(
    connection: Connection, input_queue: InputQueue, attendant: Attendant, queue_bytes: int
) -> None:
    """Type what the client sends; a client that may only look on is told so, once."""
    try:
        told = False
        while (data := await connection.receive()) is not None:
            if attendant.asked and connection.heard_text:
                try:
                    await attendant.said(data)
                except BadRequest as exc:
                    misunderstood(connection, exc)
            elif attendant.may_write:
                await _type(connection, input_queue, attendant, data, queue_bytes)
            elif not told:
                message = "input is discarded: it needs the scope 'write', and no viewer=true"
                connection.write_text(_control("read-only", message=message))
                told = True
                if not attendant.asked:  # else what it says of its window is still to be heard
                    connection.ignore_messages()
            del data  # not to be kept until the next one comes
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_INPUT_S):
                await input_queue.wait(0)
    except asyncio.CancelledError:  # the client has gone, perhaps without a Close
        if attendant.may_write and not connection.closing:
            async for data in connection.unread():
                if not (attendant.asked and connection.heard_text):
                    input_queue.put(data)
        input_queue.close(LAST_INPUT_S)
        raise


async def _type(
    connection: Connection,
    input_queue: InputQueue,
    attendant: Attendant,
    data: bytes,
    queue_bytes: int,
) -> None:
    try:
        if attendant.typed():
            # Who is to answer the program's questions is told before it can ask any.
            await asyncio.sleep(0)
        if input_queue.waiting_bytes > queue_bytes:
            connection.stalled = True
            await input_queue.wait(queue_bytes)
            connection.stalled = False
    finally:
        input_queue.put(data)


async def _write(
    request: web.Request,
    connection: Connection,
    session: PtySession,
    past: Past,
    attendant: Attendant,
) -> None:
    outlet = past.outlet
    complete = await send(past, connection, session.log.store, request.app[PTYS].replays)
    if connection.closing:
        outlet.close()
        return
    if complete:
        if not outlet.opened:
            attendant.caught_up()
            outlet.open(connection)
        if past.redraws and attendant.may_write and session.modes.full_screen(past.start):
            session.redraw()
        complete = await outlet.run()
    outlet.close()
    if not complete:
        attendant.leave()
        connection.drop_slow()
        return
    code = session.exit_code
    assert code is not None, "the log has ended"
    ending: dict[str, object] = {"exitCode": code}
    if code != 0:
        ending["exitReason"] = _exit_reason(code)
    if EXIT_TOKEN in offered(request):
        connection.write_text(_control("exited", **ending))
    connection.close(
        WSCloseCode.OK if code == 0 else WSCloseCode.INTERNAL_ERROR, encoded(ending).decode()
    )


def _exit_reason(code: int) -> str:
    """The contract's words for an exit code that is not 0. Source: section 10.5, "Exit"."""
    if code in EXIT_REASONS:
        return EXIT_REASONS[code]
    return f"signal {code - 128}" if code > 128 else "non-zero exit"


ATTACH: Final = (
    Query("replay", "bytes of past output to begin with"),
    Query("offset", "offset in the output to go on from"),
    Query("viewer", "only look on: input is discarded", FLAG),
    Query("modes", "tell the modes before a replay, and have a full screen drawn anew", FLAG),
)
SIZE: Final = (
    Query("id", "of the session", TEXT, required=True),
    Query("cwd", "working directory", TEXT),
    Query("cols", "columns"),
    Query("rows", "rows"),
)

routes = [
    # Before those of `pty`, whose `{id}` it would be.
    web.get(
        "/process/pty/create-connect",
        create_connect,
        doc=Doc(websocket="only", query=SIZE, errors=CREATING),
    ),
    web.get(
        "/process/pty/{id}/connect",
        connect,
        doc=Doc(websocket="only", query=ATTACH),
    ),
]
