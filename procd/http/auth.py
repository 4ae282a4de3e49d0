"""The gate: every request passes here, upgrade or not, known path or not, before anything is done.

Source: Process API contract, sections 1 and 3; RFC 6750; RFC 6455, section 10.2.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from procd.config import Config, ServerConfig
from procd.errors import Exhausted, Refused, Unauthorized
from procd.http.connection_limit import Visitors
from procd.http.forwarded import PROXIES, named_host
from procd.http.handshake import asks_websocket
from procd.http.route_policy import NEEDS, UNGUARDED, UPGRADES
from procd.services.access import ANYONE, KEY_PARAM, TICKET_PARAM, Scope, Token
from procd.services.credentials import Access, is_address, is_loopback

PREFIX: Final = re.compile(r"\A/toolbox/[^/]+(?=/)")
DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}
# Most clients name the same few hosts: so many are judged once.
KNOWN_HOSTS: Final = 64
LABEL: Final = re.compile(r"[a-z0-9_-]+", re.ASCII)

# Who sent a request: set by the gate for everything behind it.
CALLER = web.RequestKey("CALLER", Token)


@dataclass(frozen=True, slots=True)
class Need:
    """What a route asks for."""

    scope: Scope
    upgrades: bool = False
    unguarded: bool = False


# Of a path or method that isn't there: whoever has any token may be told so.
UNKNOWN: Final = Need(Scope.READ)


class Gate:
    """Decides on each request."""

    def __init__(self, config: Config, access: Access, visitors: Visitors) -> None:
        self.access = access
        self._visitors = visitors
        self._needs: dict[web.AbstractRoute, Need] = {}
        self._config = config.server
        self._hosts = _hosts(config.server, [config.server.host] if config.server.host else [])
        self._cors_origins = frozenset(config.cors.allowed_origins)
        self._origins = self._cors_origins | set(config.auth.allowed_origins)
        self._checks_origin = "*" not in self._origins
        self._knows = lru_cache(KNOWN_HOSTS)(self._is_known)

    def follow(self, addresses: Sequence[str]) -> None:
        """Guard the sockets that were passed on, which listen at `addresses`: not `server.host`.

        Raises:
            ConfigError: others than this machine would reach procd, and nobody has said so.
        """
        for address in addresses:
            self.access.check_place(address)
        self._hosts = _hosts(self._config, addresses)
        self._knows.cache_clear()

    def guard(self, route: web.AbstractRoute, method: str, path: str) -> None:
        """Have `route` ask for what the table says of `method` and `path`."""
        self._needs[route] = Need(
            scope=NEEDS.get((method, path), Scope.ADMIN),
            upgrades=path in UPGRADES,
            unguarded=path in UNGUARDED,
        )

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let a request pass, or raise."""
        connection = request.protocol
        try:
            caller = request[CALLER] = self.admit(request)
            if caller is not ANYONE or not self.access.required:
                self._visitors.let_in(connection)
            return await handler(request)
        finally:
            self._visitors.ended(connection)

    def admit(self, request: web.Request) -> Token:
        """Whose request it is; for an upgrade, the ticket in it is then used up.

        Raises:
            Unauthorized: it has no good credential.
            Refused: its Host, its Origin or its token's scope isn't enough.
            Exhausted: there are too many connections, and this is one of those.
        """
        route = request.match_info.route
        need = self._needs.get(route, UNKNOWN)
        if need.unguarded:
            return ANYONE
        if not self._knows(named_host(request)):
            raise Refused("forbidden: this Host is not in server.allowed_hosts")
        if self._checks_origin:
            for origin in request.headers.getall(hdrs.ORIGIN, ()):
                self._check_origin(origin, request.app[PROXIES].host_of(request))
        if not self.access.required or self._is_preflight(request):
            token = ANYONE
        else:
            token = self._identified(request, need)
            self._visitors.showed_token(request.protocol)
        if request.protocol in self._visitors.extra:
            raise Exhausted(f"limit of {self._visitors.max} connections is reached")
        return token

    def _identified(self, request: web.Request, need: Need) -> Token:
        token = self._token(request, need)
        if token is None:
            raise Unauthorized("unauthorized: a valid token is required")
        request[CALLER] = token  # also of a request that is refused: for the record
        if token.scope < need.scope:
            raise Refused(
                f"forbidden: scope '{need.scope.name.lower()}' is required,"
                f" token '{token.name}' has '{token.scope.name.lower()}'"
            )
        return token

    def still_admits(self, token: Token) -> bool:
        """Whether who was let in with `token` would still be."""
        return token is ANYONE or token in self.access.tokens

    def _token(self, request: web.Request, need: Need) -> Token | None:
        values = request.headers.getall(hdrs.AUTHORIZATION, [])
        if values:
            scheme, _, secret = values[0].partition(" ")
            if len(values) > 1 or scheme.lower() != "bearer":
                return None
            return self.access.tokens.find(secret.strip())
        if not need.upgrades or not asks_websocket(request):
            return None
        keys, tickets = (request.query.getall(name, []) for name in (KEY_PARAM, TICKET_PARAM))
        if len(keys) + len(tickets) != 1:
            return None
        if keys:
            return self.access.tokens.find(keys[0])
        token = self.access.tickets.redeem(tickets[0], plain_path(request.path))
        return token if token in self.access.tokens else None

    def _is_known(self, host: str | None) -> bool:
        """Whether a Host header can't be a page's that has its own name lead here.

        Such a page needs a domain that somebody has registered: an address isn't one, nor is a name
        without a dot, and no browser leaves the header out.
        """
        if host is None or self._hosts is None:
            return True
        name = _name(host)
        return name in self._hosts or LABEL.fullmatch(name) is not None or is_address(name)

    def _check_origin(self, origin: str, host: str) -> None:
        if origin in self._origins:
            return
        scheme, _, place = origin.lower().partition("://")
        port = DEFAULT_PORTS.get(scheme)
        if port is None or place.removesuffix(port) != host.lower().removesuffix(port):
            raise Refused("forbidden: this Origin is not in auth.allowed_origins")

    def _is_preflight(self, request: web.Request) -> bool:
        """Whether a browser asks if it may ask; it never sends a credential with that.

        Source: Fetch Standard, section 3.2.2 ("CORS-preflight request").
        """
        return (
            request.method == hdrs.METH_OPTIONS
            and request.headers.get(hdrs.ORIGIN) in self._cors_origins
            and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
            and request.match_info.http_exception is None
        )


GATE = web.AppKey("GATE", Gate)


def _hosts(config: ServerConfig, addresses: Sequence[str]) -> frozenset[str] | None:
    """The domains that a Host header may have; None for all."""
    local = bool(addresses) and all(map(is_loopback, addresses))
    named = [_plain(name) for name in config.allowed_hosts]
    if "*" in named or not (named or local):
        return None
    return frozenset([*named, _plain(config.host)]) - {""}  # which is what can't be a name


def _name(host: str) -> str:
    """A Host header's name without its port: RFC 3986, section 3.2.2."""
    if host.startswith("["):
        name, bracket, port = host.partition("]")
        name += bracket
    else:
        name, colon, port = host.partition(":")
        port = colon + port
    if port.rstrip("0123456789") not in ("", ":"):
        return ""
    return _plain(name)


def _plain(name: str) -> str:
    """A domain as others have it that are the same: a dot at its end only says that it is whole.

    Source: RFC 1034, section 3.1.
    """
    return name.lower().removesuffix(".")


def plain_path(path: str) -> str:
    """A path as the route table has it: without the prefix of a sandbox or a slash at its end."""
    return PREFIX.sub("", path, count=1).rstrip("/")
