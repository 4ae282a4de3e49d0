"""Context: a namespace that lives on between cells, in a process of its own.

A context runs one cell after another. What a cell says is a log, and its client is the
cursor: a client that reads slowly slows its own code and nobody else's. A cell that nobody
listens to any more is interrupted.

Source: Process API contract, section 11.
"""

import asyncio
import enum
import logging
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from procd.errors import Exhausted, ProcdError, ProcessNotFound, SpawnFailed
from procd.output.buffer import Buffer
from procd.output.log import Log
from procd.services.interpreter.process import Repl
from procd.services.interpreter.worker_protocol import Reply
from procd.suspend import Countdown, within

if TYPE_CHECKING:  # which imports this module
    from procd.services.interpreter.contexts import Contexts

log = logging.getLogger(__name__)

DEFAULT: Final = "default"
LANGUAGE: Final = "python"
# Of a timeout that the code didn't obey.
STATE_LOST: Final = "timeout: the interpreter was ended, its state is lost"
ENDED: Final = "worker process ended"
DELETED: Final = "context deleted"
RESTARTED: Final = "context restarted"
STOPPING: Final = "server shutdown"
# Of what went wrong in procd, which then can't know what the process was told.
INTERNAL: Final = "internal error: the interpreter was ended, its state is lost"
# What may come on top of a full buffer: what the pipes held, and displays.
SLACK_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class CellRequest:
    """What to run; `timeout_s` None means the default, 0 none."""

    code: str
    context_id: str = DEFAULT
    envs: Mapping[str, str] = field(default_factory=dict)
    timeout_s: int | None = None
    display: bool = False


@dataclass(slots=True)
class ContextRecord:
    """What is true of a context whoever serves it.

    Attributes:
        created_at: seconds since the epoch.
    """

    id: str
    cwd: str
    created_at: float
    language: str = LANGUAGE


