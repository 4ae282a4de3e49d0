"""procd run."""

import base64
import sys
from pathlib import Path
from typing import IO, Any, Final

import click

from procd.cli.client import Client
from procd.cli.execution import EXIT_TIMEOUT
from procd.cli.failure import Failure, Refused
from procd.cli.images import shown
from procd.cli.io import STDIN, read_stdin
from procd.cli.options import as_json, cwd_option, env_option, environment, pass_target
from procd.cli.progress import Progress
from procd.cli.tables import show_json
from procd.cli.target import Target

LANGUAGES: Final = {
    ".py": "python", ".js": "javascript", ".cjs": "javascript", ".mjs": "javascript",
    ".ts": "typescript",
}  # fmt: skip
TIMED_OUT: Final = 408


@click.command("run", context_settings={"allow_interspersed_args": False})
@cwd_option
@env_option
@click.option(
    "--timeout",
    "-t",
    "timeout_s",
    type=click.IntRange(min=1),
    metavar="SECONDS",
    help="End the program, and exit with 124, after this time.",
)
@click.option(
    "--language",
    type=click.Choice(sorted(set(LANGUAGES.values()))),
    help="What FILE is in, if its name doesn't say.",
)
@click.option(
    "--charts",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Save charts as PNG files in this directory.",
)
@as_json
@click.argument("file", type=click.File("r", encoding="utf-8"), metavar="FILE")
@click.argument("arguments", nargs=-1, metavar="[ARGS]...")
@pass_target
def command(
    target: Target,
    *,
    cwd: str,
    envs: tuple[str, ...],
    timeout_s: int | None,
    language: str | None,
    charts: Path | None,
    as_json: bool,
    file: IO[str],
    arguments: tuple[str, ...],
) -> None:
    """Run a program that is on this machine, on the server; `-` is standard input.

    Its output is shown when it has ended, and its exit code becomes this one's. Charts of
    matplotlib are shown if the terminal can show pictures. Ctrl-C ends it.

    \b
    Examples:
      procd run plot.py --title Sales
      procd run --charts out plot.py
      echo 'print(6 * 7)' | procd run --language python -
    """
    language = language or LANGUAGES.get(Path(file.name).suffix)
    if language is None:
        raise Failure(f"{file.name}: can't tell what language it is in", "say it with --language")
    code = _code(file)
    # The server takes an empty program for none.
    body: dict[str, Any] = {"code": code or "\n", "language": language, "argv": list(arguments)}
    body |= {"envs": environment(envs), "timeout": timeout_s}
    body |= {"cwd": cwd} if cwd else {}
    timed_out = False
    try:
        result = _run(target, body, file.name)
        exit_code = result["exitCode"]
    except Refused as exc:
        if exc.status != TIMED_OUT:
            raise
        result, exit_code, timed_out = exc.content, EXIT_TIMEOUT, True
    if as_json:
        show_json(result)
        sys.exit(exit_code)
    click.echo(result.get("result", ""), nl=False)
    for number, chart in enumerate((result.get("artifacts") or {}).get("charts") or [], 1):
        if png := chart.get("png"):
            _show(png, chart.get("title") or "", number, charts)
    if timed_out and timeout_s is not None:
        click.echo(f"procd: {file.name} was ended after {timeout_s} s", err=True)
    sys.exit(exit_code)


def _code(file: IO[str]) -> str:
    try:
        if file.fileno() == STDIN:
            return read_stdin().decode()
        text: str = file.read()
    except UnicodeDecodeError as exc:
        raise Failure(f"{file.name}: not UTF-8") from exc
    except OSError as exc:
        raise Failure(f"{file.name}: {exc.strerror}") from exc
    return text


def _run(target: Target, body: dict[str, Any], name: str) -> Any:
    # To leave ends the program.
    with Progress(f"running {name}"), Client(target) as client:
        shape = {"exitCode": int}
        return client.call("POST", "/process/code-run", body, shape=shape, within_s=None)


def _show(png: str, title: str, number: int, charts: Path | None) -> None:
    if charts is None:
        click.echo(shown(png, title), nl=False)
        return
    path = charts / f"chart-{number}.png"
    try:
        charts.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(png))
    except OSError as exc:
        raise Failure(f"{path}: {exc.strerror}") from exc
    click.echo(str(path))
