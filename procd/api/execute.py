"""POST /process/execute. Source: Process API contract, section 6."""

from typing import Any

from aiohttp import web

from procd.errors import Exhausted, TimedOut
from procd.http.audit import note
from procd.http.openapi import FLAG, INTEGER, TEXT, Doc, Shape, about, error_with
from procd.http.responses import OutputText, respond
from procd.http.schema import MAX_UINT32, BodySchema, Count, Flag, Text, load, non_empty, strings
from procd.process.process import STDERR, STDOUT
from procd.services.execute import ExecuteRequest, Executions

EXECUTIONS = web.AppKey("EXECUTIONS", Executions)


class ExecuteSchema(BodySchema):
    command = Text(
        required=True,
        validate=non_empty(),
        metadata=about("Command line, which the configured shell runs.", "echo hello"),
    )
    cwd = Text(metadata=about("Working directory; the default one if absent.", "/"))
    envs = strings(metadata=about("Variables of the command.", {"NAME": "value"}))
    env = strings(metadata=about("The same; `envs` overrides it.", {"NAME": "value"}))
    timeout_s = Count(
        MAX_UINT32,
        data_key="timeout",
        metadata=about("Seconds until it is killed; 10 if absent; 0: no limit.", 10),
    )
    split = Flag(metadata=about("Whether to answer stdout and stderr apart as well.", example=True))

    def build(self, data: dict[str, Any]) -> ExecuteRequest:
        if env := data.pop("env", None):
            data["envs"] = {**env, **data.get("envs", {})}
        return ExecuteRequest(**data)


EXECUTE = ExecuteSchema()


async def execute(request: web.Request) -> web.StreamResponse:
    """Run a command, and answer when it has ended.

    The status is 200 whatever the exit code. A command that takes longer than `timeout` is killed
    and answered with 408 and its output until then. `result` has both streams in exact order, or
    with `split` in the order of arrival.
    """
    wanted = await load(request, EXECUTE)
    result = await request.app[EXECUTIONS].run(wanted)
    note(exitCode=result.exit_code)
    reply: dict[str, object] = {"exitCode": result.exit_code, "result": OutputText(result.output)}
    if wanted.split:
        reply["stdout"] = OutputText(result.output, STDOUT)
        reply["stderr"] = OutputText(result.output, STDERR)
    if result.truncated:
        reply["truncated"] = True
    if result.exit_code is None:
        del reply["exitCode"]
        raise TimedOut("command execution timeout", reply)
    return await respond(request, reply)


EXECUTED = Shape(
    "ExecuteReply",
    "The command has ended.",
    {
        "exitCode": INTEGER
        | about("Its exit code, as `$?` has it; -1 if it could not be started.", 0),
        "result": TEXT | about("What it printed on both streams.", "hello\n"),
    },
    {
        "stdout": TEXT | about("With `split`: what it printed on stdout.", "hello\n"),
        "stderr": TEXT | about("With `split`: what it printed on stderr.", ""),
        "truncated": FLAG | about("Output was dropped from the middle.", example=True),
    },
)

routes = [
    web.post(
        "/process/execute",
        execute,
        doc=Doc(
            id="executeCommand",
            example={"command": "echo hello", "cwd": "/", "envs": {"NAME": "value"}},
            body=EXECUTE,
            reply=EXECUTED,
            errors=(TimedOut, Exhausted),
            bodies={TimedOut: error_with(EXECUTED)},
        ),
    )
]
