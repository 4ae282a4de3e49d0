"""Real proxies, unprivileged, on loopback, by the configuration that is shipped."""

import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.daemon.conftest import http, no_blocking, settled, start
from tests.daemon.daemon import Daemon, eventually

__all__ = ["http", "no_blocking", "settled", "start"]

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
NOBODY = 65534


@dataclass(frozen=True, slots=True)
class Gateway:
    """A running proxy.

    Attributes:
        url: of the sandbox behind it.
    """

    url: str
    other_url: str
    tls: ssl.SSLContext


Serve = Callable[..., Gateway]


def find(program: str, directory: Path) -> str:
    """The path of a program: an installed one, or one that is unpacked from Debian's package."""
    path = shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if path is not None:
        return path
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        pytest.skip(f"{program} is not installed, and there is no apt-get to fetch it with")
    done = subprocess.run(
        [str(Path(__file__).with_name("install.sh")), str(directory), program],
        capture_output=True,
        text=True,
        check=False,
    )
    found = shutil.which(program, path=f"{directory}/usr/sbin:{directory}/usr/bin")
    if done.returncode or found is None:
        reason = done.stderr.strip().rpartition("\n")[2]
        pytest.skip(f"{program} is not installed, and can't be fetched: {reason}")
    return found


@pytest.fixture(scope="session")
def nginx_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The nginx to run."""
    return find("nginx", tmp_path_factory.mktemp("nginx"))


@pytest.fixture(scope="session")
def caddy_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The caddy to run."""
    return find("caddy", tmp_path_factory.mktemp("caddy"))


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with tls.crt and tls.key, for 127.0.0.1."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: no certificate can be made")
    directory = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-days", "2", "-subj", "/CN=procd", "-addext", "subjectAltName=IP:127.0.0.1",
            "-keyout", str(directory / "tls.key"), "-out", str(directory / "tls.crt"),
        ],
        capture_output=True,
        check=True,
    )  # fmt: skip
    return directory


class Proxies:
    """Starts proxies and ends them."""

    def __init__(self, directory: Path, certificate: Path) -> None:
        self._directory = directory
        self._tls = ssl.create_default_context(cafile=str(certificate / "tls.crt"))
        for name in ("tls.crt", "tls.key"):
            shutil.copy(certificate / name, directory / name)
        self._running: list[subprocess.Popen[bytes]] = []

    def start(
        self, shipped: str, command: list[str], daemon: Daemon, changes: dict[str, str]
    ) -> Gateway:
        """Run `command` with a shipped file, changed where its surroundings are others."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        text = (DEPLOY / shipped).read_text()
        changes = {
            "/etc/procd/tls/": f"{self._directory}/",
            "10.0.0.11:2280": f"127.0.0.1:{daemon.port}",
        } | {old: new.replace("PORT", str(port)) for old, new in changes.items()}
        for old, new in changes.items():
            assert old in text, f"{shipped} has no {old}"
            text = text.replace(old, new)
        (self._directory / shipped).write_text(text)
        is_root = os.geteuid() == 0
        if is_root:
            for path in (self._directory, *self._directory.iterdir()):
                os.chown(path, NOBODY, NOBODY)
            for parent in self._directory.parents:  # pytest's own are private
                if parent.name.startswith(("pytest-", "popen-")):
                    parent.chmod(0o711)
        errors = self._directory / "stderr"
        with errors.open("wb") as stderr:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                cwd=self._directory,
                env={"PATH": os.environ["PATH"], "HOME": str(self._directory)},
                user=NOBODY if is_root else None,
                group=NOBODY if is_root else None,
                extra_groups=[] if is_root else None,
            )
        self._running.append(process)

        def listens() -> bool:
            assert process.poll() is None, errors.read_text()
            with socket.socket() as client:
                return client.connect_ex(("127.0.0.1", port)) == 0

        assert eventually(listens), errors.read_text()
        base = f"https://127.0.0.1:{port}"
        return Gateway(f"{base}/toolbox/box1", f"{base}/toolbox/box2", self._tls)

    def stop(self) -> None:
        """End all."""
        for process in self._running:
            process.terminate()
            process.wait()


@pytest.fixture
def proxies(tmp_path: Path, certificate: Path) -> Iterator[Proxies]:
    """A place to run proxies in."""
    running = Proxies(tmp_path, certificate)
    yield running
    running.stop()


@pytest.fixture
def nginx(proxies: Proxies, nginx_path: str) -> Serve:
    """Put nginx in front of a daemon: `nginx(daemon, {"what the file has": "what it gets"})`."""

    def serve(daemon: Daemon, changes: dict[str, str] | None = None) -> Gateway:
        here = ["client_body_temp_path", "proxy_temp_path", "fastcgi_temp_path", "uwsgi_temp_path"]
        places = "".join(f"{name} {name}; " for name in [*here, "scgi_temp_path"])
        basics = {
            "listen 443 ssl": "listen 127.0.0.1:PORT ssl",
            "access_log off;": f"access_log off; {places}",
        }
        command = [nginx_path, "-p", ".", "-c", "nginx.conf", "-e", "stderr", "-g", "daemon off;"]
        return proxies.start("nginx.conf", command, daemon, basics | (changes or {}))

    return serve


@pytest.fixture
def caddy(proxies: Proxies, caddy_path: str) -> Serve:
    """Put Caddy in front of a daemon."""

    def serve(daemon: Daemon, changes: dict[str, str] | None = None) -> Gateway:
        basics = {"https://:443 {": "https://127.0.0.1:PORT {\n\tbind 127.0.0.1"}
        command = [caddy_path, "run", "--config", "Caddyfile", "--adapter", "caddyfile"]
        return proxies.start("Caddyfile", command, daemon, basics | (changes or {}))

    return serve


@pytest.fixture(params=["nginx", "caddy"])
def gateway(request: pytest.FixtureRequest) -> Serve:
    """Each of the proxies."""
    serve: Serve = request.getfixturevalue(request.param)
    return serve
