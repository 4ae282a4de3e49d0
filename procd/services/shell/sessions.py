"""The shell sessions by id, the entrypoint's among them."""

import asyncio
import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from procd.config import SessionsConfig
from procd.errors import BadRequest, Conflict, Exhausted, ProcessNotFound, SpawnFailed
from procd.inherited import state_dir
from procd.output.budget import Budget
from procd.output.logfile import LogStore
from procd.output.statedir import StateDirectory
from procd.process.cgroup import memory_bytes
from procd.process.shell import Shell
from procd.process.supervisor import Supervisor
from procd.services.environment import Environment, check_names
from procd.services.ids import check_id
from procd.services.shell.command import LEAST_BYTES, ExecRequest
from procd.services.shell.driver import ShellDriver
from procd.services.shell.proc_path import ChildPaths, OpenWatch
from procd.services.shell.session import CommandStore, SessionRequest, ShellSession, no_memory
from procd.unix.file import make_directory, remove_tree

log = logging.getLogger(__name__)

ENTRYPOINT: Final = "entrypoint"
ENTRYPOINT_COMMAND: Final = "entrypoint_command"
# Bytes of an argument that are not UTF-8, as Python has them. Source: PEP 383.
NOT_TEXT: Final = re.compile("[\udc80-\udcff]+")


class ShellSessions:
    def __init__(
        self,
        config: SessionsConfig,
        supervisor: Supervisor,
        shell: Shell,
        environment: Environment,
        *,
        work_dir: str,
        home_dir: str,
    ) -> None:
        self.config = config
        self._supervisor = supervisor
        self._shell = shell
        self._environment = environment
        self._work_dir = work_dir
        self._home_dir = home_dir
        self._sessions: dict[str, ShellSession] = {}
        self._memory = Budget(config.total_text_bytes(memory_bytes()), supervisor.malloc.freed)
        self.logs = LogStore(config.max_log_bytes, config.max_total_log_bytes, self._memory)
        self._open_watch = OpenWatch()
        self.directory = StateDirectory(state_dir(config, os.environ))
        # Another user's shell opens what is in it by name: it may pass through, and not list.
        self._mode = 0o700 if supervisor.child_limits.run_as is None else 0o711
        self.directory.path.chmod(self._mode)
        self._last_number = 0

    async def create(
        self, request: SessionRequest, *, starts_at_home: bool = False
    ) -> ShellSession:
        """Make a session and start its shell, or leave none (contract, section 8.2).

        Raises BadRequest, Conflict (the id is taken), Exhausted or SpawnFailed.
        """
        if request.id == ENTRYPOINT:
            raise BadRequest("provided session ID is reserved and cannot be created/overridden")
        check_id(request.id)
        if starts_at_home and not request.cwd:
            request = replace(request, cwd=self._home_dir)
        await self._supervisor.turns.take()
        return self._create(request)

    def _create(self, request: SessionRequest) -> ShellSession:
        check_names(request.envs)
        if request.id in self._sessions:
            raise Conflict("session already exists")
        if len(self._sessions) >= self.config.max_sessions:
            raise Exhausted(f"limit of {self.config.max_sessions} sessions is reached")
        self._last_number += 1
        directory = self.directory.path / str(self._last_number)
        child_limits = self._supervisor.child_limits
        try:
            if child_limits.run_as is not None:
                make_directory(directory, self._mode)
            driver = ShellDriver(
                self._supervisor,
                ChildPaths(child_limits, directory, self._open_watch),
                self._shell.path(),
                cwd=request.cwd or self._work_dir,
                env=self._environment.merged(request.envs),
            )
        except (OSError, SpawnFailed, Exhausted) as exc:
            remove_tree(directory)
            if isinstance(exc, OSError):
                raise SpawnFailed(f"cannot create a session: {exc.strerror}") from exc
            raise
        commands = CommandStore(
            directory, self.logs, self._memory, self._stores, self.config.max_commands
        )
        session = ShellSession(request.id, driver, commands, self.config)
        self._sessions[request.id] = session
        log.info("session started", extra={"session": request.id, "pid": driver.pid})
        return session

    def start_entrypoint(self, argv: Sequence[str]) -> None:
        """Run the command that procd was started with. Source: contract, section 8.9."""
        session = self._create(SessionRequest(id=ENTRYPOINT))
        # All words are quoted: a quoted word is no keyword and no assignment.
        quoted = [argument.replace("'", "'\\''") for argument in argv]
        command = " ".join(f"'{NOT_TEXT.sub(_by_printf, argument)}'" for argument in quoted)
        session.exec(
            ExecRequest(command=command, run_async=True, suppress_input_echo=True),
            ENTRYPOINT_COMMAND,
        )

    @property
    def entrypoint_pids(self) -> set[int]:
        """The shell of the entrypoint, if there is one; it has time to end."""
        session = self._sessions.get(ENTRYPOINT)
        return set() if session is None else {session.driver.pid}

    async def end_entrypoint(self, within_s: float) -> None:
        """Delete it; `Supervisor` kills what hasn't ended in time. Source: contract, 8.9."""
        session = self._sessions.pop(ENTRYPOINT, None)
        if session is not None:
            ending = self._supervisor.tasks.run(session.delete(), "end the entrypoint")
            await asyncio.wait([ending], timeout=within_s)

    def __len__(self) -> int:
        return len(self._sessions)

    def check_memory(self) -> None:
        """Raise Exhausted if every session would refuse a command for want of memory."""
        memory = self._memory
        if memory.used_bytes + LEAST_BYTES >= memory.most_bytes and not any(
            any(store.ended()) for store in self._stores()
        ):
            raise no_memory(memory)

    def _stores(self) -> Iterator[CommandStore]:
        return (session.commands for session in self.list())

    def list(self) -> list[ShellSession]:
        """All sessions but the entrypoint's, oldest first."""
        return [session for session in self._sessions.values() if session.id != ENTRYPOINT]

    def get(self, session_id: str) -> ShellSession:
        """The session of this id; raises ProcessNotFound."""
        session = self._sessions.get(session_id)
        if session is None:
            raise ProcessNotFound("session not found")
        return session

    def to_change(self, session_id: str, action: str) -> ShellSession:
        """As `get`, but BadRequest for the entrypoint's."""
        if session_id == ENTRYPOINT:
            raise BadRequest(f"can't {action} entrypoint session")
        return self.get(session_id)

    async def delete(self, session_id: str) -> None:
        """End a session and all that is in it; its id is free at once. Raises as `to_change`."""
        session = self.to_change(session_id, "delete")
        del self._sessions[session_id]
        await self._supervisor.tasks.finish(session.delete(), f"delete session {session_id}")

    async def delete_all(self) -> None:
        """Delete all sessions but the entrypoint's."""
        sessions = self.list()
        for session in sessions:
            del self._sessions[session.id]
        await asyncio.gather(*(session.delete() for session in sessions))

    async def aclose(self) -> None:
        """Forget all sessions; `Supervisor` ends their processes."""
        while self._sessions:
            _, session = self._sessions.popitem()
            session.close()
        self._open_watch.close()
        self.directory.remove()


def _by_printf(found: re.Match[str]) -> str:
    """The same bytes within single quotes, as text that JSON can show: the shell makes them."""
    escapes = "".join(f"\\{ord(each) - 0xDC00:03o}" for each in found[0])
    return f"""'"$(printf '{escapes}')"'"""
