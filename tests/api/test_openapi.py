"""The API's description: whole, true to the route table, and fit to be shown."""

import asyncio
import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import procd.api
from procd.api import not_supported
from procd.app import CONTROL_PLANE_ROUTES, ROUTES
from procd.http.auth import ACCESS_CONTROL, SCOPES, UNGUARDED
from procd.http.openapi import Doc
from tests.aliases import Client, MakeClient
from tests.api.access import Secrets, bearer, guarded

API_PAGE = Path(__file__).parents[2] / "docs" / "api.md"
WEBSOCKETS = {
    "/terminal/ptys",
    "/process/interpreter/execute",
    "/socket.io",
    "/process/pty/{id}/connect",
    "/process/pty/create-connect",
    "/process/session/entrypoint/logs",
    "/process/session/{session_id}/command/{command_id}/logs",
}


async def described(client: Client, path: str = "/openapi.json") -> dict[str, Any]:
    async with client.get(path) as reply:
        assert reply.status == 200
        assert reply.headers["Content-Type"] == "application/json; charset=utf-8"
        document: dict[str, Any] = await reply.json()
        return document


def references(part: object) -> Iterator[str]:
    """All that a part of the document refers to."""
    if isinstance(part, dict):
        if "$ref" in part:
            yield part["$ref"]
        for inner in part.values():
            yield from references(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from references(inner)


def test_every_route_of_a_module_is_served() -> None:
    modules = {
        each.name: importlib.import_module(each.name)
        for each in pkgutil.walk_packages(procd.api.__path__, "procd.api.")
    }
    forgotten = [
        f"{name}: {route.method} {route.path}"
        for name, module in modules.items()
        for route in getattr(module, "routes", ())
        if route not in (*ROUTES, *CONTROL_PLANE_ROUTES, *not_supported.routes)
    ]
    assert not forgotten, "routes that procd/app.py doesn't serve"


def test_every_route_has_its_description_beside_it() -> None:
    missing = [
        f"{route.method} {route.path}"
        for route in ROUTES
        if not isinstance(route.kwargs.get("doc"), Doc)
    ]
    assert not missing, "routes without doc=Doc(...)"


def test_the_documentation_has_all_routes_and_no_others() -> None:
    """Whatever it calls what varies in a path."""
    section = API_PAGE.read_text().partition("## Routes\n")[2].partition("\n## ")[0]
    rows = [row.split("|")[1] for row in section.splitlines() if row.startswith("| ")][1:]
    shown = {
        (method, re.sub(r"\{.*?\}", "{}", path))
        for row in rows
        for method in re.findall(r"[A-Z]{3,}(?=[ ,])", row)
        for path in re.findall(r"`(.*?)`", row)
    }
    assert shown == {(route.method, re.sub(r"\{.*?\}", "{}", route.path)) for route in ROUTES}


async def test_the_document_has_all_routes_and_no_others(procd: MakeClient) -> None:
    document = await described(await procd())
    assert document["openapi"] == "3.1.0"
    operations = {
        (method.upper(), path) for path, each in document["paths"].items() for method in each
    }
    control_plane = [route for route in CONTROL_PLANE_ROUTES if route.method != "*"]
    assert operations == {(route.method, route.path) for route in (*ROUTES, *control_plane)}


async def test_what_is_switched_off_is_not_in_it(procd: MakeClient) -> None:
    off = {"web": {"enabled": False}, "metrics": {"enabled": False}}
    document = await described(await procd(**off, standalone={"enabled": "false"}))
    gone = re.compile(r"/(terminal|metrics|sandbox|config|socket)")
    assert not [path for path in document["paths"] if gone.match(path)]
    assert "Sandbox" not in {tag["name"] for tag in document["tags"]}


async def test_who_may_call(procd: MakeClient, secrets: Secrets) -> None:
    for client in await procd(), await guarded(procd, secrets):
        is_open = client.app[ACCESS_CONTROL].access.required is False
        async with client.get("/openapi.json", headers=bearer(secrets.read)) as reply:
            document = await reply.json()
        schemes = document["components"]["securitySchemes"]
        assert {schemes[name]["name"] for name in ("key", "ticket")} == {
            "DAYTONA_SANDBOX_AUTH_KEY", "ticket",
        }  # fmt: skip
        for route in ROUTES:
            ways = document["paths"][route.path][route.method.lower()]["security"]
            if route.path in UNGUARDED:
                assert ways == []
                continue
            assert ({} in ways) == is_open, "as good as any where no token is asked for"
            scope = SCOPES[route.method, route.path].name.lower()
            by_url = [{"key": [scope]}, {"ticket": [scope]}] if route.path in WEBSOCKETS else []
            assert [way for way in ways if way] == [{"token": [scope]}, *by_url]
    async with client.get("/docs") as reply:
        page = await reply.text()
    for word in ("Authorization: Bearer", "DAYTONA_SANDBOX_AUTH_KEY", "ticket", "Scope: admin"):
        assert word in page


async def test_the_document_is_whole(procd: MakeClient) -> None:
    document = await described(await procd())
    schemas = document["components"]["schemas"]
    named = {reference.removeprefix("#/components/schemas/") for reference in references(document)}
    assert named == set(schemas)
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["summary"], path
            in_path = {each["name"] for each in operation["parameters"] if each["in"] == "path"}
            assert in_path == set(re.findall(r"\{(\w+)\}", path))
            assert any(status < "400" for status in operation["responses"]), path
            for status, response in operation["responses"].items():
                if status >= "400":
                    schema = response["content"]["application/json"]["schema"]
                    name = schema["$ref"].removeprefix("#/components/schemas/")
                    # With what was printed until then; a listing prints nothing.
                    whole = status == "408" and not path.endswith("/variables")
                    if path.startswith("/process/pty"):
                        assert name == "PtyError"
                    elif status == "503":
                        assert name == "NotReadyError"
                    else:
                        assert (name == "Error") == (not whole)
                    assert set(schemas[name]["required"]) >= set(schemas["Error"]["required"])


async def test_websockets_are_upgrades(procd: MakeClient) -> None:
    document = await described(await procd())
    found = {
        path
        for path, operations in document["paths"].items()
        if any("101" in operation["responses"] for operation in operations.values())
    }
    assert found == WEBSOCKETS


async def test_what_bodies_may_be(procd: MakeClient) -> None:
    schemas = (await described(await procd()))["components"]["schemas"]
    execute = schemas["ExecuteRequest"]
    assert execute["required"] == ["command"]
    fields = execute["properties"]
    assert fields["command"]["type"] == "string"
    assert fields["command"]["minLength"] == 1
    assert re.search(fields["cwd"]["pattern"], "/tmp")
    assert not re.search(fields["cwd"]["pattern"], "a\0b")
    limits = {"type": ["integer", "null"], "minimum": 0, "maximum": 2**32 - 1}
    assert fields["timeout"].items() >= limits.items()
    assert fields["envs"]["type"] == ["object", "null"]
    assert fields["envs"]["additionalProperties"]["type"] == ["string", "null"]
    assert "pattern" not in schemas["SessionExecRequest"]["properties"]["command"]


async def test_the_same_below_the_prefix(procd: MakeClient) -> None:
    client = await procd()
    below = await described(client, "/toolbox/box/openapi.json")
    assert below == await described(client)
    assert below["servers"] == [{"url": "."}], "relative, so right in both places"


async def test_the_page(procd: MakeClient) -> None:
    client = await procd()
    async with client.get("/docs") as reply:
        assert reply.status == 200
        assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
        policy = reply.headers["Content-Security-Policy"]
        page = await reply.text()
    for route in ROUTES:
        assert route.path in page
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    inline = r"<style|<script[^>]*>[^<]| on\w+=|url\(|@import"
    assert not re.search(inline, page), "no script and no style is in the page"
    loaded = set(re.findall(r'(?:src|href)="([^"#][^"]*)"', page)) - {"data:,"}
    assert loaded == {"docs/static/docs.css", "docs/static/docs.js", "openapi.json"}
    anchors = set(re.findall(r'href="#([\w-]+)"', page))
    assert anchors <= set(re.findall(r'id="([\w-]+)"', page))


async def test_the_page_and_its_files_need_no_token(procd: MakeClient, secrets: Secrets) -> None:
    """A browser can't send one with the address: it is the page that asks for it."""
    client = await guarded(procd, secrets)
    for path in ("/docs", "/toolbox/box/docs/", "/docs/static/docs.css", "/docs/static/docs.js"):
        async with client.get(path) as reply:
            assert reply.status == 200
            assert not reply.url.path.endswith("/"), "the references of the page are relative"
    async with client.get("/docs/static/nope.js") as reply:
        assert reply.status == 404


async def test_what_is_sent_when_time_is_up(procd: MakeClient) -> None:
    """What was printed until then is in the reply, and in its description."""
    client = await procd()
    document = await described(client)
    async with client.post("/process/session", json={"sessionId": "s"}) as reply:
        assert reply.status == 201

    async def check(path: str, described_path: str, body: dict[str, object]) -> None:
        async with client.post(path, json=body | {"timeout": 1}) as reply:
            assert reply.status == 408
            sent = await reply.json()
        response = document["paths"][described_path]["post"]["responses"]["408"]
        name = response["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        schema = document["components"]["schemas"][name]
        assert set(schema["required"]) <= set(sent) <= set(schema["properties"])

    exec_path = "/process/session/{session_id}/exec"
    await asyncio.gather(
        check("/process/execute", "/process/execute", {"command": "sleep 1000"}),
        check(
            "/process/code-run", "/process/code-run",
            {"language": "python", "code": "import time; time.sleep(1000)"},
        ),
        check("/process/session/s/exec", exec_path, {"command": "sleep 1000"}),
    )  # fmt: skip
