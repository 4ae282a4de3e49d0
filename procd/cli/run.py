"""procd run."""

import base64
import sys
from pathlib import Path
from typing import IO, Any, Final

import click

from procd.cli.display import Progress, picture, show_json
from procd.cli.failure import EXIT_TIMEOUT, Failure, Refused
from procd.cli.options import as_json, cwd_option, env_option, environment, pass_client
from procd.cli.stdio import STDIN, read_stdin
from procd.cli.transport import Client

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
    help="End the program after this time, and exit with 124.",
)
@click.option(
    "--language",
    type=click.Choice(sorted(set(LANGUAGES.values()))),
    help="Language of FILE, if its name doesn't say.",
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
@pass_client
def command(
    client: Client,
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
    """Run a program of this machine on the server; `-` is standard input.

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
    body: dict[str, Any] = {
        "code": _read(file) or "\n",  # the server refuses an empty program
        "language": language,
        "argv": list(arguments),
        "envs": environment(envs),
        "timeout": timeout_s,
    }
    body |= {"cwd": cwd} if cwd else {}
    timed_out = False
    path = "/process/code-run"
    try:
        with Progress(f"running {file.name}"):  # to close the connection ends the program
            result = client.call("POST", path, body, within_s=None, returns=dict)
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
            _show_chart(png, chart.get("title") or "", number, charts)
    if timed_out and timeout_s is not None:
        click.echo(f"procd: {file.name} was ended after {timeout_s} s", err=True)
    sys.exit(exit_code)


def _read(file: IO[str]) -> str:
    try:
        return read_stdin().decode() if file.fileno() == STDIN else file.read()
    except UnicodeDecodeError as exc:
        raise Failure(f"{file.name}: not UTF-8") from exc
    except OSError as exc:
        raise Failure(f"{file.name}: {exc.strerror}") from exc


def _show_chart(png: str, title: str, number: int, charts: Path | None) -> None:
    if charts is None:
        click.echo(picture(png, title), nl=False)
        return
    path = charts / f"chart-{number}.png"
    try:
        charts.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(png))
    except OSError as exc:
        raise Failure(f"{path}: {exc.strerror}") from exc
    click.echo(str(path))
