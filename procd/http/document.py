"""The OpenAPI document of a route table. Source: OpenAPI 3.1.0.

Nobody imports this before the document is asked for: it takes longer than a start may.
"""

import re
from collections.abc import Mapping, Sequence
from inspect import cleandoc
from typing import Any, Final

from aiohttp import web
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
from procd.http.openapi import (
    ERROR,
    PARAMETER,
    PTY_ERROR,
    TEXT,
    Doc,
    Json,
    ListOf,
    Reply,
    Shape,
    about,
)
from procd.http.schema import Count, Element, Text
from procd.services.tokens import KEY_PARAM, TICKET_PARAM

JSON: Final = "application/json"
# What varies in a path, after the part before it.
PLACES: Final = re.compile(r"(?:/([\w-]+))?/\{(\w+)\}")
# A string that can be passed to a shell and to execve.
NO_NUL: Final = r"^[^\u0000]*$"

# By the name of the handler's module.
TAGS: Final = {
    "execute": "Execute",
    "code_run": "Execute",
    "sessions": "Sessions",
    "pty": "Terminals",
    "pty_attach": "Terminals",
    "terminal_list": "Terminals",
    "recordings": "Recordings",
    "interpreter": "Interpreter",
    "info": "Info",
    "tickets": "Access",
    "health": "Health",
    "metrics": "Health",
    "openapi": "Pages",
    "web": "Pages",
    "sandbox": "Sandbox",
    "sandboxes": "Sandbox",
    "event_socket": "Sandbox",
}
DESCRIPTIONS: Final = {
    "Execute": "One command or program, from start to end, in one request.",
    "Sessions": "Shells that stay: commands one after another, each with its exit code and log.",
    "Terminals": "Programs on a pseudo-terminal (PTY), to which any number of clients attach.",
    "Recordings": "Recordings of terminals, as asciicast v3.",
    "Interpreter": "Python namespaces (contexts) that live on between pieces of code.",
    "Info": "The version, directories, environment and load of the machine.",
    "Access": "Tickets, with which a browser opens a WebSocket.",
    "Health": "For probes and for Prometheus.",
    "Pages": "What a browser shows, and this description.",
    "Sandbox": "The control plane that Daytona's clients ask for their sandbox: this machine. "
    "Clients before 2.0 use /sandbox, those since then /sandboxes.",
}

# What varies in a path, by the part before it.
PATH_PARAMETERS: Final = {
    "session": about("Id of the session.", "build"),
    "command": about("Id of the command, from `exec`.", "6f1f3a52-3c0c-4d52-9d5e-2f2b4e0c9a11"),
    "pty": about("Id of the terminal.", "main"),
    "ptys": about("Id of the terminal.", "main"),
    "context": about("Id of the context.", "0b6c6a4e-8c0e-4e57-9a45-1f3f3c1d2b7a"),
    "recordings": about("Name of the recording.", "20261202T100000.000000Z.cast"),
    "folder": about("Folder of the file.", "js"),
    "name": about("Name of the file.", "app.css"),
    "sandbox": about("Id or name of the sandbox.", "local"),
    "sandboxes": about("Id or name of the sandbox.", "local"),
    "public": about("`true` or `false`.", "true"),
    "ports": about("Port on this machine.", "8080"),
    "minutes": about("Whole number of minutes.", "30"),
}

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


