"""What `procd` can be told to do: its subcommands, each imported only when it is used."""

import contextlib
import errno
import os
import signal
import sys
from importlib import import_module
from typing import Any, Final, NoReturn

import click

from procd import __version__
from procd.cli.failure import EXIT_FAILURE, Failure
from procd.cli.io import STDERR, STDOUT, Signals, hold_standard

# Why output can't be written, though somebody would read it.
NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
# Where each command is, and what it does. The server's are its own.
COMMANDS: Final = {
    "exec": ("procd.cli.exec:command", "Run a command, as if it ran here."),
    "attach": ("procd.cli.attach:command", "Use a terminal of the server in this one."),
    "run": ("procd.cli.run:command", "Run a program of this machine on the server."),
    "python": ("procd.cli.python:command", "Use a Python context of the server."),
    "ps": ("procd.cli.ps:ps", "List terminals, sessions and contexts."),
    "sessions": ("procd.cli.ps:sessions", "List the commands of shell sessions."),
    "logs": ("procd.cli.logs:command", "Show or follow the output of a session's command."),
    "input": ("procd.cli.control:send", "Type into a session's command."),
    "kill": ("procd.cli.control:kill", "End a terminal, a session, a context or a command."),
    "record": ("procd.cli.record:command", "Record what a terminal shows."),
    "play": ("procd.cli.play:command", "Play a recording."),
    "doctor": ("procd.doctor:command", "See whether this machine is fit for `procd serve`."),
    "completion": ("procd.cli.completion:command", "Make a shell complete procd's words."),
    "serve": ("procd.server:serve", "Serve the Process API."),
    "token": ("procd.token:command", "Make an access token."),
}


class Commands(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One of them; None if there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        found: click.Command = getattr(import_module(module), name)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of them, without importing them all."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in COMMANDS.items()])

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run one; what it can't do is said in one sentence."""
        try:
            hold_standard()
            return super().main(*args, **kwargs)
        except Failure as exc:
            _end(str(exc), EXIT_FAILURE if exc.code is None else exc.code)
        except OSError as exc:
            if exc.filename is None and exc.errno not in NO_ROOM:
                raise  # of our own making
            where = exc.filename or "can't write the output"
            _end(f"{where}: {exc.strerror}", EXIT_FAILURE)

    def invoke(self, ctx: click.Context) -> Any:
        """Run one; who breaks it off is told nothing."""
        try:
            if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # see `main`
                signal.signal(signal.SIGINT, signal.default_int_handler)
            return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.exit(128 + signal.SIGINT)
        except Signals.Raised as exc:
            sys.exit(128 + exc.number)
        except BrokenPipeError:
            _drop_output()
            sys.exit(128 + signal.SIGPIPE)  # as a command of a pipe ends


def _end(message: str, code: int) -> NoReturn:
    """Say what went wrong, if there is anybody to say it to, and end."""
    with contextlib.suppress(OSError):
        click.echo(f"procd: {message}", err=True)
    _drop_output()
    sys.exit(code)


def _drop_output() -> None:
    """Let what was not written go: at its end Python would try again, and complain.

    Source: the documentation of the module signal, "Note on SIGPIPE".
    """
    with contextlib.suppress(OSError):  # there may be no /dev/null
        null = os.open(os.devnull, os.O_WRONLY)
        for number in (STDOUT, STDERR):
            os.dup2(null, number)


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="procd", message="%(prog)s, version %(version)s")
@click.option(
    "--url",
    "-u",
    metavar="URL",
    help="Server: http://HOST:PORT, https://… or unix:/PATH.  [default: http://127.0.0.1:2280]",
)
@click.option(
    "--token-file",
    metavar="FILE",
    help="File with the access token. There is no option for the token itself: every process of"
    " the machine can read the arguments of every other.",
)
def procd(url: str | None, token_file: str | None) -> None:
    """Run the processes of a sandbox, and look after them.

    Every command but `serve`, `token`, `play`, `doctor` and `completion` talks to a server. Which
    one, and with which token, is said by the options here; else by the variables PROCD_URL and
    PROCD_TOKEN or PROCD_TOKEN_FILE; else by ~/.config/procd/client.toml (or the file that
    PROCD_CLIENT_CONFIG names), which may set url, and token or token_file for that url.
    """
