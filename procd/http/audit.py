"""Writes the audit record of each request: who, what, when, and how it ended."""

import time
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final

from aiohttp import web
from aiohttp.typedefs import Handler

from procd.http.auth import CALLER, GATE
from procd.http.encoder import timestamp
from procd.http.forwarded import PROXIES
from procd.http.handshake import SWITCHING, UPGRADED
from procd.http.route_policy import UNGUARDED
from procd.services.access import ANYONE
from procd.services.audit import AuditFile

MAX_VALUE_LENGTH: Final = 255
REFUSALS: Final = (401, 403)
# The callers of requests that are refused or have no effect, where tokens are asked for.
STRANGERS: Final = (None, ANYONE)

AUDIT = web.AppKey("AUDIT", AuditFile)
# Of the request that is served in this context, if it is recorded.
NOTES: ContextVar[dict[str, Any] | None] = ContextVar("NOTES", default=None)


def note(**facts: str | int | None) -> None:
    """Add ids or an exit code to the record of this request; never what a user typed or runs."""
    if (notes := NOTES.get()) is not None:
        notes.update(facts)


def ending(request: web.Request) -> Callable[[int | None], None]:
    """What to call, with the exit code, when what this request has started is over.

    For what goes on without the request; the ids are those that are noted by now.
    """
    app = request.app
    if AUDIT not in app:
        return lambda _: None
    started = {**_record(request, "ended", datetime.now(UTC)), **(NOTES.get() or {})}

    def ended(exit_code: int | None) -> None:
        moment = timestamp(datetime.now(UTC))
        app[AUDIT].write({**started, "time": moment, "exitCode": exit_code})

    return ended


@web.middleware
async def audit(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Record a request when it is over; without a status if its client left before that."""
    if _path(request) in UNGUARDED:
        return await handler(request)
    began_at, begin = datetime.now(UTC), time.monotonic()
    notes: dict[str, Any] = {}
    NOTES.set(notes)  # in this task, which is the request's own
    status = None
    try:
        response = await handler(request)
        status = response.status
        return response
    finally:
        if status is None and request.get(UPGRADED):
            status = SWITCHING
        record = {
            **_record(request, "closed" if status == SWITCHING else "request", began_at),
            "status": status,
            "durationMs": int((time.monotonic() - begin) * 1000),
            **notes,
        }
        if status in REFUSALS or (
            request.app[GATE].access.required and request.get(CALLER) in STRANGERS
        ):
            request.app[AUDIT].write_refused(record)
        else:
            request.app[AUDIT].write(record)


def opened(request: web.Request, response: web.StreamResponse) -> None:
    """Record a WebSocket when it is opened, too: that may be long before it is closed."""
    if response.status == SWITCHING:
        record = _record(request, "opened", datetime.now(UTC))
        request.app[AUDIT].write({**record, **(NOTES.get() or {})})


def _record(request: web.Request, event: str, moment: datetime) -> dict[str, object]:
    caller = request.get(CALLER)
    return {
        "time": timestamp(moment),
        "event": event,
        "token": None if caller is None else caller.name,
        "peer": request.app[PROXIES].client_of(request),
        "method": request.method[:MAX_VALUE_LENGTH],
        "route": _path(request),
        **{name: value[:MAX_VALUE_LENGTH] for name, value in request.match_info.items()},
    }


def _path(request: web.Request) -> str | None:
    """The path as the route table has it; others may hold anything and are left out."""
    resource = request.match_info.route.resource
    if resource is None:
        return None
    return resource.canonical.removeprefix("/toolbox/{sandbox_id}").rstrip("/")
