"""The error envelope: the body of every reply that is a refusal or a failure.

Source: Process API contract, section 3.2.
"""

from datetime import UTC, datetime
from typing import Final

from aiohttp import web

from procd.errors import ProcdError
from procd.http.encoder import timestamp

# Where an error has the key that clients before 0.226 read (contract, section 3.2).
PTY_PATH: Final = "/process/pty"


def envelope(request: web.BaseRequest | None, error: ProcdError) -> dict[str, object]:
    """The body of an error reply; `request` is None for what could not be parsed as one."""
    path = "" if request is None else request.path
    fields: dict[str, object] = {
        "statusCode": error.status,
        "message": error.message,
        "source": "DAYTONA_DAEMON",
        "code": error.code,
        "timestamp": timestamp(datetime.now(UTC)),
        "path": path,
    }
    if request is not None:
        fields["method"] = request.method
    if PTY_PATH in path:
        fields["error"] = error.message
    return fields | error.extra
