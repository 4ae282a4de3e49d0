"""procd token."""

import os
import sys
from functools import partial
from pathlib import Path

import click

from procd.cli.config_option import config_option
from procd.cli.failure import EXIT_CONFIG, Failure
from procd.config import ConfigError
from procd.config_file import load
from procd.services.access import OF_VARIABLE, VARIABLE
from procd.services.tokens import NAME, SCOPES, Token, add_token, digest_of, new_secret


@click.command("token")
@click.option("--name", required=True, help="Name of the token, for logs and error messages.")
@click.option(
    "--scope",
    required=True,
    type=click.Choice(list(SCOPES)),
    help="What the token permits; each scope includes those before it.",
)
@click.option(
    "--file",
    type=click.Path(path_type=Path),
    help="Token file; if not given, auth.token_file of the configuration.",
)
@config_option
def command(name: str, scope: str, file: Path | None, path: Path | None) -> None:
    """Make a token, print it, and add its hash to the token file, which procd reads at SIGHUP.

    The token is printed only this once: the file has its hash, which is no use to its readers. To
    revoke a token, delete its line and send SIGHUP.

    \b
    Scopes:
      read   lists, logs, a terminal's output
      write  read, and to run, type, signal, resize, end
      admin  write, and /init and /env, which concern all users

    \b
    Examples:
      procd token --name ci --scope write --file /etc/procd/tokens
      procd token --name me --scope admin --config /etc/procd/config.toml > ~/.config/procd/token
    """
    if not NAME.fullmatch(name):
        raise _config_failure(
            "--name: must be up to 64 letters, digits, dots, dashes and underscores"
        )
    if name == OF_VARIABLE:
        raise _config_failure(f"--name: {name} is what the token of {VARIABLE} is called")
    secret = new_secret()
    try:
        auth = load(path, os.environ).auth
        file = file or Path(auth.token_file)
        if not file.name:
            raise _config_failure("no token file: give --file, or set auth.token_file")
        token = Token(name=name, scope=SCOPES[scope], digest=digest_of(secret))
        add_token(file, token, most=auth.max_tokens, first=partial(_print, secret))
    except ConfigError as exc:
        raise _config_failure(str(exc)) from exc


def _print(secret: str) -> None:
    if sys.stdout is None:
        raise Failure("standard output is closed: the token could not be printed")
    try:
        click.echo(secret)
    except OSError as exc:
        raise Failure(f"can't write the token: {exc.strerror}") from exc


def _config_failure(message: str) -> Failure:
    return Failure(message, code=EXIT_CONFIG)
