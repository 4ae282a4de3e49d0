"""Contexts: all interpreter contexts by id, and the spare processes that wait to become one's.

Source: Process API contract, section 11.
"""

import asyncio
import logging
import time
import uuid
from collections import deque
from typing import Final

from procd.config import InterpreterConfig
from procd.errors import (
    BadRequest,
    Conflict,
    Exhausted,
    ProcdError,
    ProcessNotFound,
    SpawnFailed,
    TimedOut,
)
from procd.process.supervisor import Supervisor
from procd.services.environment import Environment, check_names, cost_bytes
from procd.services.interpreter.context import (
    DEFAULT,
    LANGUAGE,
    RESTARTED,
    STOPPING,
    Cell,
    CellRequest,
    Context,
    ContextRecord,
    End,
)
from procd.services.interpreter.process import Repl
from procd.services.interpreter.worker_protocol import Reply
from procd.services.programs import MissingProgramError, find
from procd.tasks import Tasks

log = logging.getLogger(__name__)

# The longest time that an event loop can be asked for; who wants more gets no less.
LONGEST_S: Final = 1e9
# A spare is replaced after this, so that its start doesn't slow the first use of the one taken.
REFILL_DELAY_S: Final = 0.25
# How worker/interpreter.py begins a line about a module.
CANNOT_PRELOAD: Final = "procd: cannot preload "


