"""procd python. Source: Process API contract, section 11.2; docs/api.md for `display`."""

import ast
import codeop
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from procd.cli.display import ASKING, Progress, picture
from procd.cli.failure import Failure, Refused
from procd.cli.options import Name, pass_client
from procd.cli.signals import ENDING, Signals
from procd.cli.stdio import STDERR, STDIN, STDOUT, read_stdin, use_colours, write_all
from procd.cli.transport import CONTEXT, Client, quoted
from procd.cli.websocket import wait

# Type of the result that holds the exit code of a SystemExit.
EXIT_TYPE: Final = "application/vnd.procd.exit+json"


@click.command("python")
@click.option(
    "--context", "-c", "context_id", metavar="ID", type=Name(CONTEXT), help="Use this context."
)
@click.option("--cwd", "-C", default="", metavar="DIR", help="Working directory of a new context.")
@click.option("--keep", is_flag=True, help="Keep the new context, and print its id.")
@pass_client
def command(client: Client, *, context_id: str | None, cwd: str, keep: bool) -> None:
    """Use a Python context of the server like python3.

    Values of expressions are shown, and pictures too if the terminal can show them. Ctrl-C
    interrupts what runs, Ctrl-D and exit() leave. A new context ends then, unless --keep is given.
    Code that comes by a pipe is run as one piece.

    \b
    Examples:
      procd python
      procd python --context 49d6…
      echo 'print(6 * 7)' | procd python
    """
    with Signals(ENDING[1:], raising=True) as signals:
        with Progress("starting a context"):
            context = Context(client, context_id, cwd)
        try:
            if os.isatty(STDIN):
                _converse(context)
            elif not context.run(_read_program()):
                sys.exit(1)
        finally:
            signals.raising = True  # a second signal doesn't wait for the deletion
            if keep:
                click.echo(f"[context kept: procd python --context {context.id}]", err=True)
            elif context_id is None:
                context.delete()


def _read_program() -> str:
    try:
        code = read_stdin().decode("utf-8-sig")  # as Python itself reads a program
    except UnicodeDecodeError as exc:
        raise Failure("standard input: not UTF-8") from exc
    return code or "\n"  # the server refuses an empty program


def _converse(context: "Context") -> None:
    import readline  # also lets input() edit lines

    history = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state") / "procd/python_history"
    history = history.expanduser()
    readline.set_history_length(10_000)
    with contextlib.suppress(OSError):  # there is none yet
        readline.read_history_file(history)
    click.echo(f"Python context {context.id}: Ctrl-D leaves", err=True)
    try:
        while (code := _read_code()) is not None:
            try:
                context.run(code)
            except Failure as exc:
                click.echo(f"procd: {exc}", err=True)
            except KeyboardInterrupt:  # before the code has begun to run
                click.echo("KeyboardInterrupt", err=True)
    finally:
        try:
            history.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            history.touch(mode=0o600)
            readline.write_history_file(history)
        except OSError as exc:
            click.echo(f"procd: {history}: {exc.strerror}", err=True)


def _read_code() -> str | None:
    """Read lines until they are a complete piece of code; None at the end of input."""
    compiler = codeop.CommandCompiler()
    compiler.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    lines: list[str] = []
    while True:
        try:
            lines.append(input("... " if lines else ">>> "))
        except EOFError:
            click.echo()
            return None
        except KeyboardInterrupt:
            click.echo("\nKeyboardInterrupt")
            lines = []
            continue
        code = "\n".join(lines)
        try:
            if not code.strip():
                lines = []
            elif compiler(code) is not None:
                return code
        except (SyntaxError, ValueError, OverflowError):
            return code  # the server reports the error


class Context:
    """A Python context of the server: an existing one, or for None a new one in `cwd`."""

    def __init__(self, client: Client, context_id: str | None, cwd: str) -> None:
        self._client = client
        if context_id is None:
            reply = client.call("POST", CONTEXT, {"cwd": cwd}, within_s=60, returns=dict)
            context_id = reply["id"]
        self.id: str = context_id

    def delete(self) -> None:
        self._client.call("DELETE", f"{CONTEXT}/{quoted(self.id)}")

    def run(self, code: str) -> bool:
        """Run code and show its output and results; returns whether it raised nothing.

        Ctrl-C interrupts the code; a second one, if the server doesn't answer the first, is raised.
        """
        request = {"code": code, "contextId": self.id, "timeout": 0, "display": True}
        succeeded = True
        exit_code: int | None = None
        with Progress(ASKING):
            websocket = self._client.websocket("/process/interpreter/execute")
        with Signals([signal.SIGINT]) as signals:
            try:
                websocket.send(json.dumps(request).encode())
                while websocket.closed is None:
                    wait(websocket, (signals.fileno(),))
                    if signals.take():
                        self._interrupt()
                    for message in websocket.receive():
                        frame = json.loads(message.payload)
                        exit_code = frame.get("data", {}).get(EXIT_TYPE, exit_code)
                        succeeded &= _show(frame)
            finally:
                websocket.close()
        if websocket.closed.code != 1000:
            raise Failure(websocket.closed.reason or f"broken off ({websocket.closed.code})")
        if exit_code is not None:
            raise SystemExit(exit_code)
        return succeeded

    def _interrupt(self) -> None:
        try:
            path = f"{CONTEXT}/{quoted(self.id)}/interrupt"
            self._client.call("POST", path, within_s=5)
        except Refused:
            return  # the code has just ended


def _show(frame: Mapping[str, Any]) -> bool:
    """Show a frame of a cell; returns whether it is no error."""
    match frame["type"]:
        case "stdout":
            write_all(STDOUT, frame["text"].encode(errors="replace"))
        case "stderr":
            write_all(STDERR, frame["text"].encode(errors="replace"))
        case "result" if EXIT_TYPE not in frame["data"]:
            write_all(STDOUT, _result(frame["data"]).encode(errors="replace"))
        case "error":
            text = frame["traceback"].rstrip() or f"{frame['name']}: {frame['value']}"
            click.echo(click.style(text, fg="red") if use_colours(STDERR) else text, err=True)
            return False
        case _:
            pass  # its end, which the Close tells as well
    return True


def _result(data: Mapping[str, Any]) -> str:
    if isinstance(png := data.get("image/png"), str):
        return picture(png, str(data.get("text/plain", "")))
    if isinstance(text := data.get("text/plain"), str):
        return text + "\n"
    return f"[result: {', '.join(data)}]\n"
