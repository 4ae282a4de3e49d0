"""Options and arguments of several commands, their completion, and settings in place of options."""

import os
import stat
from collections.abc import Callable
from functools import update_wrapper
from typing import Any, Final

import click

from procd.cli.failure import Failure, Refused
from procd.cli.transport import DEFAULT_URL, SESSION, Client, Target, parse, quoted

MAX_TOKEN_BYTES: Final = 4096
SETTINGS: Final = ("url", "token", "token_file")  # of the client's file


def pass_client(function: Callable[..., Any]) -> Callable[..., Any]:
    """Pass a command the client of the server that the options and the environment name."""

    def with_client(*args: Any, **kwargs: Any) -> Any:
        return function(_client(click.get_current_context()), *args, **kwargs)

    return update_wrapper(with_client, function)


def _client(context: click.Context) -> Client:
    options = context.find_root().params
    return Client(resolve(options.get("url"), options.get("token_file")))


def resolve(url: str | None, token_file: str | None) -> Target:
    """Find the server and its token: options win over the environment, and that over the file."""
    environ = os.environ
    if url is None:
        url = environ.get("PROCD_URL") or None
    token, origin = None, "PROCD_TOKEN"
    if token_file is None:
        token, token_file = environ.get("PROCD_TOKEN"), environ.get("PROCD_TOKEN_FILE") or None
    has_token = bool(token) or token_file is not None
    settings = {} if url is not None and has_token else _read_settings()
    # The file's token is for the file's URL, and for no other server.
    file_url = settings.get("url", DEFAULT_URL)
    url = file_url if url is None else url
    if not has_token and url == file_url:
        token, token_file = settings.get("token"), settings.get("token_file")
        origin = _config_path()
    if token:
        return parse(url, _checked(token, origin))
    return parse(url, "" if token_file is None else _read_token(token_file))


def _read_token(path: str) -> str:
    try:
        with open(os.path.expanduser(path), "rb") as file:  # noqa: PTH123, PTH111 - pathlib is slow to import
            text = file.read(MAX_TOKEN_BYTES + 1).decode("ascii", "replace")
    except OSError as exc:
        raise Failure(f"token file {path}: {exc.strerror}") from exc
    except ValueError as exc:  # NUL
        raise Failure(f"token file {path!r}: {exc}") from exc
    return _checked(text, path)


def _checked(text: str, origin: str) -> str:
    token = text.strip()
    if not token or len(token) > MAX_TOKEN_BYTES or not token.isascii() or len(token.split()) != 1:
        raise Failure(f"{origin}: holds no token", "`procd token` makes one")
    return token


def _config_path() -> str:
    """Source: XDG Base Directory Specification."""
    if (given := os.environ.get("PROCD_CLIENT_CONFIG")) is not None:
        return given
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")  # noqa: PTH111 - as above
    return f"{base}/procd/client.toml"


def _read_settings() -> dict[str, str]:
    path = _config_path()
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - as above
            mode = os.fstat(file.fileno()).st_mode
            import tomllib  # only needed if there is a file

            document: dict[str, Any] = tomllib.load(file)
    except FileNotFoundError:
        return {}
    except OSError as exc:
        raise Failure(f"{path}: {exc.strerror}") from exc
    except ValueError as exc:
        raise Failure(f"{path}: {exc}") from exc
    for key, value in document.items():
        if key not in SETTINGS or not isinstance(value, str):
            raise Failure(f"{path}: {key}: only {', '.join(SETTINGS)} may be set, each to a string")
    if "token" in document and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise Failure(f"{path}: others may read the token in it", f"chmod 600 {path}")
    return document


def environment(given: tuple[str, ...]) -> dict[str, str]:
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
    return f"{SESSION}/{quoted(session_id)}"


def command_path(client: Client, session_id: str, command_id: str | None) -> str:
    """Return the path of a session's command, by the beginning of its id, or of the newest."""
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
        command_id = ids[-1]
    elif command_id not in ids:
        found = [each for each in ids if each.startswith(command_id)]
        if len(found) != 1:
            how = "several commands begin" if found else "no command begins"
            message = f"{how} with {command_id} in session {session_id}"
            raise Failure(message, "`procd sessions` lists them")
        command_id = found[0]
    return f"{path}/command/{quoted(command_id)}"


class Name(click.ParamType):  # type: ignore[type-arg]  # no generic before click 8.2
    """The name of something on the server; completed from those in the lists at `paths`.

    Without paths it is one of the commands of the session that was named before.
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
        from click.shell_completion import CompletionItem  # only needed here

        session = ctx.params.get("session") or ctx.params.get("name")
        paths = self._paths or ((session_path(session),) if session else ())
        names: list[str] = []
        try:
            for path in paths:
                names += _names(_client(ctx).call("GET", path, within_s=2))
        except Failure:
            return []  # there is no place for a message
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _names(reply: Any) -> list[str]:
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
