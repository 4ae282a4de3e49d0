"""What is said of a route in the API's description, as plain data beside the route.

`web.post("/path", handler, doc=Doc(...))`: the summary is the first line of the handler's
docstring, what varies in the path is found there. `openapi` makes a document of them all.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from procd.errors import ProcdError
from procd.http.schema import BodySchema

# A JSON schema. `Any`: it is as deep as it is.
Json = dict[str, Any]

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


@dataclass(frozen=True, slots=True)
class Shape:
    """An object that replies are made of.

    Attributes:
        optional: fields that may be absent.
    """

    name: str
    fields: Mapping[str, "Shape | ListOf | Json"]
    optional: Mapping[str, "Shape | ListOf | Json"] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list of one kind of object."""

    shape: Shape


Reply = Shape | ListOf | Json | None


@dataclass(frozen=True, slots=True)
class Query:
    """A query parameter, which may be absent."""

    name: str
    doc: str
    schema: Mapping[str, Any] = field(default_factory=lambda: COUNT)
    required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Doc:
    """What a route takes and gives.

    Attributes:
        reply: the body of its success; None for no body.
        status: of its success.
        also: other successes, by status.
        body: the schema that loads its body.
        errors: refusals of its own. What comes with a body (400, 413) and with something that
            varies in the path (404) goes without saying.
        bodies: of refusals that carry more than ERROR has.
        websocket: "" if it is none; "only"; or "too" if it answers a plain GET as well.
        content: media types beside application/json, or in its place if there is no `reply`.
    """

    reply: Reply = None
    status: int = 200
    also: Mapping[int, Reply] = field(default_factory=dict)
    body: BodySchema | None = None
    query: tuple[Query, ...] = ()
    errors: tuple[type[ProcdError], ...] = ()
    bodies: Mapping[type[ProcdError], Shape] = field(default_factory=dict)
    websocket: str = ""
    content: tuple[str, ...] = ()


MESSAGE: Final = Shape("Message", {"message": TEXT})
ERROR: Final = Shape(
    "Error",
    {
        "statusCode": COUNT,
        "message": TEXT,
        "source": {"type": "string", "const": "DAYTONA_DAEMON"},
        "code": TEXT,
        "timestamp": TIME,
        "path": TEXT,
        "method": TEXT,
    },
)
# What all in a session or a terminal use: no field is there that the kernel doesn't count.
USAGE: Final = Shape("Usage", {}, {"cpuUsec": COUNT, "memoryBytes": COUNT, "pids": COUNT})


def error_with(reply: Shape) -> Shape:
    """The body of a refusal that carries what there is of a reply, without an exit code."""
    fields = {name: kind for name, kind in reply.fields.items() if name != "exitCode"}
    return Shape(f"{reply.name}Error", {**ERROR.fields, **fields}, reply.optional)


# Of a terminal: see `envelope`.
PTY_ERROR: Final = error_with(Shape("Pty", {"error": TEXT}))
