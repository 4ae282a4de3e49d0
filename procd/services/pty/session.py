"""PTY session: a login shell on a terminal, that any number of clients may attach to."""

import asyncio
import logging
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from procd.config import PtyConfig
from procd.errors import BadRequest, SpawnFailed
from procd.output.budget import Budget
from procd.output.buffer import Buffer
from procd.output.frames import Frames
from procd.output.log import Log
from procd.output.replay import Modes
from procd.process.child import ExitStatus
from procd.process.process import Process
from procd.services.pty.input_queue import TerminalInput
from procd.services.pty.presence import Presence
from procd.services.pty.recording import Recording, Recordings
from procd.tasks import Tasks

log = logging.getLogger(__name__)

MAX_CELLS: Final = 1000  # of each side
# How long the terminal is smaller for a redraw: the program has to notice, people don't.
REDRAW_S: Final = 0.1
# Lag of the fastest client that pauses the program; less where the backlog is short.
PAUSE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PtyRequest:
    id: str
    cwd: str = ""
    envs: Mapping[str, str] = field(default_factory=dict)
    cols: int = 80
    rows: int = 24
    lazy_start: bool = False
    record: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PtyInfo:
    id: str
    cwd: str
    envs: Mapping[str, str]
    cols: int
    rows: int
    created_at: datetime
    active: bool
    lazy_start: bool


class PtySession:
    """A terminal, from its creation until its output has been read.

    `changed` is called when what is listed of it changes, and `on_end` with the exit code at its
    end. `shared` is whether a client other than its creator has used it.
    """

    def __init__(
        self,
        info: PtyInfo,
        config: PtyConfig,
        memory: Budget,
        tasks: Tasks,
        *,
        spawn: Callable[[PtyInfo, Log[Buffer]], Process],
        recordings: Recordings | None,
        changed: Callable[[], None],
        ended: Callable[["PtySession"], None],
    ) -> None:
        self.id = info.id
        self.info = info
        self.deleted = False
        self.on_end: Callable[[int | None], None] | None = None
        self.shared = False
        self.title = ""
        self.window_bytes = config.window_bytes
        self.log = Log(Buffer(config.backlog_bytes, budget=memory), PAUSE_BYTES)
        self.log.tap = self._received
        self.frames = Frames(self.log.store)
        self.modes = Modes()
        self.presence = Presence(config.resize_policy, self.resize, changed)
        self.input = TerminalInput(tasks, config.input_queue_bytes)
        self._spawn = spawn
        self._recordings = recordings
        self._changed = changed
        self._ended = ended
        self.process: Process | None = None
        self._recording: Recording | None = None
        self._redraw_timer: asyncio.TimerHandle | None = None

    def usage(self) -> dict[str, int] | None:
        return None if self.process is None else self.process.usage()

    @property
    def exit_code(self) -> int | None:
        """The exit code of the contract; None while output may follow."""
        if not self.log.sealed:
            return None
        if self.deleted or self.process is None or self.process.record.exit is None:
            return 137  # 128 + SIGKILL
        return self.process.record.exit.shell_code

    @property
    def recorded(self) -> bool:
        return self._recording is not None and self._recording.active

    def start(self) -> None:
        """Start the shell, unless it was started already.

        Raises SpawnFailed, also if it can't be recorded, or Exhausted; it may be tried again.
        """
        if self.process is not None:
            return
        recording = self._start_recording()
        try:
            self.process = self._spawn(self.info, self.log)
        except BaseException:
            if recording is not None:
                recording.discard()
            raise
        if recording is not None and self._recordings is not None:
            self._recordings.remove_oldest()
        self._recording = recording
        self.input.connect(self.process.stdin)
        self.info = replace(self.info, active=True)
        self.process.done.add_done_callback(self._done)
        self._changed()
        log.info("pty started", extra={"pty": self.id, "pid": self.process.record.pid})

    def _start_recording(self) -> Recording | None:
        if self._recordings is None:
            return None
        info = self.info
        try:
            return self._recordings.start(info.id, info.cols, info.rows, info.envs["TERM"])
        except OSError as exc:
            raise SpawnFailed(f"can't be recorded: {exc.strerror}") from exc

    def _received(self, data: bytes) -> None:
        self.modes.feed(data)
        if self._recording is not None:
            self._recording.output(data)

    def _done(self, done: "asyncio.Future[ExitStatus]") -> None:
        if not done.cancelled() and self.process is not None:
            self.process.close()
            self._end()

    def _end(self) -> None:
        self.info = replace(self.info, active=False)
        self._ended(self)
        if self.on_end is not None:
            self.on_end(None if self.process is None else self.exit_code)
        if self._recording is not None:
            self._recording.finish(self.exit_code)
        log.info("pty ended", extra={"pty": self.id, "exit_code": self.exit_code})

    def forget(self) -> None:
        """Release the output when its last reader has gone, and the environment."""
        self.info = replace(self.info, envs={})
        if self.log.readers:
            self.log.on_idle = self.log.store.clear
        else:
            self.log.store.clear()

    def resize(self, cols: int, rows: int) -> PtyInfo:
        """Change the window size, now or for the start to come; raises BadRequest as `check_size`.

        Clients are told first, as the program may draw for the new size at once.
        """
        check_size(cols, rows)
        changed = (cols, rows) != (self.info.cols, self.info.rows)
        self.info = replace(self.info, cols=cols, rows=rows)
        if changed:
            if self._recording is not None:
                self._recording.resized(cols, rows)
            self.presence.notify(at_once=True)
        if self.process is not None and self._redraw_timer is None:
            self.process.resize(cols, rows)
        return self.info

    def redraw(self) -> None:
        """Have the program draw its screen again, by making the terminal smaller for a moment.

        Source: tty_ioctl(4): no SIGWINCH for a size that is the same.
        """
        if self.process is not None and self._redraw_timer is None:
            rows = self.info.rows
            self.process.resize(self.info.cols, rows - 1 or rows + 1)
            self._redraw_timer = asyncio.get_running_loop().call_later(REDRAW_S, self._restore_size)

    def _restore_size(self) -> None:
        self._redraw_timer = None
        if self.process is not None:
            self.process.resize(self.info.cols, self.info.rows)

    def set_title(self, title: str) -> None:
        self.title = title
        self._changed()

    async def delete(self, hangup_s: float) -> None:
        """SIGHUP, and after `hangup_s` SIGKILL, for everything in it.

        Its clients are told 137 whatever the shell made of SIGHUP (contract, section 10.6).
        """
        if self.process is None:
            self.log.seal()
            self._end()
        else:
            await self.process.end(signal.SIGHUP, hangup_s)


def check_size(cols: int, rows: int) -> None:
    """Raise BadRequest for a window size outside 1..1000."""
    for name, cells in (("cols", cols), ("rows", rows)):
        if cells > MAX_CELLS:
            raise BadRequest(f"invalid value for {name} - must be at most {MAX_CELLS}")
        if cells < 1:
            raise BadRequest(f"invalid value for {name} - must be at least 1")
