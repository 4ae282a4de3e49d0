"""create_app: the one place where the parts are put together."""

import asyncio
import os
from collections.abc import Sequence
from functools import partial

import aiohttp_cors
from aiohttp import hdrs, web

from procd.api import (
    code_run,
    execute,
    health,
    info,
    interpreter,
    metrics,
    openapi,
    pty,
    recordings,
    tickets,
)
from procd.api import pty_attach as attach
from procd.api import sessions as session
from procd.api import terminal_list as live
from procd.api.web import ASSETS, Assets
from procd.api.web import routes as web_routes
from procd.config import Config
from procd.http.audit import AUDIT, audit, opened
from procd.http.auth import GATE, Gate
from procd.http.connection_limit import VISITORS, Visitors
from procd.http.dispatch import VARIES
from procd.http.forwarded import PROXIES, Proxies
from procd.http.frame_reader import FRAMES, FrameTurns
from procd.http.handshake import hang_up
from procd.http.middleware import errors
from procd.http.refusal import expect
from procd.http.request_metrics import HEAP, REQUESTS, Requests, name_request, observer
from procd.http.schema import MAX_VALUES, SILENCE_S
from procd.http.websocket import CONNECTIONS, Connections
from procd.http.whole import COMPLETIONS, Complete, complete
from procd.inherited import child_environment, home_dir, lasting_dir, work_dir
from procd.metrics import Gauge
from procd.process.shell import Shell
from procd.process.supervisor import Supervisor
from procd.services.audit import AuditFile
from procd.services.code_run import CodeRuns
from procd.services.credentials import Access
from procd.services.environment import Environment
from procd.services.execute import Executions
from procd.services.interpreter.contexts import Contexts
from procd.services.pty.sessions import PtySessions
from procd.services.readiness import Readiness
from procd.services.shell.sessions import ShellSessions
from procd.unix.host import Host

PROCESSES = web.AppKey("PROCESSES", Supervisor)

# Below the second, an SDK that was given a proxy's URL finds the same (contract, section 1).
PREFIXES = ("", "/toolbox/{sandbox_id}")

WEB_ROUTES = [*web_routes, *live.routes]
ROUTES = [
    *execute.routes,
    *code_run.routes,
    *session.routes,
    *interpreter.routes,
    *attach.routes,
    *pty.routes,
    *recordings.routes,
    *info.routes,
    *tickets.routes,
    *health.routes,
    *metrics.routes,
    *openapi.routes,
    *WEB_ROUTES,
]


def create_app(
    config: Config, entrypoint: tuple[str, ...] = (), access: Access | None = None
) -> web.Application:
    """The application, ready to run; what it needs is made at its start and ended at its stop.

    Args:
        entrypoint: a command to run beside the server (contract, section 8.9).
        access: who may call; if it isn't given, made from `config`.

    Raises:
        ConfigError: procd would be open to others than this machine, and nobody has said so.
    """
    requests = Requests()
    audits = [audit] if config.audit.file else []
    visitors = Visitors(config.server)
    guards = Gate(config, access or Access(config), visitors)
    app = web.Application(
        middlewares=[observer(requests), *audits, errors, guards.middleware],
        client_max_size=config.server.max_body_bytes,
    )
    if audits:
        app[AUDIT] = AuditFile(config.audit)
        app.on_cleanup.append(_close_audit)
    app[REQUESTS] = requests
    app[VISITORS] = visitors
    app[SILENCE_S] = config.server.body_s
    app[MAX_VALUES] = config.server.max_body_values
    app[PROXIES] = Proxies(config.server)
    completions: list[Complete] = [visitors.dismiss, hang_up, name_request]
    app[COMPLETIONS] = [*completions, opened] if audits else completions
    app.on_response_prepare.append(complete)
    app[GATE] = guards
    app[health.HEALTH] = {"status": "ok", "auth": "token" if guards.access.required else "none"}
    if config.web.enabled:
        app[ASSETS] = Assets()
    off = [] if config.web.enabled else WEB_ROUTES
    off = off if config.metrics.enabled else [*off, *metrics.routes]
    routes = [route for route in ROUTES if route not in off]
    app[openapi.DESCRIPTION] = openapi.Description(routes, guarded=guards.access.required)
    _add_routes(app, routes)
    _allow_origins(app, config.cors.allowed_origins)
    app.on_startup.append(partial(_start, config, entrypoint))
    app.on_shutdown.append(_stop)
    return app


def _add_routes(app: web.Application, routes: Sequence[web.RouteDef]) -> None:
    """Serve each below every prefix, with and without a slash at its end."""
    requests, guards = app[REQUESTS], app[GATE]
    # One for each path, whatever its methods: what may be asked of it is found in one place.
    by_path: dict[str, web.Resource] = {}
    for route in routes:
        stats = requests.route(route.method, route.path)
        for prefix in PREFIXES:
            for path in (prefix + route.path, prefix + route.path + "/"):
                if path not in by_path:
                    # Any text without a slash; aiohttp's own pattern lets no brace through.
                    pattern = VARIES.sub(r"{\1:[^/]+}", path)
                    by_path[path] = app.router.add_resource(pattern)
                added = by_path[path].add_route(route.method, route.handler, expect_handler=expect)
                guards.guard(added, route.method, route.path)
                requests.bind(added, stats)


