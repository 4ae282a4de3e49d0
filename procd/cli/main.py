"""The command `procd`: its subcommands, each imported only when it is used."""

import sys
from importlib import import_module
from typing import Any, Final

import click

from procd import __version__
from procd.cli.failure import Failure

# Where each command is, and what it does. The server's are its own.
COMMANDS: Final = {
    "exec": ("procd.cli.exec:command", "Run a command, as if it ran here."),
    "attach": ("procd.cli.attach:command", "Use a terminal of the server in this one."),
    "run": ("procd.cli.run:command", "Run a program of this machine on the server."),
    "python": ("procd.cli.python:command", "Use a Python context of the server."),
    "ps": ("procd.cli.lists:ps", "List terminals, sessions and contexts."),
    "sessions": ("procd.cli.lists:sessions", "List the commands of shell sessions."),
    "logs": ("procd.cli.logs:command", "Show or follow the output of a session's command."),
    "input": ("procd.cli.control:send", "Type into a session's command."),
    "kill": ("procd.cli.control:kill", "End a terminal, a session, a context or a command."),
    "record": ("procd.cli.record:command", "Record what a terminal shows."),
    "play": ("procd.cli.play:command", "Play a recording."),
    "doctor": ("procd.cli.doctor:command", "See whether this machine is fit for `procd serve`."),
    "completion": ("procd.cli.completion:command", "Make a shell complete procd's words."),
    "serve": ("procd.__main__:serve", "Serve the Process API."),
    "token": ("procd.__main__:token", "Make an access token."),
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

    def invoke(self, ctx: click.Context) -> Any:
        """Run one; what it can't do is said in one sentence."""
        try:
            return super().invoke(ctx)
        except Failure as exc:
            click.echo(f"procd: {exc}", err=True)
            sys.exit(exc.code)
        except KeyboardInterrupt:
            sys.exit(130)


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
def main(url: str | None, token_file: str | None) -> None:
    """Run the processes of a sandbox, and look after them.

    Every command but `serve`, `token`, `play` and `doctor` talks to a server. Which one, and with
    which token, is said by the options here; else by the variables PROCD_URL and PROCD_TOKEN or
    PROCD_TOKEN_FILE; else by ~/.config/procd/client.toml (or the file that PROCD_CLIENT_CONFIG
    names), which may set url, and token or token_file for that url.
    """
