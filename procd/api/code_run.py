"""POST /process/code-run. Source: Process API contract, section 7."""

from typing import Any

from aiohttp import web
from marshmallow import fields

from procd.errors import Exhausted, TimedOut
from procd.http.audit import note
from procd.http.openapi import FLAG, INTEGER, TEXT, Doc, Shape, error_with
from procd.http.responses import EncodedJson, OutputText, respond
from procd.http.schema import (
    MAX_UINT32,
    AnyText,
    BodySchema,
    Count,
    Element,
    Text,
    load,
    non_empty,
    strings,
)
from procd.services.code_run import CodeRunRequest, CodeRuns

CODE_RUNS = web.AppKey("CODE_RUNS", CodeRuns)


class CodeRunSchema(BodySchema):
    code = AnyText(required=True, validate=non_empty())
    language = Text(required=True, validate=non_empty())
    argv = fields.List(Element())
    cwd = Text()
    envs = strings()
    timeout_s = Count(MAX_UINT32, data_key="timeout")

    def build(self, data: dict[str, Any]) -> CodeRunRequest:
        return CodeRunRequest(**data | {"argv": tuple(data.get("argv", ()))})


CODE_RUN = CodeRunSchema()


async def code_run(request: web.Request) -> web.StreamResponse:
    """Run a program; 200 whatever its exit code, 408 when time ran out."""
    wanted = await load(request, CODE_RUN)
    result = await request.app[CODE_RUNS].run(wanted)
    execution = result.execution
    note(exitCode=execution.exit_code)
    reply: dict[str, object] = {
        "exitCode": execution.exit_code,
        "result": OutputText(execution.output),
    }
    if execution.truncated:
        reply["truncated"] = True
    if result.charts:
        reply["artifacts"] = {"charts": map(EncodedJson, result.charts)}
    if execution.exit_code is None:
        del reply["exitCode"]
        raise TimedOut("command execution timeout", reply)
    return await respond(request, reply)


CODE_RAN = Shape(
    "CodeRunReply",
    {"exitCode": INTEGER, "result": TEXT},
    {"truncated": FLAG, "artifacts": {"type": "object"}},
)

routes = [
    web.post(
        "/process/code-run",
        code_run,
        doc=Doc(
            body=CODE_RUN,
            reply=CODE_RAN,
            errors=(TimedOut, Exhausted),
            bodies={TimedOut: error_with(CODE_RAN)},
        ),
    )
]
