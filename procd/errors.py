"""The whole exception tree: what procd refuses, and how the wire names it.

    ProcdError                    500 INTERNAL_SERVER_ERROR
    ├── BadRequest                400 BAD_REQUEST
    │   └── InvalidBody           400 INVALID_REQUEST_BODY
    ├── Refused                   403 FORBIDDEN
    │   └── Unauthorized          401 UNAUTHORIZED
    ├── NotFound                  404 NOT_FOUND
    │   └── ProcessNotFound       404 PROCESS_NOT_FOUND
    ├── TimedOut                  408 PROCESS_EXECUTION_TIMEOUT
    ├── Conflict                  409 CONFLICT
    ├── SessionEnded              410 SESSION_ENDED
    ├── CommandCompleted          410 COMMAND_ALREADY_COMPLETED
    ├── TooLarge                  413 PAYLOAD_TOO_LARGE
    ├── Exhausted                 429 LIMIT_REACHED
    ├── NotReady                  503 NOT_READY
    └── SpawnFailed               500 INTERNAL_SERVER_ERROR

Source: Process API contract, section 3.
"""

from collections.abc import Mapping
from typing import ClassVar


class ProcdError(Exception):
    """A refusal that a caller is told about.

    Args:
        message: what the caller reads; never empty, never secret. What it quotes may be anything:
            a lone surrogate, which can't be sent, is told by its number.
        extra: further keys for the error envelope.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "INTERNAL_SERVER_ERROR"

    def __init__(self, message: str, extra: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.message = message.encode(errors="backslashreplace").decode()
        self.extra = dict(extra or {})


class BadRequest(ProcdError):
    """The request is well formed and asks for something that makes no sense."""

    status = 400
    code = "BAD_REQUEST"


class InvalidBody(BadRequest):
    """The body is not JSON, has wrong types, or lacks a field."""

    code = "INVALID_REQUEST_BODY"


class Refused(ProcdError):
    """The caller may not do this, or not from there; the message says what is missing."""

    status = 403
    code = "FORBIDDEN"


class Unauthorized(Refused):
    """The caller has shown no credential that is good."""

    status = 401
    code = "UNAUTHORIZED"


class NotFound(ProcdError):
    """No such thing."""

    status = 404
    code = "NOT_FOUND"


class ProcessNotFound(NotFound):
    """No such session, command, PTY or context."""

    code = "PROCESS_NOT_FOUND"


class TimedOut(ProcdError):
    """The command ran longer than it was allowed to."""

    status = 408
    code = "PROCESS_EXECUTION_TIMEOUT"


class Conflict(ProcdError):
    """Not as things stand: the id is taken, or what is meant is at something else."""

    status = 409
    code = "CONFLICT"


class SessionEnded(ProcdError):
    """The session is over."""

    status = 410
    code = "SESSION_ENDED"


class CommandCompleted(ProcdError):
    """The command is over and takes nothing more."""

    status = 410
    code = "COMMAND_ALREADY_COMPLETED"


class TooLarge(ProcdError):
    """A body above the configured limit."""

    status = 413
    code = "PAYLOAD_TOO_LARGE"


class Exhausted(ProcdError):
    """A configured limit is reached."""

    status = 429
    code = "LIMIT_REACHED"


class NotReady(ProcdError):
    """No work can be taken on now; the probe of it is told why."""

    status = 503
    code = "NOT_READY"


class SpawnFailed(ProcdError):
    """The program could not be started; the message says which part of the request is at fault."""
