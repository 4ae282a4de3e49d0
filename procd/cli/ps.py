"""procd ps."""

import click

from procd.cli.display import ASKING, Progress, age, show_json, show_table
from procd.cli.options import as_json, pass_client
from procd.cli.sessions import first_line, session_state
from procd.cli.transport import CONTEXT, PTY, SESSION, Client


@click.command("ps")
@as_json
@pass_client
def command(client: Client, *, as_json: bool) -> None:
    """List terminals, shell sessions and Python contexts.

    \b
    Examples:
      procd ps
      procd ps --json | jq -r '.terminals[].id'
    """
    with Progress(ASKING):
        terminals = client.call("GET", PTY, returns=dict)["sessions"]
        sessions = client.call("GET", SESSION, returns=list)
        contexts = client.call("GET", CONTEXT, returns=dict)["contexts"]
    if as_json:
        show_json({"terminals": terminals, "sessions": sessions, "contexts": contexts})
        return
    rows = []
    for each in terminals:
        state = "running" if each["active"] else "not started"
        about = f"{each['cols']}x{each['rows']} {each['cwd']}"
        rows.append(["terminal", each["id"], state, age(each["createdAt"]), about])
    for each in sessions:
        commands = each["commands"]
        about = f"{len(commands)} command{'s' * (len(commands) != 1)}"
        began = None
        if commands:
            about += f", last: {first_line(commands[-1]['command'])}"
            began = commands[-1].get("startedAt")
        rows.append(["session", each["sessionId"], session_state(each), age(began), about])
    for each in contexts:
        state = "ready" if each["active"] else "ended"
        rows.append(["context", each["id"], state, age(each["createdAt"]), each["cwd"]])
    show_table(
        ("KIND", "ID", "STATE", "AGE", "ABOUT"),
        rows,
        empty="nothing runs: `procd attach` opens a terminal",
    )
