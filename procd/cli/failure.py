"""What goes wrong, told in one sentence, with what to do about it."""

from collections.abc import Mapping
from typing import Any, Final

from procd.cli.text import clean

EXIT_FAILURE: Final = 1
# What the server's own commands end with when the configuration can't be used.
EXIT_CONFIG: Final = 2
# What `exec` ends with when it isn't the command that failed; as docker does.
EXIT_OWN: Final = 125


class Failure(Exception):
    """A command can't do what was asked.

    Args:
        message: one sentence without a full stop; may hold what others have written.
        hint: what the user may do, as another half of the sentence; empty for nothing.
        code: what the process ends with; None for what it usually does.
    """

    def __init__(self, message: str, hint: str = "", code: int | None = None) -> None:
        self.message = clean(message)
        super().__init__(f"{self.message}: {hint}" if hint else self.message)
        self.code = code


class Unreachable(Failure):
    """The server doesn't listen, the connection to it broke, or a gateway doesn't reach it."""


class Refused(Failure):
    """The server said no.

    Attributes:
        status: of the reply.
        content: its JSON; empty if that is no object.
    """

    def __init__(
        self, status: int, message: str, hint: str = "", content: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message, hint)
        self.status = status
        self.content = content or {}
