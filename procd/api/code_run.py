"""POST /process/code-run. Source: Process API contract, section 7."""

from typing import Any

from aiohttp import web
from marshmallow import fields

from procd.errors import Exhausted, TimedOut
from procd.http.audit import note
from procd.http.openapi import FLAG, INTEGER, OBJECT, TEXT, Doc, Shape, about, error_with
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
    code = AnyText(
        required=True,
        validate=non_empty(),
        metadata=about("The program.", "print('hello')"),
    )
    language = Text(
        required=True,
        validate=non_empty(),
        metadata=about("`python`, `javascript` or `typescript`.", "python"),
    )
    argv = fields.List(
        Element(), metadata=about("Arguments of the program, which no shell sees.", ["--verbose"])
    )
    cwd = Text(metadata=about("Working directory; the default one if absent.", "/"))
    envs = strings(metadata=about("Variables of the program.", {"NAME": "value"}))
    timeout_s = Count(
        MAX_UINT32,
        data_key="timeout",
        metadata=about("Seconds until it is killed; if absent or 0: no limit.", 10),
    )

    def build(self, data: dict[str, Any]) -> CodeRunRequest:
        return CodeRunRequest(**data | {"argv": tuple(data.get("argv", ()))})


CODE_RUN = CodeRunSchema()


async def code_run(request: web.Request) -> web.StreamResponse:
    """Run a program, and answer when it has ended.

    The status is 200 whatever the exit code. A program that takes longer than `timeout` is killed
    and answered with 408 and its output until then. Charts of matplotlib are in `artifacts`.
    """
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
    "The program has ended.",
    {
        "exitCode": INTEGER | about("Its exit code, as `$?` has it; -1 if it could not start.", 0),
        "result": TEXT | about("What it printed on both streams.", "hello\n"),
    },
    {
        "truncated": FLAG | about("Output was dropped from the middle.", example=True),
        "artifacts": OBJECT | about("`charts` has those that were shown.", {"charts": []}),
    },
)

routes = [
    web.post(
        "/process/code-run",
        code_run,
        doc=Doc(
            id="codeRun",
            example={"language": "python", "code": "print('hello')"},
            body=CODE_RUN,
            reply=CODE_RAN,
            errors=(TimedOut, Exhausted),
            bodies={TimedOut: error_with(CODE_RAN)},
        ),
    )
]
