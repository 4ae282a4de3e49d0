"""procd serve: configuration, event loop, server, shutdown."""

import asyncio
import faulthandler
import gc
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final, NoReturn

import click
from aiohttp import web

from procd.app import create_app
from procd.app import reload as reload_app
from procd.cli.config_option import config_option
from procd.cli.failure import EXIT_CONFIG, Failure
from procd.config import Config, ConfigError, LogConfig
from procd.config_file import load
from procd.http.auth import ACCESS_CONTROL
from procd.http.connection import Runner
from procd.listen import Listeners
from procd.logging import NonBlockingHandler, formatter
from procd.preflight import missing_features, prepared
from procd.services.access import VARIABLE
from procd.services.tokens import redacted
from procd.systemd import ActivationError, Watchdog, notify, passed_sockets
from procd.unix import own_process
from procd.unix.fd import RESERVED, seal_inherited
from procd.unix.libc import keep_freed_memory

log = logging.getLogger("procd")

# What procd itself has open, and what one command takes, besides the reserved ones.
LEAST_FILES: Final = 36 + RESERVED


@click.command()
@config_option
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), help="TCP port; 0 picks a free one.")
@click.argument("entrypoint", nargs=-1)
def serve(
    path: Path | None, host: str | None, port: int | None, entrypoint: tuple[str, ...]
) -> None:
    """Serve the Process API until SIGTERM or SIGINT, beside the command ENTRYPOINT if given.

    Settings come from the file, then from PROCD_<SECTION>_<KEY> variables, then from the options
    here; config.example.toml lists them all. SIGHUP has tokens and the log's level read
    again, and the audit file reopened. Once it listens it prints one line that says where. `procd
    doctor` says what a machine lacks.

    \b
    Exit codes:
      0  stopped by a signal
      1  it can't listen
      2  the configuration can't be used, or the system lacks what procd needs

    \b
    Examples:
      procd serve
      procd serve --config /etc/procd/config.toml
      procd serve --port 8080 -- python3 -m http.server 3000
      PROCD_SERVER_HOST= PROCD_SERVER_UNIX=/run/procd.sock procd serve
    """
    try:
        own_process.pop_secret("PROCD_TOKEN")  # it may be there for another server
        secret = own_process.pop_secret(VARIABLE)
    except OSError as exc:
        _refuse(f"{VARIABLE}: can't be hidden from other processes: {exc.strerror}")
    if lacking := missing_features():
        _refuse(f"this system lacks {'; '.join(lacking)}")
    try:
        path = path and path.absolute()  # to read it again at SIGHUP, in another directory
        config = load(path, os.environ)
        if host is not None:
            config = replace(config, server=replace(config.server, host=host))
        if port is not None:
            config = replace(config, server=replace(config.server, port=port))
        access = prepared(config, os.environ, secret)
    except ConfigError as exc:
        _refuse(str(exc))
    _raise_descriptor_limit()
    _begin_log(config.log)
    _prepare_process(config)
    with asyncio.Runner(loop_factory=_loop_factory(config.server.loop)) as runner:
        try:
            app = create_app(config, entrypoint, access)
        except ConfigError as exc:
            _refuse(str(exc))
        sys.exit(runner.run(_serve(config, path, app)))


def _refuse(message: str) -> NoReturn:
    raise Failure(message, code=EXIT_CONFIG)


class RedactingFormatter(logging.Formatter):
    """Removes credentials in URLs from what `inner` makes, tracebacks included."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        return redacted(self._inner.format(record))


def _loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    if name == "uvloop":
        import uvloop  # may not be installed for the other choice

        factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
        return factory
    return asyncio.SelectorEventLoop


def _raise_descriptor_limit() -> None:
    """Raise the limit of descriptors to the hard limit: a session takes five."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < LEAST_FILES:
        _refuse(
            f"up to {hard} descriptors are too few: raise the hard limit (ulimit -Hn, LimitNOFILE=)"
            f" to {LEAST_FILES} or more"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _begin_log(config: LogConfig) -> None:
    handler = NonBlockingHandler(2)
    handler.setFormatter(RedactingFormatter(formatter(config.format)))
    logging.basicConfig(level=config.level.upper(), handlers=[handler])
    # It quotes requests that it can't parse, which may contain secrets. Failures of handlers are
    # logged by the middleware.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)


def _prepare_process(config: Config) -> None:
    seal_inherited()
    # Blocked signals are inherited, perhaps SIGTERM and SIGCHLD.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    keep_freed_memory()
    if config.process.user:
        try:
            own_process.renounce_keys()
        except OSError as exc:
            log.info("processes have the kernel's keys that procd has: %s", exc.strerror)
    if config.server.nice:
        try:
            own_process.raise_priority(config.server.nice)
        except OSError as exc:
            log.info("procd has no priority over what it runs: %s", exc.strerror)
    # A watchdog's SIGABRT then says where the loop was stuck.
    faulthandler.enable(2)


async def _serve(config: Config, path: Path | None, app: web.Application) -> int:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)  # everything was read just now
    try:
        passed = passed_sockets(os.environ)
        if passed:
            tcp = [sock for sock in passed if sock.family != socket.AF_UNIX]
            app[ACCESS_CONTROL].use_sockets([sock.getsockname()[0] for sock in tcp])
    except (ActivationError, ConfigError) as exc:
        log.error("cannot listen: %s", exc)
        return EXIT_CONFIG
    runner = Runner(app, config.server)
    listeners = Listeners(runner.connect)
    watchdog = Watchdog(loop, os.environ)
    try:
        await runner.setup()
        try:
            await listeners.open(config.server, passed)
        except ConfigError as exc:
            log.error("cannot listen: %s", exc)
            return EXIT_CONFIG
        except OSError as exc:
            log.error("%s", exc.strerror)
            return 1
        where = ", ".join(listeners.places)
        if not app[ACCESS_CONTROL].access.required:
            log.warning("no token is required: anybody who reaches %s may do anything", where)
        gc.freeze()  # the garbage collector need not look at what exists by now
        first = f"port {listeners.port}" if listeners.port else listeners.places[0]
        _announce(f"Starting toolbox server on {first}\n")
        status = f"STATUS=listening on {where}"
        loop.add_signal_handler(signal.SIGHUP, _reload, path, app, status)
        notify(f"READY=1\n{status}")
        await stopping.wait()
        loop.add_signal_handler(signal.SIGHUP, lambda: None)
        notify("STOPPING=1")
    finally:
        listeners.close()
        await runner.cleanup()
        watchdog.close()
    return 0


def _reload(path: Path | None, app: web.Application, status: str) -> None:
    notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
    problems = reload_app(app)
    try:
        config = load(path, os.environ, again=True)
    except ConfigError as exc:
        log.error("the configuration is as it was: %s", exc)
        problems.append(str(exc))
    else:
        logging.getLogger().setLevel(config.log.level.upper())
    if problems:
        status += f"; not reloaded: {' '.join('; '.join(problems).split())}"
    notify(f"READY=1\n{status}")


def _announce(line: str) -> None:
    """Write the line that a runner waits for; `sys.stdout` would buffer it."""
    try:
        os.write(1, line.encode())
    except OSError as exc:
        log.warning("can't write to standard output: %s", exc.strerror)
