"""The API's description says what each operation and each field is, with an example that works."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from procd.api.openapi import Description
from procd.app import CONTROL_PLANE_ROUTES, ROUTES
from tests.aliases import MakeClient

Json = dict[str, Any]


@pytest.fixture(scope="module")
def document() -> Json:
    return Description([*ROUTES, *CONTROL_PLANE_ROUTES], guarded=True).document


def operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    for path, by_method in document["paths"].items():
        for method, operation in by_method.items():
            yield method, path, operation


def fields(document: Json) -> Iterator[tuple[str, Json]]:
    """Each field of each schema."""
    for name, schema in document["components"]["schemas"].items():
        for field, member in schema["properties"].items():
            yield f"{name}.{field}", member


def test_every_operation_is_described(document: Json) -> None:
    tags = {tag["name"] for tag in document["tags"]}
    assert all(tag["description"] for tag in document["tags"])
    for method, path, operation in operations(document):
        what = f"{method} {path}"
        assert re.fullmatch(r"[a-z][A-Za-z0-9]+", operation["operationId"]), what
        assert operation["summary"], what
        assert operation["description"].endswith("."), what
        assert len(operation["tags"]) == 1, what
        assert operation["tags"][0] in tags, what
        for parameter in operation["parameters"]:
            assert parameter["description"], (what, parameter["name"])
            assert "example" in parameter, (what, parameter["name"])
        if body := operation.get("requestBody"):
            assert body["content"]["application/json"]["example"], what
        for status, response in operation["responses"].items():
            assert response["description"], (what, status)
            if status < "400":
                for kind, content in response.get("content", {}).items():
                    assert content.get("example") is not None, (what, status, kind)


def test_no_operation_id_is_used_twice(document: Json) -> None:
    ids = Counter(operation["operationId"] for _, _, operation in operations(document))
    assert not [name for name, count in ids.items() if count > 1]


def test_operations_are_named_as_the_clients_of_daytona_call_them(document: Json) -> None:
    toolbox = pytest.importorskip("daytona_toolbox_api_client", reason="no Daytona client")
    for api in (toolbox.ProcessApi, toolbox.InterpreterApi, toolbox.InfoApi, toolbox.ServerApi):
        for name in vars(api):
            if not name.startswith("_") and not name.endswith(
                ("_with_http_info", "_without_preload_content")
            ):
                camel = re.sub(r"_(\w)", lambda match: match[1].upper(), name)
                assert camel in {each["operationId"] for _, _, each in operations(document)}


def test_every_field_is_described(document: Json) -> None:
    for name, field in fields(document):
        if "$ref" in field:  # whose own fields are
            assert field["$ref"].rpartition("/")[2] in document["components"]["schemas"]
            continue
        assert field.get("description"), name
        assert "example" in field or "$ref" in field["items"], name


def test_it_is_openapi(document: Json) -> None:
    """By the schema that the OpenAPI Initiative publishes."""
    definitions = pytest.importorskip(
        "schemathesis.specs.openapi.definitions", reason="schemathesis isn't installed"
    )
    definitions.OPENAPI_31_VALIDATOR.validate(document)


async def test_every_example_of_a_request_is_taken(procd: MakeClient, document: Json) -> None:
    """What is to be there first doesn't exist, and is said to be missing; no body is refused."""
    client = await procd()
    for method, path, operation in operations(document):
        if "requestBody" in operation:
            url = re.sub(r"\{\w+\}", "local", path)
            example = operation["requestBody"]["content"]["application/json"]["example"]
            async with client.request(method, url, json=example) as reply:
                what = f"{method} {path}: {await reply.text()}"
                assert reply.status < 300 or reply.status in (404, 410), what
    async with client.post("/process/execute", json={"command": "echo fine"}) as reply:
        assert (await reply.json())["result"] == "fine\n"
