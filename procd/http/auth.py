"""Access control: every request passes here, upgrade or not, known path or not.

Source: Process API contract, sections 1 and 3; RFC 6750; RFC 6455, section 10.2.
"""

import re
from collections.abc import Sequence
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from procd.config import Config, ServerConfig
from procd.errors import Refused, Unauthorized
from procd.http.client import PROXIES, asks_websocket, is_preflight, target_host
from procd.http.connection import ConnectionLimit
from procd.services.access import Access, is_address, is_loopback
from procd.services.tokens import ANYONE, KEY_PARAM, TICKET_PARAM, Scope, Token

PREFIX: Final = re.compile(r"\A/toolbox/[^/]+(?=/)")
DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}
LABEL: Final = re.compile(r"[a-z0-9_-]+", re.ASCII)

# The token of a request; set before its handler runs.
CALLER = web.RequestKey("CALLER", Token)

_SESSION: Final = "/process/session/{session_id}"
_COMMAND: Final = f"{_SESSION}/command/{{command_id}}"
_CONTEXT: Final = "/process/interpreter/context/{context_id}"
_SANDBOX: Final = "/sandbox/{id}"

# A route that isn't here needs `admin`; a test fails for it.
SCOPES: Final = {
    ("POST", "/process/execute"): Scope.WRITE,
    ("POST", "/process/code-run"): Scope.WRITE,
    ("GET", "/process/session"): Scope.READ,
    ("POST", "/process/session"): Scope.WRITE,
    ("GET", "/process/session/entrypoint"): Scope.READ,
    ("GET", "/process/session/entrypoint/logs"): Scope.READ,
    ("GET", _SESSION): Scope.READ,
    ("DELETE", _SESSION): Scope.WRITE,
    ("POST", f"{_SESSION}/exec"): Scope.WRITE,
    ("GET", _COMMAND): Scope.READ,
    ("POST", f"{_COMMAND}/input"): Scope.WRITE,
    ("POST", f"{_COMMAND}/signal"): Scope.WRITE,
    ("POST", f"{_COMMAND}/terminate"): Scope.WRITE,
    ("GET", f"{_COMMAND}/logs"): Scope.READ,
    ("GET", "/process/pty"): Scope.READ,
    ("POST", "/process/pty"): Scope.WRITE,
    ("GET", "/process/pty/create-connect"): Scope.WRITE,
    ("GET", "/process/pty/{id}"): Scope.READ,
    ("DELETE", "/process/pty/{id}"): Scope.WRITE,
    # With `read` a client is a viewer: its input is discarded.
    ("GET", "/process/pty/{id}/connect"): Scope.READ,
    ("POST", "/process/pty/{id}/resize"): Scope.WRITE,
    ("GET", "/process/interpreter/context"): Scope.READ,
    ("POST", "/process/interpreter/context"): Scope.WRITE,
    ("DELETE", _CONTEXT): Scope.WRITE,
    ("POST", f"{_CONTEXT}/interrupt"): Scope.WRITE,
    ("POST", f"{_CONTEXT}/restart"): Scope.WRITE,
    ("GET", f"{_CONTEXT}/variables"): Scope.READ,
    ("GET", "/process/interpreter/execute"): Scope.WRITE,
    ("GET", "/recordings"): Scope.READ,
    ("GET", "/recordings/{name}"): Scope.READ,
    ("DELETE", "/recordings/{name}"): Scope.WRITE,
    ("GET", "/terminal/ptys"): Scope.READ,
    ("PATCH", "/terminal/ptys/{id}"): Scope.WRITE,
    # A ticket has the scope of the token that it was made with.
    ("POST", "/tickets"): Scope.READ,
    ("GET", "/version"): Scope.READ,
    ("GET", "/work-dir"): Scope.READ,
    ("GET", "/user-home-dir"): Scope.READ,
    ("GET", "/project-dir"): Scope.READ,
    ("GET", "/system/metrics"): Scope.READ,
    ("GET", "/metrics"): Scope.READ,
    ("GET", "/openapi.json"): Scope.READ,
    ("GET", "/config"): Scope.READ,
    ("GET", "/sandbox"): Scope.READ,
    ("POST", "/sandbox"): Scope.WRITE,
    ("GET", "/sandbox/paginated"): Scope.READ,
    ("GET", _SANDBOX): Scope.READ,
    ("DELETE", _SANDBOX): Scope.WRITE,
    ("POST", f"{_SANDBOX}/start"): Scope.WRITE,
    ("POST", f"{_SANDBOX}/recover"): Scope.WRITE,
    ("POST", f"{_SANDBOX}/stop"): Scope.WRITE,
    ("PUT", f"{_SANDBOX}/labels"): Scope.WRITE,
    ("POST", f"{_SANDBOX}/public/{{flag}}"): Scope.WRITE,
    ("POST", f"{_SANDBOX}/last-activity"): Scope.WRITE,
    ("GET", f"{_SANDBOX}/ports/{{port}}/preview-url"): Scope.READ,
    ("GET", f"{_SANDBOX}/ports/{{port}}/signed-preview-url"): Scope.READ,
    ("GET", f"{_SANDBOX}/toolbox-proxy-url"): Scope.READ,
    ("POST", f"{_SANDBOX}/autostop/{{minutes}}"): Scope.WRITE,
    ("POST", f"{_SANDBOX}/autopause/{{minutes}}"): Scope.WRITE,
    ("POST", f"{_SANDBOX}/autoarchive/{{minutes}}"): Scope.WRITE,
    ("POST", f"{_SANDBOX}/autodelete/{{minutes}}"): Scope.WRITE,
    ("POST", f"{_SANDBOX}/ttl/{{minutes}}"): Scope.WRITE,
    ("GET", "/sandboxes"): Scope.READ,
    ("POST", "/sandboxes"): Scope.WRITE,
    ("POST", "/sandboxes/from-snapshot"): Scope.WRITE,
    ("GET", "/sandboxes/search"): Scope.READ,
    ("GET", "/sandboxes/{id}"): Scope.READ,
    ("DELETE", "/sandboxes/{id}"): Scope.WRITE,
    ("POST", "/sandboxes/{id}/start"): Scope.WRITE,
    ("POST", "/sandboxes/{id}/stop"): Scope.WRITE,
    ("PUT", "/sandboxes/{id}/labels"): Scope.WRITE,
    # Of the sandbox runner and the control plane: they change all processes to come.
    ("POST", "/init"): Scope.ADMIN,
    ("POST", "/env"): Scope.ADMIN,
}

