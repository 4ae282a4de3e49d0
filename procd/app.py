"""create_app: the one place where the parts are put together."""

import asyncio
import os
from collections.abc import Sequence
from functools import partial

from aiohttp import hdrs, web

from procd.api import (
    code_run,
    event_socket,
    execute,
    health,
    info,
    interpreter,
    metrics,
    not_supported,
    openapi,
    pty,
    pty_attach,
    recordings,
    sandbox,
    sandboxes,
    sessions,
    terminal_list,
    tickets,
)
from procd.api import web as web_terminal
from procd.config import Config
from procd.http.audit import AUDIT, AuditFile, audit, record_upgrade
from procd.http.auth import ACCESS_CONTROL, AccessControl
from procd.http.client import PROXIES, Proxies
from procd.http.connection import CONNECTION_LIMIT, ConnectionLimit
from procd.http.control_plane import SANDBOX
from procd.http.figures import FIGURES, Figures
from procd.http.middleware import METRICS, RequestMetrics, add_id, errors, options, refuse_upgrade
from procd.http.openapi import PARAMETER
from procd.http.schema import MAX_VALUES, SILENCE_S
from procd.http.websocket import WEBSOCKETS, WebSockets
from procd.inherited import child_environment, home_dir, lasting_dir, work_dir
from procd.process.shell import Shell
from procd.process.supervisor import Supervisor
from procd.services.access import Access
from procd.services.code_run import CodeRuns
from procd.services.environment import Environment
from procd.services.execute import Executions
from procd.services.interpreter.contexts import Contexts
from procd.services.pty.sessions import PtySessions
from procd.services.sandbox import Sandbox, stands_alone
from procd.services.shell.sessions import ShellSessions
from procd.unix.host import Host

PROCESSES = web.AppKey("PROCESSES", Supervisor)

# An SDK that was given a proxy's URL uses the second (contract, section 1).
PREFIXES = ("", "/toolbox/{sandbox_id}")
# The URL of Daytona ends with /api; behind one that ends with a slash, clients put a path as well.
CONTROL_PLANE_PREFIXES = ("", "/api", "/")

WEB_ROUTES = [*web_terminal.routes, *terminal_list.routes]
ROUTES = [
    *execute.routes,
    *code_run.routes,
    *sessions.routes,
    *interpreter.routes,
    *pty_attach.routes,  # before those of `pty`: create-connect is no id
    *pty.routes,
    *recordings.routes,
    *info.routes,
    *tickets.routes,
    *health.routes,
    *metrics.routes,
    *openapi.routes,
    *WEB_ROUTES,
]
# Of a procd that stands alone.
CONTROL_PLANE_ROUTES = [
    *sandbox.routes,
    *sandboxes.routes,
    *event_socket.routes,
    *not_supported.control_plane_routes,
]


