"""Kubernetes' and agent-sandbox's manifests: valid by the published schemas, and of one mind."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.conftest import DEPLOY

MISSING = "kubernetes-validate isn't installed: pip install 'procd-server[deploy]'"
kubernetes_validate = pytest.importorskip("kubernetes_validate", reason=MISSING)
jsonschema = pytest.importorskip("jsonschema", reason=MISSING)
yaml = pytest.importorskip("yaml", reason=MISSING)

VERSION = "1.37"
SANDBOX = json.loads((Path(__file__).parent / "schemas/sandbox-v1beta1.json").read_text())


def documents(name: str) -> dict[str, Any]:
    """What a manifest has, by kind."""
    return {each["kind"]: each for each in yaml.safe_load_all((DEPLOY / name).read_text())}


def closed(schema: Any) -> Any:
    """The schema of a resource, which refuses unknown fields, as `kubectl apply` does.

    Source: Kubernetes' manual, "Field validation"; "Specifying a structural schema".
    """
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {name: closed(value) for name, value in schema.items()}
    if isinstance(schema.get("properties"), dict):
        schema.setdefault("additionalProperties", False)
    return schema


def validate(document: Any) -> None:
    """Raise jsonschema.ValidationError for what the API server would refuse or drop."""
    if document["kind"] == "Sandbox":
        jsonschema.Draft202012Validator(closed(SANDBOX)).validate(document)
        template = document["spec"]["podTemplate"]
        document = {"apiVersion": "v1", "kind": "Pod", **template}
    kubernetes_validate.validate(document, VERSION, strict=True)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("kubernetes.yaml", ["Pod", "Service", "NetworkPolicy"]),
        ("agent-sandbox.yaml", ["Sandbox", "NetworkPolicy"]),
    ],
)
def test_the_schemas_hold(name: str, kinds: list[str]) -> None:
    found = documents(name)
    assert [*found] == kinds
    for document in found.values():
        validate(document)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("kubernetes.yaml", ["Pod", "spec"]),
        ("agent-sandbox.yaml", ["Sandbox", "spec"]),
        ("agent-sandbox.yaml", ["Sandbox", "spec", "podTemplate", "spec"]),
        ("agent-sandbox.yaml", ["Sandbox", "spec", "podTemplate", "spec", "containers", 0]),
    ],
)
def test_the_schemas_refuse_what_is_unknown(name: str, path: list[str | int]) -> None:
    found = copy.deepcopy(documents(name))
    place: Any = found
    for step in path:
        place = place[step]
    place["unknown"] = 1
    with pytest.raises(jsonschema.ValidationError, match="unknown"):
        validate(found[str(path[0])])


def test_clients_reach_a_sandbox_that_is_full() -> None:
    spec = documents("kubernetes.yaml")["Service"]["spec"]
    assert spec["publishNotReadyAddresses"], "else nobody gets in to end what fills the sandbox"


def test_the_sandbox_is_the_pod_with_a_home() -> None:
    pod, sandbox = documents("kubernetes.yaml"), documents("agent-sandbox.yaml")
    plain, template = pod["Pod"], sandbox["Sandbox"]["spec"]["podTemplate"]
    (home,) = (
        each["metadata"]["name"] for each in sandbox["Sandbox"]["spec"]["volumeClaimTemplates"]
    )
    mounts = template["spec"]["containers"][0]["volumeMounts"]
    assert mounts.pop(0) == {"name": home, "mountPath": "/home/sandbox"}
    assert template["spec"] == plain["spec"]
    for name in ("labels", "annotations"):
        assert template["metadata"][name] == plain["metadata"][name]
    assert sandbox["NetworkPolicy"] == pod["NetworkPolicy"]
