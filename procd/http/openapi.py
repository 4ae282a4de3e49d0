"""The API's description: what each route says about itself, the document of all, and its page.

Routes are declared by `web.post("/path", handler, doc=Doc(...))`; the first line of the handler's
docstring is the summary. Source: OpenAPI 3.1.0.
"""

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from importlib.resources import files
from typing import Any, Final

from aiohttp import hdrs, web
from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from marshmallow import Schema, fields

from procd import __version__
from procd.errors import (
    BadRequest,
    InvalidBody,
    NotFound,
    ProcdError,
    Refused,
    TooLarge,
    Unauthorized,
)
from procd.http.auth import UNGUARDED, UPGRADES, scope_of
from procd.http.middleware import PTY_PATH
from procd.http.schema import BodySchema, Count, Element, Text
from procd.services.tokens import KEY_PARAM, TICKET_PARAM

JSON: Final = "application/json"
PARAMETER: Final = re.compile(r"\{(\w+)\}")
# A string that can be passed to a shell and to execve.
NO_NUL: Final = r"^[^\u0000]*$"

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
    """An object that replies are made of; `optional` fields may be absent."""

    name: str
    fields: Mapping[str, "Shape | ListOf | Json"]
    optional: Mapping[str, "Shape | ListOf | Json"] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ListOf:
    shape: Shape


Reply = Shape | ListOf | Json | None


def query(name: str, doc: str, schema: Json = COUNT, *, required: bool = False) -> Json:
    where = {"name": name, "in": "query", "required": required}
    return where | {"description": doc, "schema": schema}


@dataclass(frozen=True, slots=True, kw_only=True)
class Doc:
    """What a route takes and answers.

    Attributes:
        reply: the body of its success; None for no body.
        also: other successes, by status.
        errors: its own errors; those of a body (400, 413) and of a parameter in the path (404) are
            added.
        bodies: of errors with more fields than ERROR.
        websocket: "" if it is none; "only"; or "too" if it answers a plain GET as well.
        content: media types beside application/json, or instead of it if there is no `reply`.
    """

    reply: Reply = None
    status: int = 200
    also: Mapping[int, Reply] = field(default_factory=dict)
    body: BodySchema | None = None
    query: tuple[Json, ...] = ()
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
# What all processes of a session or a terminal use; without the fields that the kernel can't tell.
USAGE: Final = Shape("Usage", {}, {"cpuUsec": COUNT, "memoryBytes": COUNT, "pids": COUNT})


def error_with(reply: Shape) -> Shape:
    """The body of an error that carries the fields of a reply as well, but no exit code."""
    fields = {name: kind for name, kind in reply.fields.items() if name != "exitCode"}
    return Shape(f"{reply.name}Error", {**ERROR.fields, **fields}, reply.optional)


# Of terminals: see `middleware.envelope`.
PTY_ERROR: Final = error_with(Shape("Pty", {"error": TEXT}))


# The credentials, by their names in the document.
SCHEMES: Final[dict[str, Json]] = {
    "token": {"type": "http", "scheme": "bearer", "description": "made by `procd token`"},
    "key": {
        "type": "apiKey",
        "in": "query",
        "name": KEY_PARAM,
        "description": "a token, in the URL of a WebSocket and nowhere else",
    },
    "ticket": {
        "type": "apiKey",
        "in": "query",
        "name": TICKET_PARAM,
        "description": "from POST /tickets, in the URL of the WebSocket that it was made for, once",
    },
}


class Description:
    """The document of a route table, as JSON and as a page; made when it is asked for."""

    def __init__(self, routes: Sequence[web.RouteDef], *, guarded: bool) -> None:
        self._routes = routes
        self._guarded = guarded

    @cached_property
    def document(self) -> Json:
        return _document(self._routes, guarded=self._guarded)

    @cached_property
    def page(self) -> bytes:
        return "".join(_page(self.document)).encode()


DESCRIPTION = web.AppKey("DESCRIPTION", Description)


