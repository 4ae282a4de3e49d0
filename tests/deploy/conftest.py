"""Real proxies, unprivileged, on loopback, by the configuration that is shipped."""

import os
import random
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from tests.daemon.conftest import no_blocking, settled, start
from tests.daemon.daemon import PATIENCE_S, Daemon, eventually
from tests.passable import let_pass

__all__ = ["no_blocking", "settled", "start"]

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
NOBODY = 65534
# What the gateway is called: a domain, as a real one is, of which procd itself has never heard.
NAME = "gateway.example"
# The sandbox of the shipped files.
UPSTREAM = "10.0.0.11:2280"


@dataclass(frozen=True, slots=True)
class Gateway:
    """A running proxy.

    Attributes:
        url: of the sandbox behind it.
        directory: where what it writes is.
    """

    port: int
    tls: ssl.SSLContext
    directory: Path

    @property
    def url(self) -> str:
        return f"https://{NAME}:{self.port}/toolbox/box1"

    @property
    def address_url(self) -> str:
        """The same by its address, for who can't be told the name's."""
        return f"https://127.0.0.1:{self.port}/toolbox/box1"

    @property
    def origin(self) -> str:
        return f"https://{NAME}:{self.port}"

    def written(self) -> str:
        """All that it has said, wherever."""
        names = ("stderr", "access.log")
        files = [self.directory / name for name in names]
        return "".join(file.read_text() for file in files if file.exists())


Serve = Callable[..., Gateway]


class OnlyName(AbstractResolver):
    """The DNS of the tests: it knows the gateway."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        assert host == NAME
        return [
            ResolveResult(
                hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=0
            )
        ]

    async def close(self) -> None:
        """Nothing to release."""


def connector(**options: Any) -> aiohttp.TCPConnector:
    """To the gateway by its name, with a connection for each request."""
    return aiohttp.TCPConnector(force_close=True, limit=0, resolver=OnlyName(), **options)


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=connector()) as session:
        yield session


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
    return find("nginx", tmp_path_factory.mktemp("nginx"))


@pytest.fixture(scope="session")
def caddy_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return find("caddy", tmp_path_factory.mktemp("caddy"))


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with tls.crt and tls.key, for the gateway."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: no certificate can be made")
    directory = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-days", "2", "-subj", "/CN=procd",
            "-addext", f"subjectAltName=DNS:{NAME},IP:127.0.0.1",
            "-keyout", str(directory / "tls.key"), "-out", str(directory / "tls.crt"),
        ],
        capture_output=True,
        check=True,
    )  # fmt: skip
    return directory


def free_port() -> int:
    """A port that nobody listens on, nor will a client be given by the kernel: it is used later."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(10_000, max(lowest, 20_000))
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class Proxies:
    """Starts proxies and ends them."""

    def __init__(self, directory: Path, certificate: Path) -> None:
        self._directory = directory
        self._tls = ssl.create_default_context(cafile=str(certificate / "tls.crt"))
        for name in ("tls.crt", "tls.key"):
            shutil.copy(certificate / name, directory / name)
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, shipped: str, command: list[str], changes: dict[str, str]) -> Gateway:
        """Run `command` with a shipped file, changed where its surroundings are others."""
        port = free_port()
        text = (DEPLOY / shipped).read_text()
        for old, new in {"/etc/procd/tls/": f"{self._directory}/", **changes}.items():
            assert old in text, f"{shipped} has no {old}"
            text = text.replace(old, new.replace("PORT", str(port)))
        (self._directory / shipped).write_text(text)
        is_root = os.geteuid() == 0
        if is_root:
            for path in (self._directory, *self._directory.iterdir()):
                os.chown(path, NOBODY, NOBODY)
            let_pass(self._directory)
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
        return Gateway(port, self._tls, self._directory)

    def stop(self) -> None:
        for process in self._running:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):  # Caddy waits for what is still answered
                process.wait(PATIENCE_S)
            process.kill()
            process.wait()


@pytest.fixture
def proxies(tmp_path: Path, certificate: Path) -> Iterator[Proxies]:
    """A place to run proxies in."""
    running = Proxies(tmp_path, certificate)
    yield running
    running.stop()


@pytest.fixture
def nginx(proxies: Proxies, nginx_path: str) -> Serve:
    """Put nginx in front of a daemon: `nginx(daemon, {"what the file has": "what it gets"})`.

    With `unix`, by the daemon's unix socket.
    """

    def serve(
        daemon: Daemon, changes: dict[str, str] | None = None, unix: Path | None = None
    ) -> Gateway:
        here = ["client_body_temp_path", "proxy_temp_path", "fastcgi_temp_path", "uwsgi_temp_path"]
        places = "".join(f"{name} {name}; " for name in [*here, "scgi_temp_path"])
        basics = {
            "listen 443 ssl": "listen 127.0.0.1:PORT ssl",
            "access_log /var/log/nginx/procd.log procd;": f"access_log access.log procd; {places}",
            UPSTREAM: f"unix:{unix}" if unix else f"127.0.0.1:{daemon.port}",
        }
        command = [nginx_path, "-p", ".", "-c", "nginx.conf", "-e", "stderr", "-g", "daemon off;"]
        return proxies.start("nginx.conf", command, basics | (changes or {}))

    return serve


@pytest.fixture
def caddy(proxies: Proxies, caddy_path: str) -> Serve:
    """Put Caddy in front of a daemon, likewise."""

    def serve(
        daemon: Daemon, changes: dict[str, str] | None = None, unix: Path | None = None
    ) -> Gateway:
        basics = {
            "https://:443 {": "https://:PORT {\n\tbind 127.0.0.1",
            UPSTREAM: f"unix/{unix}" if unix else f"127.0.0.1:{daemon.port}",
        }
        command = [caddy_path, "run", "--config", "Caddyfile", "--adapter", "caddyfile"]
        return proxies.start("Caddyfile", command, basics | (changes or {}))

    return serve


@pytest.fixture(params=["nginx", "caddy"])
def gateway(request: pytest.FixtureRequest) -> Serve:
    serve: Serve = request.getfixturevalue(request.param)
    return serve
