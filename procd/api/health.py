"""Liveness and readiness, for probes."""

from dataclasses import dataclass

from aiohttp import web

from procd.config import HealthConfig
from procd.errors import Exhausted, NotReady, SpawnFailed
from procd.http.connection import CONNECTION_LIMIT
from procd.http.openapi import LIST, TEXT, Doc, Shape, about, error_with
from procd.http.responses import json_response
from procd.process.shell import Shell
from procd.process.supervisor import Supervisor
from procd.services.shell.sessions import ShellSessions
from procd.tasks import loop_lag_s


@dataclass(slots=True)
class Readiness:
    """Collects the reasons why procd can't accept work."""

    config: HealthConfig
    supervisor: Supervisor
    shell: Shell
    sessions: ShellSessions
    stopping: bool = False

    def reasons(self, lag_s: float) -> list[str]:
        """Why procd isn't ready; empty if it is.

        An exhausted `process.max_spawns_per_s` doesn't count, as it recovers within moments.
        """
        reasons = ["shutting down"] if self.stopping else []
        supervisor, sessions = self.supervisor, self.sessions
        limit = supervisor.config.max_processes
        if supervisor.supervised >= limit:
            reasons.append(f"limit of {limit} processes is reached")
        for check in (
            supervisor.check_memory,
            supervisor.check_descriptors,
            self.shell.path,
            sessions.check_memory,
        ):
            try:
                check()
            except (Exhausted, SpawnFailed) as exc:
                reasons.append(exc.message)
        if problem := sessions.directory.problem(self.config.min_disk_bytes):
            reasons.append(problem)
        if 0 < self.config.max_loop_lag_s < lag_s:
            reasons.append(f"event loop lags by {lag_s:.1f} s")
        return reasons


READINESS = web.AppKey("READINESS", Readiness)
HEALTH = web.AppKey("HEALTH", dict[str, str])


async def healthz(request: web.Request) -> web.Response:
    """Check that procd is alive.

    Any answer says that it is. No token is needed; `auth` says whether other paths need one.
    """
    return json_response(request.app[HEALTH])


async def readyz(request: web.Request) -> web.Response:
    """Check that procd is ready for work.

    If it isn't, the answer is 503 with the reasons. No token is needed.
    """
    reasons = request.app[READINESS].reasons(await loop_lag_s())
    limit = request.app[CONNECTION_LIMIT]
    if limit.is_full:
        reasons.append(f"limit of {limit.max} connections is reached")
    if reasons:
        raise NotReady(f"not ready: {'; '.join(reasons)}", {"reasons": reasons})
    return json_response({"status": "ready"})


ALIVE = Shape(
    "Alive",
    "It is alive.",
    {
        "status": TEXT | about("Always `ok`.", "ok"),
        "auth": TEXT | about("`token` if a token is needed, or else `none`.", "token"),
    },
)
READY = Shape("Ready", "It is ready.", {"status": TEXT | about("Always `ready`.", "ready")})
NOT_READY = error_with(
    Shape(
        "NotReady",
        "It isn't ready.",
        {"reasons": LIST | about("Why it isn't ready.", ["shutting down"])},
    )
)

routes = [
    web.get("/healthz", healthz, doc=Doc(id="getHealth", reply=ALIVE)),
    web.get(
        "/readyz",
        readyz,
        doc=Doc(id="getReadiness", reply=READY, errors=(NotReady,), bodies={NotReady: NOT_READY}),
    ),
]
