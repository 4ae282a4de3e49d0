"""The error envelope: the body of every reply that is a refusal or a failure.

Source: Process API contract, section 3.2.
"""

from datetime import UTC, datetime

from aiohttp import web

from procd.api.reply import timestamp
from procd.errors import ProcdError


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
    if "/process/pty" in path:
        fields["error"] = error.message  # what clients before 0.226 read (contract, section 3.2)
    return fields | error.extra
