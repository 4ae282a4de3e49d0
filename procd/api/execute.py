"""POST /process/execute. Source: Process API contract, section 6."""

from typing import Any

from aiohttp import web

from procd.errors import Exhausted, TimedOut
from procd.http.audit import note
from procd.http.describe import FLAG, INTEGER, TEXT, Doc, Shape, error_with
from procd.http.draft import Draft
from procd.http.output_text import OutputText
from procd.http.responses import respond
from procd.http.schema import MAX_UINT32, BodySchema, Count, Text, load, non_empty, strings
from procd.process.process import STDERR, STDOUT
from procd.services.execute import ExecuteRequest, Executions

EXECUTIONS = web.AppKey("EXECUTIONS", Executions)


class ExecuteSchema(BodySchema):
    """The request."""

    command = Text(required=True, validate=non_empty())
    cwd = Text()
    envs = strings()
    timeout_s = Count(MAX_UINT32, data_key="timeout")

    def build(self, data: dict[str, Any]) -> ExecuteRequest:
        """Make the request."""
        return ExecuteRequest(**data)


EXECUTE = ExecuteSchema()


async def execute(request: web.Request) -> web.StreamResponse:
    """Run a command; 200 whatever its exit code, 408 when time ran out."""
    executions = request.app[EXECUTIONS]
    wanted = await load(request, EXECUTE)
    draft = Draft(executions.memory)
    try:
        result = await executions.run(wanted, draft.follow)
        note(exitCode=result.exit_code)
        whole = OutputText(result.output)
        reply: dict[str, object] = {
            "exitCode": result.exit_code,
            "result": whole,
            "stdout": OutputText(result.output, STDOUT),
            "stderr": OutputText(result.output, STDERR),
        }
        if result.truncated:
            reply["truncated"] = True
        if result.exit_code is None:
            del reply["exitCode"]
            raise TimedOut("command execution timeout", reply)
        return await respond(request, reply, drafts=draft.of(whole))
    finally:
        draft.close()


EXECUTED = Shape(
    "ExecuteReply",
    {"exitCode": INTEGER, "result": TEXT, "stdout": TEXT, "stderr": TEXT},
    {"truncated": FLAG},
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
    ),
]
