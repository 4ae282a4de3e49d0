"""Errors that end a command with one sentence, and exit codes."""

from collections.abc import Mapping
from typing import Any, Final

EXIT_FAILURE: Final = 1
EXIT_CONFIG: Final = 2  # `serve` and `token`: the configuration can't be used
EXIT_TIMEOUT: Final = 124  # as timeout(1)
EXIT_EXEC: Final = 125  # `exec`: not the command failed, but procd; as docker does


def printable(text: str) -> str:
    """Return text on one line, without characters that would control a terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


class Failure(Exception):
    """A command can't do what was asked; the message is a sentence without its full stop.

    `hint`, what the user may do, follows a colon. `code` is the exit code, None for the usual one.
    """

    def __init__(self, message: str, hint: str = "", code: int | None = None) -> None:
        self.message = printable(message)
        super().__init__(f"{self.message}: {hint}" if hint else self.message)
        self.code = code


class Unreachable(Failure):
    """The server doesn't listen, the connection is lost, or a gateway doesn't reach the server."""


class Refused(Failure):
    """The server answered with an HTTP status of an error; `content` is the JSON of the reply."""

    def __init__(self, status: int, message: str, hint: str, content: Mapping[str, Any]) -> None:
        super().__init__(message, hint)
        self.status = status
        self.content = content
