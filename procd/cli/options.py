"""Options and arguments that several commands have, and the completion of their values."""

import os
from collections.abc import Callable
from functools import update_wrapper
from typing import Any

import click

from procd.cli.failure import Failure, Refused
from procd.cli.target import resolve
from procd.cli.transport import SESSION, Client, quoted

COMPLETION_S = 2.0


def pass_client(function: Callable[..., Any]) -> Callable[..., Any]:
    """Pass a command the client of the server that the options and the environment name."""

    def with_client(*args: Any, **kwargs: Any) -> Any:
        return function(_client(click.get_current_context()), *args, **kwargs)

    return update_wrapper(with_client, function)


def _client(context: click.Context) -> Client:
    options = context.find_root().params
    return Client(resolve(options.get("url"), options.get("token_file")))


def environment(given: tuple[str, ...]) -> dict[str, str]:
    """Return the variables that `--env` names.

    Raises:
        Failure: one is to have its local value, and isn't set.
    """
    envs = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals:
            if name not in os.environ:
                raise Failure(f"--env {name}: not set here", f"give a value: --env {name}=VALUE")
            value = os.environ[name]
        envs[name] = value
    return envs


def session_path(session_id: str) -> str:
    """Return the path of a session."""
    return f"{SESSION}/{quoted(session_id)}"


def command_path(client: Client, session_id: str, command_id: str | None) -> str:
    """Return the path of a session's command.

    Args:
        command_id: its id or the beginning of it; None for the newest command.

    Raises:
        Failure: there is no such command, or more than one.
    """
    path = session_path(session_id)
    try:
        commands = client.call("GET", path, returns=dict)["commands"]
    except Refused as exc:
        if exc.status != 404:
            raise
        raise Failure(f"there is no session {session_id}", "`procd sessions` lists them") from exc
    ids = [command["id"] for command in commands]
    if command_id is None:
        if not ids:
            raise Failure(f"session {session_id} has run no command")
        return f"{path}/command/{quoted(ids[-1])}"
    found = [each for each in ids if each.startswith(command_id)]
    if command_id not in ids and len(found) != 1:
        how = "several commands begin" if found else "no command begins"
        message = f"{how} with {command_id} in session {session_id}"
        raise Failure(message, "`procd sessions` lists them")
    return f"{path}/command/{quoted(command_id if command_id in ids else found[0])}"


class Name(click.ParamType):  # type: ignore[type-arg]  # no generic before click 8.2
    """The name of something on the server; completed from the names that there are.

    Args:
        paths: of lists in the API; without any, the commands of the session that was named before.
    """

    name = "name"

    def __init__(self, *paths: str) -> None:
        self._paths = paths

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse an empty name, which is that of an unset variable and can't be in a path."""
        if not value:
            self.fail("must not be empty", param, ctx)
        return value

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[Any]:
        """Return the names that begin so."""
        from click.shell_completion import CompletionItem  # only needed here

        session = ctx.params.get("session") or ctx.params.get("name")
        paths = self._paths or ((session_path(session),) if session else ())
        names: list[str] = []
        try:
            for path in paths:
                names += _names(_client(ctx).call("GET", path, within_s=COMPLETION_S))
        except Failure:
            return []  # there is no place for a message
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _names(reply: Any) -> list[str]:
    """Return the names in a list of sessions, or in an object with a list of anything else."""
    if isinstance(reply, list):
        return [each["sessionId"] for each in reply]
    key = next(key for key in ("sessions", "contexts", "commands") if key in reply)
    return [each["id"] for each in reply[key]]


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
cwd_option = click.option(
    "--cwd", "-C", default="", metavar="DIR", help="Working directory on the server."
)
env_option = click.option(
    "--env",
    "-e",
    "envs",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="Set a variable; without a value, to the one it has here. May be repeated.",
)
session_argument = click.argument("session", type=Name(SESSION))
optional_command = click.argument("command_id", required=False, metavar="[COMMAND]", type=Name())
