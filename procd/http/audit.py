"""The audit record of each request: who, what, when, and how it ended."""

import time
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final

from aiohttp import web
from aiohttp.typedefs import Handler

from procd.http.auth import ACCESS_CONTROL, CALLER, UNGUARDED
from procd.http.forwarded import PROXIES
from procd.http.request_metrics import SWITCHING, UPGRADED
from procd.http.responses import timestamp
from procd.services.tokens import ANYONE
from procd.services.audit import AuditFile
from procd.services.tokens import ANYONE

MAX_VALUE_LENGTH: Final = 255
REFUSALS: Final = (401, 403)
# The callers of requests that are refused or have no effect, when a token is required.
UNAUTHENTICATED: Final = (None, ANYONE)

AUDIT = web.AppKey("AUDIT", AuditFile)
# What is noted about the request of this context, if it is recorded.
NOTES: ContextVar[dict[str, Any] | None] = ContextVar("NOTES", default=None)


def note(**facts: str | int | None) -> None:
    """Add ids or an exit code to the record of this request; never what a user typed or runs."""
    if (notes := NOTES.get()) is not None:
        notes.update(facts)


def ending(request: web.Request) -> Callable[[int | None], None]:
    """Return what to call, with the exit code, when what this request has started has ended.

    For what goes on after the request; the record has the facts that are noted by now.
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
    if _route(request) in UNGUARDED:
        return await handler(request)
    began_at, begin = datetime.now(UTC), time.monotonic()
    notes: dict[str, Any] = {}
    NOTES.set(notes)  # in the request's own task
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
        is_refused = status in REFUSALS or (
            request.app[ACCESS_CONTROL].access.required and request.get(CALLER) in UNAUTHENTICATED
        )
        file = request.app[AUDIT]
        if is_refused:
            file.write_refused(record)
        else:
            file.write(record)


async def record_upgrade(request: web.Request, response: web.StreamResponse) -> None:
    """Record a WebSocket also when it is opened; called before a reply is sent."""
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
        "route": _route(request),
        **{name: value[:MAX_VALUE_LENGTH] for name, value in request.match_info.items()},
    }


def _route(request: web.Request) -> str | None:
    """The path as the route table has it; None for an unknown one, which may contain anything."""
    resource = request.match_info.route.resource
    if resource is None:
        return None
    return resource.canonical.removeprefix("/toolbox/{sandbox_id}").rstrip("/")
