"""What procd refuses, and how the wire names it. Source: Process API contract, section 3."""

from collections.abc import Mapping
from typing import ClassVar


class ProcdError(Exception):
    """A refusal that a caller is told about.

    Args:
        message: never empty, never secret; lone surrogates in it are escaped.
        extra: further keys for the error envelope.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "INTERNAL_SERVER_ERROR"

    def __init__(self, message: str, extra: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.message = message.encode(errors="backslashreplace").decode()
        self.extra = dict(extra or {})


class BadRequest(ProcdError):
    status = 400
    code = "BAD_REQUEST"


class InvalidBody(BadRequest):
    """The body is not JSON, has wrong types, or lacks a field."""

    code = "INVALID_REQUEST_BODY"


class Refused(ProcdError):
    status = 403
    code = "FORBIDDEN"


class Unauthorized(Refused):
    status = 401
    code = "UNAUTHORIZED"


class NotFound(ProcdError):
    status = 404
    code = "NOT_FOUND"


class ProcessNotFound(NotFound):
    """No such session, command, PTY or context."""

    code = "PROCESS_NOT_FOUND"


class TimedOut(ProcdError):
    status = 408
    code = "PROCESS_EXECUTION_TIMEOUT"


class Conflict(ProcdError):
    """Not as things stand: the id is taken, or what is meant is busy."""

    status = 409
    code = "CONFLICT"


class SessionEnded(ProcdError):
    status = 410
    code = "SESSION_ENDED"


class CommandCompleted(ProcdError):
    status = 410
    code = "COMMAND_ALREADY_COMPLETED"


class TooLarge(ProcdError):
    status = 413
    code = "PAYLOAD_TOO_LARGE"


class Exhausted(ProcdError):
    """A configured limit is reached."""

    status = 429
    code = "LIMIT_REACHED"


class NotSupported(ProcdError):
    """What Daytona's clients can ask for and procd doesn't have."""

    status = 501
    code = "NOT_SUPPORTED"


class NotReady(ProcdError):
    status = 503
    code = "NOT_READY"


class SpawnFailed(ProcdError):
    """The program could not be started; the message says which part of the request is at fault."""