def document(routes: Sequence[web.RouteDef], *, guarded: bool) -> Json:
    """The document of those routes that have a description."""
    marshmallow = MarshmallowPlugin(schema_name_resolver=_schema_name)
    spec = APISpec(
        title="procd",
        version=__version__,
        openapi_version="3.1.0",
        plugins=[marshmallow],
        info={
            "description": "The processes of a sandbox: commands, shells, terminals, interpreters. "
            "All paths are served below /toolbox/{sandboxId} as well, but for those of Sandbox."
        },
        servers=[{"url": "."}],  # wherever this document is
    )
    assert marshmallow.converter is not None
    marshmallow.converter.add_attribute_function(_rules_of_bodies)  # type: ignore[no-untyped-call]  # the library's
    for name, scheme in SCHEMES.items():
        spec.components.security_scheme(name, scheme)
    used = set()
    for route in routes:
        described = route.kwargs.get("doc")
        if isinstance(described, Doc):
            operation = _operation(spec, route, described)
            operation["security"] = _security(route, guarded=guarded)
            (tag,) = operation["tags"]
            used.add(tag)
            if tag == "Sandbox":
                operation["servers"] = [{"url": "/"}]
            spec.path(path=route.path, operations={route.method.lower(): operation})
    for tag, description in DESCRIPTIONS.items():
        if tag in used:
            spec.tag({"name": tag, "description": description})
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
    resource = kind.__module__.rpartition(".")[2].title().replace("_", "")
    resource = re.sub(r"e?s$", "", resource)
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
        if kind_of := self.field_mapping[known][0]:
            # null is the same as absent, or as the empty string.
            rules["type"] = [kind_of, "null"]
    return rules


def _operation(spec: APISpec, route: web.RouteDef, doc: Doc) -> Json:
    summary, _, description = cleandoc(route.handler.__doc__ or "").partition("\n")
    operation: Json = {
        "operationId": doc.id,
        "summary": (doc.summary or summary).rstrip("."),
        "description": " ".join((doc.description or description).split()),
        "tags": [TAGS[route.handler.__module__.rpartition(".")[2]]],
        "parameters": _path_parameters(route.path) + [_parameter(each) for each in doc.query],
        "responses": _successes(spec, doc) | _errors(spec, route, doc),
    }
    if doc.body is not None:
        content = {"schema": doc.body, "example": doc.example}
        operation["requestBody"] = {"required": True, "content": {JSON: content}}
    return operation


def _path_parameters(path: str) -> list[Json]:
    return [
        _parameter(
            {
                "name": name,
                "in": "path",
                "required": True,
                "schema": TEXT | PATH_PARAMETERS.get(part, PATH_PARAMETERS.get(name, {})),
            }
        )
        for part, name in PLACES.findall(path)
    ]


def _parameter(given: Json) -> Json:
    """A parameter, whose description and example are its schema's."""
    schema = dict(given["schema"])
    said = {name: schema.pop(name) for name in ("description", "example") if name in schema}
    return given | said | {"schema": schema}


def _successes(spec: APISpec, doc: Doc) -> Json:
    responses: Json = {}
    if doc.websocket:
        responses["101"] = {"description": "A WebSocket."}
    if doc.websocket != "only":
        for status, reply in {doc.status: doc.reply, **doc.also}.items():
            response: Json = {"description": _description(reply)}
            content: Json = {}
            if reply is not None:
                content[JSON] = {"schema": _schema(spec, reply), "example": _example(reply)}
            if status == doc.status:
                for kind, example in doc.content.items():
                    content[kind] = {"schema": TEXT, "example": example}
            responses[str(status)] = response | ({"content": content} if content else {})
    return responses


def _description(reply: Reply) -> str:
    if isinstance(reply, Shape | ListOf):
        return reply.description
    return reply["description"] if reply else "It is done."


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
        return {
            "type": "array",
            "description": reply.description,
            "items": _schema(spec, reply.shape),
        }
    if not isinstance(reply, Shape):
        return reply or {}
    if reply.name not in spec.components.schemas:
        members = {**reply.fields, **reply.optional}
        properties = {name: _schema(spec, inner) for name, inner in members.items()}
        spec.components.schema(
            reply.name,
            {
                "type": "object",
                "description": reply.description,
                "properties": properties,
                "required": sorted(reply.fields),
            },
        )
    return {"$ref": f"#/components/schemas/{reply.name}"}


def _example(reply: Reply) -> object:
    """What a reply looks like, made of the examples of its fields."""
    if isinstance(reply, ListOf):
        return [_example(reply.shape)]
    if isinstance(reply, Shape):
        members: Mapping[str, Shape | ListOf | Json] = reply.fields or reply.optional
        return {name: _example(inner) for name, inner in members.items()}
    return reply["example"] if reply else None