class Contexts:
    """All contexts, and the spare processes that wait to become one's."""

    def __init__(
        self,
        config: InterpreterConfig,
        processes: Supervisor,
        environment: Environment,
        work_dir: str,
    ) -> None:
        self.config = config
        self.tasks = Tasks()
        self._processes = processes
        self._environment = environment
        environment.on_change = self._replace_spares
        self._work_dir = work_dir
        self._contexts: dict[str, Context] = {}
        self._creating = 0
        self._closing = False
        self._has_preloaded = False
        self._spares: deque[Repl] = deque()
        self._refill_timer: asyncio.TimerHandle | None = None
        self._default = Context(ContextRecord(DEFAULT, work_dir, time.time()), self)
        if config.warm:
            self.tasks.start(self._warm_up(), "warm up the default context")

    def __len__(self) -> int:
        return len(self._contexts)

    async def _warm_up(self) -> None:
        try:
            await self._default.start()
        except ProcdError as exc:
            if not self._closing:
                log.warning("no interpreter is ready: %s", exc.message)
        else:
            await self._refill()

    async def create(self, *, cwd: str, language: str) -> Context:
        """A new context, ready to run.

        Raises:
            BadRequest: a language other than Python.
            Exhausted: `interpreter.max_contexts` are there, or few descriptors are left.
            SpawnFailed: it can't be started.
        """
        if language != LANGUAGE:
            raise BadRequest(
                f"unsupported language: {language} (only '{LANGUAGE}' is supported currently)"
            )
        if len(self._contexts) + self._creating >= self.config.max_contexts:
            raise Exhausted(f"limit of {self.config.max_contexts} contexts is reached")
        record = ContextRecord(str(uuid.uuid4()), cwd or self._work_dir, time.time())
        context = Context(record, self)
        self._creating += 1
        try:
            await context.start(new=True)
        except SpawnFailed as exc:
            why = "procd is stopping" if self._closing else exc.message
            raise SpawnFailed(f"failed to start context: {why}") from exc
        finally:
            self._creating -= 1
        self._contexts[record.id] = context
        return context

    def all(self) -> list[Context]:
        """Those that were created, oldest first; not the default one."""
        return list(self._contexts.values())

    def get(self, context_id: str) -> Context:
        """A context.

        Raises:
            ProcessNotFound: there is none of that id.
        """
        if context_id == DEFAULT:
            return self._default
        context = self._contexts.get(context_id)
        if context is None:
            raise ProcessNotFound(f"context with ID '{context_id}' not found")
        return context

    async def delete(self, context_id: str) -> None:
        """Delete a context, whatever it does.

        Raises:
            BadRequest: the default one.
            ProcessNotFound: there is none of that id.
        """
        if context_id == DEFAULT:
            raise BadRequest("cannot delete default context")
        context = self.get(context_id)
        del self._contexts[context_id]
        await self.tasks.finish(context.delete(), f"delete context {context_id}")

    def execute(self, request: CellRequest) -> Cell:
        """Run code in a context, in its turn.

        Raises:
            ProcessNotFound: there is no such context.
            BadRequest: a bad environment name.
            Exhausted: too many wait, or too much is held in memory.
        """
        context = self.get(request.context_id)
        check_names(request.envs)
        timeout_s: float | None = request.timeout_s
        if timeout_s is None:
            timeout_s = self.config.default_timeout_s
        timeout_s = min(timeout_s, LONGEST_S)
        message = {
            "op": "run",
            "code": request.code,
            "envs": dict(request.envs),
            "display": request.display,
        }
        size = cost_bytes(request.envs, request.code)
        self._processes.check_memory(size)
        cell = Cell(request.context_id, message, timeout_s, self.config.buffer_bytes)
        context.submit(cell)
        memory = self._processes.memory
        memory.take(size)
        cell.ended.add_done_callback(lambda _: memory.give_back(size))
        return cell

    async def variables(self, context_id: str) -> list[dict[str, str]]:
        """What is in a context's namespace, once those before have run.

        Raises:
            ProcessNotFound: there is no such context, or no longer.
            Conflict: it was interrupted, or the context restarted.
            Exhausted: too many wait.
            SpawnFailed: its process can't be started, or ended.
            TimedOut: it takes longer than `interpreter.variables_s`; the state is kept.
        """
        cell = Cell(
            context_id,
            {"op": "variables"},
            min(self.config.variables_s, LONGEST_S),
            self.config.buffer_bytes,
            only_looks=True,
        )
        self.get(context_id).submit(cell)
        try:
            outcome = await asyncio.shield(cell.ended)
        finally:
            cell.abandon()
        if outcome.end is End.TIMED_OUT:
            raise TimedOut("the listing took too long and was interrupted; the state is kept")
        if outcome.reply is None:
            self.get(context_id)  # it may have been deleted
            if outcome.reason == RESTARTED:
                raise Conflict(RESTARTED)
            raise SpawnFailed(outcome.reason or "the context doesn't answer")
        if outcome.reply.variables is None:
            if cell.interrupted:
                raise Conflict("the context was interrupted")
            raise SpawnFailed("the listing failed")
        return outcome.reply.variables

    async def turn(self, *, new: bool) -> None:
        """Wait for a turn of the event loop that a process may be taken in.

        Args:
            new: it is for a new context, or a spare, and leaves descriptors to commands.

        Raises:
            SpawnFailed, Exhausted: as `Supervisor.check_descriptors`, of what is new.
        """
        await self._processes.turns.take()
        if new:
            self._processes.check_descriptors()

    def take(self) -> Repl:
        """A process that is nobody's: a spare if there is one.

        Raises:
            SpawnFailed: none can be started.
            Exhausted: there are as many processes as may be.
        """
        while self._spares:
            repl = self._spares.popleft()
            repl.look()
            if repl.running:
                self._refill_later()
                return repl
        self._refill_later()
        return self._new()

    def discard(self, repl: Repl) -> None:
        """End a process that is of no use."""
        self.tasks.start(repl.kill(), "discard an interpreter")

    def _new(self) -> Repl:
        env = self._environment.merged({})
        try:
            python = self.config.python or find(
                env, self._processes.confinement, "python3", "python", cwd=self._work_dir
            )
        except MissingProgramError as exc:
            raise SpawnFailed(str(exc)) from exc
        repl = Repl(
            self._processes,
            python,
            cwd=self._work_dir,
            env=env,
            preload=self.config.preload,
        )
        if self.config.preload and not self._has_preloaded:
            repl.ready.add_done_callback(lambda reply: self._preloaded(repl, reply.result()))
        return repl

    def _preloaded(self, repl: Repl, reply: Reply | None) -> None:
        """Log what the first that has started says it can't import; the others are like it."""
        if reply is None or self._has_preloaded:
            return
        self._has_preloaded = True
        for line in repl.first_words:
            if line.startswith(CANNOT_PRELOAD):
                log.warning("interpreter.preload: %s", line.removeprefix(CANNOT_PRELOAD))

    def _replace_spares(self) -> None:
        """Have spares with the environment of now: a Python takes much of it up as it starts."""
        while self._spares:
            self.discard(self._spares.popleft())
        self._refill_later()

    def _refill_later(self) -> None:
        if self._refill_timer is None and self.config.warm:
            loop = asyncio.get_running_loop()
            self._refill_timer = loop.call_later(REFILL_DELAY_S, self._refill_now)

    def _refill_now(self) -> None:
        self._refill_timer = None
        self.tasks.start(self._refill(), "start spare interpreters")

    async def _refill(self) -> None:
        try:
            # More than there may be contexts are of no use to anybody.
            most = min(self.config.warm, self.config.max_contexts)
            while len(self._spares) < most:
                await self.turn(new=True)
                if self._closing:
                    break
                if len(self._spares) < most:  # it may be seen to more than once by then
                    self._spares.append(self._new())
        except ProcdError as exc:
            log.warning("no spare interpreter: %s", exc.message)

    @property
    def pids(self) -> set[int]:
        """The processes that have a time of grace."""
        contexts = [*self._contexts.values(), self._default]
        return {context.pid for context in contexts if context.pid is not None}

    async def aclose(self, within_s: float) -> None:
        """End everything; what hasn't ended in time is left to `Supervisor`."""
        self._closing = True
        self._environment.on_change = None
        if self._refill_timer is not None:
            self._refill_timer.cancel()
            self._refill_timer = None
        ends = [
            self.tasks.run(context.delete(STOPPING), "end a context")
            for context in [*self._contexts.values(), self._default]
        ]
        ends += [self.tasks.run(repl.kill(), "end a spare") for repl in self._spares]
        await asyncio.wait(ends, timeout=within_s)
        await self.tasks.aclose()
