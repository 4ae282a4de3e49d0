"""The group of procd's subcommands; each is imported only when it is used."""

import contextlib
import gc
import os
import signal
import sys
from importlib import import_module
from typing import Any, Final, NoReturn

import click

from procd import __version__
from procd.cli.failure import EXIT_FAILURE, Failure
from procd.cli.stdio import STDERR, STDOUT, open_standard

# Where each command is, and its line in `procd --help`.
COMMANDS: Final = {
    "exec": ("procd.cli.exec:command", "Run a command, as if it ran here."),
    "attach": ("procd.cli.attach:command", "Use a terminal of the server in this one."),
    "run": ("procd.cli.run:command", "Run a program of this machine on the server."),
    "python": ("procd.cli.python:command", "Use a Python context of the server."),
    "ps": ("procd.cli.ps:command", "List terminals, sessions and contexts."),
    "sessions": ("procd.cli.sessions:command", "List the commands of shell sessions."),
    "logs": ("procd.cli.logs:command", "Show or follow the output of a session's command."),
    "input": ("procd.cli.input:command", "Type into a session's command."),
    "kill": ("procd.cli.kill:command", "End a terminal, a session, a context or a command."),
    "record": ("procd.cli.record:command", "Record what a terminal shows."),
    "play": ("procd.cli.play:command", "Play a recording."),
    "doctor": ("procd.doctor:command", "Check whether this machine is fit for `procd serve`."),
    "completion": ("procd.cli.commands:completion", "Make a shell complete procd's commands."),
    "serve": ("procd.server:serve", "Serve the Process API."),
    "token": ("procd.token:command", "Make an access token."),
}

# Switches zsh's completion on, if the user's own files don't.
ZSH_COMPLETION: Final = "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i }\n"
# Replaces click's, which inserts names unquoted: others choose names, and bash would run what is in
# them. Within open quotes a name that needs quoting isn't offered.
# Source: bash(1), "Programmable Completion".
BASH_COMPLETION: Final = r"""_procd_completion() {
    local line name
    COMPREPLY=()
    while IFS= read -r line; do
        printf -v name %q "${line#*,}"
        case $line in
            dir,*) compopt -o dirnames ;;
            file,*) compopt -o default ;;
            plain,"$name") COMPREPLY+=("$name") ;;
            plain,*) [[ ${COMP_WORDS[COMP_CWORD]} == *[\'\"]* ]] || COMPREPLY+=("$name") ;;
        esac
    done < <(
        IFS=$'\n'
        COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD _PROCD_COMPLETE=bash_complete "$1"
    )
}
complete -o nosort -F _procd_completion procd
"""


class Commands(click.Group):
    """Imports a subcommand when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), name)
        gc.freeze()  # the garbage collector need not look at what is imported
        gc.enable()
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in COMMANDS.items()])

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command, and report its failure in one sentence."""
        try:
            open_standard()
            return super().main(*args, **kwargs)
        except Failure as exc:
            _fail(str(exc), EXIT_FAILURE if exc.code is None else exc.code)
        except OSError as exc:
            what = exc.filename or "can't write the output"
            _fail(f"{what}: {exc.strerror}", EXIT_FAILURE)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; end silently after a signal, as other programs do."""
        try:
            if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # set by `main`
                signal.signal(signal.SIGINT, signal.default_int_handler)
            return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.exit(128 + signal.SIGINT)
        except BrokenPipeError:
            _discard_output()
            sys.exit(128 + signal.SIGPIPE)


def _fail(message: str, code: int) -> NoReturn:
    with contextlib.suppress(OSError):  # standard error may be closed or full
        click.echo(f"procd: {message}", err=True)
    _discard_output()
    sys.exit(code)


def _discard_output() -> None:
    # Else Python would write it again at its end, and complain. Source: the documentation of the
    # module signal, "Note on SIGPIPE".
    with contextlib.suppress(OSError):  # there may be no /dev/null
        null = os.open(os.devnull, os.O_WRONLY)
        for descriptor in (STDOUT, STDERR):
            os.dup2(null, descriptor)


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
    help="File with the access token. There is no option for the token itself, because every"
    " process of the machine can read the arguments of every other.",
)
def procd(url: str | None, token_file: str | None) -> None:
    """Run and manage the processes of a sandbox.

    Every command except `serve`, `token`, `play`, `doctor` and `completion` talks to a server. The
    options here say which one, and with which token; else the variables PROCD_URL and PROCD_TOKEN
    or PROCD_TOKEN_FILE do; else ~/.config/procd/client.toml (or the file that PROCD_CLIENT_CONFIG
    names), which may set url, and token or token_file for that url.
    """


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, *, shell: str) -> None:
    """Print a script that makes a shell complete procd's commands, options and names.

    \b
    Examples:
      procd completion bash >> ~/.bashrc
      procd completion zsh >> ~/.zshrc
      procd completion fish > ~/.config/fish/completions/procd.fish
    """
    if shell == "bash":
        click.echo(BASH_COMPLETION, nl=False)
        return
    from click.shell_completion import get_completion_class  # only needed here

    found = get_completion_class(shell)
    assert found is not None
    source = found(ctx.find_root().command, {}, "procd", "_PROCD_COMPLETE").source()
    if shell == "zsh":
        tag, newline, rest = source.partition("\n")  # the tag has to be the first line
        source = tag + newline + ZSH_COMPLETION + rest
    click.echo(source)
