"""A Python namespace that lives on between cells, in a process of its own (contract, section 11).

The log of a cell's output has one cursor, its client's: a slow client slows its own code and nobody
else's. A cell whose client has gone is interrupted.
"""

import asyncio
import enum
import logging
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from procd.config import InterpreterConfig
from procd.errors import Exhausted, ProcdError, ProcessNotFound, SpawnFailed
from procd.output.buffer import Buffer
from procd.output.log import Log
from procd.services.interpreter.process import InterpreterProcess
from procd.services.interpreter.spares import Spares
from procd.services.interpreter.worker_protocol import Reply
from procd.suspend import Countdown, within
from procd.tasks import Tasks

log = logging.getLogger(__name__)

DEFAULT: Final = "default"
LANGUAGE: Final = "python"
# Reasons of a Close. The first is for a timeout that the code did not obey.
STATE_LOST: Final = "timeout: the interpreter was ended, its state is lost"
ENDED: Final = "worker process ended"
RESTARTED: Final = "context restarted"
STOPPING: Final = "server shutdown"
INTERNAL: Final = "internal error: the interpreter was ended, its state is lost"
# What can come on top of a full buffer: what the pipes hold, and displays.
SLACK_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class CellRequest:
    """What to run; `timeout_s` None means the default, 0 none."""

    code: str
    context_id: str = DEFAULT
    envs: Mapping[str, str] = field(default_factory=dict)
    timeout_s: int | None = None
    display: bool = False


