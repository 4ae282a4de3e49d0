"""The one sandbox of a procd that stands alone: what a control plane would know of it.

It says nothing about what runs: a create leaves that alone, and a stop or delete ends all of it.
"""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from procd.config import ConfigError, ServerConfig, StandaloneConfig
from procd.services.access import is_loopback
from procd.services.environment import Environment
from procd.services.execute import Executions
from procd.services.interpreter.contexts import Contexts
from procd.services.pty.sessions import PtySessions
from procd.services.shell.sessions import ShellSessions
from procd.unix.host import Host, HostUsage

# It stands in URLs.
SANDBOX_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")


class State(StrEnum):
    STARTED = "started"
    STOPPED = "stopped"
    DESTROYED = "destroyed"


@dataclass(slots=True, kw_only=True)
class Settings:
    """What a client has given the sandbox; of most, procd only remembers it.

    `intervals` are those after which a platform would stop, pause, archive or delete a sandbox,
    minutes, by their names in the API.
    """

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    snapshot: str = ""
    target: str = ""
    public: bool = False
    intervals: dict[str, float] = field(default_factory=dict)


def stands_alone(config: StandaloneConfig, server: ServerConfig) -> bool:
    """Whether to answer as a control plane; raises ConfigError for an id that no URL can have."""
    if not SANDBOX_ID.fullmatch(config.sandbox_id) or config.sandbox_id.strip(".") == "":
        raise ConfigError("standalone.sandbox_id: must be 1 to 128 letters, digits, '.', '_', '-'")
    if config.enabled != "auto":
        return config.enabled == "true"
    return bool(server.host) and is_loopback(server.host) and not server.trusted_proxies


class Sandbox:
    """The sandbox; it is there from the start, and can be created as often as clients like."""

    def __init__(
        self,
        sandbox_id: str,
        host: Host,
        work_dir: str,
        environment: Environment,
        executions: Executions,
        shells: ShellSessions,
        ptys: PtySessions,
        contexts: Contexts,
    ) -> None:
        self.id = sandbox_id
        self.settings = Settings(name=sandbox_id)
        self.state = State.STARTED
        self.created_at = self.active_at = datetime.now(UTC)
        self._host = host
        self._work_dir = work_dir
        self._environment = environment
        self._executions = executions
        self._shells = shells
        self._ptys = ptys
        self._contexts = contexts

    def is_named(self, name: str) -> bool:
        return name in (self.id, self.settings.name)

    def machine(self) -> HostUsage:
        """The machine that it is; raises ProcdError if that can't be looked at."""
        return self._host.usage(self._work_dir)

    def create(self, settings: Settings) -> None:
        """Take new settings; what runs goes on, as it may be another client's.

        Raises BadRequest, and changes nothing, for variables that no process could have.
        """
        self._environment.set_of_sandbox(settings.env)
        self.settings = settings
        self.state = State.STARTED
        self.created_at = self.active_at = datetime.now(UTC)

    def start(self) -> None:
        self.state = State.STARTED
        self.active_at = datetime.now(UTC)

    async def stop(self) -> None:
        """End all that runs."""
        if self.state is State.STARTED:
            self.state = State.STOPPED
        await self._end_all()

    async def delete(self) -> None:
        """End all that runs, and forget the settings; its variables are taken back."""
        self._environment.set_of_sandbox({})
        self.settings = Settings(name=self.id)
        self.state = State.DESTROYED
        await self._end_all()

    async def _end_all(self) -> None:
        """It goes on if the client that asked for it leaves."""
        tasks = self._executions.supervisor.tasks
        await tasks.finish(self._ending(), "end all of the sandbox")

    async def _ending(self) -> None:
        await asyncio.gather(
            self._executions.kill_all(),
            self._shells.delete_all(),
            self._ptys.delete_all(),
            self._contexts.delete_all(),
        )
