"""procd sessions, procd logs and procd input: the commands of shell sessions."""

import binascii
import os
import select
import stat
from collections.abc import Mapping
from typing import Any, Final

import click

from procd.cli.display import ASKING, Progress, age, show_json, show_table
from procd.cli.failure import Unreachable
from procd.cli.options import (
    Name,
    as_json,
    command_path,
    optional_command,
    pass_client,
    session_argument,
)  # fmt: skip
from procd.cli.output_stream import LOST_S, RETRY_S, LogStream, Reconnect
from procd.cli.stdio import READ_BYTES, STDERR, STDIN, read_stdin, use_colours, write_all
from procd.cli.transport import SESSION, Client
from procd.cli.websocket import wait

RED: Final = b"\x1b[31m"
DEFAULT_COLOUR: Final = b"\x1b[39m"


@click.command("sessions")
@as_json
@pass_client
def sessions(client: Client, *, as_json: bool) -> None:
    """List the commands of shell sessions, oldest first.

    `procd logs SESSION COMMAND` shows their output; the beginning of an id is enough.

    \b
    Examples:
      procd sessions
      procd sessions --json | jq -r '.[] | select(.ended) | .sessionId'
    """
    with Progress(ASKING):
        sessions = client.call("GET", SESSION, returns=list)
    if as_json:
        show_json(sessions)
        return
    rows = []
    for session in sessions:
        name = session["sessionId"]
        if not session["commands"]:
            rows.append([name, "", session_state(session), "", ""])
        for each in session["commands"]:
            began = age(each.get("startedAt"))
            text = first_line(each["command"])
            rows.append([name, each["id"][:8], command_state(each), began, text])
    show_table(("SESSION", "COMMAND", "STATE", "AGE", "TEXT"), rows, empty="there are no sessions")


def command_state(command: Mapping[str, Any]) -> str:
    if "exitCode" in command:
        return f"exit {command['exitCode']}"
    if "endedAt" in command:
        return "never run"
    return "running" if "startedAt" in command else "queued"


def session_state(session: Mapping[str, Any]) -> str:
    if session.get("ended"):
        return "ended"
    runs = any(command_state(command) == "running" for command in session["commands"])
    return "running" if runs else "idle"


def first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


@click.command("logs")
@click.option("--follow", "-f", "follows", is_flag=True, help="Go on until the command has ended.")
@click.option(
    "--since-offset",
    "offset",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Skip the first N bytes.",
)
@as_json
@session_argument
@optional_command
@pass_client
def logs(
    client: Client,
    *,
    follows: bool,
    offset: int,
    as_json: bool,
    session: str,
    command_id: str | None,
) -> None:
    """Show the output of a session's command; of its newest, without COMMAND.

    Standard output goes to standard output, and standard error to standard error, in red on a
    terminal. The beginning of a command's id is enough. A lost connection is resumed where it broke
    off. If the server no longer has some of the output, standard error says how much. The command
    that `procd serve` was started with is in the session `entrypoint`.

    \b
    Examples:
      procd logs build
      procd logs -f build 02f66be6
      procd logs --json build | jq -r .stderr
    """
    if as_json and (follows or offset):
        message = "--json shows what there is: it takes no --follow, no --since-offset"
        raise click.UsageError(message)
    with Progress(ASKING):
        path = command_path(client, session, command_id)
        document = client.call("GET", f"{path}/logs", returns=dict) if as_json else None
    if as_json:
        show_json(document)
    else:
        _print(LogStream(client, path, offset, follow=follows))


def _print(log: LogStream) -> None:
    colours = use_colours(STDERR)
    reconnect = Reconnect(LOST_S)
    with Progress(ASKING) as progress:
        while not log.complete:
            try:
                progress.begin()
                log.connect()
                progress.end()
                while log.websocket is not None:
                    wait(log.websocket, ())
                    for chunk in log.receive():
                        if chunk.gap_bytes:
                            message = f"procd: {chunk.gap_bytes} bytes of output are lost\n"
                            write_all(STDERR, message.encode())
                        red = colours and chunk.stream == STDERR and chunk.data
                        data = RED + chunk.data + DEFAULT_COLOUR if red else chunk.data
                        write_all(chunk.stream, data)
            except Unreachable:
                if reconnect.failed():
                    raise
                select.select([], [], [], RETRY_S)


@click.command("input")
@click.option("--eof", is_flag=True, help="Close the command's input, after TEXT if there is one.")
@session_argument
@click.argument("command_id", metavar="COMMAND", type=Name())
@click.argument("text", required=False)
@pass_client
def input_(client: Client, *, eof: bool, session: str, command_id: str, text: str | None) -> None:
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