class End(enum.Enum):
    COMPLETED = enum.auto()
    TIMED_OUT = enum.auto()
    ABANDONED = enum.auto()
    BROKEN = enum.auto()


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a cell, with the reply if it completed, and a reason for the client if not."""

    end: End
    reply: Reply | None = None
    reason: str = ""


class Cell:
    """A request to a context, from its client's message until its end.

    The process is never killed because of a cell that `keeps_state`. `end_reason` is why the
    process is being ended on purpose, or empty.
    """

    def __init__(
        self,
        context_id: str,
        message: Mapping[str, object],
        timeout_s: float,
        buffer_bytes: int,
        *,
        keeps_state: bool = False,
    ) -> None:
        self.context_id = context_id
        self.message = message
        self.timeout_s = timeout_s
        self.keeps_state = keeps_state
        self.log = Log(Buffer(buffer_bytes + SLACK_BYTES), buffer_bytes)
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[Outcome] = loop.create_future()
        self.abandoned: asyncio.Future[None] = loop.create_future()
        self.interrupted = False
        self.end_reason = ""

    def abandon(self) -> None:
        """The client has gone: end the cell as soon as possible."""
        if not self.abandoned.done():
            self.abandoned.set_result(None)
            self.log.seal()

    def broken(self, reason: str) -> Outcome:
        """The outcome if the process ended: with this reason, unless that was on purpose."""
        return Outcome(End.BROKEN, reason=self.end_reason or reason)

    def finish(self, outcome: Outcome) -> None:
        self.log.seal()
        self.message = {}
        if not self.ended.done():
            self.ended.set_result(outcome)


class Context:
    """A namespace, its process and its queue of cells; `current` is the cell that runs."""

    def __init__(
        self,
        context_id: str,
        cwd: str,
        config: InterpreterConfig,
        spares: Spares,
        tasks: Tasks,
    ) -> None:
        self.id = context_id
        self.cwd = cwd
        self.created_at = time.time()
        self.process: InterpreterProcess | None = None
        self.current: Cell | None = None
        self.queue: deque[Cell] = deque()
        self._config = config
        self._spares = spares
        self._tasks = tasks
        self._starting = asyncio.Lock()
        self._worker: asyncio.Task[None] | None = None  # runs the cells, while there are any
        self._idle_timer: Countdown | None = None
        self._deleted = False

    @property
    def pid(self) -> int | None:
        """Its process, if there is one; if not, the next use starts one."""
        return self.process.pid if self.process is not None and self.process.running else None

    async def start(self) -> InterpreterProcess:
        """Return its process, started if need be.

        Raises SpawnFailed, also if the directory can't be entered; Exhausted; ProcessNotFound if
        the context was deleted meanwhile.
        """
        async with self._starting:
            while (process := self.process) is None or not process.running:
                await self._spares.wait_turn()
                if self._deleted:
                    raise ProcessNotFound(f"context with ID '{self.id}' not found")
                await self._start()
            self._start_idle_timer()
            return process

    async def _start(self) -> None:
        process = self.process = self._spares.take()
        try:
            async with asyncio.timeout(self._config.start_s):
                await process.prepare(self.cwd)
        except BaseException as exc:
            self._spares.discard(process)
            if self.process is not process and isinstance(exc, SpawnFailed):
                return  # it was ended by `restart` or `delete`
            self.process = None
            if isinstance(exc, TimeoutError):
                raise SpawnFailed("the interpreter doesn't start") from exc
            raise

    def submit(self, cell: Cell) -> None:
        """Run a cell after those that wait already; raises Exhausted if too many wait."""
        if len(self.queue) >= self._config.max_queued:
            raise Exhausted(f"limit of {self._config.max_queued} waiting executions is reached")
        self.queue.append(cell)
        cell.abandoned.add_done_callback(lambda _: self._leave_queue(cell))
        self._stop_idle_timer()
        if self._worker is None:
            self._worker = self._tasks.run(self._run_cells(), f"context {self.id}")

    def _leave_queue(self, cell: Cell) -> None:
        if cell in self.queue:
            self.queue.remove(cell)
            cell.finish(Outcome(End.ABANDONED))

    async def _run_cells(self) -> None:
        try:
            while self.queue:
                cell = self.current = self.queue.popleft()
                outcome = Outcome(End.BROKEN, reason=STOPPING)  # if this task is cancelled
                try:
                    outcome = await self._run(cell)
                except Exception:
                    log.exception("context %s: internal error", self.id)
                    outcome = cell.broken(INTERNAL)
                    if self.process is not None:
                        self._spares.discard(self.process)
                        self.process = None
                finally:
                    self.current = None
                    cell.finish(outcome)
        finally:
            self._worker = None
        self._start_idle_timer()

    async def _run(self, cell: Cell) -> Outcome:
        for _ in range(2):  # again, if the process ends before the code has begun
            try:
                process = await self.start()
            except ProcdError as exc:
                what = "get default context" if self.id == DEFAULT else "start context"
                return cell.broken(f"failed to {what}: {exc.message}")
            if cell.end_reason:
                break
            if cell.abandoned.done():
                return Outcome(End.ABANDONED)
            reply = process.run(cell.message, cell.log)
            if cell.interrupted:
                process.interrupt()
            either: list[asyncio.Future[Any]] = [reply, cell.abandoned]
            timeout_s = cell.timeout_s or None
            await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if not await self.has_replied(process, reply):
                return await self._break_off(cell, process, reply)
            if (result := reply.result()) is not None:
                return Outcome(End.COMPLETED, result)
            if process.begun or cell.end_reason:
                break
        return cell.broken(ENDED)

    async def has_replied(
        self, process: InterpreterProcess, reply: asyncio.Future[Reply | None]
    ) -> bool:
        """Whether the reply has come, though the loop, if it is late, has not read it yet."""
        if not reply.done():
            process.poll()
            if not process.running:
                await asyncio.wait([reply])
        return reply.done()

    async def _break_off(
        self, cell: Cell, process: InterpreterProcess, reply: asyncio.Future[Reply | None]
    ) -> Outcome:
        """Interrupt a cell, and kill the process if it goes on after the time of grace.

        A cell that keeps the state is left to end by itself; its client is answered at once.
        """
        end = End.ABANDONED if cell.abandoned.done() else End.TIMED_OUT
        process.interrupt()
        process.resume()  # a slow client must not keep the code from ending
        if cell.keeps_state:
            cell.finish(Outcome(end))
            await asyncio.wait([reply])
        else:
            with suppress(TimeoutError):
                await within(self._config.grace_s, lambda: asyncio.wait([reply]))
        if not await self.has_replied(process, reply):
            await process.kill()
        if cell.end_reason:
            return cell.broken(ENDED)
        kept = reply.done() and reply.result() is not None
        return Outcome(end, reason="" if kept else STATE_LOST)

    def interrupt(self) -> bool:
        """Interrupt the current cell, as Ctrl-C does. Returns whether there is one."""
        if self.current is None:
            return False
        self.current.interrupted = True
        if self.process is not None:
            self.process.interrupt()
        return True

    async def restart(self) -> None:
        """Begin again with an empty namespace; the current cell ends. Raises as `start`.

        Without descriptors for another process it is refused, and nothing ends.
        """
        await self._spares.wait_turn()
        await self._tasks.finish(self._end_process(RESTARTED), f"restart context {self.id}")
        await self.start()

    async def delete(self, reason: str = "context deleted") -> None:
        """End its process and all its cells; their clients are told the reason."""
        self._deleted = True
        self._stop_idle_timer()
        while self.queue:
            self.queue.popleft().finish(Outcome(End.BROKEN, reason=reason))
        await self._end_process(reason)
        async with self._starting:  # until a start that is under way has noticed
            pass
        if self._worker is not None:
            await asyncio.wait([self._worker])

    async def _end_process(self, reason: str) -> None:
        if self.current is not None:
            self.current.end_reason = reason
        process, self.process = self.process, None
        if process is not None:
            await process.terminate(self._config.grace_s)

    def _start_idle_timer(self) -> None:
        def end() -> None:
            self._tasks.start(self._end_process(""), f"end idle context {self.id}")

        self._stop_idle_timer()
        if self._config.idle_ttl_s and self._worker is None and not self._deleted:
            self._idle_timer = Countdown(self._config.idle_ttl_s, end)

    def _stop_idle_timer(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
