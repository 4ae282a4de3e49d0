"""All interpreter contexts by id. Source: Process API contract, section 11."""

import asyncio
import logging
import uuid
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
    End,
)
from procd.services.interpreter.spares import Spares
from procd.tasks import Tasks

log = logging.getLogger(__name__)

# An event loop refuses longer timeouts.
MAX_TIMEOUT_S: Final = 1e9


class Contexts:
    def __init__(
        self,
        config: InterpreterConfig,
        supervisor: Supervisor,
        environment: Environment,
        work_dir: str,
    ) -> None:
        self.config = config
        self._supervisor = supervisor
        self._work_dir = work_dir
        self._tasks = Tasks()
        self._spares = Spares(config, supervisor, environment, work_dir, self._tasks)
        self._contexts: dict[str, Context] = {}
        self._creating = 0
        self._closing = False
        self._default = self._new(DEFAULT, work_dir)
        if config.warm:
            self._tasks.start(self._warm_up(), "warm up the default context")

    def __len__(self) -> int:
        return len(self._contexts)

    def _new(self, context_id: str, cwd: str) -> Context:
        return Context(context_id, cwd, self.config, self._spares, self._tasks)

    async def _warm_up(self) -> None:
        try:
            await self._default.start()
        except ProcdError as exc:
            if not self._closing:
                log.warning("no interpreter is ready: %s", exc.message)
        else:
            self._spares.refill()

    async def create(self, *, cwd: str, language: str) -> Context:
        """Create a context and start its process.

        Raises BadRequest (a language other than Python), Exhausted or SpawnFailed.
        """
        if language != LANGUAGE:
            raise BadRequest(
                f"unsupported language: {language} (only '{LANGUAGE}' is supported currently)"
            )
        if len(self._contexts) + self._creating >= self.config.max_contexts:
            raise Exhausted(f"limit of {self.config.max_contexts} contexts is reached")
        context = self._new(str(uuid.uuid4()), cwd or self._work_dir)
        self._creating += 1
        try:
            await context.start()
        except SpawnFailed as exc:
            why = "procd is stopping" if self._closing else exc.message
            raise SpawnFailed(f"failed to start context: {why}") from exc
        finally:
            self._creating -= 1
        self._contexts[context.id] = context
        return context

    def all(self) -> list[Context]:
        """The contexts that were created, oldest first; not the default one."""
        return list(self._contexts.values())

    def get(self, context_id: str) -> Context:
        """Return a context; raises ProcessNotFound."""
        if context_id == DEFAULT:
            return self._default
        context = self._contexts.get(context_id)
        if context is None:
            raise ProcessNotFound(f"context with ID '{context_id}' not found")
        return context

    async def delete(self, context_id: str) -> None:
        """Delete a context, whatever runs in it; BadRequest for the default one."""
        if context_id == DEFAULT:
            raise BadRequest("cannot delete default context")
        context = self.get(context_id)
        del self._contexts[context_id]
        await self._tasks.finish(context.delete(), f"delete context {context_id}")

    async def delete_all(self) -> None:
        """Delete all contexts. The default one begins anew with the next cell in it."""
        contexts = [*self._contexts.values(), self._default]
        self._contexts.clear()
        self._default = self._new(DEFAULT, self._work_dir)
        await asyncio.gather(*(context.delete() for context in contexts))

    def execute(self, request: CellRequest) -> Cell:
        """Run code in a context, in its turn.

        Raises ProcessNotFound, BadRequest (an environment name) or Exhausted.
        """
        context = self.get(request.context_id)
        check_names(request.envs)
        timeout_s: float | None = request.timeout_s
        if timeout_s is None:
            timeout_s = self.config.default_timeout_s
        message = {
            "op": "run",
            "code": request.code,
            "envs": dict(request.envs),
            "display": request.display,
        }
        size = cost_bytes(request.envs, request.code)
        self._supervisor.check_memory(size)
        cell = Cell(context.id, message, min(timeout_s, MAX_TIMEOUT_S), self.config.buffer_bytes)
        context.submit(cell)
        memory = self._supervisor.memory
        memory.take(size)
        cell.ended.add_done_callback(lambda _: memory.give_back(size))
        return cell

    async def variables(self, context_id: str) -> list[dict[str, str]]:
        """List a context's variables, after the cells that wait already.

        Raises ProcessNotFound; Conflict: it was interrupted or restarted; Exhausted; SpawnFailed:
        its process can't be started, or ended; TimedOut: the listing took too long, and the state
        is kept.
        """
        cell = Cell(
            context_id,
            {"op": "variables"},
            min(self.config.variables_s, MAX_TIMEOUT_S),
            self.config.buffer_bytes,
            keeps_state=True,
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

    @property
    def pids(self) -> set[int]:
        """The processes that have a time of grace at the end."""
        contexts = [*self._contexts.values(), self._default]
        return {context.pid for context in contexts if context.pid is not None}

    async def aclose(self, within_s: float) -> None:
        """End everything; what hasn't ended in time is left to `Supervisor`."""
        self._closing = True
        ends = [
            self._tasks.run(context.delete(STOPPING), "end a context")
            for context in [*self._contexts.values(), self._default]
        ]
        ends.append(self._tasks.run(self._spares.aclose(), "end the spare interpreters"))
        await asyncio.wait(ends, timeout=within_s)
        await self._tasks.aclose()
