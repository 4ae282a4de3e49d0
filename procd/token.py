"""procd token."""

import os
import sys
from functools import partial
from pathlib import Path

import click

from procd.cli.failure import EXIT_CONFIG, Failure
from procd.config import ConfigError
from procd.config_file import load
from procd.services import token_file as tokenfile
from procd.services.access import NAME, Token, digest_of, new_secret
from procd.services.credentials import OF_VARIABLE, VARIABLE


@click.command("token")
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
    "--config", "path", type=click.Path(path_type=Path), envvar="PROCD_CONFIG", show_envvar=True,
    help="TOML file.",
)  # fmt: skip
def command(name: str, scope: str, file: Path | None, path: Path | None) -> None:
    """Make a token, print it, and add its hash to the token file; SIGHUP has procd read that.

    The token is printed this once: the file has only its hash, which nobody who reads it can use.
    To take a token back, delete its line and send SIGHUP.

    \b
    Scopes:
      read   lists, logs, a terminal's output
      write  that, and to run, type, signal, resize, end
      admin  that, and /init and /env, which hold for everybody

    \b
    Examples:
      procd token --name ci --scope write --file /etc/procd/tokens
      procd token --name me --scope admin --config /etc/procd/config.toml > ~/.config/procd/token
    """
    if not NAME.fullmatch(name):
        raise _bad("--name: must be up to 64 letters, digits, dots, dashes and underscores")
    if name == OF_VARIABLE:
        raise _bad(f"--name: {name} is what the token of {VARIABLE} is called")
    secret = new_secret()
    try:
        auth = load(path, os.environ).auth
        file = file or Path(auth.token_file)
        if not file.name:
            raise _bad("no token file: give --file, or set auth.token_file")
        token = Token(name=name, scope=tokenfile.SCOPES[scope], digest=digest_of(secret))
        tokenfile.add(file, token, most=auth.max_tokens, first=partial(_tell, secret))
    except ConfigError as exc:
        raise _bad(str(exc)) from exc


def _tell(secret: str) -> None:
    if sys.stdout is None:
        raise Failure("standard output is closed: nobody would read the token")
    try:
        click.echo(secret)
    except OSError as exc:
        raise Failure(f"can't write the token: {exc.strerror}") from exc


def _bad(message: str) -> Failure:
    return Failure(message, code=EXIT_CONFIG)
