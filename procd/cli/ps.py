"""procd ps and procd sessions."""

from collections.abc import Mapping
from typing import Any, Final

import click

from procd.cli.client import CONTEXT, PTY, SESSION, Client, Shape
from procd.cli.options import as_json, pass_target
from procd.cli.progress import ASKING, Progress
from procd.cli.tables import age, show, show_json
from procd.cli.target import Target

TERMINALS: Final[Shape] = {
    "sessions": [
        {"id": str, "active": bool, "cols": int, "rows": int, "cwd": str, "createdAt": str}
    ]
}
SESSIONS: Final[Shape] = [{"sessionId": str, "commands": [{"id": str, "command": str}]}]
CONTEXTS: Final[Shape] = {"contexts": [{"id": str, "active": bool, "cwd": str, "createdAt": str}]}


def state_of(command: Mapping[str, Any]) -> str:
    """How it is with a command of a session."""
    if "exitCode" in command:
        return f"exit {command['exitCode']}"
    if "endedAt" in command:
        return "never run"
    return "running" if "startedAt" in command else "queued"


def _session_state(session: Mapping[str, Any]) -> str:
    if session.get("ended"):
        return "ended"
    running = sum(state_of(command) == "running" for command in session["commands"])
    return "running" if running else "idle"


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


@click.command("ps")
@as_json
@pass_target
def ps(target: Target, *, as_json: bool) -> None:
    """List terminals, shell sessions and Python contexts.

    \b
    Examples:
      procd ps
      procd ps --json | jq -r '.terminals[].id'
    """
    with Progress(ASKING), Client(target) as client:
        terminals = client.call("GET", PTY, shape=TERMINALS)["sessions"]
        sessions = client.call("GET", SESSION, shape=SESSIONS)
        contexts = client.call("GET", CONTEXT, shape=CONTEXTS)["contexts"]
    if as_json:
        show_json({"terminals": terminals, "sessions": sessions, "contexts": contexts})
        return
    rows = []
    for each in terminals:
        state = "running" if each["active"] else "not started"
        size = f"{each['cols']}x{each['rows']}"
        rows.append(
            ["terminal", each["id"], state, age(each["createdAt"]), f"{size} {each['cwd']}"]
        )
    for each in sessions:
        newest = each["commands"][-1] if each["commands"] else {}
        about = f"{len(each['commands'])} commands" if len(each["commands"]) != 1 else "1 command"
        if newest:
            about += f", last: {_first_line(newest['command'])}"
        rows.append(
            [
                "session",
                each["sessionId"],
                _session_state(each),
                age(newest.get("startedAt")),
                about,
            ]
        )
    for each in contexts:
        state = "ready" if each["active"] else "ended"
        rows.append(["context", each["id"], state, age(each["createdAt"]), each["cwd"]])
    show(
        ("KIND", "ID", "STATE", "AGE", "ABOUT"),
        rows,
        empty="nothing runs: `procd attach` opens a terminal",
    )


@click.command("sessions")
@as_json
@pass_target
def sessions(target: Target, *, as_json: bool) -> None:
    """List the commands of shell sessions, oldest first.

    Their output is shown by `procd logs SESSION COMMAND`; the beginning of an id is enough.

    \b
    Examples:
      procd sessions
      procd sessions --json | jq -r '.[] | select(.ended) | .sessionId'
    """
    with Progress(ASKING), Client(target) as client:
        found = client.call("GET", SESSION, shape=SESSIONS)
    if as_json:
        show_json(found)
        return
    rows = []
    for session in found:
        name = session["sessionId"]
        if not session["commands"]:
            rows.append([name, "", _session_state(session), "", ""])
        rows += [
            [
                name,
                command["id"][:8],
                state_of(command),
                age(command.get("startedAt")),
                _first_line(command["command"]),
            ]
            for command in session["commands"]
        ]
    show(("SESSION", "COMMAND", "STATE", "AGE", "TEXT"), rows, empty="there are no sessions")
