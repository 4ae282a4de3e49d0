"""Who a request comes from, and whom it was meant for, when a proxy stands between.

The first is for logs and nothing else, the second for what a page's own host is.

Source: X-Forwarded-For as nginx and Caddy write it: each proxy adds the peer that it saw, last.
X-Forwarded-Host: the Host that the client has sent; Apache adds its own to what it finds.
"""

import asyncio
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from procd.config import ServerConfig
from procd.config_file import networks

# What a unix socket's peer is called in `server.trusted_proxies` and in logs.
UNIX: Final = "unix"
# In logs, one that had gone before it could be looked at.
UNKNOWN: Final = "unknown"
# The headers by which a proxy shows itself; it has to send the last. Source: RFC 9110, 7.6.3.
SIGNS: Final = ("X-Forwarded-For", hdrs.FORWARDED, hdrs.VIA)


def peer_of(transport: asyncio.BaseTransport) -> Any:
    """The address of a new client and more, or UNIX; None if it is unknown, as it has gone."""
    # On a unix socket a client may be bound to any name, and even to an address's.
    if transport.get_extra_info("socket").family == socket.AF_UNIX:
        return UNIX
    return transport.get_extra_info("peername")


def is_forwarded(request: web.Request) -> bool:
    """Whether a proxy stands between, as far as it says so."""
    return any(sign in request.headers for sign in SIGNS)


def named_host(request: web.Request) -> str | None:
    """The host that a request is for: its target's own, or else what its Host header says.

    Source: RFC 9112, sections 3.2.2 and 3.3.
    """
    target = request.raw_path
    place = "" if target.startswith("/") else urlsplit(target).netloc
    return place.rpartition("@")[2] or request.headers.get(hdrs.HOST)


class Proxies:
    """The peers whose word is taken for who their client is."""

    def __init__(self, config: ServerConfig) -> None:
        self._networks = networks(config.trusted_proxies)
        self._unix = UNIX in config.trusted_proxies

    def client_of(self, request: web.Request) -> str:
        """The address of the client: the last one that no trusted proxy has.

        The connection's peer, unless that is trusted. What the header says before the address that
        is returned was written by somebody else, and isn't looked at.
        """
        client = request.remote or UNKNOWN
        if not self._trusts(client):
            return client
        lines = request.headers.getall("X-Forwarded-For", [])
        for said in reversed([item.strip() for line in lines for item in line.split(",")]):
            if _address(said) is None:
                break
            client = said
            if not self._trusts(client):
                break
        return client

    def host_of(self, request: web.Request) -> str:
        """The host that the client has asked for: by the word of a trusted proxy, or by its own."""
        said = request.headers.get(hdrs.X_FORWARDED_HOST)
        if said is not None and self._trusts(request.remote or UNKNOWN):
            return said.partition(",")[0].strip()
        return named_host(request) or ""

    def _trusts(self, name: str) -> bool:
        if name == UNIX:
            return self._unix
        address = _address(name)
        return address is not None and any(address in network for network in self._networks)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """An address; of IPv4 also where a socket for both kinds has it as ::ffff:192.0.2.1."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


PROXIES = web.AppKey("PROXIES", Proxies)
