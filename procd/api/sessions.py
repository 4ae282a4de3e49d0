"""Shell sessions. Source: Process API contract, sections 8 and 9."""

import asyncio
import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from signal import Signals
from typing import Any, Final

from aiohttp import WSCloseCode, hdrs, web
from marshmallow import ValidationError, validate

from procd.errors import (
    BadRequest,
    CommandCompleted,
    Conflict,
    Exhausted,
    ProcdError,
    ProcessNotFound,
    Refused,
    SessionEnded,
    SpawnFailed,
    TimedOut,
)
from procd.http.audit import ending, note
from procd.http.client import Client, asks_websocket, client_of
from procd.http.log_sender import FOLLOW_REST_S, LogSender
from procd.http.openapi import (
    COUNT,
    FLAG,
    INTEGER,
    INTEGER_OR_NULL,
    NOW,
    TEXT,
    TEXT_OR_NULL,
    TIME,
    USAGE,
    Doc,
    ListOf,
    Shape,
    about,
    error_with,
    query,
)
from procd.http.responses import OutputText, json_response, respond, respond_text
from procd.http.schema import (
    MAX_UINT32,
    AnyText,
    BodySchema,
    Count,
    Flag,
    Text,
    load,
    non_empty,
    number,
    strings,
)
from procd.http.websocket import WEBSOCKETS, WebSocket, serve_both_ways
from procd.output import frames
from procd.output.logfile import Snapshot
from procd.process.process import STDERR, STDOUT
from procd.services.shell.command import Command, ExecRequest, InputRequest
from procd.services.shell.session import SessionRequest, ShellSession
from procd.services.shell.sessions import ENTRYPOINT, ENTRYPOINT_COMMAND, ShellSessions

# A follower's messages are dropped.
MAX_FOLLOWER_MESSAGE_BYTES: Final = 4 << 20

SESSIONS = web.AppKey("SESSIONS", ShellSessions)


class CreateSchema(BodySchema):
    id = AnyText(
        required=True,
        data_key="sessionId",
        validate=non_empty(),
        metadata=about("Id of the new session.", "build"),
    )
    cwd = Text(metadata=about("Where its shell starts; the default directory if absent.", "/"))
    env = strings(load_default=dict, metadata=about("Variables of its shell.", {"NAME": "value"}))
    envs = strings(
        load_default=dict, metadata=about("The same; it overrides `env`.", {"NAME": "value"})
    )

    def build(self, data: dict[str, Any]) -> SessionRequest:
        return SessionRequest(
            id=data["id"], cwd=data.get("cwd", ""), envs={**data["env"], **data["envs"]}
        )


class ExecSchema(BodySchema):
    command = AnyText(
        required=True,
        validate=non_empty(),
        metadata=about("Script of any length for the session's shell.", "echo hello"),
    )
    run_async = Flag(
        data_key="runAsync",
        load_default=False,
        metadata=about("Answer at once with 202, and let the command go on.", example=False),
    )
    also_async = Flag(
        data_key="async", load_default=False, metadata=about("As `runAsync`.", example=False)
    )
    suppress_input_echo = Flag(
        data_key="suppressInputEcho",
        load_default=False,
        metadata=about("Keep lines that are sent as input out of the log.", example=False),
    )
    timeout_s = Count(
        MAX_UINT32,
        data_key="timeout",
        load_default=0,
        metadata=about("Seconds until the command is ended and 408 answered; 0: none.", 10),
    )

    def build(self, data: dict[str, Any]) -> ExecRequest:
        also_async = data.pop("also_async")
        return ExecRequest(**data | {"run_async": data["run_async"] or also_async})


