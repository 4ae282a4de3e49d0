"""Interpreter contexts, and the WebSocket that runs code. Source: contract, section 11."""

import asyncio
from codecs import getincrementaldecoder
from datetime import UTC, datetime
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

from aiohttp import WSCloseCode, hdrs, web
from marshmallow import ValidationError, fields

from procd.errors import (
    BadRequest,
    Conflict,
    Exhausted,
    InvalidBody,
    ProcdError,
    ProcessNotFound,
    SpawnFailed,
    TimedOut,
)
from procd.http.audit import note
from procd.http.log_sender import FOLLOW_REST_S, LogSender
from procd.http.openapi import FLAG, MESSAGE, NOW, TEXT, TIME, Doc, ListOf, Shape, about
from procd.http.responses import JSON_TYPE, dumps, json_response, timestamp
from procd.http.schema import (
    HAS_NUL,
    HAS_SURROGATES,
    MAX_VALUES,
    AnyText,
    BodySchema,
    Flag,
    Text,
    load,
    parse,
    strings,
)
from procd.http.websocket import STOPPING, WEBSOCKETS, WebSocket, serve_both_ways
from procd.output.buffer import Buffer
from procd.output.frames import TEXT as TEXT_FRAME
from procd.output.frames import encode
from procd.process.process import STDERR, STDOUT
from procd.services.interpreter.context import (
    DEFAULT,
    LANGUAGE,
    Cell,
    CellRequest,
    Context,
    End,
    Outcome,
)
from procd.services.interpreter.contexts import Contexts
from procd.services.interpreter.process import RESULTS
from procd.suspend import within

CONTEXTS = web.AppKey("CONTEXTS", Contexts)

TIMED_OUT: Final = 4008
NOT_JSON: Final = "invalid JSON payload"
# Of output in one frame: clients limit a message, and JSON may make six bytes of one.
PIECE_BYTES: Final = 32 << 10
# What is encoded at once: so many bytes, or at most twice so many frames where they are short.
BATCH_BYTES: Final = 256 << 10
BATCH_FRAMES: Final = 256

NAMES: Final = {STDOUT: "stdout", STDERR: "stderr"}
DECODER: Final = getincrementaldecoder("utf-8")


class ContextSchema(BodySchema):
    cwd = Text(
        load_default="", metadata=about("Where it runs; the default directory if absent.", "/")
    )
    language = Text(load_default=LANGUAGE, metadata=about("`python`: there is no other.", LANGUAGE))

    def build(self, data: dict[str, Any]) -> dict[str, Any]:
        return data | {"language": data["language"] or LANGUAGE}


class Seconds(fields.Integer):
    """A whole number of seconds, written as one; the sign is judged by who uses it."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> int:
        if type(value) is not int:
            raise ValidationError("must be an integer")
        return value


class ExecutionSchema(BodySchema):
    code = AnyText(load_default="")
    context_id = Text(data_key="contextId", load_default="")
    envs = strings(load_default=dict)
    timeout_s = Seconds(data_key="timeout", load_default=None)
    display = Flag(load_default=False)

    def build(self, data: dict[str, Any]) -> CellRequest:
        return CellRequest(**data | {"context_id": data["context_id"] or DEFAULT})


CREATE = ContextSchema()
EXECUTE = ExecutionSchema()


def describe(context: Context) -> dict[str, object]:
    return {
        "id": context.id,
        "cwd": context.cwd,
        "createdAt": timestamp(datetime.fromtimestamp(context.created_at, UTC)),
        "active": context.pid is not None,
        "language": LANGUAGE,
    }


async def create(request: web.Request) -> web.Response:
    """Create a context.

    It is a Python interpreter with a namespace of its own.
    """
    context = await request.app[CONTEXTS].create(**await load(request, CREATE))
    note(context_id=context.id)
    return json_response(describe(context))


async def list_all(request: web.Request) -> web.Response:
    """List the contexts.

    The default context, in which code without `contextId` runs, is not listed.
    """
    contexts = request.app[CONTEXTS].all()
    return json_response({"contexts": [describe(context) for context in contexts]})


async def delete(request: web.Request) -> web.Response:
    """Delete a context.

    Code that runs in it is broken off.
    """
    await request.app[CONTEXTS].delete(request.match_info["context_id"])
    return json_response({"message": "Context deleted successfully"})


async def interrupt(request: web.Request) -> web.Response:
    """Interrupt what runs in a context.

    The code gets a KeyboardInterrupt, as from Ctrl-C. The namespace is kept.
    """
    if not _context(request).interrupt():
        raise Conflict("nothing runs in this context")
    return json_response({"message": "Context interrupted"})


async def restart(request: web.Request) -> web.Response:
    """Restart a context.

    It begins again with an empty namespace, and keeps its id.
    """
    context = _context(request)
    await context.restart()
    return json_response(describe(context))


async def variables(request: web.Request) -> web.StreamResponse:
    """List the variables of a context.

    The reply waits for code that runs or waits in the context.
    """
    if request.method == hdrs.METH_HEAD:  # which isn't to wait for the code that runs
        _context(request)
        return web.StreamResponse(headers={hdrs.CONTENT_TYPE: JSON_TYPE})
    found = await request.app[CONTEXTS].variables(request.match_info["context_id"])
    return json_response({"variables": found})


def _context(request: web.Request) -> Context:
    return request.app[CONTEXTS].get(request.match_info["context_id"])


class _Declined(Exception):
    """The client asks for something that can't be; code and reason of the Close."""


