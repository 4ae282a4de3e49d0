"""procd input: type into a command of a session."""

import binascii
import os
import stat
from collections.abc import Mapping

import click

from procd.cli.display import ASKING, Progress
from procd.cli.options import (
    Name,
    command_path,
    pass_client,
    session_argument,
)  # fmt: skip
from procd.cli.stdio import READ_BYTES, STDIN, read_stdin
from procd.cli.transport import Client


@click.command("input")
@click.option("--eof", is_flag=True, help="Close the command's input, after TEXT if there is one.")
@session_argument
@click.argument("command_id", metavar="COMMAND", type=Name())
@click.argument("text", required=False)
@pass_client
def command(client: Client, *, eof: bool, session: str, command_id: str, text: str | None) -> None:
    """Type into a command of a session: the line TEXT, or exactly what standard input brings.

    An empty TEXT is an empty line. `-` is standard input, which --eof without it doesn't read.

    \b
    Examples:
      procd input build 02f66be6 yes
      procd input build 02f66be6 --eof
      procd input build 02f66be6 < answers.txt
      procd input --eof build 02f66be6 - < answers.txt
    """
    reads_stdin = text == "-" or (text is None and not eof)
    if text is None and eof and _stdin_is_unread_file():
        raise click.UsageError("--eof alone doesn't read standard input: give `-`, too")
    with Progress(ASKING):
        path = command_path(client, session, command_id) + "/input"
    if reads_stdin:
        text = None
        while data := read_stdin(READ_BYTES):
            coded = binascii.b2a_base64(data, newline=False).decode()
            _type(client, path, {"dataBase64": coded})
    if eof or not reads_stdin:
        line = "" if text is None else text.removesuffix("\n") + "\n"
        _type(client, path, {"data": line, "eof": eof})


def _stdin_is_unread_file() -> bool:
    """Whether standard input was redirected for this command; not for a loop that reads it."""
    try:
        status = os.fstat(STDIN)
        is_file = stat.S_ISREG(status.st_mode) and status.st_size > 0
        return is_file and os.lseek(STDIN, 0, os.SEEK_CUR) == 0
    except OSError:
        return False


def _type(client: Client, path: str, body: Mapping[str, object]) -> None:
    with Progress("waiting for the command to read"):
        client.call("POST", path, body, within_s=None)