class InputSchema(BodySchema):
    data = AnyText(
        load_default="", metadata=about("A line; a newline is added where it has none.", "yes")
    )
    data_base64 = Text(
        data_key="dataBase64",
        load_default="",
        metadata=about("In place of `data`: exact bytes, to which nothing is added.", "eWVzCg=="),
    )
    eof = Flag(load_default=False, metadata=about("Close the input after this.", example=False))
    key = Text(
        data_key="idempotencyKey",
        load_default="",
        validate=validate.Length(max=64, error="must not be longer than 64"),
        metadata=about("Requests with the same key are typed once.", "answer-1"),
    )

    def build(self, data: dict[str, Any]) -> InputRequest:
        if data["data"] and data["data_base64"]:
            raise ValidationError("data and dataBase64: only one of them may be given")
        try:
            raw = base64.b64decode(data["data_base64"], validate=True)
        except ValueError:
            raise ValidationError("dataBase64: must be base64") from None
        if data["data"]:
            raw = data["data"].encode()
            raw += b"" if raw.endswith(b"\n") else b"\n"
        if not raw and not data["eof"]:
            raise ValidationError("data: must not be empty")
        return InputRequest(data=raw, eof=data["eof"], key=data["key"])


class SignalSchema(BodySchema):
    signal = Text(
        required=True,
        validate=non_empty(),
        metadata=about("Name of the signal, with or without SIG.", "SIGINT"),
    )

    def build(self, data: dict[str, Any]) -> Signals:
        name = data["signal"].upper()
        try:
            return Signals[name if name.startswith("SIG") else f"SIG{name}"]
        except KeyError:
            raise ValidationError(f"signal: no such signal: {data['signal']}") from None


CREATE: Final = CreateSchema()
EXEC: Final = ExecSchema()
INPUT: Final = InputSchema()
SIGNAL: Final = SignalSchema()


async def create(request: web.Request) -> web.Response:
    """Create a session.

    Its shell stays until it is deleted or exits: the directory, variables and functions of one
    command are there for the next.
    """
    wanted: SessionRequest = await load(request, CREATE)
    await request.app[SESSIONS].create(wanted, starts_at_home=client_of(request).starts_at_home)
    note(session_id=wanted.id)
    return web.Response(status=201)


async def list_all(request: web.Request) -> web.StreamResponse:
    """List the sessions.

    Each has its commands. Sessions whose shell has ended are listed, too.
    """
    sessions = request.app[SESSIONS].list()
    return await respond(request, map(session_fields, sessions))


async def get(request: web.Request) -> web.StreamResponse:
    """Show one session.

    The reply has its commands, and what its processes use where that is known.
    """
    session = _session(request)
    return await respond(request, session_fields(session, session.driver.process.usage()))


async def delete(request: web.Request) -> web.Response:
    """Delete a session.

    All that runs in it is killed, and the logs of its commands are removed.
    """
    await request.app[SESSIONS].delete(request.match_info["session_id"])
    return web.Response(status=204)


async def execute(request: web.Request) -> web.StreamResponse:
    """Run a command in a session.

    Commands run one after another. The answer comes when the command has ended, with its exit
    code and output, or at once with `runAsync`, with its id. One that takes longer than `timeout`
    is ended and answered with 408 and its output until then.
    """
    session = request.app[SESSIONS].to_change(
        request.match_info["session_id"], "execute command in"
    )
    wanted: ExecRequest = await load(request, EXEC)
    command = session.exec(wanted)
    note(command_id=command.id)
    try:
        return await _answer(request, session, command, wanted)
    finally:
        if command.done.done():
            note(exitCode=command.exit_code)
        else:  # it goes on without this request
            note_end = ending(request)
            command.done.add_done_callback(lambda _: note_end(command.exit_code))


async def _answer(
    request: web.Request, session: ShellSession, command: Command, wanted: ExecRequest
) -> web.StreamResponse:
    reply: dict[str, object] = {"cmdId": command.id}
    if wanted.run_async:
        nothing = dict.fromkeys(("output", "stdout", "stderr", "exitCode"))
        return json_response(reply | nothing, 202)
    with command.file.hold():
        await asyncio.wait([command.done])
        command.check_outcome()
        with _readable(**reply, exitCode=command.exit_code):
            reply |= _output_of(command.file.snapshot(), client_of(request))
            if command.timed_out:
                message = "command execution timeout"
                if session.driver.ended:
                    message += "; the session had to be ended"
                raise TimedOut(message, reply)
            reply["exitCode"] = command.exit_code
            return await respond(request, reply)


