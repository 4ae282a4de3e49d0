"""procd logs: show or follow the output of a session's command."""

import select
from typing import Final

import click

from procd.cli.display import ASKING, Progress, show_json
from procd.cli.failure import Unreachable
from procd.cli.options import (
    as_json,
    command_path,
    optional_command,
    pass_client,
    session_argument,
)  # fmt: skip
from procd.cli.output_stream import LOST_S, RETRY_S, LogStream, Reconnect
from procd.cli.stdio import STDERR, use_colours, write_all
from procd.cli.transport import Client
from procd.cli.websocket import wait

RED: Final = b"\x1b[31m"
DEFAULT_COLOUR: Final = b"\x1b[39m"


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
def command(
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
