"""What is asked of shell sessions, as plain data."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRequest:
    """What to create."""

    id: str
    cwd: str = ""
    envs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecRequest:
    """What to run in a session; `timeout_s` 0 means as long as it takes."""

    command: str
    run_async: bool = False
    suppress_input_echo: bool = False
    timeout_s: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRequest:
    """What to type into a command, and whether that is all.

    Attributes:
        key: two requests with the same key are the same request; empty for one like no other.
    """

    data: bytes
    eof: bool = False
    key: str = ""