async def execute(request: web.Request) -> web.StreamResponse:
    """Run a piece of code in a context by WebSocket.

    The first message of the client is a JSON object with `code`, and may have `contextId`, `envs`,
    `timeout` and `display`. The server sends the output as JSON, and closes when the code has
    ended. docs/wire.md has the messages.
    """
    contexts = request.app[CONTEXTS]
    async with request.app[WEBSOCKETS].accept(
        request,
        contexts.config.max_message_bytes,
        stopped=(WSCloseCode.INTERNAL_ERROR, STOPPING),  # TypeScript's SDK takes 1001 for success
    ) as websocket:
        try:
            cell = await _submit(request, websocket)
        except _Declined as exc:
            websocket.close(*exc.args)
            await websocket.wait_closed()
        else:
            note(context_id=cell.context_id)
            await _stream(websocket, cell)
            note(outcome=_outcome(cell))
    return websocket.response


async def _submit(request: web.Request, websocket: WebSocket) -> Cell:
    contexts = request.app[CONTEXTS]
    try:
        message = await within(contexts.config.first_message_s, websocket.receive)
    except TimeoutError:
        message = None
    if message is None:
        raise _Declined(WSCloseCode.PROTOCOL_ERROR, "failed to read first message")
    try:
        asked: CellRequest = EXECUTE.load_document(parse(message, request.app[MAX_VALUES]))
    except InvalidBody as exc:
        if exc.message.endswith((HAS_NUL, HAS_SURROGATES)):  # JSON it is, but no use
            raise _Declined(WSCloseCode.POLICY_VIOLATION, exc.message) from exc
        raise _Declined(WSCloseCode.PROTOCOL_ERROR, NOT_JSON) from exc
    if not asked.code:
        raise _Declined(WSCloseCode.POLICY_VIOLATION, "code is required")
    if asked.timeout_s is not None and asked.timeout_s < 0:
        raise _Declined(WSCloseCode.POLICY_VIOLATION, "timeout must be greater than or equal to 0")
    try:
        return contexts.execute(asked)
    except ProcessNotFound as exc:
        reason = f"context not found: {asked.context_id}"
        raise _Declined(WSCloseCode.POLICY_VIOLATION, reason) from exc
    except Exhausted as exc:
        raise _Declined(WSCloseCode.TRY_AGAIN_LATER, exc.message) from exc
    except ProcdError as exc:
        raise _Declined(WSCloseCode.POLICY_VIOLATION, exc.message) from exc


def _frame(kind: str, *, text: str = "", error: dict[str, str] | None = None) -> bytes:
    """One frame with the five keys that clients know."""
    fields = {"type": kind, "text": text, "name": "", "value": "", "traceback": ""}
    return encode(TEXT_FRAME, dumps(fields | (error or {})))


class _CellFrames:
    """The frames of one execution's log. A character that arrives in parts is sent whole."""

    def __init__(self, store: Buffer) -> None:
        self._store = store
        self._decoders = {stream: DECODER("replace") for stream in NAMES}
        self._partial = b""  # of a result

    def at(self, offset: int) -> tuple[bytes, int]:
        """See `FrameSource`."""
        frames: list[bytes] = []
        end = offset
        for stream, group in groupby(self._store.slices(offset, BATCH_BYTES), attrgetter("stream")):
            if len(frames) >= BATCH_FRAMES:
                break
            data = b"".join([run.data for run in group])
            end += len(data)
            if stream == RESULTS:
                *lines, rest = (self._partial + data).split(b"\n", BATCH_FRAMES)
                frames += [
                    encode(TEXT_FRAME, b'{"type":"result","data":' + line + b"}") for line in lines
                ]
                if len(lines) == BATCH_FRAMES:
                    self._partial = b""
                    end -= len(rest)
                    break
                self._partial = rest
                continue
            decoder = self._decoders[stream]
            for start in range(0, len(data), PIECE_BYTES):
                if text := decoder.decode(data[start : start + PIECE_BYTES]):
                    frames.append(_frame(NAMES[stream], text=text))
        return b"".join(frames), end

    def rest(self) -> bytes:
        """What is left at the end: halves of characters, as U+FFFD."""
        rests = ((NAMES[each], it.decode(b"", final=True)) for each, it in self._decoders.items())
        return b"".join(_frame(name, text=text) for name, text in rests if text)

    def forget(self) -> None:
        pass


