"""ShellSessions: the shell sessions by id, and the entrypoint among them."""

import asyncio
import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

from procd.config import SessionsConfig
from procd.errors import (
    BadRequest,
    Conflict,
    Exhausted,
    ProcessNotFound,
    SpawnFailed,
)
from procd.inherited import state_dir
from procd.output.budget import Budget
from procd.output.buffer import Buffer
from procd.output.log import Log
from procd.output.logstore import LogStore
from procd.output.statedir import StateDirectory
from procd.process.memory import memory_bytes
from procd.process.process import Process
from procd.process.shell import Shell
from procd.process.supervisor import Supervisor
from procd.services.environment import Environment, check_names
from procd.services.ids import check_id
from procd.services.shell.command import LEAST_BYTES
from procd.services.shell.command_store import History, no_room
from procd.services.shell.dialect import fed
from procd.services.shell.driver import Contact
from procd.services.shell.open_watch import Sightings
from procd.services.shell.proc_path import Opening, Openings
from procd.services.shell.requests import ExecRequest, SessionRequest
from procd.services.shell.session import ShellSession
from procd.unix.fd import OwnedFd
from procd.unix.file import make_directory, remove_tree

log = logging.getLogger(__name__)

ENTRYPOINT: Final = "entrypoint"
ENTRYPOINT_COMMAND: Final = "entrypoint_command"
# What a shell says itself is held for as long as it takes to move it on: more than comes at once.
WORDS_BYTES: Final = 1 << 20
# One, within single quotes.
SINGLE_QUOTE: Final = "'\\''"
# Bytes of an argument that are not UTF-8, as Python has them. Source: PEP 383.
NOT_TEXT: Final = re.compile("[\udc80-\udcff]+")