async def get_command(request: web.Request) -> web.StreamResponse:
    """Show a command.

    It has an exit code once it has ended. With `wait` the answer comes when it has ended, or when
    that time is over.
    """
    command = _command(request)
    wait_s = number(request.query, "wait")
    if wait_s and request.method != hdrs.METH_HEAD:
        most_s = request.app[SESSIONS].config.max_wait_s
        await asyncio.wait([command.done], timeout=min(wait_s, most_s))
    command.check_outcome()
    return await respond(request, command_fields(command))


async def send_input(request: web.Request) -> web.Response:
    """Type a line into a command.

    It is appended to what the command reads as its standard input.
    """
    command = _to_change(request, "send input to")
    queue_bytes = request.app[SESSIONS].config.input_queue_bytes
    await command.send_input(await load(request, INPUT), queue_bytes)
    return web.Response(status=204)


async def send_signal(request: web.Request) -> web.Response:
    """Signal the processes of a command.

    Its shell doesn't get the signal.
    """
    command = _to_change(request, "send signal to")
    await command.send_signal(await load(request, SIGNAL))
    return web.Response(status=204)


async def terminate(request: web.Request) -> web.Response:
    """End a command.

    What it has started gets SIGTERM, and SIGKILL after a time. bash and zsh are kept for the next
    command. Other shells end, and the answer is 410.
    """
    command = _to_change(request, "terminate command in")
    await command.terminate(request.app[SESSIONS].config.grace_s)
    return web.Response(status=204)


async def logs(request: web.Request) -> web.StreamResponse:
    """Show a command's output so far.

    The reply is JSON with both streams for clients that ask for JSON, and plain text for others.
    By WebSocket with `follow=true` what follows is sent as well.
    """
    return await _logs(request, _command(request), client_of(request))


async def get_entrypoint(request: web.Request) -> web.StreamResponse:
    """Show the entrypoint session.

    It runs the command that was given to `procd serve`. Without one there is no such session.
    """
    return await respond(request, session_fields(request.app[SESSIONS].get(ENTRYPOINT)))


async def entrypoint_logs(request: web.Request) -> web.StreamResponse:
    """Show the entrypoint's output so far.

    As text it always has a marker before each piece of stdout or stderr. By WebSocket with
    `follow=true` what follows is sent as well.
    """
    command = request.app[SESSIONS].get(ENTRYPOINT).commands.get(ENTRYPOINT_COMMAND)
    return await _logs(request, command, replace(client_of(request), labelled=True))


def _output_of(kept: Snapshot, client: Client) -> dict[str, object]:
    """A command's output in the form that the client knows (contract, section 2.3)."""
    labelled = client.labelled and not client.modern
    fields: dict[str, object] = {
        "output": OutputText(kept, labelled=labelled, marks_gap=False),
        "stdout": OutputText(kept, STDOUT, marks_gap=False) if client.modern else None,
        "stderr": OutputText(kept, STDERR, marks_gap=False) if client.modern else None,
    }
    if kept.start:
        fields |= {"truncated": True, "firstAvailableOffset": kept.start}
    return fields


@contextmanager
def _readable(**known: object) -> Iterator[None]:
    """Turn an error of reading a log into an error reply with what is known."""
    try:
        yield
    except ConnectionError:
        raise  # of the client
    except OSError as exc:
        kind = Refused if isinstance(exc, PermissionError) else ProcdError
        raise kind(f"log can't be read: {exc.strerror}", known) from exc


async def _logs(request: web.Request, command: Command, client: Client) -> web.StreamResponse:
    """Answer with the output so far, or follow it by WebSocket (contract, section 9)."""
    offset = number(request.query, "offset")
    with _readable(), command.file.hold():
        if asks_websocket(request):
            return await _follow(request, command, offset, labelled=client.labelled)
        kept = command.file.snapshot()
        if not client.json_logs:
            text = OutputText(kept, labelled=client.labelled, marks_gap=False)
            return await respond_text(request, text)
        return await respond(request, _output_of(kept, replace(client, modern=True)))


