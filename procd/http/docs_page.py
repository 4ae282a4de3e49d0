"""The API's description as a page for people, which can be read without JavaScript.

`docs.js` adds a form to each operation, by what the page says of it.
"""

import json
from collections.abc import Iterator
from html import escape
from typing import Final

from aiohttp import hdrs

from procd.http.openapi import Json

# Nothing from elsewhere, and no script or style in the page. Source: Content Security Policy
# Level 3.
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    hdrs.CACHE_CONTROL: "no-cache",
}
FIELDS_HEAD: Final = "<tr><th>Name<th>Type<th>Description<th>Example</tr>"


def page(document: Json) -> bytes:
    """The page, whose references are relative, so that it works below any prefix."""
    return "".join(_page(document)).encode()


def _page(document: Json) -> Iterator[str]:
    info = document["info"]
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f'<title>{escape(info["title"])} API</title><link rel="icon" href="data:,">'
    yield '<link rel="stylesheet" href="docs/static/docs.css">'
    yield '<script type="module" src="docs/static/docs.js"></script></head><body>'
    yield f'<header><h1>{escape(info["title"])} API</h1><div id="access"></div></header>'
    yield f"<p>{escape(info['description'])}"
    yield ' For programs: <a href="openapi.json">openapi.json</a>.</p><nav>'
    for tag in document["tags"]:
        yield f'<a href="#{_anchor(tag["name"])}">{escape(tag["name"])}</a> '
    yield "</nav><h2>Credentials</h2><table><tr><th>One of them<th>In<th>Description</tr>"
    for scheme in document["components"]["securitySchemes"].values():
        way = {"name": "Authorization: Bearer", "in": "header"} | scheme
        yield f"<tr><td><code>{escape(way['name'])}</code><td>{way['in']}"
        yield f"<td>{_text(way['description'])}</tr>"
    yield "</table>"
    for tag in document["tags"]:
        yield f'<h2 id="{_anchor(tag["name"])}">{escape(tag["name"])}</h2>'
        yield f"<p>{escape(tag['description'])}</p>"
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                if operation["tags"] == [tag["name"]]:
                    yield from _operation(
                        method, path, operation, document["components"]["schemas"]
                    )
    yield "<h2>Schemas</h2>"
    for name, schema in document["components"]["schemas"].items():
        yield f'<details id="{escape(name)}"><summary><code>{escape(name)}</code></summary>'
        yield f"<p>{_text(schema.get('description', 'The body of a request.'))}</p>"
        yield from _fields(schema)
        yield "</details>"
    yield "</body></html>\n"


def _anchor(tag: str) -> str:
    return "tag-" + tag.lower()


def _operation(method: str, path: str, operation: Json, schemas: Json) -> Iterator[str]:
    server = operation.get("servers", [{"url": "."}])[0]["url"]
    opens = ""
    if "101" in operation["responses"]:
        is_only = not any(status.startswith("2") for status in operation["responses"])
        opens = f' data-websocket="{"only" if is_only else "too"}"'
    yield f'<details class="operation" id="{operation["operationId"]}" data-method="{method}"'
    yield f' data-path="{escape(path)}" data-server="{server}"'
    yield f'{opens}><summary><span class="method {method}">{method.upper()}</span> '
    yield f"<code>{escape(path)}</code> {escape(operation['summary'])}</summary>"
    yield f"<p>{_text(operation['description'])}</p><p><code>{operation['operationId']}</code>"
    for scope in dict.fromkeys(scope for way in operation["security"] for (scope,) in way.values()):
        yield f". Scope: {escape(scope)}"
    yield ".</p>"
    if parameters := operation["parameters"]:
        yield f"<h3>Parameters</h3><table>{FIELDS_HEAD}"
        for each in parameters:
            told = each["schema"] | {name: each[name] for name in ("description", "example")}
            attributes = f' data-parameter="{escape(each["name"])}" data-in="{each["in"]}"'
            yield _field(each["name"], told, required=each["required"], attributes=attributes)
        yield "</table>"
    if body := operation.get("requestBody"):
        (content,) = body["content"].values()
        yield "<h3>Request body</h3>"
        yield from _fields(schemas[content["schema"]["$ref"].rpartition("/")[2]])
        yield f'<pre class="body">{_json(content["example"])}</pre>'
    yield "<h3>Responses</h3><table><tr><th>Status<th>Description<th>Body<th>Example</tr>"
    for status, response in operation["responses"].items():
        contents = response.get("content", {})
        examples = [content["example"] for content in contents.values() if "example" in content]
        yield f"<tr><td>{status}<td>{escape(response['description'])}<td>{_contents(contents)}<td>"
        if examples:
            yield f"<pre>{_json(examples[0])}</pre>"
        yield "</tr>"
    yield "</table></details>"


def _fields(schema: Json) -> Iterator[str]:
    yield f"<table>{FIELDS_HEAD}"
    for name, member in schema["properties"].items():
        yield _field(name, member, required=name in schema.get("required", ()))
    yield "</table>"


def _field(name: str, schema: Json, *, required: bool, attributes: str = "") -> str:
    example = schema.get("example")
    shown = f"<code>{escape(json.dumps(example, ensure_ascii=False))}</code>"
    return (
        f"<tr{attributes}{' data-required' * required}><td><code>{escape(name)}</code>"
        f"<td>{_kind(schema)}{', required' * required}<td>{_text(schema.get('description', ''))}"
        f"<td>{shown if example is not None else ''}</tr>"
    )


def _text(text: str) -> str:
    """Text in which words between back quotes are code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))


def _json(value: object) -> str:
    if isinstance(value, str):
        return escape(value)
    return escape(json.dumps(value, indent=2, ensure_ascii=False))


def _contents(contents: Json) -> str:
    return ", ".join(
        _kind(content["schema"]) + ("" if "json" in kind else f" as {escape(kind)}")
        for kind, content in contents.items()
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
