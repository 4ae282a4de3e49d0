"""What the headers of a request say about its client: SDK version, sub-protocols, upgrade.

Source: Process API contract, sections 2 and 9.3; RFC 6455, section 4.
"""

import re
from dataclasses import dataclass
from typing import Final

from aiohttp import hdrs, web

VERSION_HEADER: Final = "X-Daytona-SDK-Version"
VERSION_TOKEN: Final = f"{VERSION_HEADER}~"
SPLIT_HEADER: Final = "X-Daytona-Split-Output"
# Thresholds stand for their lowest pre-release: three numbers are enough to compare.
SEMVER: Final = re.compile(r"v?(\d{1,9})\.(\d{1,9})\.(\d{1,9})(?:[-+a-zA-Z].*)?", re.ASCII)

SPLITS_SINCE: Final = (0, 27, 0)
STARTS_AT_WORK_DIR_SINCE: Final = (0, 103, 0)
TAKES_JSON_SINCE: Final = (0, 167, 0)


def asks_websocket(request: web.Request) -> bool:
    """Return whether the request asks for an upgrade to a WebSocket."""
    return request.headers.get(hdrs.UPGRADE, "").strip().lower() == "websocket"


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
    """The client that sent `request`."""
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
