"""The audit log: for each request who, what, when, and how it ended, one JSON object a line.

It never contains input, output, commands or values of variables.
"""

import errno
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final

from aiohttp import web
from aiohttp.typedefs import Handler

from procd.config import AuditConfig, ConfigError
from procd.http.auth import ACCESS_CONTROL, CALLER, UNGUARDED
from procd.http.client import PROXIES
from procd.http.middleware import SWITCHING, UPGRADED
from procd.http.responses import timestamp
from procd.services.tokens import ANYONE

log = logging.getLogger(__name__)

MAX_VALUE_LENGTH: Final = 255


class AuditFile:
    """Appends records, each by one write(2); raises ConfigError if it can't be opened."""

    def __init__(self, config: AuditConfig) -> None:
        self._config = config
        try:
            self._number = self._open()
        except OSError as exc:
            raise ConfigError(self._problem(exc)) from exc
        self._fails = False
        self._second = 0
        self._refused = 0
        self._unrecorded = 0

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(self._config.file, flags | os.O_NONBLOCK, 0o600)  # it may be a pipe

    def _problem(self, exc: OSError) -> str:
        reason = exc.strerror
        if exc.errno == errno.ENXIO:  # open(2)
            reason = "a pipe that nobody reads, or a socket"
        return f"audit.file: {self._config.file}: {reason}"

    def reopen(self) -> str:
        """Open the file again, for log rotation, or keep the old one; returns the problem or ""."""
        try:
            fresh = self._open()
        except OSError as exc:
            problem = self._problem(exc)
            log.error("the audit file can't be opened again: %s", problem)
            return problem
        os.close(self._number)
        self._number = fresh
        return ""

    def write(self, record: Mapping[str, object]) -> None:
        """Append a record; consecutive failures are logged once."""
        if self._number < 0:
            return
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        try:
            self._append(line)
        except OSError as exc:
            if not self._fails:
                log.error("the audit file can't be written: %s", exc.strerror)
            self._fails = True
        else:
            self._fails = False

    def _append(self, line: bytes) -> None:
        written = os.write(self._number, line)
        if written < len(line):  # the disk is full: remove the partial line
            os.ftruncate(self._number, os.fstat(self._number).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write_refused(self, record: Mapping[str, object]) -> None:
        """Append the record of a refused request; beyond `audit.refused_per_s` only count it."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._refused = second, 0
        self._refused += 1
        if self._refused > self._config.refused_per_s:
            self._unrecorded += 1
            return
        if self._unrecorded:
            record = {**record, "unrecordedBefore": self._unrecorded}
            self._unrecorded = 0
        self.write(record)

    def close(self) -> None:
        """Later records are dropped."""
        os.close(self._number)
        self._number = -1


AUDIT = web.AppKey("AUDIT", AuditFile)
# What is noted about the request of this context, if it is recorded.
NOTES: ContextVar[dict[str, Any] | None] = ContextVar("NOTES", default=None)


def note(**facts: str | int | None) -> None:
    """Add ids or an exit code to the record of this request; never what a user typed or runs."""
    if (notes := NOTES.get()) is not None:
        notes.update(facts)


def ending(request: web.Request) -> Callable[[int | None], None]:
    """Return what to call with the exit code when what this request has started has ended."""
    app = request.app
    if AUDIT not in app:
        return lambda _: None
    started = {**_record(request, "ended", datetime.now(UTC)), **(NOTES.get() or {})}

    def ended(exit_code: int | None) -> None:
        now = timestamp(datetime.now(UTC))
        app[AUDIT].write({**started, "time": now, "exitCode": exit_code})

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
        record = _record(request, "closed" if status == SWITCHING else "request", began_at)
        record["status"] = status
        record["durationMs"] = int((time.monotonic() - begin) * 1000)
        record |= notes
        file, requires_token = request.app[AUDIT], request.app[ACCESS_CONTROL].access.required
        if status in (401, 403) or (requires_token and request.get(CALLER) in (None, ANYONE)):
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
    return resource.canonical.removeprefix("/toolbox/{sandbox_id}").rstrip("/") or "/"