# These need no credential: probes, pages, the same files for everybody, and the event socket, which
# gets its token in a message.
UNGUARDED: Final = {
    "/",
    "/docs",
    "/docs/static/{name}",
    "/healthz",
    "/readyz",
    "/socket.io",
    "/terminal",
    "/terminal/static/{name}",
    "/terminal/static/{folder}/{name}",
}

# These can be upgraded to a WebSocket. There, and nowhere else, a URL may contain a credential.
UPGRADES: Final = {
    "/process/session/entrypoint/logs",
    f"{_COMMAND}/logs",
    "/process/pty/create-connect",
    "/process/pty/{id}/connect",
    "/process/interpreter/execute",
    "/socket.io",
    "/terminal/ptys",
}


def scope_of(method: str, path: str) -> Scope:
    if method == hdrs.METH_ANY:  # those of `api.not_supported`, which refuse everybody
        return Scope.READ
    return SCOPES.get((method, path), Scope.ADMIN)


class AccessControl:
    """Decides on each request by its credential, Host, Origin and route."""

    def __init__(self, config: Config, access: Access, connections: ConnectionLimit) -> None:
        self.access = access
        self._connections = connections
        self._routes: dict[web.AbstractRoute, tuple[Scope, str]] = {}
        self._config = config.server
        self._hosts = _allowed_hosts(config.server, [config.server.host])
        self._cors_origins = frozenset(config.cors.allowed_origins)
        self._origins = self._cors_origins | set(config.auth.allowed_origins)

    def use_sockets(self, addresses: Sequence[str]) -> None:
        """Protect sockets that were passed on, which listen at `addresses`, not `server.host`.

        Raises:
            ConfigError: other machines could reach procd without a token.
        """
        for address in addresses:
            self.access.check_place(address)
        self._hosts = _allowed_hosts(self._config, addresses)

    def add_route(self, route: web.AbstractRoute, method: str, path: str) -> None:
        self._routes[route] = scope_of(method, path), path

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Pass an allowed request on, within the limit of connections."""
        # Any token is enough to be told that a path or method is unknown.
        scope, path = self._routes.get(request.match_info.route, (Scope.READ, ""))
        if path in UNGUARDED:
            request[CALLER] = ANYONE
        else:
            caller = request[CALLER] = self._authorize(request, scope, path)
            if caller is not ANYONE or not self.access.required:
                self._connections.admit(request.protocol)
        return await handler(request)

    def _authorize(self, request: web.Request, scope: Scope, path: str) -> Token:
        if not self._is_allowed(target_host(request)):
            raise Refused("forbidden: this Host is not in server.allowed_hosts")
        if "*" not in self._origins:
            for origin in request.headers.getall(hdrs.ORIGIN, ()):
                self._check_origin(origin, request.app[PROXIES].host_of(request))
        if not self.access.required or self._is_preflight(request):
            return ANYONE
        token = self._find_token(request, path)
        if token is None:
            raise Unauthorized("unauthorized: a valid token is required")
        request[CALLER] = token  # for the audit record of a refusal
        if token.scope < scope:
            raise Refused(
                f"forbidden: scope '{scope.name.lower()}' is required,"
                f" token '{token.name}' has '{token.scope.name.lower()}'"
            )
        return token

    def is_valid(self, token: Token) -> bool:
        """Return whether a token that was accepted would still be."""
        return token is ANYONE or token in self.access.tokens

    def _find_token(self, request: web.Request, path: str) -> Token | None:
        values = request.headers.getall(hdrs.AUTHORIZATION, [])
        if values:
            scheme, _, secret = values[0].partition(" ")
            if len(values) > 1 or scheme.lower() != "bearer":
                return None
            return self.access.tokens.find(secret.strip())
        if path not in UPGRADES or not asks_websocket(request):
            return None
        keys, tickets = (request.query.getall(name, []) for name in (KEY_PARAM, TICKET_PARAM))
        if len(keys) + len(tickets) != 1:
            return None
        if keys:
            return self.access.tokens.find(keys[0])
        token = self.access.tickets.redeem(tickets[0], plain_path(request.path))
        return token if token in self.access.tokens else None

    def _is_allowed(self, host: str | None) -> bool:
        """Return whether a Host header can't come from a page whose own name leads here.

        Such a page (DNS rebinding) needs a registered domain: no address, no name without a dot.
        """
        if host is None or self._hosts is None:
            return True
        name = _host_name(host)
        return name in self._hosts or LABEL.fullmatch(name) is not None or is_address(name)

    def _check_origin(self, origin: str, host: str) -> None:
        if origin in self._origins:
            return
        scheme, _, place = origin.lower().partition("://")
        port = DEFAULT_PORTS.get(scheme)
        if port is None or place.removesuffix(port) != host.lower().removesuffix(port):
            raise Refused("forbidden: this Origin is not in auth.allowed_origins")

    def _is_preflight(self, request: web.Request) -> bool:
        return (
            is_preflight(request)
            and request.headers.get(hdrs.ORIGIN) in self._cors_origins
            and request.match_info.http_exception is None
        )


ACCESS_CONTROL = web.AppKey("ACCESS_CONTROL", AccessControl)


def _allowed_hosts(config: ServerConfig, addresses: Sequence[str]) -> frozenset[str] | None:
    """The names that a Host header may have; None for all."""
    local = any(addresses) and all(map(is_loopback, addresses))
    named = [_normal_name(name) for name in config.allowed_hosts]
    if "*" in named or not (named or local):
        return None
    return frozenset([*named, _normal_name(config.host)]) - {""}  # "" stands for an invalid name


def _host_name(host: str) -> str:
    """The name in a Host header without the port; "" if it is invalid: RFC 3986, section 3.2.2."""
    if host.startswith("["):
        name, bracket, port = host.partition("]")
        name += bracket
    else:
        name, colon, port = host.partition(":")
        port = colon + port
    if port.rstrip("0123456789") not in ("", ":"):
        return ""
    return _normal_name(name)


def _normal_name(name: str) -> str:
    """A domain in lower case, without the dot at its end: RFC 1034, section 3.1."""
    return name.lower().removesuffix(".")


def plain_path(path: str) -> str:
    """A path as the route table has it, without a sandbox's prefix and a slash at the end."""
    return PREFIX.sub("", path, count=1).rstrip("/")
