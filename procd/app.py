"""create_app: the one place where the parts are put together."""

import os
from collections.abc import AsyncIterator

import aiohttp_cors
from aiohttp import web

from procd.api import execute, info, pty, session
from procd.api.middleware import errors
from procd.api.ws import CONNECTIONS, Connections
from procd.config import Config, child_environment, home_dir, work_dir
from procd.process import Processes
from procd.services.environment import Environment
from procd.services.execute import Executions
from procd.services.pty import PtySessions
from procd.services.session import ShellSessions
from procd.unix.host import Host
from procd.unix.shell import Shell

PROCESSES = web.AppKey("PROCESSES", Processes)

# Below the second, an SDK that was given a proxy's URL finds the same (contract, section 1).
PREFIXES = ("", "/toolbox/{sandbox_id}")

ROUTES = [*execute.routes, *session.routes, *pty.routes, *info.routes]


def create_app(config: Config, entrypoint: tuple[str, ...] = ()) -> web.Application:
    """The application, ready to run; what it needs is made at its start and ended at its stop.

    Args:
        entrypoint: a command to run beside the server (contract, section 8.9).
    """
    app = web.Application(middlewares=[errors], client_max_size=config.server.max_body_bytes)
    for prefix in PREFIXES:
        for route in ROUTES:
            for path in (prefix + route.path, prefix + route.path + "/"):
                app.router.add_route(route.method, path, route.handler)
    _allow_origins(app, config.cors.allowed_origins)

    async def resources(app: web.Application) -> AsyncIterator[None]:
        processes = app[PROCESSES] = Processes(config.process)
        shell = Shell(config.process.shell, os.environ.get("SHELL", ""))
        environ = {**os.environ, **processes.confinement.environment}
        environment = app[info.ENVIRONMENT] = Environment(child_environment(environ))
        places = app[info.PLACES] = info.Places(
            work_dir=work_dir(config.process, environ), home_dir=home_dir(environ)
        )
        app[info.HOST] = Host()
        app[execute.EXECUTIONS] = Executions(
            config.execute, processes, shell, environment, places.work_dir
        )
        app[pty.PTYS] = PtySessions(config.pty, processes, shell, environment, places.work_dir)
        app[session.SESSIONS] = ShellSessions(
            config.sessions,
            processes,
            shell,
            environment,
            work_dir=places.work_dir,
            home_dir=places.home_dir,
        )
        if entrypoint:
            app[session.SESSIONS].start_entrypoint(entrypoint)
        app[CONNECTIONS] = Connections(config.server)
        yield

    app.cleanup_ctx.append(resources)
    app.on_shutdown.append(_stop)
    return app


async def _stop(app: web.Application) -> None:
    """Have the handlers end, which the server waits for next: sockets first, then processes."""
    await app[CONNECTIONS].aclose(app[CONNECTIONS].config.shutdown_s / 3)
    await app[pty.PTYS].aclose()
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
