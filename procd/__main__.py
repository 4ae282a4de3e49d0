"""The server's commands: configuration, event loop, server, and the end of it."""

import asyncio
import faulthandler
import gc
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NoReturn

import click
from aiohttp import web

from procd.api.gate import GATE
from procd.api.visitors import VISITORS, Visitor
from procd.app import create_app
from procd.app import reload as reload_app
from procd.cli.main import main
from procd.config import Config, ConfigError, ServerConfig
from procd.configfile import check_places, load, networks
from procd.listen import Listeners
from procd.logs import formatter
from procd.services import tokenfile
from procd.services.access import NAME, Token, digest_of, new_secret, redacted
from procd.services.credentials import VARIABLE, Access
from procd.surroundings import state_dir
from procd.systemd import ActivationError, Watchdog, notify, passed_sockets, reloading
from procd.unix.confine import confinement
from procd.unix.environ import take
from procd.unix.fd import seal_inherited
from procd.unix.priority import precede

log = logging.getLogger("procd")

EXIT_CONFIG: Final = 2
CLIENT_TOKEN: Final = "PROCD_TOKEN"  # noqa: S105 - names it, holds none
# Allocations between collections: with thousands of sessions each one takes milliseconds.
GC_THRESHOLD: Final = 50_000


@click.command()
@click.option(
    "--config", "path", type=click.Path(path_type=Path), envvar="PROCD_CONFIG", help="TOML file."
)
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), help="TCP port; 0 picks a free one.")
@click.argument("entrypoint", nargs=-1)
def serve(
    path: Path | None, host: str | None, port: int | None, entrypoint: tuple[str, ...]
) -> None:
    """Serve the Process API until SIGTERM or SIGINT, beside the command ENTRYPOINT if given."""
    try:
        take(CLIENT_TOKEN)  # whoever starts a server may be a client of another
        secret = take(VARIABLE)
    except OSError as exc:
        _refuse(f"{VARIABLE}: can't be hidden from other processes: {exc.strerror}")
    try:
        config = load(path, os.environ)
        check_places(config.process)
        networks(config.server.trusted_proxies)
        owner = confinement(config.process).owner
        if owner is not None:
            state = Path(state_dir(config.sessions, os.environ))
            owner.check_path(state, "sessions.state_dir")
        server = config.server
        config = replace(
            config,
            server=replace(
                server,
                host=server.host if host is None else host,
                port=server.port if port is None else port,
            ),
        )
        access = Access(config, secret, os.environ.get("CREDENTIALS_DIRECTORY", ""))
    except ConfigError as exc:
        _refuse(str(exc))
    handler = logging.StreamHandler()
    handler.setFormatter(Redacting(formatter(config.log.format)))
    logging.basicConfig(level=config.log.level.upper(), handlers=[handler])
    if not access.required:
        log.warning("no token is asked for: whoever reaches %s may do anything", config.server.host)
    # aiohttp logs requests that it can't parse, and quotes them: they may carry secrets. What goes
    # wrong in a handler is logged by the middleware.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    seal_inherited()
    _raise_descriptor_limit()
    if server.nice:
        try:
            precede(server.nice)
        except OSError as exc:
            log.info("procd has no priority over what it runs: %s", exc.strerror)
    # A watchdog's SIGABRT then says where the loop was stuck.
    faulthandler.enable(2)
    with asyncio.Runner(loop_factory=_loop_factory(server.loop)) as runner:
        try:
            app = create_app(config, entrypoint, access)
        except ConfigError as exc:
            _refuse(str(exc))
        sys.exit(runner.run(_serve(config, path, app)))


@click.command()
@click.option("--name", required=True, help="Whose token it is: shown in logs and refusals.")
@click.option(
    "--scope",
    required=True,
    type=click.Choice(list(tokenfile.SCOPES)),
    help="What it is good for; each includes those before it.",
)
@click.option(
    "--file",
    type=click.Path(path_type=Path),
    help="Token file; if not given, auth.token_file of the configuration.",
)
@click.option(
    "--config", "path", type=click.Path(path_type=Path), envvar="PROCD_CONFIG", help="TOML file."
)
def token(name: str, scope: str, file: Path | None, path: Path | None) -> None:
    """Make a token, print it, and add its hash to the token file; SIGHUP has procd read that."""
    if not NAME.fullmatch(name):
        _refuse("--name: must be up to 64 letters, digits, dots, dashes and underscores")
    secret = new_secret()
    try:
        file = file or Path(load(path, os.environ).auth.token_file)
        if not file.name:
            _refuse("no token file: give --file, or set auth.token_file")
        tokenfile.add(
            file, Token(name=name, scope=tokenfile.SCOPES[scope], digest=digest_of(secret))
        )
    except ConfigError as exc:
        _refuse(str(exc))
    click.echo(secret)


