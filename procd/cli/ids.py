"""Names of what is on the server: found by their beginning, and offered for completion."""

from typing import Any, Final

import click

from procd.cli.client import CONTEXT, PTY, SESSION, Client, Shape
from procd.cli.failure import Failure, Refused
from procd.cli.http import quoted
from procd.cli.options import not_empty
from procd.cli.target import resolve

# What is looked at of a session, and of the lists.
COMMANDS: Final[Shape] = {"commands": [{"id": str}]}
SESSIONS: Final[Shape] = [{"sessionId": str}]
TERMINALS: Final[Shape] = {"sessions": [{"id": str}]}
CONTEXTS: Final[Shape] = {"contexts": [{"id": str}]}


def session_path(session_id: str) -> str:
    """The path of a session."""
    return f"{SESSION}/{quoted(session_id)}"


def command_path(client: Client, session_id: str, command_id: str | None) -> str:
    """The path of a command, of which the beginning of its id is enough; of the newest, for none.

    Raises:
        Failure: there is none, or more than one.
    """
    path = session_path(session_id)
    try:
        found = client.call("GET", path, shape=COMMANDS)
    except Refused as exc:
        if exc.status != 404:
            raise
        raise Failure(f"there is no session {session_id}", "`procd sessions` lists them") from exc
    ids = [command["id"] for command in found["commands"]]
    if command_id is None:
        if not ids:
            raise Failure(f"session {session_id} has run no command")
        return f"{path}/command/{quoted(ids[-1])}"
    if command_id not in ids:
        found = [each for each in ids if each.startswith(command_id)]
        if len(found) != 1:
            how = "several commands begin" if found else "no command begins"
            raise Failure(
                f"{how} with {command_id} in session {session_id}", "`procd sessions` lists them"
            )
        command_id = found[0]
    return f"{path}/command/{quoted(command_id)}"


def _offered(context: click.Context, path: str, shape: Shape) -> Any:
    options = context.find_root().params
    try:
        with Client(resolve(options.get("url"), options.get("token_file"))) as client:
            return client.call("GET", path, shape=shape, within_s=2)
    except Failure:
        return None  # completion has nobody to tell


def complete_session(context: click.Context, _: click.Parameter, begin: str) -> list[str]:
    """The sessions whose ids begin so."""
    sessions = _offered(context, SESSION, SESSIONS) or []
    return [each["sessionId"] for each in sessions if each["sessionId"].startswith(begin)]


def complete_command(context: click.Context, _: click.Parameter, begin: str) -> list[str]:
    """The commands of the session named before whose ids begin so."""
    session = context.params.get("session") or context.params.get("name")
    found = _offered(context, session_path(session), COMMANDS) if session else None
    commands = found["commands"] if found else []
    return [each["id"] for each in commands if each["id"].startswith(begin)]


def complete_terminal(context: click.Context, _: click.Parameter, begin: str) -> list[str]:
    """The terminals whose ids begin so."""
    found = _offered(context, PTY, TERMINALS) or {"sessions": []}
    return [each["id"] for each in found["sessions"] if each["id"].startswith(begin)]


def complete_context(context: click.Context, _: click.Parameter, begin: str) -> list[str]:
    """The Python contexts whose ids begin so."""
    found = _offered(context, CONTEXT, CONTEXTS) or {"contexts": []}
    return [each["id"] for each in found["contexts"] if each["id"].startswith(begin)]


def complete_anything(context: click.Context, _: click.Parameter, begin: str) -> list[str]:
    """Whatever `procd kill` can end whose id begins so."""
    complete = (complete_terminal, complete_session, complete_context)
    return [found for each in complete for found in each(context, _, begin)]


optional_command = click.argument(
    "command_id",
    required=False,
    metavar="[COMMAND]",
    callback=not_empty,
    shell_complete=complete_command,
)
