"""The container's and the cluster's files: what they set and ask for is there."""

import re

import pytest

from procd.app import ROUTES
from procd.configfile import load, networks
from tests.deploy.conftest import DEPLOY

MANIFEST = (DEPLOY / "kubernetes.yaml").read_text()
IMAGE = (DEPLOY / "Containerfile").read_text()


def test_the_manifest_s_settings_are_procd_s() -> None:
    settings = re.findall(r"- name: (PROCD_\w+)\n +value: \"?([^\"\n]*)\"?\n", MANIFEST)
    assert len(settings) == MANIFEST.count("PROCD_")
    config = load(None, dict(settings))
    assert networks(config.server.trusted_proxies)
    grace_s = int(re.findall(r"terminationGracePeriodSeconds: (\d+)", MANIFEST)[0])
    assert grace_s > config.server.shutdown_s
    (size_gib,) = re.findall(r"sizeLimit: (\d+)Gi", MANIFEST)
    assert config.sessions.max_total_log_bytes < int(size_gib) << 30


def test_the_image_s_settings_are_procd_s() -> None:
    settings = dict(re.findall(r"(PROCD_\w+)=(\S+)", IMAGE))
    config = load(None, settings)
    assert f"EXPOSE {config.server.port}\n" in IMAGE
    assert f"containerPort: {config.server.port}\n" in MANIFEST


def test_the_probes_are_routes() -> None:
    asked = set(re.findall(r"path: (/\w+)\n", MANIFEST))
    assert asked == {"/healthz", "/readyz", "/metrics"}
    assert asked <= {route.path for route in ROUTES}


def test_the_manifest_is_yaml() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML isn't installed (comes with extra: fuzz)")
    kinds = [document["kind"] for document in yaml.safe_load_all(MANIFEST)]
    assert kinds == ["Pod", "Service", "NetworkPolicy"]