def create_app(
    config: Config, entrypoint: tuple[str, ...] = (), access: Access | None = None
) -> web.Application:
    """Make the application; its services are made when it starts and ended when it stops.

    Args:
        entrypoint: a command to run beside the server (contract, section 8.9).
        access: the tokens; by default made from `config`.

    Raises:
        ConfigError: other machines could reach procd without a token, and `auth.mode` isn't none.
    """
    connections = ConnectionLimit(config.server)
    request_metrics = RequestMetrics()
    access_control = AccessControl(config, access or Access(config), connections)
    audits = [audit] if config.audit.file else []
    app = web.Application(
        middlewares=[
            request_metrics.middleware,
            *audits,
            errors,
            options,
            access_control.middleware,
        ],
        client_max_size=config.server.max_body_bytes,
    )
    app.on_response_prepare.extend((add_id, refuse_upgrade))
    if audits:
        app[AUDIT] = AuditFile(config.audit)
        app.on_response_prepare.append(record_upgrade)
        app.on_cleanup.append(_close_audit)
    app[METRICS] = request_metrics
    app[CONNECTION_LIMIT] = connections
    app[ACCESS_CONTROL] = access_control
    app[SILENCE_S] = config.server.body_s
    app[MAX_VALUES] = config.server.max_body_values
    app[PROXIES] = Proxies(config.server)
    required = access_control.access.required
    app[health.HEALTH] = {"status": "ok", "auth": "token" if required else "none"}
    if config.web.enabled:
        app[web_terminal.ASSETS] = web_terminal.read_assets()
    app[openapi.START_PAGE] = "terminal" if config.web.enabled else "docs"
    off = [] if config.web.enabled else WEB_ROUTES
    off = off if config.metrics.enabled else [*off, *metrics.routes]
    routes = [route for route in ROUTES if route not in off]
    is_alone = stands_alone(config.standalone, config.server)
    control_plane = CONTROL_PLANE_ROUTES if is_alone else []
    described = [*routes, *control_plane]
    app[openapi.DESCRIPTION] = openapi.Description(described, guarded=required)
    _add_routes(app, [*routes, *not_supported.routes], PREFIXES)
    _add_routes(app, control_plane, CONTROL_PLANE_PREFIXES)
    _allow_origins(app, config.cors.allowed_origins)
    app.on_startup.append(partial(_start, config, entrypoint))
    app.on_shutdown.append(_stop)
    return app


def _add_routes(
    app: web.Application, routes: Sequence[web.RouteDef], prefixes: Sequence[str]
) -> None:
    """Serve each route below every prefix, with and without a slash at its end; HEAD as GET."""
    by_path: dict[str, web.Resource] = {}
    for route in routes:
        for prefix in prefixes:
            for path in {prefix + route.path, (prefix + route.path).rstrip("/") + "/"}:
                if path not in by_path:
                    # Any text without a slash; aiohttp's own pattern excludes braces.
                    pattern = PARAMETER.sub(r"{\1:[^/]+}", path)
                    by_path[path] = app.router.add_resource(pattern)
                is_get = route.method == hdrs.METH_GET
                for method in (hdrs.METH_GET, hdrs.METH_HEAD) if is_get else (route.method,):
                    added = by_path[path].add_route(method, route.handler)
                    app[ACCESS_CONTROL].add_route(added, route.method, route.path)
                    app[METRICS].add_route(added, method, route.path)


async def _start(config: Config, entrypoint: tuple[str, ...], app: web.Application) -> None:
    processes = app[PROCESSES] = Supervisor(config.process)
    shell = Shell(config.process.shell, os.environ.get("SHELL", ""))
    environ = {**os.environ, **processes.child_limits.environment}
    environment = app[info.ENVIRONMENT] = Environment(child_environment(environ))
    places = app[info.PLACES] = info.Places(
        work_dir=work_dir(config.process, environ), home_dir=home_dir(environ)
    )
    app[info.HOST] = Host()
    app[execute.EXECUTIONS] = Executions(
        config.execute, processes, shell, environment, places.work_dir
    )
    app[code_run.CODE_RUNS] = CodeRuns(
        config.code_run, app[execute.EXECUTIONS], environment, places.work_dir
    )
    app[pty.PTYS] = PtySessions(
        config.pty,
        processes,
        shell,
        environment,
        places.work_dir,
        lasting_dir(config.sessions, os.environ),
    )
    shells = app[sessions.SESSIONS] = ShellSessions(
        config.sessions,
        processes,
        shell,
        environment,
        work_dir=places.work_dir,
        home_dir=places.home_dir,
    )
    app[interpreter.CONTEXTS] = Contexts(
        config.interpreter, processes, environment, places.work_dir
    )
    app[SANDBOX] = Sandbox(
        config.standalone.sandbox_id,
        app[info.HOST],
        places.work_dir,
        environment,
        app[execute.EXECUTIONS],
        shells,
        app[pty.PTYS],
        app[interpreter.CONTEXTS],
    )
    if entrypoint:
        shells.start_entrypoint(entrypoint)
    app[WEBSOCKETS] = WebSockets(config.server)
    app[health.READINESS] = health.Readiness(config.health, processes, shell, shells)
    app[FIGURES] = _figures(app)


