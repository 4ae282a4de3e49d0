"""The container's and the cluster's files: what they set and ask for is there."""

import re
from pathlib import Path

import aiohttp
import pytest

from procd.app import ROUTES
from procd.config import ConfigError
from procd.config_file import load, networks
from procd.services.access import Access
from tests.daemon.conftest import Start, http
from tests.daemon.test_command_line import run
from tests.deploy.conftest import DEPLOY

__all__ = ["http"]

MANIFEST = (DEPLOY / "kubernetes.yaml").read_text()
SETTING = re.compile(r"- name: (PROCD_\w+)\n +value: \"?([^\"\n]*)\"?\n")
IMAGE = (DEPLOY / "Containerfile").read_text()


def test_the_manifest_s_settings_are_procd_s() -> None:
    settings = SETTING.findall(MANIFEST)
    assert len(settings) == MANIFEST.count("PROCD_")
    config = load(None, dict(settings))
    assert networks(config.server.trusted_proxies)
    grace_s = int(re.findall(r"terminationGracePeriodSeconds: (\d+)", MANIFEST)[0])
    assert grace_s > config.server.shutdown_s
    (size_gib,) = re.findall(r"sizeLimit: (\d+)Gi", MANIFEST)
    recordings_bytes = config.pty.max_recordings * config.pty.max_recording_bytes
    assert config.sessions.max_total_log_bytes + recordings_bytes < int(size_gib) << 30


async def test_the_pod_starts_with_a_token_and_not_without(
    start: Start, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    settings = dict(SETTING.findall(MANIFEST))
    (place,) = re.findall(r"- name: tokens\n +mountPath: (\S+)\n", MANIFEST)
    secrets = tmp_path / "secret"
    (tmp_path / "state").mkdir()
    for name, value in settings.items():
        settings[name] = value.replace(place, str(secrets)).replace(
            "/var/lib/procd", str(tmp_path / "state")
        )
    with pytest.raises(ConfigError, match="No such file"):
        Access(load(None, settings))
    del (without := settings.copy())["PROCD_AUTH_TOKEN_FILE"]
    with pytest.raises(ConfigError, match="there is no token"):
        Access(load(None, without))
    # As the kubelet mounts them: links to a directory that it exchanges.
    (secrets / "..1").mkdir(parents=True)
    (secrets / "..data").symlink_to("..1")
    (secrets / "tokens").symlink_to("..data/tokens")
    file = secrets / "..1" / "tokens"
    made = run("token", "--name", "client", "--scope", "admin", "--file", str(file))
    file.chmod(int(re.findall(r"defaultMode: (\d+)", MANIFEST)[0], 8))
    assert Access(load(None, settings)).required
    daemon = start("--host", "127.0.0.1", env=settings)
    headers = {"Authorization": f"Bearer {made.stdout.strip()}"}
    async with http.post(
        f"{daemon.url}/process/execute", json={"command": "echo out"}, headers=headers
    ) as reply:
        assert (await reply.json())["result"] == "out\n"
    for path, status in ("/healthz", 200), ("/readyz", 200), ("/version", 401):
        async with http.get(f"{daemon.url}{path}") as reply:
            assert reply.status == status


def test_the_image_s_settings_are_procd_s() -> None:
    settings = dict(re.findall(r"(PROCD_\w+)=(\w\S*)", IMAGE))
    config = load(None, settings)
    assert f"EXPOSE {config.server.port}\n" in IMAGE
    assert f"containerPort: {config.server.port}\n" in MANIFEST


def test_the_probes_are_routes() -> None:
    asked = set(re.findall(r"path: (/\w+)\n", MANIFEST))
    assert asked == {"/healthz", "/readyz", "/metrics"}
    assert asked <= {route.path for route in ROUTES}