def _refuse(message: str) -> NoReturn:
    """Say what is wrong with the configuration, and end."""
    click.echo(f"procd: {message}", err=True)
    sys.exit(EXIT_CONFIG)


class Redacting(logging.Formatter):
    """Keeps secrets of URLs out of what `inner` makes, whoever logs them, tracebacks included."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """The line or lines of a record."""
        return redacted(self._inner.format(record))


def _loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    if name == "uvloop":
        import uvloop  # not needed, nor perhaps there, for the other choice

        factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
        return factory
    return asyncio.SelectorEventLoop


def _raise_descriptor_limit() -> None:
    """Take what the hard limit allows: a session costs up to four descriptors."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def make_runner(app: web.Application, config: Config) -> web.AppRunner:
    """The runner with the server's limits; a handler is cancelled when its client goes."""
    return web.AppRunner(
        app,
        handler_cancellation=True,
        # aiohttp grants it twice: before it cancels the handlers, and after.
        shutdown_timeout=config.server.shutdown_s / 3,
        **connection_options(config.server),
    )


def connection_options(config: ServerConfig) -> dict[str, Any]:
    """What aiohttp is told of each connection."""
    return {
        "access_log": None,
        "keepalive_timeout": config.keepalive_s,
        "max_field_size": config.max_header_bytes,
        "max_line_size": config.max_header_bytes,
    }


async def _serve(config: Config, path: Path | None, app: web.Application) -> int:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    # Before it is ready a SIGHUP changes nothing: all was read a moment ago.
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    try:
        passed = passed_sockets(os.environ)
        if passed:
            tcp = [sock for _, sock in passed if sock.family != socket.AF_UNIX]
            app[GATE].follow([sock.getsockname()[0] for sock in tcp])
    except (ActivationError, ConfigError) as exc:
        log.error("cannot listen: %s", exc)
        return 1
    runner = make_runner(app, config)

    def visitor() -> Visitor:
        assert runner.server is not None
        return Visitor(app[VISITORS], runner.server, **connection_options(config.server))

    listeners = Listeners(runner, visitor)
    watchdog = Watchdog(loop, os.environ)
    try:
        await runner.setup()
        try:
            await listeners.open(config.server, passed)
        except OSError as exc:
            log.error("%s", exc.strerror)
            return 1
        # What exists by now stays: the collector need never look at it again.
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)
        where = f"port {listeners.port}" if listeners.port else listeners.places[0]
        print(f"Starting toolbox server on {where}", flush=True)  # noqa: T201 - a runner waits for this line
        status = f"STATUS=listening on {', '.join(listeners.places)}"
        loop.add_signal_handler(signal.SIGHUP, _reload, path, app, status)
        _tell(f"READY=1\n{status}")
        await stopping.wait()
        loop.add_signal_handler(signal.SIGHUP, lambda: None)
        _tell("STOPPING=1")
    finally:
        await runner.cleanup()
        listeners.close()
        watchdog.close()
    return 0


def _reload(path: Path | None, app: web.Application, status: str) -> None:
    """Read again what can change: tokens, and of the configuration the log's level."""
    _tell(reloading())
    reload_app(app)
    try:
        config = load(path, os.environ)
    except ConfigError as exc:
        log.error("the configuration is as it was: %s", exc)
        status += f"; not reloaded: {' '.join(str(exc).split())}"
    else:
        logging.getLogger().setLevel(config.log.level.upper())
    _tell(f"READY=1\n{status}")


def _tell(state: str) -> None:
    """Tell the service manager, which is no reason to stop if it doesn't listen."""
    try:
        notify(state)
    except OSError as exc:
        log.warning("the service manager can't be told %s: %s", state.split("\n")[0], exc.strerror)


if __name__ == "__main__":
    main()