def reload(app: web.Application) -> list[str]:
    """Read tokens again and reopen the audit file; returns what is wrong."""
    access = app[ACCESS_CONTROL].access
    problems = [access.reload()]
    if access.required:
        app[WEBSOCKETS].drop_without(access.tokens)
    if AUDIT in app:
        problems.append(app[AUDIT].reopen())
    return [problem for problem in problems if problem]


def _figures(app: web.Application) -> Figures:
    processes, websockets, shells = app[PROCESSES], app[WEBSOCKETS], app[sessions.SESSIONS]
    executions, ptys = app[execute.EXECUTIONS], app[pty.PTYS]
    contexts, memory = app[interpreter.CONTEXTS], processes.memory
    return Figures(
        requests=app[METRICS],
        spawn_times=processes.spawn_times,
        traffic={"http": app[METRICS].traffic, "websocket": websockets.traffic},
        dropped=websockets.dropped,
        gauges={
            "procd_processes": ("supervised processes", lambda: processes.supervised),
            "procd_executes": ("running one-shot commands", lambda: executions.running),
            "procd_contexts": ("interpreter contexts", lambda: len(contexts)),
            "procd_sessions": ("shell sessions, the ended included", lambda: len(shells)),
            "procd_ptys": ("live PTY sessions", lambda: len(ptys.live)),
            "procd_connections": ("open connections", lambda: len(app[CONNECTION_LIMIT])),
            "procd_websockets": ("open WebSockets", lambda: len(websockets)),
            "procd_log_bytes": ("disk taken by logs", lambda: shells.logs.used_bytes),
            "procd_output_memory_bytes": (
                "memory taken by output, and by requests that run or wait",
                lambda: memory.used_bytes,
            ),
            "procd_output_memory_limit_bytes": (
                "how much that may be: process.max_total_output_bytes, or what its 0 means here",
                lambda: memory.most_bytes,
            ),
        },
    )


async def _close_audit(app: web.Application) -> None:
    app[AUDIT].close()


async def _stop(app: web.Application) -> None:
    """Contexts and the entrypoint get time to end; everything else is killed at once."""
    app[health.READINESS].stopping = True
    websockets, contexts, processes = app[WEBSOCKETS], app[interpreter.CONTEXTS], app[PROCESSES]
    shells, third_s = app[sessions.SESSIONS], websockets.config.shutdown_s / 3
    websockets.stop()  # before the clients are told about the ends of their processes
    processes.stop(but=contexts.pids | shells.entrypoint_pids)
    await asyncio.gather(
        websockets.aclose(third_s), contexts.aclose(2 * third_s), shells.end_entrypoint(2 * third_s)
    )
    await processes.aclose(third_s)
    await app[pty.PTYS].aclose()
    await shells.aclose()


def _allow_origins(app: web.Application, origins: tuple[str, ...]) -> None:
    if not origins:
        return
    import aiohttp_cors  # only needed here

    allowed = aiohttp_cors.ResourceOptions(  # type: ignore[no-untyped-call]  # the library has no types
        expose_headers="*", allow_headers="*", max_age=600
    )
    cors = aiohttp_cors.setup(app, defaults=dict.fromkeys(origins, allowed))
    for route in list(app.router.routes()):
        if route.method != hdrs.METH_ANY:  # which answers OPTIONS itself
            cors.add(route)

    async def share(request: web.Request, response: web.StreamResponse) -> None:
        """Keep caches from mixing up origins, and let pages read the 404 of an unknown path."""
        response.headers.add(hdrs.VARY, hdrs.ORIGIN)
        origin = request.headers.get(hdrs.ORIGIN)
        if request.match_info.http_exception is None or origin is None:
            return
        if origin in origins or "*" in origins:
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin

    app.on_response_prepare.append(share)