async def _start(config: Config, entrypoint: tuple[str, ...], app: web.Application) -> None:
    """Make the services; `_stop` ends them."""
    processes = app[PROCESSES] = Supervisor(config.process)
    app[HEAP] = processes.malloc
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
    app[live.LISTS] = live.Lists(app[pty.PTYS])
    app[session.SESSIONS] = ShellSessions(
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
    if entrypoint:
        app[session.SESSIONS].start_entrypoint(entrypoint)
    app[FRAMES] = FrameTurns(asyncio.get_running_loop().call_soon)
    app[CONNECTIONS] = Connections(config.server)
    app[health.READINESS] = Readiness(config.health, processes, shell, app[session.SESSIONS])
    app[metrics.FIGURES] = metrics.Figures(_sources(app))


def reload(app: web.Application) -> list[str]:
    """Read tokens again, drop the sockets of those that are gone, and reopen the audit file.

    Returns what is wrong.
    """
    access = app[GATE].access
    problems = [access.reload()]
    if access.required:
        app[CONNECTIONS].drop_without(access.tokens)
    if AUDIT in app:
        problems.append(app[AUDIT].reopen())
    return [problem for problem in problems if problem]


async def _close_audit(app: web.Application) -> None:
    app[AUDIT].close()


def _sources(app: web.Application) -> metrics.Sources:
    """Where the metrics come from; whatever else lives gets its line here."""
    processes, connections, sessions = app[PROCESSES], app[CONNECTIONS], app[session.SESSIONS]
    executions, ptys = app[execute.EXECUTIONS], app[pty.PTYS]
    contexts, memory = app[interpreter.CONTEXTS], processes.memory
    return metrics.Sources(
        requests=app[REQUESTS],
        spawn_times=processes.spawn_times,
        traffic={"http": app[REQUESTS].traffic, "websocket": connections.traffic},
        dropped=connections.dropped,
        gauges=[
            Gauge("procd_processes", "supervised processes", lambda: processes.supervised),
            Gauge("procd_executes", "running one-shot commands", lambda: executions.running),
            Gauge("procd_contexts", "interpreter contexts", lambda: len(contexts)),
            Gauge("procd_sessions", "shell sessions, the ended included", lambda: len(sessions)),
            Gauge("procd_ptys", "live PTY sessions", lambda: len(ptys.live)),
            Gauge("procd_connections", "open connections", lambda: len(app[VISITORS])),
            Gauge("procd_websockets", "open WebSockets", lambda: len(connections)),
            Gauge("procd_log_bytes", "disk taken by logs", lambda: sessions.log_bytes),
            Gauge(
                "procd_output_memory_bytes",
                "memory taken by output, and by requests that run or wait",
                lambda: memory.used_bytes,
            ),
            Gauge(
                "procd_output_memory_limit_bytes",
                "how much that may be: process.max_total_output_bytes, or what its 0 means here",
                lambda: memory.most_bytes,
            ),
        ],
    )


async def _stop(app: web.Application) -> None:
    """Have the handlers end, which the server waits for next, within `server.shutdown_s`.

    What contexts and the entrypoint do to end in order isn't slowed by what is killed without
    being asked.
    """
    app[health.READINESS].stopping = True
    connections, contexts, processes = app[CONNECTIONS], app[interpreter.CONTEXTS], app[PROCESSES]
    sessions, third_s = app[session.SESSIONS], connections.config.shutdown_s / 3
    connections.stop()  # before they hear of the ends of what they are attached to
    processes.stop(but=contexts.pids | sessions.entrypoint_pids)
    await asyncio.gather(
        connections.aclose(third_s),
        contexts.aclose(2 * third_s),
        sessions.end_entrypoint(2 * third_s),
    )
    await processes.aclose(third_s)
    await app[pty.PTYS].aclose()
    await sessions.aclose()


def _allow_origins(app: web.Application, origins: tuple[str, ...]) -> None:
    if not origins:
        return
    allowed = aiohttp_cors.ResourceOptions(  # type: ignore[no-untyped-call]  # the library has no types
        expose_headers="*", allow_headers="*", max_age=600
    )
    cors = aiohttp_cors.setup(app, defaults=dict.fromkeys(origins, allowed))
    for route in list(app.router.routes()):
        cors.add(route)

    def share(request: web.Request, response: web.StreamResponse) -> None:
        """Keep caches from giving one origin what was answered to another.

        The library leaves alone what has no route. That there is none is an answer like any other,
        for a page that is allowed to call to read.
        """
        response.headers.add(hdrs.VARY, hdrs.ORIGIN)
        origin = request.headers.get(hdrs.ORIGIN)
        if request.match_info.http_exception is None or origin is None:
            return
        if origin in origins or "*" in origins:
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin

    app[COMPLETIONS].append(share)
