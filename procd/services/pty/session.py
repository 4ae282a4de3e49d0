"""PTY sessions: a login shell on a terminal, that any number of clients may attach to."""

import asyncio
import logging
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Final

from procd.errors import (
    BadRequest,
    SpawnFailed,
)
from procd.output.budget import Budget
from procd.output.buffer import Buffer
from procd.output.frames import Frames
from procd.output.log import Log
from procd.output.terminal_modes import Modes
from procd.process.child import ExitStatus
from procd.process.process import Process
from procd.services.pty.input_queue import Keyboard
from procd.services.pty.presence import Attendance
from procd.services.pty.recording import MAX_CELLS, Recording

if TYPE_CHECKING:  # which imports this module
    from procd.services.pty.sessions import PtySessions

log = logging.getLogger(__name__)

# How long a terminal is smaller for its program to draw anew: it is to notice, not to be seen.
REDRAW_S: Final = 0.1
# Lag of the fastest client that pauses the program; less where the backlog is short.
PAUSE_BYTES: Final = 1 << 20
KILLED: Final = 137


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
    """What is told about a session, and how long its environment is, characters."""

    id: str
    cwd: str
    envs: Mapping[str, str]
    envs_length: int
    cols: int
    rows: int
    created_at: datetime
    active: bool
    lazy_start: bool


class PtySession:
    """One terminal, from its creation until its output has been read.

    Attributes:
        info: its state now.
        deleted: whether it is being deleted, or was.
        on_end: called with the exit code when it is over.
        shared: whether somebody other than who created it has used it.
    """

    def __init__(
        self,
        sessions: "PtySessions",
        info: PtyInfo,
        memory: Budget,
        *,
        records: bool = False,
    ) -> None:
        self._sessions = sessions
        self.info = info
        self._process: Process | None = None
        self.deleted = False
        self._records = records
        self._recording: Recording | None = None
        self.on_end: Callable[[int | None], None] | None = None
        self.shared = False
        store = Buffer(sessions.config.backlog_bytes, budget=memory)
        self.log = Log(store, PAUSE_BYTES)
        self.title = ""
        self.attendance = Attendance(sessions.config.resize_policy, self.resize, sessions.changed)
        self.frames = Frames(store)
        self.modes = Modes()
        self.log.tap = self.modes.feed
        self._redrawn: asyncio.TimerHandle | None = None
        self.keyboard = Keyboard(sessions.tasks, sessions.config.input_queue_bytes)

    @property
    def id(self) -> str:
        """The client's name for it."""
        return self.info.id

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
        if self.deleted or self._process is None or self._process.record.exit is None:
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
        info = self.info
        recording = self._recorder() if self._records else None
        try:
            self._process = self._sessions.spawn(info, self.log)
        except BaseException:
            if recording is not None:
                recording.discard()
            raise
        if recording is not None:
            self._sessions.recordings.make_room()
            self._recording = recording
            self.log.tap = self._said
        self.keyboard.plug_in(self._process.stdin)
        self.info = replace(info, active=True)
        self._process.done.add_done_callback(self._finished)
        self._sessions.changed()
        log.info("pty started", extra={"pty": info.id, "pid": self._process.record.pid})

    def _said(self, data: bytes) -> None:
        self.modes.feed(data)
        if self._recording is not None:
            self._recording.output(data)

    def _recorder(self) -> Recording:
        info = self.info
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
            self._process.close()
            self._end()

    def _end(self) -> None:
        self.info = replace(self.info, active=False)
        self._sessions.ended(self, keep=not self.deleted)
        if self.on_end is not None:
            self.on_end(self.exit_code if self.started else None)  # what never ran has none
        if self._recording is not None:  # last, should there be no memory for that
            self._recording.finish(self.exit_code)
        log.info("pty ended", extra={"pty": self.id, "exit_code": self.exit_code})

    def give_up(self) -> None:
        """End it at once, and forget it: whoever was to have it never will."""
        self.deleted = True
        if self._process is not None:
            self._process.kill()
            self._process.close()
        self.forget()

    def forget(self) -> None:
        """Let go of the output when the last who reads it has gone: nobody can come back to it.

        And of the environment, lest that wait for a collection: some know each other here.
        """
        self.info = replace(self.info, envs={})
        if self.log.readers:
            self.log.on_idle = self.log.store.clear
        else:
            self.log.store.clear()

    def resize(self, cols: int, rows: int) -> PtyInfo:
        """Change the winsize, now or for the start to come.

        Who is attached is told first: the program may draw for it in that moment.

        Raises:
            BadRequest: a side is not 1 to 1000 cells long.
        """
        check_size(cols, rows)
        changed = (cols, rows) != (self.info.cols, self.info.rows)
        if changed and self._recording is not None:
            self._recording.resized(cols, rows)
        self.info = replace(self.info, cols=cols, rows=rows)
        try:
            if changed:
                self.attendance.tell(at_once=True)
        finally:  # should there be no memory for that
            if self._process is not None and self._redrawn is None:
                self._process.resize(cols, rows)
        return self.info

    def redraw(self) -> None:
        """Have its program draw all anew: for a moment the terminal is a row smaller, or larger.

        A program that is told of the size that it knows draws nothing. Source: tty_ioctl(4): no
        SIGWINCH for a winsize that is the same.
        """
        if self._process is not None and self._redrawn is None:
            rows = self.info.rows
            self._process.resize(self.info.cols, rows - 1 or rows + 1)
            self._redrawn = asyncio.get_running_loop().call_later(REDRAW_S, self._restore_size)

    def _restore_size(self) -> None:
        self._redrawn = None
        if self._process is not None:
            self._process.resize(self.info.cols, self.info.rows)

    def name(self, title: str) -> None:
        """Give it a title, for people; empty for none."""
        self.title = title
        self._sessions.changed()

    async def delete(self, hangup_s: float) -> None:
        """End it: hang up, and soon after kill, everything that runs in it.

        Its clients are told 137 whatever the shell made of the hangup (contract, section 10.6).
        """
        if self._process is None:
            self.log.seal()
            self._end()
            return
        await self._process.end(signal.SIGHUP, hangup_s)


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
