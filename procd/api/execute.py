"""POST /process/execute. Source: Process API contract, section 6."""

from typing import Any

from aiohttp import web

from procd.errors import Exhausted, TimedOut
from procd.http.audit import note
from procd.http.openapi import FLAG, INTEGER, TEXT, Doc, Shape, error_with
from procd.http.responses import OutputText, respond
from procd.http.schema import MAX_UINT32, BodySchema, Count, Flag, Text, load, non_empty, strings
from procd.process.process import STDERR, STDOUT
from procd.services.execute import ExecuteRequest, Executions

EXECUTIONS = web.AppKey("EXECUTIONS", Executions)


class ExecuteSchema(BodySchema):
    command = Text(required=True, validate=non_empty())
    cwd = Text()
    envs = strings()
    env = strings()
    timeout_s = Count(MAX_UINT32, data_key="timeout")
    split = Flag()

    def build(self, data: dict[str, Any]) -> ExecuteRequest:
        if env := data.pop("env", None):
            data["envs"] = {**env, **data.get("envs", {})}
        return ExecuteRequest(**data)


EXECUTE = ExecuteSchema()


async def execute(request: web.Request) -> web.StreamResponse:
    """Run a command; 200 whatever its exit code, 408 when time ran out."""
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
    {"exitCode": INTEGER, "result": TEXT},
    {"stdout": TEXT, "stderr": TEXT, "truncated": FLAG},
)

routes = [
    web.post(
        "/process/execute",
        execute,
        doc=Doc(
            body=EXECUTE,
            reply=EXECUTED,
            errors=(TimedOut, Exhausted),
            bodies={TimedOut: error_with(EXECUTED)},
        ),
    )
]
