"""What is shown of shell sessions and their commands. Source: contract, section 8.1."""

from collections.abc import Iterator
from typing import Final

from procd.errors import ProcessNotFound
from procd.http.describe import COUNT, FLAG, INTEGER, TEXT, TIME, USAGE, ListOf, Shape
from procd.http.responses import OBJECT_BYTES, Item, array_json, object_json, string_json
from procd.services.shell.command import Command
from procd.services.shell.command_store import History
from procd.services.shell.session import ShellSession
from procd.services.shell.sessions import ShellSessions

COMMAND: Final = Shape(
    "Command",
    {"id": TEXT, "command": TEXT},
    {"exitCode": INTEGER, "startedAt": TIME, "endedAt": TIME, "outputBytes": COUNT},
)
SESSION: Final = Shape(
    "Session",
    {"sessionId": TEXT, "commands": ListOf(COMMAND)},
    {"ended": FLAG, "usage": USAGE},
)
# A session with more commands is sent in pieces, which takes as long as ten commands more.
FEW: Final = 16


def views(sessions: ShellSessions) -> Iterator[Item]:
    """All sessions but the entrypoint, without those that are deleted while they are sent."""
    for session_id in [session.id for session in sessions.list()]:
        try:
            yield view(sessions.get(session_id))
        except ProcessNotFound:
            continue


def view(session: ShellSession, *, with_usage: bool = False) -> Item:
    """A session, whether its shell has exited, and perhaps what it uses where that is known.

    Nothing of it is kept but its history, from which what is deleted goes at once.
    """
    history = session.history
    commands = history.commands
    is_short = (
        len(commands) <= FEW
        and sum(len(command.record.text) for command in commands.values()) <= OBJECT_BYTES
    )
    fields: dict[str, object] = {
        "sessionId": session.id,
        "commands": [*_commands(history)] if is_short else array_json(_commands(history)),
    }
    if session.ended:
        fields["ended"] = True
    if with_usage and (usage := session.usage()) is not None:
        fields["usage"] = usage
    return fields if is_short else object_json(fields)


def _commands(history: History) -> Iterator[Item]:
    commands = history.commands
    for command_id in list(commands):
        if command_id in commands:
            yield command_view(commands[command_id], history)


def command_view(command: Command, history: History) -> Item:
    """A command, with its times and how far its output goes.

    A long text is not kept: if the command is forgotten meanwhile, it can't be sent to its end.
    """
    record = command.record
    fields: dict[str, object] = {"id": record.id, "command": record.text}
    if record.exit_code is not None:
        fields["exitCode"] = record.exit_code
    if record.started_at is not None:
        fields["startedAt"] = record.started_at
        fields["outputBytes"] = command.log.store.end
    if record.ended_at is not None:
        fields["endedAt"] = record.ended_at
    if len(record.text) <= OBJECT_BYTES:
        return fields
    command_id = record.id
    fields["command"] = string_json(lambda: history.get(command_id).record.text)
    return object_json(fields)
