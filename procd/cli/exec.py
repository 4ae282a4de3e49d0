"""procd exec."""

import re
import sys
from collections.abc import Sequence
from typing import Any, Final

import click

from procd.cli.client import Client
from procd.cli.failure import EXIT_OWN, Failure
from procd.cli.options import Number, cwd_option, env_option, environment, pass_target
from procd.cli.target import Target

# Bytes of an argument that are no UTF-8, as Python shows them: PEP 383.
NOT_TEXT: Final = re.compile("[\udc80-\udcff]")
# What is something else within a format of printf, or within quotes.
SPECIAL: Final = re.compile("[\udc80-\udcff'%\\\\]")
# What starts a program, and what starts one whose name env(1) takes for something else.
ENV: Final = ("/usr/bin/env", "--")
SH: Final = ("/bin/sh", "-c", 'exec "$0" "$@"')
ODD: Final = re.compile(r"[=\s]|\A-\Z")


class _Exec(click.Command):
    """Ends with a code of its own for whatever isn't the command's end."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        try:
            return super().make_context(*args, **kwargs)
        except click.UsageError as exc:
            exc.show()
            sys.exit(EXIT_OWN)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Failure as exc:
            exc.code = EXIT_OWN if exc.code is None else exc.code
            raise


@click.command("exec", cls=_Exec, context_settings={"allow_interspersed_args": False})
@cwd_option
@env_option
@click.option(
    "--timeout",
    "-t",
    "timeout_s",
    type=Number(min=0, min_open=True),
    metavar="SECONDS",
    help="End the command, and exit with 124, after this time.",
)
@click.option("--no-stdin", "-n", is_flag=True, help="Give the command no input at all.")
@click.option(
    "--shell",
    "-s",
    "shell",
    is_flag=True,
    help="CMD is a script for the server's shell, with pipes, patterns and variables.",
)
@click.argument("command", nargs=-1, required=True, metavar="[--] CMD [ARGS]...")
@pass_target
def command(
    target: Target,
    *,
    cwd: str,
    envs: tuple[str, ...],
    timeout_s: float | None,
    no_stdin: bool,
    shell: bool,
    command: tuple[str, ...],
) -> None:
    """Run a command on the server as if it ran here.

    Its output arrives as it is written, standard output and standard error apart; standard input is
    passed on, byte for byte; its exit code becomes this one's. No shell reads the arguments, unless
    --shell is given. A connection that is lost is taken up where it broke off.

    Ctrl-C sends SIGINT to all that the command has started, and ends what is left after two
    seconds. A second Ctrl-C ends all at once, and waits for nobody; SIGTERM, SIGHUP and SIGQUIT
    end all, too. What the command has started in the background ends with it.

    \b
    Exit codes of its own:
      124  the time of --timeout is over
      125  the command could not be run, or its end or some of its output is not known
      130  Ctrl-C

    \b
    Examples:
      procd exec -- ls -l /tmp
      procd exec --cwd /src --env CI=1 -- make test
      tar c . | procd exec -- tar x -C /srv
      procd exec --shell 'dmesg | tail -n 3'
    """
    from procd.cli.execution import Execution

    script = " ".join(command) if shell else script_of(command)
    if NOT_TEXT.search(script):
        raise Failure("the script is not UTF-8", "have the shell's printf make such bytes")
    with Client(target) as client:
        code = Execution(
            client,
            script,
            cwd=cwd,
            envs=environment(envs),
            timeout_s=timeout_s,
            reads_stdin=not no_stdin,
        ).run()
    sys.exit(code)


def script_of(arguments: Sequence[str]) -> str:
    """A line for any shell that runs exactly these arguments.

    Every word is quoted: none is a pattern, an assignment, an alias or a keyword. Another program
    starts the command, or else it would be the shell's builtin of that name. What the shell has to
    say of the command's end, such as "Killed", goes nowhere: the exit code says it. For that the
    command's own standard error is set in a subshell: dash and ash would set it for themselves, and
    keep it until the command has ended. The colon keeps dash from taking the subshell for all there
    is, and both redirections for one.

    Source: env(1): a name with `=` in it is an assignment, `-` an option, and for one with a space
    it has advice on its own options.
    """
    starter = SH if ODD.search(arguments[0]) else ENV
    words = " ".join(map(_quoted, (*starter, *arguments)))
    return f"{{ :; (exec {words} 2>&3 3>&-); }} 3>&2 2>/dev/null"


def _quoted(word: str) -> str:
    """The word for any shell; bytes that are no text, which JSON can't show, its printf makes.

    One for the whole word: shells fork for each, and some can't have thousands in one word.
    """
    if NOT_TEXT.search(word) is None:
        return "'" + word.replace("'", "'\\''") + "'"
    body = word.rstrip("\n")  # what ends a line at its end is lost in a substitution
    form = SPECIAL.sub(lambda found: "%%" if found[0] == "%" else _octal(found[0]), body)
    if form.startswith("-"):
        form = _octal("-") + form[1:]
    return f"\"$(printf '{form}')\"'{word[len(body) :]}'"


def _octal(character: str) -> str:
    """The escape that stands for a character of one byte, or for a byte that is no text."""
    return f"\\{ord(character) & 0xFF:03o}"