async def _follow(
    request: web.Request, command: Command, offset: int | None, *, labelled: bool
) -> web.StreamResponse:
    if offset is not None and offset > command.file.end:
        raise BadRequest(f"offset {offset} is beyond the end of the output")
    follows = request.query.get("follow") == "true"
    async with request.app[WEBSOCKETS].accept(request, MAX_FOLLOWER_MESSAGE_BYTES) as websocket:
        sender = LogSender(
            command.log,
            command.frames(labelled=labelled),
            command.file.start if offset is None else offset,
            until=None if follows else command.file.end,
            # Only clients that give an offset know messages other than output.
            gap_frame=(lambda _: b"") if offset is None else _gap_frame,
            rest_s=FOLLOW_REST_S,
        )
        try:
            sender.open(websocket)
            await serve_both_ways(
                websocket.wait_closed(), _write(websocket, sender), f"follow {command.id}"
            )
        finally:
            sender.close()
    return websocket.response


def _gap_frame(offset: int) -> bytes:
    return frames.encode(frames.TEXT, b'{"type":"gap","firstAvailableOffset":%d}' % offset)


async def _write(websocket: WebSocket, sender: LogSender) -> None:
    try:
        await sender.run()
    except ConnectionError:
        raise  # of the client
    except OSError as exc:
        websocket.close(WSCloseCode.INTERNAL_ERROR, f"log can't be read: {exc.strerror}")
        return
    sender.close()
    websocket.close(WSCloseCode.OK, "")


def _session(request: web.Request) -> ShellSession:
    return request.app[SESSIONS].get(request.match_info["session_id"])


def _command(request: web.Request) -> Command:
    return _session(request).commands.get(request.match_info["command_id"])


def _to_change(request: web.Request, action: str) -> Command:
    session = request.app[SESSIONS].to_change(request.match_info["session_id"], action)
    return session.commands.get(request.match_info["command_id"])


def session_fields(session: ShellSession, usage: dict[str, int] | None = None) -> dict[str, object]:
    """The fields of its commands are made as they are sent."""
    commands = map(command_fields, [*session.commands.commands.values()])
    fields: dict[str, object] = {"sessionId": session.id, "commands": commands}
    if session.driver.ended:
        fields["ended"] = True
    if usage is not None:
        fields["usage"] = usage
    return fields


def command_fields(command: Command) -> dict[str, object]:
    fields: dict[str, object] = {"id": command.id, "command": command.text}
    if command.exit_code is not None:
        fields["exitCode"] = command.exit_code
    if command.started_at is not None:
        fields["startedAt"] = command.started_at
        fields["outputBytes"] = command.file.end
    if command.ended_at is not None:
        fields["endedAt"] = command.ended_at
    return fields


GAP: Final = {
    "truncated": FLAG | about("The beginning of the output is gone.", example=True),
    "firstAvailableOffset": COUNT | about("Offset of the first byte that is kept.", 4096),
}
LOGS: Final = Shape(
    "Logs",
    "The output so far.",
    {
        "output": TEXT | about("What it printed on both streams.", "hello\n"),
        "stdout": TEXT | about("What it printed on stdout.", "hello\n"),
        "stderr": TEXT | about("What it printed on stderr.", ""),
    },
    GAP,
)
FOLLOWING: Final = (
    query("follow", TEXT | about("By WebSocket: `true` to stay for what follows.", "true")),
    query("offset", COUNT | about("By WebSocket: offset to begin at; then gaps are told.", 0)),
)
COMMAND: Final = Shape(
    "Command",
    "A command of a session.",
    {
        "id": TEXT | about("Its id.", "6f1f3a52-3c0c-4d52-9d5e-2f2b4e0c9a11"),
        "command": TEXT | about("The script.", "echo hello"),
    },
    {
        "exitCode": INTEGER | about("Its exit code, once it has ended.", 0),
        "startedAt": TIME | about("When it began.", NOW),
        "endedAt": TIME | about("When it ended.", NOW),
        "outputBytes": COUNT | about("Offset at which its output ends.", 6),
    },
)
SESSION: Final = Shape(
    "Session",
    "A session.",
    {
        "sessionId": TEXT | about("Its id.", "build"),
        "commands": ListOf(COMMAND, "Its commands, oldest first."),
    },
    {"ended": FLAG | about("Its shell has ended.", example=True), "usage": USAGE},
)
_COMMAND: Final = "/process/session/{session_id}/command/{command_id}"