def _document(routes: Sequence[web.RouteDef], *, guarded: bool) -> Json:
    marshmallow = MarshmallowPlugin(schema_name_resolver=_schema_name)
    spec = APISpec(
        title="procd",
        version=__version__,
        openapi_version="3.1.0",
        plugins=[marshmallow],
        info={
            "description": "The processes of a sandbox: commands, shells, terminals. "
            "All paths are served below /toolbox/{sandboxId} as well."
        },
        servers=[{"url": "."}],  # wherever this document is
    )
    assert marshmallow.converter is not None
    marshmallow.converter.add_attribute_function(_rules_of_bodies)  # type: ignore[no-untyped-call]  # the library's
    for name, scheme in SCHEMES.items():
        spec.components.security_scheme(name, scheme)
    for route in routes:
        described = route.kwargs.get("doc")
        if isinstance(described, Doc):
            operation = _operation(spec, route, described)
            operation["security"] = _security(route, guarded=guarded)
            spec.path(path=route.path, operations={route.method.lower(): operation})
    document: Json = spec.to_dict()
    return document


def _security(route: web.RouteDef, *, guarded: bool) -> list[dict[str, list[str]]]:
    """The credentials that the route takes, each with its scope; {} stands for none."""
    if route.path in UNGUARDED:
        return []
    scope = scope_of(route.method, route.path).name.lower()
    names = SCHEMES if route.path in UPGRADES else ("token",)
    ways = [{name: [scope]} for name in names]
    return ways if guarded else [*ways, {}]


def _schema_name(schema: Any) -> str:
    # Schemas of several modules have the same class name.
    kind = schema if isinstance(schema, type) else type(schema)
    resource = kind.__module__.rpartition(".")[2].title().replace("_", "").removesuffix("s")
    name = kind.__name__.removesuffix("Schema")
    return f"{name if name.startswith(resource) else resource + name}Request"


def _rules_of_bodies(self: Any, field: fields.Field[Any], **_: object) -> dict[str, object]:
    rules: dict[str, object] = {}
    if isinstance(field, Count):
        rules |= {"minimum": 0, "maximum": field.largest}
    if isinstance(field, Text) and not field.allows_nul:
        rules["pattern"] = NO_NUL
    may_be_absent = not field.required and isinstance(field.parent, Schema)
    if may_be_absent or isinstance(field, Element):
        known = next(kind for kind in type(field).__mro__ if kind in self.field_mapping)
        # null is the same as absent, or as the empty string.
        rules["type"] = [self.field_mapping[known][0], "null"]
    return rules


def _operation(spec: APISpec, route: web.RouteDef, doc: Doc) -> Json:
    summary = (route.handler.__doc__ or "").strip().partition("\n")[0]
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": TEXT}
        for name in PARAMETER.findall(route.path)
    ]
    operation: Json = {
        "summary": summary.rstrip("."),
        "tags": [route.handler.__module__.rpartition(".")[2]],
        "parameters": parameters + list(doc.query),
        "responses": _successes(spec, doc) | _errors(spec, route, doc),
    }
    if doc.body is not None:
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": doc.body}}}
    return operation


def _successes(spec: APISpec, doc: Doc) -> Json:
    responses: Json = {}
    if doc.websocket:
        responses["101"] = {"description": "a WebSocket"}
    if doc.websocket != "only":
        for status, reply in {doc.status: doc.reply, **doc.also}.items():
            content = {JSON: {"schema": _schema(spec, reply)}} if reply is not None else {}
            if status == doc.status:
                content |= {kind: {"schema": TEXT} for kind in doc.content}
            responses[str(status)] = {"description": "success"}
            if content:
                responses[str(status)]["content"] = content
    return responses


def _errors(spec: APISpec, route: web.RouteDef, doc: Doc) -> Json:
    """The errors by status; the description lists all codes of one status."""
    errors: list[type[ProcdError]] = list(doc.errors)
    if route.path not in UNGUARDED:
        errors += [Unauthorized, Refused]
    if doc.body is not None:
        errors += [BadRequest, InvalidBody, TooLarge]
    if doc.websocket == "only" or doc.query:
        errors.append(BadRequest)
    if PARAMETER.search(route.path):
        errors.append(NotFound)
    plain = PTY_ERROR if route.path.startswith(PTY_PATH) else ERROR
    responses: Json = {}
    for error in sorted(errors, key=lambda error: error.status):
        content = {JSON: {"schema": _schema(spec, doc.bodies.get(error, plain))}}
        known = responses.setdefault(
            str(error.status), {"description": error.code, "content": content}
        )
        if error.code not in known["description"]:
            known["description"] += f" or {error.code}"
    return responses


