"""Which scope each route needs: plain data, without code that could make an exception.

A route that isn't here needs `admin`; a test fails for it.
"""

from dataclasses import dataclass
from typing import Final

from procd.services.tokens import Scope

_SESSION: Final = "/process/session/{session_id}"
_COMMAND: Final = f"{_SESSION}/command/{{command_id}}"
_CONTEXT: Final = "/process/interpreter/context/{context_id}"

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
    ("GET", "/docs"): Scope.READ,
    # Of the sandbox runner and the control plane: they change all processes to come.
    ("POST", "/init"): Scope.ADMIN,
    ("POST", "/env"): Scope.ADMIN,
}

# These need no credential: probes, which tell nothing of what runs here, and the page of the web
# terminal, the same files for everybody.
UNGUARDED: Final = frozenset(
    {
        "/healthz",
        "/readyz",
        "/terminal",
        "/terminal/static/{name}",
        "/terminal/static/{folder}/{name}",
    }
)

# These can be upgraded to a WebSocket. There, and nowhere else, a URL may contain a credential.
UPGRADES: Final = frozenset(
    {
        "/process/session/entrypoint/logs",
        f"{_COMMAND}/logs",
        "/process/pty/create-connect",
        "/process/pty/{id}/connect",
        "/process/interpreter/execute",
        "/terminal/ptys",
    }
)


@dataclass(frozen=True, slots=True)
class RoutePolicy:
    """What a route needs.

    Attributes:
        upgrades: whether it can be upgraded to a WebSocket.
        unguarded: whether it needs no credential.
    """

    scope: Scope
    upgrades: bool = False
    unguarded: bool = False


# Of an unknown path or method: any token is enough to be told that it is unknown.
UNKNOWN: Final = RoutePolicy(Scope.READ)


def policy_of(method: str, path: str) -> RoutePolicy:
    """The policy of a route."""
    return RoutePolicy(
        scope=SCOPES.get((method, path), Scope.ADMIN),
        upgrades=path in UPGRADES,
        unguarded=path in UNGUARDED,
    )
