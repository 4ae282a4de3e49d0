"""procd logs."""

import select
from typing import Final

import click

from procd.cli.client import Client
from procd.cli.failure import Unreachable
from procd.cli.http import query
from procd.cli.ids import command_path, complete_session, optional_command
from procd.cli.io import STDERR, coloured, write_all
from procd.cli.log_chunk import piece_of
from procd.cli.options import as_json, not_empty, pass_target
from procd.cli.progress import ASKING, Progress
from procd.cli.reconnect import RETRY_S, Outage
from procd.cli.tables import show_json
from procd.cli.target import Target
from procd.cli.websocket import WebSocket

RED: Final = b"\x1b[31m"
PLAIN: Final = b"\x1b[39m"


class Log:
    """A command's output, from an offset on, as it comes.

    Args:
        follows: wait for what is still to come; else what is there is all.
        colours: show standard error in red.
    """

    def __init__(
        self, client: Client, path: str, offset: int, *, follows: bool, colours: bool
    ) -> None:
        self._client = client
        self._path = path
        self._offset = offset
        self._follows = follows
        self._colours = colours
        self._progress = Progress(ASKING)
        self._outage = Outage(self._progress)

    def run(self) -> None:
        """Print it to its end.

        Raises:
            Failure: it isn't there, or the server is lost for too long.
        """
        path = f"{self._path}/logs"
        follow = "true" if self._follows else None
        with self._progress:
            while True:
                self._progress.begin()
                try:
                    websocket = self._client.websocket(
                        path + query(follow=follow, offset=self._offset)
                    )
                    self._outage.connect()
                    self._progress.end()
                    try:
                        self._print(websocket)
                        return
                    finally:
                        websocket.close()
                except Unreachable:
                    self._client.resumes = True
                    if self._outage.begin():
                        raise
                    select.select([], [], [], RETRY_S)

    def _print(self, websocket: WebSocket) -> None:
        while websocket.closed is None:
            websocket.wait()
            websocket.flush()
            self._outage.hold()
            for message in websocket.receive():
                self._outage.end()
                piece = piece_of(message, self._offset)
                if lost_bytes := piece.begin - self._offset:
                    write_all(STDERR, f"procd: {lost_bytes} bytes of output are lost\n".encode())
                self._offset = piece.end
                red = self._colours and piece.stream == STDERR and piece.data
                write_all(piece.stream, RED + piece.data + PLAIN if red else piece.data)
            websocket.beat()
        if websocket.closed.code != 1000:
            raise Unreachable(f"the server closed the output: {websocket.closed.reason}")


@click.command("logs")
@click.option("--follow", "-f", "follows", is_flag=True, help="Go on until the command has ended.")
@click.option(
    "--since-offset",
    "offset",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Begin behind the first N bytes.",
)
@as_json
@click.argument("session", callback=not_empty, shell_complete=complete_session)
@optional_command
@pass_target
def command(
    target: Target,
    *,
    follows: bool,
    offset: int,
    as_json: bool,
    session: str,
    command_id: str | None,
) -> None:
    """Show the output of a session's command; of its newest, if none is named.

    Standard output goes to standard output, and standard error to standard error, in red on a
    terminal. The beginning of a command's id is enough. A connection that is lost is taken up where
    it broke off. How much of it the server no longer has is said on standard error. The command
    that `procd serve` was started with is in the session `entrypoint`.

    \b
    Examples:
      procd logs build
      procd logs -f build 02f66be6
      procd logs --json build | jq -r .stderr
    """
    if as_json and (follows or offset):
        raise click.UsageError(
            "--json shows what there is: it takes no --follow, no --since-offset"
        )
    with Client(target) as client:
        with Progress(ASKING):
            path = command_path(client, session, command_id)
            document = client.call("GET", f"{path}/logs", shape=dict) if as_json else None
        if as_json:
            show_json(document)
            return
        Log(client, path, offset, follows=follows, colours=coloured(STDERR)).run()
