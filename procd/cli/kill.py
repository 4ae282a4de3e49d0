"""procd kill."""

from typing import Final

import click

from procd.cli.display import Progress
from procd.cli.failure import Failure, Refused
from procd.cli.options import Name, command_path, optional_command, pass_client
from procd.cli.transport import CONTEXT, PTY, SESSION, Client, quoted

KINDS: Final = {"terminal": PTY, "session": SESSION, "context": CONTEXT}
KILL_S: Final = 60.0


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
@click.argument("name", metavar="ID", type=Name(*KINDS.values()))
@optional_command
@pass_client
def command(
    client: Client, *, signal_name: str | None, kind: str | None, name: str, command_id: str | None
) -> None:
    """End a terminal, a session or a context, with all that runs in it; or one command.

    COMMAND is a command of the session ID: it is ended, and the session kept.

    \b
    Examples:
      procd kill work
      procd kill build 02f66be6
      procd kill --signal INT build 02f66be6
    """
    if signal_name is not None and command_id is None:
        raise click.UsageError("--signal needs a COMMAND of a session")
    with Progress(f"ending {name}"):
        if command_id is None:
            kind = kind or _kind_of(client, name)
            client.call("DELETE", f"{KINDS[kind]}/{quoted(name)}", within_s=KILL_S)
            return
        path = command_path(client, name, command_id)
        if signal_name is None:
            client.call("POST", f"{path}/terminate", within_s=KILL_S)
        else:
            client.call("POST", f"{path}/signal", {"signal": signal_name})


def _kind_of(client: Client, name: str) -> str:
    kinds = []
    for kind in ("terminal", "session"):
        try:
            client.call("GET", f"{KINDS[kind]}/{quoted(name)}", returns=dict)
            kinds.append(kind)
        except Refused as exc:
            if exc.status != 404:
                raise
    contexts = client.call("GET", CONTEXT, returns=dict)["contexts"]
    if any(each["id"] == name for each in contexts):
        kinds.append("context")
    if not kinds:
        raise Failure(f"there is nothing named {name}", "`procd ps` lists what there is")
    if len(kinds) > 1:
        raise Failure(f"{name} is a {' and a '.join(kinds)}", "say which one with --kind")
    return kinds[0]
