"""What each route says about itself, for the API's description.

Routes are declared by `web.post("/path", handler, doc=Doc(...))`. The first line of the handler's
docstring is the summary, what follows it the description. `http.document` makes the document of
all, and `http.docs_page` its page.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from procd.errors import ProcdError
from procd.http.schema import BodySchema

Json = dict[str, Any]

# What varies in a path.
PARAMETER: Final = re.compile(r"\{(\w+)\}")

TEXT: Final[Json] = {"type": "string"}
TEXT_OR_NULL: Final[Json] = {"type": ["string", "null"]}
INTEGER: Final[Json] = {"type": "integer"}
INTEGER_OR_NULL: Final[Json] = {"type": ["integer", "null"]}
COUNT: Final[Json] = {"type": "integer", "minimum": 0}
NUMBER: Final[Json] = {"type": "number"}
FLAG: Final[Json] = {"type": "boolean"}
TIME: Final[Json] = {"type": "string", "format": "date-time"}
LIST: Final[Json] = {"type": "array", "items": TEXT}
STRINGS: Final[Json] = {"type": "object", "additionalProperties": {"type": "string"}}
OBJECT: Final[Json] = {"type": "object"}

NOW: Final = "2026-12-02T10:00:00Z"  # in examples


def about(description: str, example: object) -> Json:
    """Say what a field is: `TEXT | about(…)`, or as `metadata` of a schema's field."""
    return {"description": description, "example": example}


@dataclass(frozen=True, slots=True)
class Shape:
    """An object that replies are made of; `optional` fields may be absent."""

    name: str
    description: str
    fields: Mapping[str, "Shape | ListOf | Json"]
    optional: Mapping[str, "Shape | ListOf | Json"] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ListOf:
    shape: Shape
    description: str


Reply = Shape | ListOf | Json | None


def query(name: str, schema: Json, *, required: bool = False) -> Json:
    """A parameter in the query, whose schema is as a field's."""
    return {"name": name, "in": "query", "required": required, "schema": schema}


@dataclass(frozen=True, slots=True, kw_only=True)
class Doc:
    """What a route takes and answers.

    Attributes:
        id: the operationId: as Daytona's clients call the operation, if they do.
        summary, description: in place of the handler's docstring, where routes share a handler.
        reply: the body of its success; None for no body.
        also: other successes, by status.
        errors: its own errors; those of a body (400, 413) and of a parameter in the path (404) are
            added.
        bodies: of errors with more fields than ERROR.
        body: what the request has, and `example` one that succeeds.
        websocket: "" if it is none; "only"; or "too" if it answers a plain GET as well.
        content: examples by media type, beside application/json, or instead of it if there is no
            `reply`.
    """

    id: str
    summary: str = ""
    description: str = ""
    reply: Reply = None
    status: int = 200
    also: Mapping[int, Reply] = field(default_factory=dict)
    body: BodySchema | None = None
    example: Json = field(default_factory=dict)
    query: tuple[Json, ...] = ()
    errors: tuple[type[ProcdError], ...] = ()
    bodies: Mapping[type[ProcdError], Shape] = field(default_factory=dict)
    websocket: str = ""
    content: Mapping[str, str] = field(default_factory=dict)


MESSAGE: Final = Shape(
    "Message",
    "It is done.",
    {"message": TEXT | about("What was done, for people.", "Environment updated")},
)
# What all processes of a session or a terminal use; without the fields that the kernel can't tell.
USAGE: Final = Shape(
    "Usage",
    "What all its processes use, where a cgroup tells it.",
    {},
    {
        "cpuUsec": COUNT | about("Processor time so far, microseconds.", 250000),
        "memoryBytes": COUNT | about("Memory in use, bytes.", 8388608),
        "pids": COUNT | about("How many processes and threads there are.", 2),
    },
)
ERROR: Final = Shape(
    "Error",
    "The envelope that every error has.",
    {
        "statusCode": COUNT | about("The status of the reply.", 404),
        "message": TEXT | about("What is wrong, for people.", "session not found"),
        "source": {"type": "string", "enum": ["DAYTONA_DAEMON", "DAYTONA_API"]}
        | about("Which part refuses: the Process API or the control plane.", "DAYTONA_DAEMON"),
        "code": TEXT | about("What is wrong, for programs.", "PROCESS_NOT_FOUND"),
        "timestamp": TIME | about("When it was answered.", NOW),
        "path": TEXT | about("The path of the request.", "/process/session/none"),
        "method": TEXT | about("The method of the request.", "GET"),
    },
)


def error_with(reply: Shape) -> Shape:
    """The body of an error that carries the fields of a reply as well, but no exit code."""
    fields = {name: kind for name, kind in reply.fields.items() if name != "exitCode"}
    return Shape(
        f"{reply.name}Error",
        f"{ERROR.description} What is known by then is in it.",
        {**ERROR.fields, **fields},
        reply.optional,
    )


# Of terminals: see `middleware.envelope`.
PTY_ERROR: Final = error_with(
    Shape("Pty", "", {"error": TEXT | about("The message again.", "PTY session not found")})
)
