"""procd python."""

import ast
import codeop
import os
import signal
import sys
from pathlib import Path
from typing import Final

import click

from procd.cli.cells import Context
from procd.cli.client import Client
from procd.cli.failure import Failure
from procd.cli.ids import complete_context
from procd.cli.io import ENDING, STDIN, Signals, read_stdin
from procd.cli.options import not_empty, pass_target
from procd.cli.progress import Progress
from procd.cli.target import Target

MAX_HISTORY_LINES: Final = 10_000
# How long a signal may go unheard while a line is typed.
HEAR_S: Final = 0.5


@click.command("python")
@click.option(
    "--context",
    "-c",
    "context_id",
    metavar="ID",
    callback=not_empty,
    shell_complete=complete_context,
    help="Use this context.",
)
@click.option("--cwd", "-C", default="", metavar="DIR", help="Working directory of a new context.")
@click.option("--keep", is_flag=True, help="Keep the new context, and print its id.")
@pass_target
def command(target: Target, *, context_id: str | None, cwd: str, keep: bool) -> None:
    """Use a Python context of the server, as one would use python3.

    Values of expressions are shown, and pictures too if the terminal can show them. Ctrl-C
    interrupts what runs, Ctrl-D and exit() leave. A new context ends with it, unless --keep is
    given. Code that comes by a pipe is run as one piece.

    \b
    Examples:
      procd python
      procd python --context 49d6…
      echo 'print(6 * 7)' | procd python
    """
    with Signals(ENDING[1:], ending=ENDING, raising=True) as signals, Client(target) as client:
        with Progress("starting a context"):
            context = Context(client, context_id, cwd)
        try:
            if os.isatty(STDIN):
                _converse(context)
            elif not context.run(_piped()):
                sys.exit(1)
        finally:
            signals.raising = True  # for who can't wait for that either
            if keep:
                click.echo(f"[context kept: procd python --context {context.id}]", err=True)
            elif context_id is None:
                context.delete()


def _piped() -> str:
    try:
        code = read_stdin().decode("utf-8-sig")  # as Python itself reads a program
    except UnicodeDecodeError as exc:
        raise Failure("standard input: not UTF-8") from exc
    return code or "\n"  # the server takes no code for none


def _converse(context: Context) -> None:
    history = _History()
    compiler = codeop.CommandCompiler()
    compiler.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    click.echo(f"Python context {context.id}: Ctrl-D leaves", err=True)
    try:
        lines: list[str] = []
        while True:
            try:
                lines.append(_asked("... " if lines else ">>> "))
            except EOFError:
                click.echo()
                return
            except KeyboardInterrupt:
                click.echo("\nKeyboardInterrupt")
                lines = []
                continue
            code = "\n".join(lines)
            if code.strip() and _incomplete(compiler, code):
                continue
            lines = []
            if code.strip():
                try:
                    context.run(code)
                except Failure as exc:
                    click.echo(f"procd: {exc}", err=True)
                except KeyboardInterrupt:  # before the server has heard of it
                    click.echo("KeyboardInterrupt", err=True)
    finally:
        history.save()


def _asked(prompt: str) -> str:
    """A line that is typed.

    A signal that comes just before readline waits would be heard at the next key: a timer ends that
    wait again and again. Source: CPython, Modules/readline.c, readline_until_enter_or_signal.
    """
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, HEAR_S, HEAR_S)
    try:
        return input(prompt)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _incomplete(compiler: codeop.CommandCompiler, code: str) -> bool:
    """Whether more lines are to come; what is wrong with code is for the server to say."""
    try:
        return compiler(code) is None
    except (SyntaxError, ValueError, OverflowError):
        return False


class _History:
    """What was typed, in a file between the uses. Source: XDG Base Directory Specification."""

    def __init__(self) -> None:
        import readline  # also gives input() its editing

        self._readline = readline
        base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
        self._path = Path(base).expanduser() / "procd" / "python_history"
        readline.set_history_length(MAX_HISTORY_LINES)
        try:
            readline.read_history_file(self._path)
        except OSError:
            return  # there is none yet

    def save(self) -> None:
        """Write it, readable for nobody else."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._path.touch(mode=0o600)
            self._readline.write_history_file(self._path)
        except OSError as exc:
            click.echo(f"procd: {self._path}: {exc.strerror}", err=True)