EXECUTED: Final = Shape(
    "SessionExecReply",
    "The command has ended, or goes on.",
    {
        "cmdId": TEXT | about("Id of the command.", "6f1f3a52-3c0c-4d52-9d5e-2f2b4e0c9a11"),
        "output": TEXT_OR_NULL | about("What it printed on both streams.", "hello\n"),
        "stdout": TEXT_OR_NULL | about("What it printed on stdout, for newer SDKs.", "hello\n"),
        "stderr": TEXT_OR_NULL | about("What it printed on stderr, for newer SDKs.", ""),
        "exitCode": INTEGER_OR_NULL | about("Its exit code.", 0),
    },
    GAP,
)
routes = [
    web.get(
        "/process/session",
        list_all,
        doc=Doc(id="listSessions", reply=ListOf(SESSION, "The sessions.")),
    ),
    web.post(
        "/process/session",
        create,
        doc=Doc(
            id="createSession",
            body=CREATE,
            example={"sessionId": "build", "cwd": "/"},
            status=201,
            errors=(Conflict, Exhausted, SpawnFailed),
        ),
    ),
    web.get(
        "/process/session/entrypoint",
        get_entrypoint,
        doc=Doc(id="getEntrypointSession", reply=SESSION, errors=(ProcessNotFound,)),
    ),
    web.get(
        "/process/session/entrypoint/logs",
        entrypoint_logs,
        doc=Doc(
            id="getEntrypointLogs",
            reply=LOGS,
            content={"text/plain": "hello\n"},
            websocket="too",
            query=FOLLOWING,
            errors=(BadRequest, ProcessNotFound),
        ),
    ),
    web.get(
        "/process/session/{session_id}",
        get,
        doc=Doc(id="getSession", reply=SESSION, errors=(ProcessNotFound,)),
    ),
    web.delete(
        "/process/session/{session_id}",
        delete,
        doc=Doc(id="deleteSession", status=204, errors=(BadRequest, ProcessNotFound)),
    ),
    web.post(
        "/process/session/{session_id}/exec",
        execute,
        doc=Doc(
            id="sessionExecuteCommand",
            body=EXEC,
            example={"command": "echo hello", "timeout": 10},
            reply=EXECUTED,
            also={202: EXECUTED},
            errors=(ProcessNotFound, TimedOut, SessionEnded, Exhausted, SpawnFailed),
            bodies={TimedOut: error_with(EXECUTED)},
        ),
    ),
    web.get(
        _COMMAND,
        get_command,
        doc=Doc(
            id="getSessionCommand",
            reply=COMMAND,
            query=(query("wait", COUNT | about("Seconds to wait for its end.", 5)),),
            errors=(ProcessNotFound, SessionEnded),
        ),
    ),
    web.post(
        f"{_COMMAND}/input",
        send_input,
        doc=Doc(
            id="sendInput",
            body=INPUT,
            example={"data": "yes"},
            status=204,
            errors=(ProcessNotFound, CommandCompleted, SessionEnded),
        ),
    ),
    web.post(
        f"{_COMMAND}/signal",
        send_signal,
        doc=Doc(
            id="signalSessionCommand",
            body=SIGNAL,
            example={"signal": "SIGINT"},
            status=204,
            errors=(ProcessNotFound, Conflict, CommandCompleted, SessionEnded),
        ),
    ),
    web.post(
        f"{_COMMAND}/terminate",
        terminate,
        doc=Doc(
            id="terminateSessionCommand",
            status=204,
            errors=(BadRequest, ProcessNotFound, CommandCompleted, SessionEnded),
        ),
    ),
    web.get(
        f"{_COMMAND}/logs",
        logs,
        doc=Doc(
            id="getSessionCommandLogs",
            reply=LOGS,
            content={"text/plain": "hello\n"},
            websocket="too",
            query=FOLLOWING,
            errors=(BadRequest, ProcessNotFound),
        ),
    ),
]