class End(enum.Enum):
    """How a cell ends."""

    COMPLETED = enum.auto()
    TIMED_OUT = enum.auto()
    ABANDONED = enum.auto()
    BROKEN = enum.auto()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended.

    Attributes:
        reply: the interpreter's, if it completed.
        reason: what broke it, or what its end has cost.
    """

    end: End
    reply: Reply | None = None
    reason: str = ""


class Cell:
    """One thing that a context does for somebody.

    Attributes:
        context_id: where it runs.
        only_looks: whether it changes nothing, and so is never to cost the context its state.
        log: what it says; sealed before `ended` is set.
        ended: how it ended; what only looks may go on, with nobody to hear of it.
    """

    def __init__(
        self,
        context_id: str,
        message: Mapping[str, object],
        timeout_s: float,
        buffer_bytes: int,
        *,
        only_looks: bool = False,
    ) -> None:
        self.context_id = context_id
        self.message = message
        self.timeout_s = timeout_s
        self.only_looks = only_looks
        self.log = Log(Buffer(buffer_bytes + SLACK_BYTES), buffer_bytes)
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[Outcome] = loop.create_future()
        self.abandoned: asyncio.Future[None] = loop.create_future()
        self.interrupted = False  # perhaps before it has a process
        # Why its process is being ended on purpose; empty while it isn't.
        self.broken_for = ""

    def abandon(self) -> None:
        """Nobody listens any more: have it end, the sooner the better."""
        if not self.abandoned.done():
            self.abandoned.set_result(None)
            self.log.seal()

    def forestalled(self) -> Outcome | None:
        """How it ends before it has begun, if nobody wants it any more."""
        if self.broken_for:
            return Outcome(End.BROKEN, reason=self.broken_for)
        return Outcome(End.ABANDONED) if self.abandoned.done() else None

    def broken(self, reason: str) -> Outcome:
        """How it ends without its process: for this reason, unless that was on purpose."""
        return Outcome(End.BROKEN, reason=self.broken_for or reason)

    def finish(self, outcome: Outcome) -> None:
        """Publish how it ended, after all that it said; the code is no longer kept."""
        self.log.seal()
        self.message = {}
        if not self.ended.done():
            self.ended.set_result(outcome)


class Context:
    """One namespace, its process, and those who wait for it."""

    def __init__(self, record: ContextRecord, contexts: "Contexts") -> None:
        self.record = record
        self._contexts = contexts
        self._config = contexts.config
        self._repl: Repl | None = None
        self._candidate: Repl | None = None  # the process as it starts, while it is wanted
        self._starting = asyncio.Lock()
        self._queue: deque[Cell] = deque()
        self._current: Cell | None = None
        self._working: asyncio.Task[None] | None = None
        self._idle_timer: Countdown | None = None
        self._deleted = False

    @property
    def active(self) -> bool:
        """Whether its process is there; if not, the next use starts one."""
        return self._repl is not None and self._repl.running

    @property
    def pid(self) -> int | None:
        """The process, if there is one."""
        return self._repl.pid if self._repl is not None and self._repl.running else None

    async def start(self, *, new: bool = False) -> Repl:
        """The process, started if need be.

        Args:
            new: the context is one, and leaves descriptors to commands; others may take the last.

        Raises:
            SpawnFailed: it can't be, or the context's directory can't be entered.
            Exhausted: there are as many processes as may be, or few descriptors are left.
            ProcessNotFound: the context was deleted meanwhile.
        """
        async with self._starting:
            while (repl := self._repl) is None or not repl.running:
                self._repl = None
                await self._contexts.turn(new=new)
                if self._deleted:
                    raise ProcessNotFound(f"context with ID '{self.record.id}' not found")
                self._repl = await self._started()
                self._begin_idling()
            return repl

    async def _started(self) -> Repl | None:
        """Another process in its place; None if it was ended on purpose as it started."""
        repl = self._candidate = self._contexts.take()
        try:
            async with asyncio.timeout(self._config.start_s):
                await self._place(repl)
        except TimeoutError as exc:
            await repl.kill()
            raise SpawnFailed("the interpreter doesn't start") from exc
        except BaseException as exc:
            self._contexts.discard(repl)
            if not isinstance(exc, SpawnFailed) or self._candidate is repl:
                raise
        finally:
            wanted, self._candidate = self._candidate, None
        return wanted

    async def _place(self, repl: Repl) -> None:
        if await asyncio.shield(repl.ready) is None:
            words = repl.first_words
            said = words[-1] if words else "without a word"
            raise SpawnFailed(f"the interpreter ended as it started: {said}")
        reply = await asyncio.shield(repl.place(self.record.cwd))
        if reply is None:
            raise SpawnFailed("the interpreter ended as it started")
        if reply.error is not None:
            raise SpawnFailed(reply.error["value"])

    def submit(self, cell: Cell) -> None:
        """Let it run when those before it have.

        Raises:
            Exhausted: `interpreter.max_queued` wait already.
        """
        if len(self._queue) >= self._config.max_queued:
            raise Exhausted(f"limit of {self._config.max_queued} waiting executions is reached")
        self._queue.append(cell)
        cell.abandoned.add_done_callback(lambda _: self._leave(cell))
        self._stop_idling()
        if self._working is None:
            self._working = self._contexts.tasks.run(self._work(), f"context {self.record.id}")

    def _leave(self, cell: Cell) -> None:
        """Have a cell that nobody waits for give up its place."""
        if cell in self._queue:
            self._queue.remove(cell)
            cell.finish(Outcome(End.ABANDONED))

    async def _work(self) -> None:
        try:
            while self._queue:
                cell = self._current = self._queue.popleft()
                try:
                    cell.finish(await self._outcome(cell))
                except Exception:
                    log.exception("context %s: internal error", self.record.id)
                    repl, self._repl = self._repl, None
                    if repl is not None:
                        self._contexts.discard(repl)
                    cell.finish(cell.broken(INTERNAL))
                finally:
                    self._current = None
                    cell.finish(Outcome(End.BROKEN, reason=STOPPING))
        finally:
            self._working = None
        self._begin_idling()

    async def _outcome(self, cell: Cell) -> Outcome:
        outcome = await self._attempt(cell)
        if outcome is None:  # the process may have been about to end, for whatever reason
            outcome = await self._attempt(cell)
        return outcome or cell.broken(ENDED)

    async def _attempt(self, cell: Cell) -> Outcome | None:
        """Run it; None if its process has ended before it had begun with it."""
        if (outcome := cell.forestalled()) is not None:
            return outcome
        try:
            repl = await self.start()
        except ProcdError as exc:
            what = "get default context" if self.record.id == DEFAULT else "start context"
            return cell.broken(f"failed to {what}: {exc.message}")
        if (outcome := cell.forestalled()) is not None:
            return outcome
        reply = repl.run(cell.message, cell.log)
        if cell.interrupted:
            repl.interrupt()
        if not await self._in_time(cell, repl, reply):
            return await self._break_off(cell, repl, reply)
        if (result := reply.result()) is not None:
            return Outcome(End.COMPLETED, result)
        return cell.broken(ENDED) if repl.begun or cell.broken_for else None

    async def _in_time(self, cell: Cell, repl: Repl, reply: asyncio.Future[Reply | None]) -> bool:
        """Wait for the reply as long as there is time and somebody listens; whether it came."""
        either: list[asyncio.Future[Any]] = [reply, cell.abandoned]
        timeout_s = cell.timeout_s or None
        await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        return await self._heard(repl, reply)

    async def _heard(self, repl: Repl, reply: asyncio.Future[Reply | None]) -> bool:
        """Whether the reply has come by now: time may be up for us and not for the code."""
        if not reply.done():
            repl.look()
            if not repl.running:
                await asyncio.wait([reply])
        return reply.done()

    async def _break_off(
        self, cell: Cell, repl: Repl, reply: asyncio.Future[Reply | None]
    ) -> Outcome:
        """Interrupt it, and end the process if it goes on all the same.

        What only looks is left to end by itself, however long that takes; who asked is answered.
        """
        end = End.ABANDONED if cell.abandoned.done() else End.TIMED_OUT
        repl.interrupt()
        repl.resume()  # however far its reader is behind, nothing is to keep it
        if cell.only_looks:
            cell.finish(Outcome(end))
            await asyncio.wait([reply])
        else:
            with suppress(TimeoutError):
                await within(self._config.grace_s, lambda: asyncio.wait([reply]))
        late = not await self._heard(repl, reply)
        if late:  # though it may come before the kill
            await repl.kill()
        if cell.broken_for:
            return cell.broken(ENDED)
        return Outcome(end, reason=STATE_LOST if late or reply.result() is None else "")

    def interrupt(self) -> bool:
        """Interrupt what runs or is about to, as Ctrl-C would; whether something is."""
        if self._current is None:
            return False
        self._current.interrupted = True
        if self._repl is not None:
            self._repl.interrupt()
        return True

    async def restart(self) -> None:
        """Begin again with an empty namespace; what runs is broken off, what waits goes on.

        Raises:
            SpawnFailed, Exhausted, ProcessNotFound: as `start`.
        """
        ending = self._end_process(RESTARTED)
        await self._contexts.tasks.finish(ending, f"restart context {self.record.id}")
        await self.start()

    async def delete(self, reason: str = DELETED) -> None:
        """End it, those who wait included; they are told the reason."""
        self._deleted = True
        self._stop_idling()
        while self._queue:
            self._queue.popleft().finish(Outcome(End.BROKEN, reason=reason))
        await self._end_process(reason)

    async def _end_process(self, reason: str) -> None:
        if self._current is not None:
            self._current.broken_for = reason
        candidate, self._candidate = self._candidate, None
        repl, self._repl = self._repl, None
        if candidate is not None:
            await candidate.kill()  # who waits for it hears of it
        if repl is not None:
            await repl.end(self._config.grace_s)
        if self._deleted:
            async with self._starting:  # which who waits for it leaves
                pass
            if self._working is not None:
                await asyncio.wait([self._working])

    def _begin_idling(self) -> None:
        self._stop_idling()
        if self._config.idle_ttl_s and self._working is None and not self._deleted:
            self._idle_timer = Countdown(self._config.idle_ttl_s, self._idle_over)

    def _idle_over(self) -> None:
        self._stop_idling()
        repl, self._repl = self._repl, None
        if repl is not None:
            self._contexts.tasks.start(
                repl.end(self._config.grace_s), f"end idle context {self.record.id}"
            )

    def _stop_idling(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
