"""PTY sessions: a login shell on a terminal, that any number of clients may attach to."""

import asyncio
import logging
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from procd.config import PtyConfig
from procd.errors import (
    BadRequest,
    Conflict,
    Exhausted,
    ProcessNotFound,
    Refused,
    SessionEnded,
    SpawnFailed,
)
from procd.process import Process
from procd.processes import Processes
from procd.services.attendance import Attendance
from procd.services.environment import Environment, check_names
from procd.services.ids import check_id
from procd.services.recording import Recording, Recordings
from procd.streams.backlog import Backlog, Budget
from procd.streams.frames import Frames
from procd.streams.log import Log
from procd.unix.child import ExitStatus
from procd.unix.shell import Shell

log = logging.getLogger(__name__)

MAX_CELLS: Final = 1000
# Lag of the fastest client that pauses the program; a backlog holds several times as much.
PAUSE_BYTES: Final = 1 << 20
KILLED: Final = 137

SIGNAL_REASONS: Final = {130: "Ctrl+C", 137: "SIGKILL", 143: "SIGTERM"}


def exit_reason(code: int) -> str:
    """The contract's words for an exit code that is not 0. Source: section 10.5, "Exit"."""
    if code in SIGNAL_REASONS:
        return SIGNAL_REASONS[code]
    return f"signal {code - 128}" if code > 128 else "non-zero exit"


@dataclass(frozen=True, slots=True, kw_only=True)
class PtyRequest:
    """What to create."""

    id: str
    cwd: str = ""
    envs: Mapping[str, str] = field(default_factory=dict)
    cols: int = 80
    rows: int = 24
    lazy_start: bool = False
    record: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PtyInfo:
    """What is told about a session."""

    id: str
    cwd: str
    envs: Mapping[str, str]
    cols: int
    rows: int
    created_at: datetime
    active: bool
    lazy_start: bool