async def _stream(websocket: WebSocket, cell: Cell) -> None:
    store = cell.log.store
    frames = _CellFrames(store)
    sender = LogSender(cell.log, frames, 0, rest_s=FOLLOW_REST_S)

    async def write() -> None:
        await sender.run()
        outcome = await asyncio.shield(cell.ended)
        websocket.write(frames.rest())
        sender.close()
        store.clear()
        _conclude(websocket, outcome)

    websocket.on_dismiss = cell.abandon
    try:
        sender.open(websocket)
        await serve_both_ways(websocket.wait_closed(), write(), f"cell in {cell.context_id}")
    finally:
        websocket.on_dismiss = None
        cell.abandon()
        sender.close()
        store.clear()


def _outcome(cell: Cell) -> str:
    if not cell.ended.done():
        return End.ABANDONED.name.lower()
    outcome = cell.ended.result()
    failed = outcome.reply is not None and outcome.reply.error is not None
    return "failed" if failed else outcome.end.name.lower()


def _conclude(websocket: WebSocket, outcome: Outcome) -> None:
    match outcome.end:
        case End.COMPLETED:
            if outcome.reply is not None and outcome.reply.error is not None:
                websocket.write(_frame("error", error=outcome.reply.error))
            websocket.write(_frame("control", text="completed"))
            websocket.close(WSCloseCode.OK, "")
        case End.TIMED_OUT:
            # Without a control frame: some clients take any for success (section 11.4).
            websocket.close(TIMED_OUT, outcome.reason)
        case _:
            websocket.close(WSCloseCode.INTERNAL_ERROR, outcome.reason)


_CONTEXTS: Final = "/process/interpreter/context"
_CONTEXT: Final = f"{_CONTEXTS}/{{context_id}}"

CONTEXT_SHAPE: Final = Shape(
    "InterpreterContext",
    "A context.",
    {
        "id": TEXT | about("Its id.", "0b6c6a4e-8c0e-4e57-9a45-1f3f3c1d2b7a"),
        "cwd": TEXT | about("Where it runs.", "/"),
        "createdAt": TIME | about("When it was created.", NOW),
        "active": FLAG | about("Its interpreter runs.", example=True),
        "language": TEXT | about("Its language.", LANGUAGE),
    },
)
CONTEXTS_SHAPE: Final = Shape(
    "InterpreterContexts", "The contexts.", {"contexts": ListOf(CONTEXT_SHAPE, "The contexts.")}
)
VARIABLE: Final = Shape(
    "Variable",
    "A variable.",
    {
        "name": TEXT | about("Its name.", "x"),
        "type": TEXT | about("Name of its type.", "int"),
        "repr": TEXT | about("Its value as text, cut if it is long.", "42"),
    },
)
VARIABLES: Final = Shape(
    "Variables", "What is in the namespace.", {"variables": ListOf(VARIABLE, "The variables.")}
)

routes = [
    web.post(
        _CONTEXTS,
        create,
        doc=Doc(
            id="createInterpreterContext",
            example={"cwd": "/", "language": LANGUAGE},
            body=CREATE,
            reply=CONTEXT_SHAPE,
            errors=(Exhausted, SpawnFailed),
        ),
    ),
    web.get(_CONTEXTS, list_all, doc=Doc(id="listInterpreterContexts", reply=CONTEXTS_SHAPE)),
    web.delete(
        _CONTEXT,
        delete,
        doc=Doc(id="deleteInterpreterContext", reply=MESSAGE, errors=(BadRequest, ProcessNotFound)),
    ),
    web.post(
        f"{_CONTEXT}/interrupt",
        interrupt,
        doc=Doc(
            id="interruptInterpreterContext", reply=MESSAGE, errors=(ProcessNotFound, Conflict)
        ),
    ),
    web.post(
        f"{_CONTEXT}/restart",
        restart,
        doc=Doc(
            id="restartInterpreterContext",
            reply=CONTEXT_SHAPE,
            errors=(ProcessNotFound, Exhausted, SpawnFailed),
        ),
    ),
    web.get(
        f"{_CONTEXT}/variables",
        variables,
        doc=Doc(
            id="listInterpreterVariables",
            reply=VARIABLES,
            errors=(ProcessNotFound, TimedOut, Conflict, Exhausted, SpawnFailed),
        ),
    ),
    web.get(
        "/process/interpreter/execute",
        execute,
        doc=Doc(id="executeInterpreterCode", websocket="only"),
    ),
]
