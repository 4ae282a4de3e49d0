"""GET /openapi.json and /docs: the API's description, made from the route table when asked for.

Source: OpenAPI 3.1.0.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Final

from aiohttp import hdrs, web
from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from marshmallow import Schema, fields

from procd import __version__
from procd.api import docs
from procd.errors import (
    BadRequest,
    InvalidBody,
    NotFound,
    ProcdError,
    Refused,
    TooLarge,
    Unauthorized,
)
from procd.http.describe import (
    ERROR,
    PTY_ERROR,
    TEXT,
    Doc,
    Json,
    ListOf,
    Reply,
    Shape,
)
from procd.http.dispatch import VARIES
from procd.http.encoder import encoded
from procd.http.envelope import PTY_PATH
from procd.http.route_policy import NEEDS, UNGUARDED, UPGRADES
from procd.http.schema import Count, Element, Text
from procd.http.whole import CONTENT_TYPE
from procd.services.access import KEY_PARAM, TICKET_PARAM, Scope

JSON: Final = "application/json"
# More than the texts of the description take.
DOCUMENT_BYTES: Final = 1 << 20
# What is not a string to the shell, nor to execve.
NO_NUL: Final = r"^[^\u0000]*$"

# How a caller shows who it is: by name in the description, as OpenAPI has it.
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
    """The document of a route table.

    Args:
        guarded: whether callers need a token.
    """

    def __init__(self, routes: Sequence[web.RouteDef], *, guarded: bool) -> None:
        self._routes = routes
        self._guarded = guarded

    @cached_property
    def document(self) -> Json:
        """As plain data."""
        return _document(self._routes, guarded=self._guarded)

    @cached_property
    def json(self) -> bytes:
        """As JSON."""
        return encoded(self.document, DOCUMENT_BYTES)

    @cached_property
    def page(self) -> bytes:
        """As a page for people."""
        return docs.render(self.document).encode()


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
    """The ways in, each with the scope that it takes; an empty one is that of who has nothing."""
    if route.path in UNGUARDED:
        return []
    scope = NEEDS.get((route.method, route.path), Scope.ADMIN).name.lower()
    names = SCHEMES if route.path in UPGRADES else ("token",)
    ways = [{name: [scope]} for name in names]
    return ways if guarded else [*ways, {}]


def _schema_name(schema: Any) -> str:
    """Modules have schemas of the same name: theirs goes before."""
    kind = schema if isinstance(schema, type) else type(schema)
    module = kind.__module__.rpartition(".")[2]
    return f"{module.title()}{kind.__name__.removesuffix('Schema')}Request".replace(
        "ExecuteExecute", "Execute"
    )


def _rules_of_bodies(self: Any, field: fields.Field[Any], **_: object) -> dict[str, object]:
    """What `body` asks of a field beyond its type."""
    rules: dict[str, object] = {}
    if isinstance(field, Count):
        rules |= {"minimum": 0, "maximum": field.largest}
    if isinstance(field, Text) and not field.allows_nul:
        rules["pattern"] = NO_NUL
    may_be_absent = not field.required and isinstance(field.parent, Schema)
    if may_be_absent or isinstance(field, Element):
        kind, _format = self.field_mapping[_known(self, field)]
        rules["type"] = [kind, "null"]  # which is as good as absent, or as empty
    return rules


def _known(self: Any, field: fields.Field[Any]) -> type[Any]:
    return next(kind for kind in type(field).__mro__ if kind in self.field_mapping)


def _operation(spec: APISpec, route: web.RouteDef, doc: Doc) -> Json:
    summary = (route.handler.__doc__ or "").strip().partition("\n")[0]
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": TEXT}
        for name in VARIES.findall(route.path)
    ]
    in_query = [
        {
            "name": query.name,
            "in": "query",
            "required": query.required,
            "description": query.doc,
            "schema": dict(query.schema),
        }
        for query in doc.query
    ]
    operation: Json = {
        "summary": summary.rstrip("."),
        "tags": [route.handler.__module__.rpartition(".")[2]],
        "parameters": in_path + in_query,
        "responses": _successes(spec, doc) | _refusals(spec, route, doc),
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


def _refusals(spec: APISpec, route: web.RouteDef, doc: Doc) -> Json:
    """By status; of several with the same, the description has all their codes."""
    errors: list[type[ProcdError]] = list(doc.errors)
    if route.path not in UNGUARDED:
        errors += [Unauthorized, Refused]
    if doc.body is not None:
        errors += [BadRequest, InvalidBody, TooLarge]
    if doc.websocket == "only" or doc.query:
        errors.append(BadRequest)
    if VARIES.search(route.path):
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


async def openapi(request: web.Request) -> web.Response:
    """This description of the API."""
    return web.Response(
        body=request.app[DESCRIPTION].json, headers={hdrs.CONTENT_TYPE: CONTENT_TYPE}
    )


async def page(request: web.Request) -> web.Response:
    """This description as a page for people."""
    return web.Response(body=request.app[DESCRIPTION].page, headers=docs.HEADERS)


routes = [
    web.get("/openapi.json", openapi, doc=Doc(reply={"type": "object"})),
    web.get("/docs", page, doc=Doc(content=("text/html",))),
]
