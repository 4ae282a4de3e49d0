"""All PTY sessions by id, and for a while those that have ended."""

import asyncio
import os
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

from procd.config import PtyConfig
from procd.errors import Conflict, Exhausted, ProcessNotFound, Refused, SessionEnded
from procd.output.budget import LEAST_TAIL_BYTES
from procd.output.buffer import Buffer
from procd.output.log import Log
from procd.process.process import Process
from procd.process.run_as import RunAs
from procd.process.shell import Shell, kind_of
from procd.process.spawn import check_startable
from procd.process.supervisor import Supervisor
from procd.services.environment import Environment, check_names, cost_bytes
from procd.services.ids import check_id
from procd.services.pty.recording import Recordings
from procd.services.pty.session import PtyInfo, PtyRequest, PtySession, check_size
from procd.suspend import Countdown
from procd.tasks import Turns
from procd.unix.file import is_remote

ZSH_FILES: Final = (".zshenv", ".zprofile", ".zshrc", ".zlogin")
ZSH_DIRECTORY: Final = str(Path(__file__).parent / "zsh")
# Where an administrator may set ZDOTDIR. Source: zsh(1), "FILES", and Debian's.
ZSH_COMMON: Final = ("/etc/zshenv", "/etc/zsh/zshenv")


class PtySessions:
    """The PTY sessions; `watchers` are called at every change of what is listed."""

    def __init__(
        self,
        config: PtyConfig,
        supervisor: Supervisor,
        shell: Shell,
        environment: Environment,
        work_dir: str,
        state_dir: str | None = None,
    ) -> None:
        self.config = config
        self.recordings = Recordings(config, state_dir)
        self.tasks = supervisor.tasks
        self._supervisor = supervisor
        self._shell = shell
        self._environment = environment
        self._work_dir = work_dir
        self.live: dict[str, PtySession] = {}
        self._ended: dict[str, PtySession] = {}
        self._expiries: dict[str, Countdown] = {}
        self.watchers: set[Callable[[], None]] = set()
        self.replays = Turns(1)  # of pieces of a replay: to filter one may take 13 ms
        supervisor.memory.evict = self._evict

    async def create(self, request: PtyRequest) -> PtySession:
        """Create a session and start its shell, unless that is to wait for the first client.

        Raises BadRequest, Conflict, Exhausted, or SpawnFailed, also if that later start can't
        succeed.
        """
        if not request.lazy_start:
            await self._supervisor.turns.take()
        check_id(request.id, "create-connect")  # which is a path beside the sessions
        check_size(request.cols, request.rows)
        check_names(request.envs)
        if request.id in self.live:
            raise Conflict(f"PTY session with ID '{request.id}' already exists")
        if len(self.live) >= self.config.max_sessions:
            raise Exhausted(f"limit of {self.config.max_sessions} PTY sessions is reached")
        envs = {**request.envs, "TERM": request.envs.get("TERM") or "xterm-256color"}
        size = cost_bytes(envs, request.id, request.cwd)
        self._supervisor.check_memory(size)
        info = PtyInfo(
            id=request.id,
            cwd=request.cwd or self._work_dir,
            envs=envs,
            cols=request.cols,
            rows=request.rows,
            created_at=datetime.now(UTC),
            active=False,
            lazy_start=request.lazy_start,
        )
        session = PtySession(
            info,
            self.config,
            self._supervisor.memory,
            self.tasks,
            spawn=self._spawn,
            recordings=self.recordings if request.record or self.config.record else None,
            changed=self.changed,
            ended=self._has_ended,
        )
        session.log.store.claim(size)
        try:
            if request.lazy_start:
                check_startable(info.cwd, self._environment.merged(envs))
            else:
                session.start()
        except BaseException:
            session.forget()
            raise
        self._forget_ended(request.id)
        self.live[request.id] = session
        self.changed()
        return session

    def _spawn(self, info: PtyInfo, output: Log[Buffer]) -> Process:
        """Start a login shell. Source: contract, sections 4.1 and 10.2."""
        shell, owner = self._shell.path(), self._supervisor.child_limits.run_as
        return self._supervisor.spawn_pty(
            (shell, "-i", "-l"),
            cwd=info.cwd,
            env=skip_newuser(shell, self._environment.merged(info.envs), owner),
            output=output,
            cols=info.cols,
            rows=info.rows,
        )

    def all(self) -> list[PtySession]:
        """The sessions that have ended and can be resumed, then the live ones; oldest first."""
        return [*self._ended.values(), *self.live.values()]

    def changed(self) -> None:
        for watcher in self.watchers:
            watcher()

    def get(self, session_id: str) -> PtySession:
        """Return a live session; raises ProcessNotFound."""
        session = self.live.get(session_id)
        if session is None:
            raise ProcessNotFound("PTY session not found")
        return session

    def to_resize(self, session_id: str) -> PtySession:
        """Return a live session; raises SessionEnded (410: contract, section 10.7)."""
        session = self.live.get(session_id)
        if session is None:
            raise SessionEnded(f"PTY session {session_id} not found")
        session.shared = True
        return session

    async def to_attach(
        self, session_id: str, *, resume: bool, may_start: bool = True
    ) -> PtySession:
        """Return the session to attach to, started; with `resume` it may have ended.

        Without `may_start`, a shell that waits for its first client is not started. Raises
        ProcdError with the messages of the contract, section 10.5.
        """
        lazy = self.live.get(session_id)
        if may_start and lazy is not None and lazy.process is None:
            await self._supervisor.turns.take()
        session = self.live.get(session_id)
        ended = self._ended.get(session_id)
        if session is None and ended is not None:
            if not resume:
                raise SessionEnded(
                    f"PTY session '{session_id}' has terminated and is no longer available"
                )
            session = ended
        if session is None:
            raise ProcessNotFound(f"PTY session {session_id} not found")
        if session.log.readers >= self.config.max_clients:
            raise Exhausted(f"limit of {self.config.max_clients} clients is reached")
        if not may_start and session.process is None:
            raise Refused(f"PTY session '{session_id}' is not started yet")
        if not session.log.sealed:
            session.start()
        session.shared = True
        return session

    async def delete(self, session_id: str) -> None:
        """End a session and everything in it; its id is free at once. Raises ProcessNotFound."""
        session = self.get(session_id)
        await self.tasks.finish(self._deletion(session), f"delete pty {session_id}")

    async def delete_all(self) -> None:
        """Delete all sessions, and forget those that could be resumed."""
        for session_id in list(self._ended):
            self._forget_ended(session_id)
        await asyncio.gather(*[self._deletion(session) for session in list(self.live.values())])

    def discard(self, session: PtySession) -> None:
        """Delete, in the background, a session that no other client uses; its creator has gone."""
        if self.live.get(session.id) is session and not session.shared:
            self.tasks.start(self._deletion(session), f"discard pty {session.id}")

    def _deletion(self, session: PtySession) -> Coroutine[object, None, None]:
        # Not in the coroutine: the shell may end before that begins.
        del self.live[session.id]
        session.deleted = True
        return session.delete(self.config.hangup_s)

    def _has_ended(self, session: PtySession) -> None:
        """Free the id of a session; unless it was deleted, it can be resumed for a while."""
        self.changed()
        if self.live.get(session.id) is session:
            del self.live[session.id]
        if session.deleted or session.id in self.live or not self.config.max_ended:
            session.forget()
            return
        self._forget_ended(session.id)
        while len(self._ended) >= self.config.max_ended:
            self._forget_ended(next(iter(self._ended)))
        forget = partial(self._forget_ended, session.id)
        self._expiries[session.id] = Countdown(self.config.linger_s, forget)
        self._ended[session.id] = session

    def _forget_ended(self, session_id: str) -> None:
        session = self._ended.pop(session_id, None)
        if session is not None:
            self._expiries.pop(session_id).cancel()
            session.forget()
            self.changed()

    def _evict(self) -> bool:
        """Release output, for the memory budget. Returns whether there was any.

        First that of the oldest ended session without readers. Then the older half of the longest
        live one; not what a reader has yet to get, nor what a client is shown at attach.
        """
        for session_id, session in self._ended.items():
            if not session.log.readers:
                self._forget_ended(session_id)
                return True
        logs = [session.log for session in self.live.values()]
        read = [log.store for log in logs if log.unread_bytes <= log.store.kept_bytes // 2]
        longest = max(read, key=lambda store: store.kept_bytes, default=None)
        least_bytes = max(self.config.replay_bytes, LEAST_TAIL_BYTES)
        return longest is not None and longest.shorten(least_bytes)

    async def aclose(self) -> None:
        """Forget all sessions; their processes are ended by `Supervisor`."""
        for session_id in list(self._ended):
            self._forget_ended(session_id)
        self.live.clear()
        self.recordings.close()


def skip_newuser(shell: str, env: Mapping[str, str], owner: RunAs | None) -> dict[str, str]:
    """Return `env`, with a ZDOTDIR if `shell` would ask its user: `owner`, or procd's own.

    Without any of four startup files in ZDOTDIR, by default HOME, zsh starts a dialog, but not for
    root. So it gets a ZDOTDIR with one of them, which unsets ZDOTDIR again.

    Source: zshmodules(1), "The zsh/newuser Module".
    """
    home = env.get("HOME", "")
    if (
        (os.geteuid() if owner is None else owner.uid) == 0
        or not kind_of(os.path.realpath(shell)).startswith("zsh")
        or "ZDOTDIR" in env
        or is_remote(home)  # which may not answer procd either
        or any(os.access(f"{home}/{name}", os.F_OK) for name in ZSH_FILES)
        or any(map(_sets_zdotdir, ZSH_COMMON))
        or not (owner is None or owner.may_run(Path(ZSH_DIRECTORY)))
    ):
        return dict(env)
    return {**env, "ZDOTDIR": ZSH_DIRECTORY}


def _sets_zdotdir(path: str) -> bool:
    try:
        return b"ZDOTDIR" in Path(path).read_bytes()
    except OSError:  # zsh can't read it either
        return False