class ShellSessions:
    """The shell sessions by id."""

    def __init__(
        self,
        config: SessionsConfig,
        processes: Supervisor,
        shell: Shell,
        environment: Environment,
        *,
        work_dir: str,
        home_dir: str,
    ) -> None:
        self.config = config
        self.memory = processes.memory
        self._processes = processes
        self._shell = shell
        self._environment = environment
        self._work_dir = work_dir
        self._home_dir = home_dir
        self._sessions: dict[str, ShellSession] = {}
        self._store = LogStore(config.max_log_bytes, config.max_total_log_bytes)
        self._store.keep_reserve()
        self._sightings = Sightings()
        self._texts = Budget(config.total_text_bytes(memory_bytes()), processes.heap.freed)
        self._root = StateDirectory(state_dir(config, os.environ))
        # The shell opens what is in it by name: another user may pass through, and not look.
        self._mode = 0o700 if processes.confinement.owner is None else 0o711
        self._root.path.chmod(self._mode)
        self._directories = 0

    async def create(
        self, request: SessionRequest, *, starts_at_home: bool = False
    ) -> ShellSession:
        """Make a session and start its shell.

        Raises:
            BadRequest: the id is reserved or can't stand in a path, or the environment is bad.
            Conflict: the id is taken.
            Exhausted: there are `sessions.max_sessions`.
            SpawnFailed: the shell can't be started; no session is left.

        Source: Process API contract, section 8.2.
        """
        if request.id == ENTRYPOINT:
            raise BadRequest("provided session ID is reserved and cannot be created/overridden")
        check_id(request.id)
        if starts_at_home and not request.cwd:
            request = replace(request, cwd=self._home_dir)
        await self._processes.turns.take()
        return self._create(request)

    def _create(self, request: SessionRequest) -> ShellSession:
        check_names(request.envs)
        if request.id in self._sessions:
            raise Conflict("session already exists")
        if len(self._sessions) >= self.config.max_sessions:
            raise Exhausted(f"limit of {self.config.max_sessions} sessions is reached")
        self._directories += 1
        session = self._started(request, self._root.path / str(self._directories))
        self._sessions[request.id] = session
        log.info("session started", extra={"session": request.id, "pid": session.pid})
        return session

    def _started(self, request: SessionRequest, directory: Path) -> ShellSession:
        lines: tuple[Opening, OwnedFd] | None = None
        process: Process | None = None
        words = Buffer(WORDS_BYTES)
        openings = Openings(self._processes.confinement, directory, self._sightings)
        try:
            if self._processes.confinement.owner is not None:
                make_directory(directory, self._mode)
            path = self._shell.path()
            lines = openings.source("lines")
            shell = fed(path, lines[0].path)
            process = self._processes.spawn(
                shell.argv,
                cwd=request.cwd or self._work_dir,
                env=self._environment.merged(request.envs),
                output=Log(words, 0),
                stdin=lines[0].fd if shell.on_stdin else None,
                long_lived=True,
            )
            history = History(
                directory, self._store, self._texts, self._histories, openings,
                self._processes.loop, self.config.max_commands,
            )  # fmt: skip
            contact = Contact(shell, openings, lines)
            return ShellSession(
                request.id, process, words, contact, history, self.config, self._processes
            )
        except BaseException as exc:
            for end in lines or ():
                end.close()
            if process is not None:
                process.kill()
                process.close()
            remove_tree(directory)
            if isinstance(exc, OSError):
                raise SpawnFailed(f"cannot create a session: {exc.strerror}") from exc
            raise

    def start_entrypoint(self, argv: Sequence[str]) -> None:
        """Run the command that procd was started with. Source: contract, section 8.9."""
        session = self._create(SessionRequest(id=ENTRYPOINT))
        # All quoted: what is quoted is no keyword and no assignment.
        quoted = [argument.replace("'", SINGLE_QUOTE) for argument in argv]
        command = " ".join(f"'{NOT_TEXT.sub(_by_printf, argument)}'" for argument in quoted)
        session.exec(
            ExecRequest(command=command, run_async=True, suppress_input_echo=True),
            ENTRYPOINT_COMMAND,
        )

    @property
    def entrypoint_pids(self) -> set[int]:
        """The shell of the entrypoint, if there is one, which has a time of grace."""
        session = self._sessions.get(ENTRYPOINT)
        return set() if session is None else {session.pid}

    async def end_entrypoint(self, within_s: float) -> None:
        """Delete it; what hasn't ended in time is left to `Supervisor`. Source: contract, 8.9."""
        session = self._sessions.pop(ENTRYPOINT, None)
        if session is not None:
            ending = self._processes.tasks.run(session.delete(), "end the entrypoint")
            await asyncio.wait([ending], timeout=within_s)

    def __len__(self) -> int:
        """How many sessions there are, the entrypoint included."""
        return len(self._sessions)

    @property
    def log_bytes(self) -> int:
        """What all logs take of the disk."""
        return self._store.used_bytes

    def storage_problem(self, min_free_bytes: int) -> str:
        """Why logs can't be kept; empty if they can."""
        return self._root.problem(min_free_bytes)

    def check_memory(self) -> None:
        """Refuse, as every session would a command.

        Raises:
            Exhausted: those that aren't over take `sessions.max_total_text_bytes`.
        """
        texts = self._texts
        if texts.used_bytes + LEAST_BYTES >= texts.most_bytes and not any(
            any(history.over()) for history in self._histories()
        ):
            raise no_room(texts)

    def _histories(self) -> Iterator[History]:
        return (session.history for session in self.list())

    def list(self) -> list[ShellSession]:
        """All sessions but the entrypoint, oldest first."""
        return [session for session in self._sessions.values() if session.id != ENTRYPOINT]

    def get(self, session_id: str) -> ShellSession:
        """The session of this id.

        Raises:
            ProcessNotFound: there is none.
        """
        session = self._sessions.get(session_id)
        if session is None:
            raise ProcessNotFound("session not found")
        return session

    def to_change(self, session_id: str, action: str) -> ShellSession:
        """The session of this id, which must not be the entrypoint.

        Raises:
            BadRequest: it is.
            ProcessNotFound: there is none.
        """
        if session_id == ENTRYPOINT:
            raise BadRequest(f"can't {action} entrypoint session")
        return self.get(session_id)

    async def delete(self, session_id: str) -> None:
        """End a session, answer when everything in it has ended; its id is free at once.

        Raises:
            BadRequest: it is the entrypoint.
            ProcessNotFound: there is none.
        """
        session = self.to_change(session_id, "delete")
        del self._sessions[session_id]
        await self._processes.tasks.finish(session.delete(), f"delete session {session_id}")

    async def aclose(self) -> None:
        """Forget all sessions; their processes are ended by `Supervisor`."""
        with ExitStack() as each:  # whatever one of them raises, the others go
            each.callback(self._root.remove)
            each.callback(self._store.close)
            each.callback(self._sightings.close)
            while self._sessions:
                _, session = self._sessions.popitem()
                each.callback(session.close)


def _by_printf(found: re.Match[str]) -> str:
    """The same bytes within single quotes, in a text that JSON can show: the shell makes them."""
    escapes = "".join(f"\\{ord(each) - 0xDC00:03o}" for each in found[0])
    return f"""'"$(printf '{escapes}')"'"""
