"""The address of a client, and the host that it asked for, when a proxy stands between.

The address is used in logs only, the host to recognize procd's own pages.

Source: X-Forwarded-For as nginx and Caddy write it: each proxy appends the peer that it saw.
X-Forwarded-Host: the Host that the client sent; Apache appends its own.
"""

import asyncio
import socket
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


def peer_of(transport: asyncio.BaseTransport) -> Any:
    """The address of a new client: a tuple as of `getpeername`, UNIX, or None if it has gone."""
    # On a unix socket a client may be bound to any name, even one like an IP address.
    if transport.get_extra_info("socket").family == socket.AF_UNIX:
        return UNIX
    return transport.get_extra_info("peername")


def target_host(request: web.Request) -> str | None:
    """The host that a request is for: its target's own, or else its Host header.

    Source: RFC 9112, sections 3.2.2 and 3.3.
    """
    target = request.raw_path
    place = "" if target.startswith("/") else urlsplit(target).netloc
    return place.rpartition("@")[2] or request.headers.get(hdrs.HOST)


class Proxies:
    """The proxies whose X-Forwarded headers are believed: `server.trusted_proxies`."""

    def __init__(self, config: ServerConfig) -> None:
        self._networks = networks(config.trusted_proxies)
        self._unix = UNIX in config.trusted_proxies

    def client_of(self, request: web.Request) -> str:
        """The address of the client: the connection's peer, or the last untrusted one forwarded.

        Addresses before that one in X-Forwarded-For may be forged.
        """
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
