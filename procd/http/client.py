"""What a request says about its client: address, host, upgrade, sub-protocols, SDK version.

Source: Process API contract, sections 2 and 9.3; RFC 6455, section 4.
"""

import asyncio
import re
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from procd.config import ServerConfig
from procd.config_file import networks

# The name of a unix socket's peer in `server.trusted_proxies` and in logs.
UNIX: Final = "unix"
# In logs, a client that disconnected before its address could be read.
UNKNOWN: Final = "unknown"

VERSION_HEADER: Final = "X-Daytona-SDK-Version"
VERSION_TOKEN: Final = f"{VERSION_HEADER}~"
SPLIT_HEADER: Final = "X-Daytona-Split-Output"
# Thresholds stand for their lowest pre-release: three numbers are enough to compare.
SEMVER: Final = re.compile(r"v?(\d{1,9})\.(\d{1,9})\.(\d{1,9})(?:[-+a-zA-Z].*)?", re.ASCII)

SPLITS_SINCE: Final = (0, 27, 0)
STARTS_AT_WORK_DIR_SINCE: Final = (0, 103, 0)
TAKES_JSON_SINCE: Final = (0, 167, 0)


def peer_of(transport: asyncio.BaseTransport) -> Any:
    """The address of a new client: a tuple as of `getpeername`, UNIX, or None if it has gone."""
    # On a unix socket a client may be bound to any name, even one like an IP address.
    if transport.get_extra_info("socket").family == socket.AF_UNIX:
        return UNIX
    return transport.get_extra_info("peername")


def target_host(request: web.Request) -> str | None:
    """The host that a request is for. Source: RFC 9112, sections 3.2.2 and 3.3."""
    target = request.raw_path
    place = "" if target.startswith("/") else urlsplit(target).netloc
    return place.rpartition("@")[2] or request.headers.get(hdrs.HOST)


class Proxies:
    """The proxies whose X-Forwarded headers are believed: `server.trusted_proxies`.

    Source: X-Forwarded-For as nginx and Caddy write it: each proxy appends the peer that it saw.
    X-Forwarded-Host: the Host that the client sent; Apache appends its own.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._networks = networks(config.trusted_proxies)
        self._unix = UNIX in config.trusted_proxies

    def client_of(self, request: web.Request) -> str:
        """The address of the client: the connection's peer, or the last untrusted one forwarded."""
        client = request.remote or UNKNOWN
        if not self._trusts(client):
            return client
        lines = request.headers.getall("X-Forwarded-For", [])
        for entry in reversed([item.strip() for line in lines for item in line.split(",")]):
            if _address(entry) is None:
                break
            client = entry
            if not self._trusts(client):
                break
        return client

    def host_of(self, request: web.Request) -> str:
        """The host that the client asked for, before a trusted proxy changed it."""
        forwarded = request.headers.get(hdrs.X_FORWARDED_HOST)
        if forwarded is not None and self._trusts(request.remote or UNKNOWN):
            return forwarded.partition(",")[0].strip()
        return target_host(request) or ""

    def origin_of(self, request: web.Request) -> str:
        """The scheme and host that the client used, such as http://127.0.0.1:2280."""
        forwarded = request.headers.get(hdrs.X_FORWARDED_PROTO)
        if forwarded is None or not self._trusts(request.remote or UNKNOWN):
            forwarded = request.scheme
        return f"{forwarded.partition(',')[0].strip()}://{self.host_of(request)}"

    def _trusts(self, name: str) -> bool:
        if name == UNIX:
            return self._unix
        address = _address(name)
        return address is not None and any(address in network for network in self._networks)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """An address, or None; ::ffff:192.0.2.1 is an IPv4 address on an IPv6 socket."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


PROXIES = web.AppKey("PROXIES", Proxies)


def asks_websocket(request: web.Request) -> bool:
    is_get = request.method == hdrs.METH_GET  # RFC 6455, section 4.1
    return is_get and request.headers.get(hdrs.UPGRADE, "").strip().lower() == "websocket"


def is_preflight(request: web.Request) -> bool:
    """Source: Fetch Standard, section 3.2.2 ("CORS-preflight request")."""
    return (
        request.method == hdrs.METH_OPTIONS
        and hdrs.ORIGIN in request.headers
        and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
    )


def offered(request: web.Request) -> list[str]:
    """The sub-protocols that the client offers, from all header lines."""
    lines = request.headers.getall(hdrs.SEC_WEBSOCKET_PROTOCOL, [])
    tokens = [token.strip() for line in lines for token in line.split(",")]
    return [token for token in tokens if token and token.isascii()]  # RFC 9110, section 5.6.2


def version_token(tokens: list[str]) -> str | None:
    """The sub-protocol with the SDK version, if it is offered."""
    return next((token for token in tokens if token.startswith(VERSION_TOKEN)), None)


@dataclass(frozen=True, slots=True)
class Client:
    """The forms of output that a client understands. Source: contract, section 2.3.

    Attributes:
        labelled: output with stream markers in it, where it isn't split into fields.
        modern: output in fields, and logs as JSON.
        json_logs: logs as JSON, though the client names no version.
        starts_at_home: it expects sessions to start in the home directory.
    """

    labelled: bool
    modern: bool
    json_logs: bool
    starts_at_home: bool


def client_of(request: web.Request) -> Client:
    version = request.headers.get(VERSION_HEADER) or (
        (version_token(offered(request)) or "").removeprefix(VERSION_TOKEN)
    )
    match = SEMVER.fullmatch(version)
    numbers = tuple(int(number) for number in match.groups()) if match else None
    is_dev = "dev" in version
    modern = is_dev or (numbers is not None and numbers >= TAKES_JSON_SINCE)
    if not version:
        labelled = request.headers.get(SPLIT_HEADER) == "true"
    else:
        labelled = is_dev or numbers is None or numbers >= SPLITS_SINCE
    return Client(
        labelled=labelled,
        modern=modern,
        json_logs=modern or (not version and _accepts_json(request)),
        starts_at_home=numbers is not None
        and numbers < STARTS_AT_WORK_DIR_SINCE
        and version != "0.0.0-dev",
    )


def _accepts_json(request: web.Request) -> bool:
    accepted = request.headers.get(hdrs.ACCEPT, "")
    return any(item.split(";")[0].strip() == "application/json" for item in accepted.split(","))
