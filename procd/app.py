"""create_app: the one place where the parts are put together."""

import os
from collections.abc import AsyncIterator

import aiohttp_cors
from aiohttp import web

from procd.api import code_run, execute, info, interpreter, live, pty, recordings, session, tickets
from procd.api.audit import AUDIT, audit, opened
from procd.api.gate import GATE, Gate, expect, gate
from procd.api.middleware import errors
from procd.api.web import ASSETS, Assets
from procd.api.web import routes as web_routes
from procd.api.ws import CONNECTIONS, Connections
from procd.config import Config, child_environment, home_dir, state_dir, work_dir
from procd.process import Processes
from procd.services.audit import AuditFile
from procd.services.code_run import CodeRuns
from procd.services.credentials import Access
from procd.services.environment import Environment
from procd.services.execute import Executions
from procd.services.interpreter import Contexts
from procd.services.pty import PtySessions
from procd.services.session import ShellSessions
from procd.unix.host import Host
from procd.unix.shell import Shell

PROCESSES = web.AppKey("PROCESSES", Processes)

# Below the second, an SDK that was given a proxy's URL finds the same (contract, section 1).
PREFIXES = ("", "/toolbox/{sandbox_id}")

WEB_ROUTES = [*web_routes, *live.routes]
ROUTES = [
    *execute.routes,
    *code_run.routes,
    *session.routes,
    *interpreter.routes,
    *pty.routes,
    *recordings.routes,
    *info.routes,
    *tickets.routes,
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
    audits = [audit] if config.audit.file else []
    app = web.Application(
        middlewares=[*audits, errors, gate], client_max_size=config.server.max_body_bytes
    )
    if audits:
        app[AUDIT] = AuditFile(config.audit)
        app.on_response_prepare.append(opened)
        app.on_cleanup.append(_close_audit)
    guards = app[GATE] = Gate(config, access or Access(config))
    if config.web.enabled:
        app[ASSETS] = Assets()
    for prefix in PREFIXES:
        for route in ROUTES:
            if route in WEB_ROUTES and not config.web.enabled:
                continue
            for path in (prefix + route.path, prefix + route.path + "/"):
                added = app.router.add_route(
                    route.method, path, route.handler, expect_handler=expect
                )
                guards.guard(added, route.method, route.path)
    _allow_origins(app, config.cors.allowed_origins)

    async def resources(app: web.Application) -> AsyncIterator[None]:
        processes = app[PROCESSES] = Processes(config.process)
        shell = Shell(config.process.shell, os.environ.get("SHELL", ""))
        environment = app[info.ENVIRONMENT] = Environment(child_environment(os.environ))
        places = app[info.PLACES] = info.Places(
            work_dir=work_dir(config.process, os.environ), home_dir=home_dir(os.environ)
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
            state_dir(config, os.environ),
        )
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
        app[CONNECTIONS] = Connections(config.server)
        yield

    app.cleanup_ctx.append(resources)
    app.on_shutdown.append(_stop)
    return app


def reload(app: web.Application) -> None:
    """Read tokens again, drop the sockets of those that are gone, and reopen the audit file."""
    access = app[GATE].access
    if access.reload() and access.required:
        app[CONNECTIONS].drop_without(access.tokens)
    if AUDIT in app:
        app[AUDIT].reopen()


async def _close_audit(app: web.Application) -> None:
    app[AUDIT].close()


async def _stop(app: web.Application) -> None:
    """Have the handlers end, which the server waits for next: sockets first, then processes."""
    await app[CONNECTIONS].aclose(app[CONNECTIONS].config.shutdown_s / 3)
    await app[pty.PTYS].aclose()
    await app[interpreter.CONTEXTS].aclose()
    await app[PROCESSES].aclose()
    await app[session.SESSIONS].aclose()


def _allow_origins(app: web.Application, origins: tuple[str, ...]) -> None:
    if not origins:
        return
    allowed = aiohttp_cors.ResourceOptions(  # type: ignore[no-untyped-call]  # the library has no types
        expose_headers="*", allow_headers="*", max_age=600
    )
    cors = aiohttp_cors.setup(app, defaults=dict.fromkeys(origins, allowed))
    for route in list(app.router.routes()):
        cors.add(route)
