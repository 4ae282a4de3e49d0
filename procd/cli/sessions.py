"""procd sessions: list the commands of shell sessions."""

from collections.abc import Mapping
from typing import Any

import click

from procd.cli.display import ASKING, Progress, age, show_json, show_table
from procd.cli.options import (
    as_json,
    pass_client,
)  # fmt: skip
from procd.cli.transport import SESSION, Client


@click.command("sessions")
@as_json
@pass_client
def command(client: Client, *, as_json: bool) -> None:
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
