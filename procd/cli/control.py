"""procd input and procd kill."""

import binascii
import os
import stat
from collections.abc import Mapping
from typing import Final

import click

from procd.cli.client import CONTEXT, PTY, SESSION, Client
from procd.cli.failure import Failure, Refused
from procd.cli.http import quoted
from procd.cli.ids import (
    CONTEXTS,
    command_path,
    complete_anything,
    complete_command,
    complete_session,
    optional_command,
)
from procd.cli.io import PIECE_BYTES, STDIN, read_stdin
from procd.cli.options import not_empty, pass_target
from procd.cli.progress import ASKING, Progress
from procd.cli.target import Target

KINDS: Final = {"terminal": PTY, "session": SESSION, "context": CONTEXT}
KILL_S: Final = 60.0


@click.command("input")
@click.option("--eof", is_flag=True, help="Close the command's input, after TEXT if there is one.")
@click.argument("session", callback=not_empty, shell_complete=complete_session)
@click.argument(
    "command_id", metavar="COMMAND", callback=not_empty, shell_complete=complete_command
)
@click.argument("text", required=False)
@pass_target
def send(target: Target, *, eof: bool, session: str, command_id: str, text: str | None) -> None:
    """Type into a command of a session: the line TEXT, or exactly what standard input brings.

    An empty TEXT is an empty line. `-` is standard input, which --eof without it doesn't read.

    \b
    Examples:
      procd input build 02f66be6 yes
      procd input build 02f66be6 --eof
      procd input build 02f66be6 < answers.txt
      procd input --eof build 02f66be6 - < answers.txt
    """
    reads = text == "-" or (text is None and not eof)
    if text is None and eof and _file_is_given():
        raise click.UsageError("--eof alone doesn't read standard input: give `-`, too")
    with Client(target) as client:
        with Progress(ASKING):
            path = command_path(client, session, command_id) + "/input"
        if reads:
            text = None
            while data := read_stdin(PIECE_BYTES):
                coded = binascii.b2a_base64(data, newline=False).decode()
                _type(client, path, {"dataBase64": coded})
        if eof or not reads:
            line = "" if text is None else text.removesuffix("\n") + "\n"
            _type(client, path, {"data": line, "eof": eof})


def _file_is_given() -> bool:
    """Whether standard input is a file that nobody has read from: not one that a loop reads."""
    try:
        status = os.fstat(STDIN)
        return (
            stat.S_ISREG(status.st_mode)
            and status.st_size > 0
            and os.lseek(STDIN, 0, os.SEEK_CUR) == 0
        )
    except OSError:
        return False  # there is none


def _type(client: Client, path: str, body: Mapping[str, object]) -> None:
    with Progress("waiting for the command to read"):
        client.call("POST", path, body, within_s=None)


@click.command("kill")
@click.option(
    "--signal",
    "-s",
    "signal_name",
    metavar="NAME",
    help="Only send this signal, like INT or SIGUSR1, to what COMMAND has started.",
)
@click.option(
    "--kind", type=click.Choice(list(KINDS)), help="What ID is, if there are several of that name."
)
@click.argument("name", metavar="ID", callback=not_empty, shell_complete=complete_anything)
@optional_command
@pass_target
def kill(
    target: Target,
    *,
    signal_name: str | None,
    kind: str | None,
    name: str,
    command_id: str | None,
) -> None:
    """End a terminal, a session or a context, with all that runs in it; or one command.

    COMMAND is a command of the session ID: it is ended and the session kept.

    \b
    Examples:
      procd kill work
      procd kill build 02f66be6
      procd kill --signal INT build 02f66be6
    """
    if signal_name is not None and command_id is None:
        raise click.UsageError("--signal needs a COMMAND of a session")
    with Progress(f"ending {name}"), Client(target) as client:
        if command_id is None:
            _end(client, name, kind)
            return
        path = command_path(client, name, command_id)
        if signal_name is None:
            client.call("POST", f"{path}/terminate", within_s=KILL_S)
        else:
            client.call("POST", f"{path}/signal", {"signal": signal_name})


def _end(client: Client, name: str, kind: str | None) -> None:
    kinds = [kind] if kind is not None else _kinds(client, name)
    if not kinds:
        raise Failure(f"there is nothing named {name}", "`procd ps` lists what there is")
    if len(kinds) > 1:
        raise Failure(f"{name} is a {' and a '.join(kinds)}", "say which one with --kind")
    client.call("DELETE", f"{KINDS[kinds[0]]}/{quoted(name)}", within_s=KILL_S)


def _kinds(client: Client, name: str) -> list[str]:
    """The kinds of things that have this name."""
    kinds = []
    for kind in ("terminal", "session"):
        try:
            client.call("GET", f"{KINDS[kind]}/{quoted(name)}")
        except Refused as exc:
            if exc.status != 404:
                raise
        else:
            kinds.append(kind)
    contexts = client.call("GET", KINDS["context"], shape=CONTEXTS)["contexts"]
    return kinds + ["context"] * any(each["id"] == name for each in contexts)