class PtySession:
    """One terminal, from its creation until its output has been read."""

    def __init__(
        self,
        sessions: "PtySessions",
        info: PtyInfo,
        backlog_bytes: int,
        memory: Budget,
        *,
        records: bool = False,
    ) -> None:
        self._sessions = sessions
        self._info = info
        self._process: Process | None = None
        self._deleted = False
        self._records = records
        self._recording: Recording | None = None
        store = Backlog(backlog_bytes, budget=memory)
        self.log = Log(store, min(PAUSE_BYTES, backlog_bytes // 4))
        self.title = ""
        self.attendance = Attendance(sessions.config.resize_policy, self.resize, sessions.changed)
        self.frames = Frames(store)

    @property
    def id(self) -> str:
        """The client's name for it."""
        return self._info.id

    @property
    def info(self) -> PtyInfo:
        """Its state now."""
        return self._info

    def usage(self) -> dict[str, int] | None:
        """What all in it use, as far as it is known (see `Process.usage`)."""
        return None if self._process is None else self._process.usage()

    @property
    def window_bytes(self) -> int:
        """How far the output may run ahead of a client that counts."""
        return self._sessions.config.window_bytes

    @property
    def exit_code(self) -> int | None:
        """How it ended, as the contract counts it; None while output may follow."""
        if not self.log.sealed:
            return None
        if self._deleted or self._process is None or self._process.record.exit is None:
            return KILLED
        return self._process.record.exit.shell_code

    @property
    def started(self) -> bool:
        """Whether its shell was ever started."""
        return self._process is not None

    def start(self) -> None:
        """Start the shell, unless it was started already.

        Raises:
            SpawnFailed: it can't be started, or recorded as asked; it may be tried again.
            Exhausted: it is to be recorded, and `pty.max_recordings` are being written.
        """
        if self._process is not None:
            return
        info = self._info
        recording = self._recorder() if self._records else None
        try:
            self._process = self._sessions.spawn(info, self.log)
        except BaseException:
            if recording is not None:
                recording.discard()
            raise
        if recording is not None:
            self._recording = recording
            self.log.tap = recording.output
        self._info = replace(info, active=True)
        self._process.done.add_done_callback(self._finished)
        self._sessions.changed()
        log.info("pty started", extra={"pty": info.id, "pid": self._process.record.pid})

    def _recorder(self) -> Recording:
        info = self._info
        try:
            return self._sessions.recordings.start(info.id, info.cols, info.rows, info.envs["TERM"])
        except OSError as exc:
            raise SpawnFailed(f"can't be recorded: {exc.strerror}") from exc

    @property
    def recorded(self) -> bool:
        """Whether what happens now is being recorded."""
        return self._recording is not None and self._recording.active

    def _finished(self, done: "asyncio.Future[ExitStatus]") -> None:
        if not done.cancelled() and self._process is not None:
            self._process.hang_up()
            self._end()

    def _end(self) -> None:
        self._info = replace(self._info, active=False)
        if self._recording is not None:
            self._recording.finish(self.exit_code)
        self._sessions.ended(self, keep=not self._deleted)
        log.info("pty ended", extra={"pty": self.id, "exit_code": self.exit_code})

    def forget(self) -> None:
        """Let go of the output when the last who reads it has gone: nobody can come back to it."""
        if self.log.readers:
            self.log.on_idle = self.log.store.clear
        else:
            self.log.store.clear()

    def resize(self, cols: int, rows: int) -> PtyInfo:
        """Change the winsize, now or for the start to come.

        Raises:
            BadRequest: a side is not 1 to 1000 cells long.
        """
        check_size(cols, rows)
        if self._recording is not None and (cols, rows) != (self._info.cols, self._info.rows):
            self._recording.resized(cols, rows)
        self._info = replace(self._info, cols=cols, rows=rows)
        if self._process is not None:
            self._process.resize(cols, rows)
        return self._info

    def name(self, title: str) -> None:
        """Give it a title, for people; empty for none."""
        self.title = title
        self._sessions.changed()

    def write(self, data: bytes) -> None:
        """Type into the terminal; what is typed after its end is lost, as on any terminal."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(data)

    @property
    def unread_bytes(self) -> int:
        """How much of what was typed nobody has read yet."""
        if self._process is None or self._process.stdin is None:
            return 0
        return self._process.stdin.queued_bytes

    async def written(self, queued_bytes: int) -> None:
        """Wait until at most `queued_bytes` of what was typed are unread."""
        if self._process is not None and self._process.stdin is not None:
            await self._process.stdin.drain(queued_bytes)

    async def delete(self, hangup_s: float) -> None:
        """End it: hang up, and soon after kill, everything that runs in it.

        Its clients are told 137 whatever the shell made of the hangup (contract, section 10.6).
        """
        self._deleted = True
        if self._process is None:
            self.log.seal()
            self._end()
            return
        await self._process.end(signal.SIGHUP, hangup_s)


class PtySessions:
    """The PTY sessions by id, and for a while those that have ended.

    Attributes:
        watchers: called at each change of what is listed; they only take note.
    """

    def __init__(
        self,
        config: PtyConfig,
        processes: Processes,
        shell: Shell,
        environment: Environment,
        work_dir: str,
        state_dir: str | None = None,
    ) -> None:
        self.config = config
        self.recordings = Recordings(config, state_dir)
        self._processes = processes
        self._shell = shell
        self._environment = environment
        self._work_dir = work_dir
        self._live: dict[str, PtySession] = {}
        self._ended: dict[str, PtySession] = {}
        self.watchers: set[Callable[[], None]] = set()
        self._expiries: dict[str, asyncio.TimerHandle] = {}

    def create(self, request: PtyRequest) -> PtySession:
        """Make a session and start its shell, unless that is to wait for the first client.

        Raises:
            BadRequest: id, size or environment can't be used.
            Conflict: the id is taken.
            Exhausted: `pty.max_sessions` are live, or too much output is held in memory.
            SpawnFailed: the shell can't be started; no session is left.
        """
        check_id(request.id)
        check_size(request.cols, request.rows)
        check_names(request.envs)
        if request.id in self._live:
            raise Conflict(f"PTY session with ID '{request.id}' already exists")
        if len(self._live) >= self.config.max_sessions:
            raise Exhausted(f"limit of {self.config.max_sessions} PTY sessions is reached")
        while self._processes.memory.full and self._ended:
            self._forget_ended(next(iter(self._ended)))
        self._processes.check_memory()
        envs = {**request.envs, "TERM": request.envs.get("TERM") or "xterm-256color"}
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
            self,
            info,
            self.config.backlog_bytes,
            self._processes.memory,
            records=request.record or self.config.record,
        )
        if not request.lazy_start:
            session.start()
        self._forget_ended(request.id)
        self._live[request.id] = session
        self.changed()
        return session

    def spawn(self, info: PtyInfo, output: Log[Backlog]) -> Process:
        """Start the shell of a session. Source: contract, sections 4.1 and 10.2."""
        return self._processes.spawn_pty(
            (self._shell.path(), "-i", "-l"),
            cwd=info.cwd,
            env=self._environment.merged(info.envs),
            output=output,
            cols=info.cols,
            rows=info.rows,
        )

    @property
    def live(self) -> int:
        """How many live sessions there are."""
        return len(self._live)

    def list(self) -> list[PtyInfo]:
        """All live sessions, oldest first."""
        return [session.info for session in self._live.values()]

    def all(self) -> tuple[PtySession, ...]:
        """Those that have ended and can be resumed, then the live ones; each oldest first."""
        return (*self._ended.values(), *self._live.values())

    def changed(self) -> None:
        """Tell the watchers."""
        for watcher in self.watchers:
            watcher()

    def get(self, session_id: str) -> PtySession:
        """The live session of this id.

        Raises:
            ProcessNotFound: there is none.
        """
        session = self._live.get(session_id)
        if session is None:
            raise ProcessNotFound("PTY session not found")
        return session

    def to_resize(self, session_id: str) -> PtySession:
        """The live session of this id.

        Raises:
            SessionEnded: there is none (410, not 404: contract, section 10.7).
        """
        session = self._live.get(session_id)
        if session is None:
            raise SessionEnded(f"PTY session {session_id} not found")
        return session

    def to_attach(self, session_id: str, *, resume: bool, may_start: bool = True) -> PtySession:
        """The session to attach to, started; to resume, one that has ended serves as well.

        Args:
            may_start: a shell that hasn't been started yet may be started for this client.

        Raises:
            ProcdError: there is none, it has ended, is full, or can't be started; the message is
                the one of the contract, section 10.5.
        """
        session = self._live.get(session_id)
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
        if not (may_start or session.started):
            raise Refused(f"PTY session '{session_id}' is not started yet")
        if not session.log.sealed:
            session.start()
        return session

    async def delete(self, session_id: str) -> None:
        """End a session, answer when everything in it has ended; its id is free at once.

        Raises:
            ProcessNotFound: there is none.
        """
        session = self.get(session_id)
        del self._live[session_id]
        await session.delete(self.config.hangup_s)

    def discard(self, session: PtySession) -> None:
        """Delete this very session, if it is still live under its id, and don't wait for it."""
        if self._live.get(session.id) is session:
            self._processes.tasks.start(self.delete(session.id), f"discard pty {session.id}")

    def ended(self, session: PtySession, *, keep: bool) -> None:
        """A session is over: free its id and, if `keep`, let it be resumed for a while."""
        self.changed()
        if self._live.get(session.id) is session:
            del self._live[session.id]
        if not keep or session.id in self._live or not self.config.max_ended:
            session.forget()
            return
        self._forget_ended(session.id)
        while len(self._ended) >= self.config.max_ended:
            self._forget_ended(next(iter(self._ended)))
        self._ended[session.id] = session
        self._expiries[session.id] = asyncio.get_running_loop().call_later(
            self.config.linger_s, self._forget_ended, session.id
        )

    def _forget_ended(self, session_id: str) -> None:
        session = self._ended.pop(session_id, None)
        if session is not None:
            self._expiries.pop(session_id).cancel()
            session.forget()
            self.changed()

    async def aclose(self) -> None:
        """Forget all sessions; their processes are ended by `Processes`."""
        for session_id in list(self._ended):
            self._forget_ended(session_id)
        self._live.clear()
        self.recordings.close()


def check_size(cols: int, rows: int) -> None:
    """Refuse a winsize outside 1..1000.

    Raises:
        BadRequest: as said.
    """
    for name, cells in (("cols", cols), ("rows", rows)):
        if cells > MAX_CELLS:
            raise BadRequest(f"invalid value for {name} - must be at most {MAX_CELLS}")
        if cells < 1:
            raise BadRequest(f"invalid value for {name} - must be at least 1")