def _schema(spec: APISpec, reply: Reply) -> Json:
    """The JSON schema of a reply; shapes become components, once each."""
    if isinstance(reply, ListOf):
        return {"type": "array", "items": _schema(spec, reply.shape)}
    if not isinstance(reply, Shape):
        return reply or {}
    if reply.name not in spec.components.schemas:
        members = {**reply.fields, **reply.optional}
        properties = {name: _schema(spec, inner) for name, inner in members.items()}
        spec.components.schema(
            reply.name,
            {"type": "object", "properties": properties, "required": sorted(reply.fields)},
        )
    return {"$ref": f"#/components/schemas/{reply.name}"}


STYLE: Final = files("procd.http").joinpath("docs.css").read_text(encoding="utf-8")

_HASH: Final = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
# No script, nothing from elsewhere, only the one style. Source: Content Security Policy Level 3.
PAGE_HEADERS: Final = {
    hdrs.CONTENT_TYPE: "text/html; charset=utf-8",
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_HASH}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def _page(document: Json) -> Iterator[str]:
    info = document["info"]
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width">'
    yield f"<title>{escape(info['title'])}</title><style>{STYLE}</style></head><body>"
    yield f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>"
    yield f"<p>{escape(info['description'])}</p>"
    yield "<h2>Access</h2>"
    schemes = document["components"]["securitySchemes"].values()
    bearer = {"name": "Authorization: Bearer", "in": "header"}
    ways = [bearer | scheme for scheme in schemes]
    yield from _table("One of them", [(way["name"], way["in"], way["description"]) for way in ways])
    groups: dict[str, list[tuple[str, str, Json]]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            groups.setdefault(operation["tags"][0], []).append((method, path, operation))
    for name, members in groups.items():
        yield f"<h2>{escape(name)}</h2>"
        for method, path, operation in members:
            yield from _operation_html(method, path, operation)
    yield "<h2>Schemas</h2>"
    for name, schema in document["components"]["schemas"].items():
        yield f'<details id="{escape(name)}"><summary><code>{escape(name)}</code></summary>'
        yield from _fields(schema)
        yield "</details>"
    yield "</body></html>\n"


def _operation_html(method: str, path: str, operation: Json) -> Iterator[str]:
    yield f'<details><summary><span class="method">{method.upper()}</span>'
    yield f"<code>{escape(path)}</code> {escape(operation['summary'])}</summary>"
    for scope in dict.fromkeys(scope for way in operation["security"] for (scope,) in way.values()):
        yield f"<p>Scope: {escape(scope)}</p>"
    rows = [
        (parameter["name"], parameter["in"], parameter.get("description", ""))
        for parameter in operation["parameters"]
    ]
    yield from _table("Parameters", rows)
    if body := operation.get("requestBody"):
        yield f"<p>Body: {_contents(body['content'])}</p>"
    yield "<table><tr><th>Status<th>What<th>Body</tr>"
    for status, response in operation["responses"].items():
        yield f"<tr><td>{status}<td>{escape(response['description'])}"
        yield f"<td>{_contents(response.get('content', {}))}</tr>"
    yield "</table></details>"


def _fields(schema: Json) -> Iterator[str]:
    required = schema.get("required", [])
    yield "<table>"
    for name, member in schema.get("properties", {}).items():
        note = "required" if name in required else ""
        yield f"<tr><td><code>{escape(name)}</code><td>{_kind(member)}<td>{note}</tr>"
    yield "</table>"


def _table(title: str, rows: list[tuple[str, str, str]]) -> Iterator[str]:
    if rows:
        yield f"<table><tr><th colspan=3>{title}</tr>"
        for row in rows:
            yield "<tr>" + "".join(f"<td>{escape(cell)}" for cell in row) + "</tr>"
        yield "</table>"


def _contents(content: Json) -> str:
    return ", ".join(
        _kind(described["schema"]) + ("" if "json" in kind else f" as {escape(kind)}")
        for kind, described in content.items()
    )


def _kind(schema: Json) -> str:
    """A schema in a few words, with a link to the schema that it refers to."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}"><code>{name}</code></a>'
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'])}"
    kind = schema.get("type", "anything")
    return escape(" or ".join(kind) if isinstance(kind, list) else str(kind))
