"""The API's description as a page: no script, nothing from elsewhere, not even from here."""

import base64
import hashlib
from collections.abc import Iterator
from html import escape
from importlib.resources import files
from typing import Final

from aiohttp import hdrs

from procd.http.describe import Json

STYLE: Final = files("procd.api").joinpath("docs.css").read_text(encoding="utf-8")

_HASH: Final = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
# Source: Content Security Policy Level 3. Nothing may be loaded or run but the one style.
HEADERS: Final = {
    hdrs.CONTENT_TYPE: "text/html; charset=utf-8",
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_HASH}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def render(document: Json) -> str:
    """The page of an OpenAPI document, such as `openapi` makes."""
    return "".join(_page(document))


def _page(document: Json) -> Iterator[str]:
    info = document["info"]
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width">'
    yield f"<title>{escape(info['title'])}</title><style>{STYLE}</style></head><body>"
    yield f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>"
    yield f"<p>{escape(info['description'])}</p>"
    yield "<h2>Access</h2>"
    schemes = document["components"]["securitySchemes"].values()
    yield from _table(
        "One of them",
        [
            ("Authorization: Bearer", "header", scheme["description"])
            if scheme["type"] == "http"
            else (scheme["name"], scheme["in"], scheme["description"])
            for scheme in schemes
        ],
    )
    groups: dict[str, list[tuple[str, str, Json]]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            groups.setdefault(operation["tags"][0], []).append((method, path, operation))
    for name, members in groups.items():
        yield f"<h2>{escape(name)}</h2>"
        for method, path, operation in members:
            yield from _operation(method, path, operation)
    yield "<h2>Schemas</h2>"
    for name, schema in document["components"]["schemas"].items():
        yield f'<details id="{escape(name)}"><summary><code>{escape(name)}</code></summary>'
        yield from _fields(schema)
        yield "</details>"
    yield "</body></html>\n"


def _operation(method: str, path: str, operation: Json) -> Iterator[str]:
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
    for name, field in schema.get("properties", {}).items():
        note = "required" if name in required else ""
        yield f"<tr><td><code>{escape(name)}</code><td>{_kind(field)}<td>{note}</tr>"
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
    """A schema in a few words, with a link to what it refers to."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}"><code>{name}</code></a>'
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'])}"
    kind = schema.get("type", "anything")
    return escape(" or ".join(kind) if isinstance(kind, list) else str(kind))
