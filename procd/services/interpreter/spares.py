"""Interpreter processes for contexts, and spare ones that are started ahead of time."""

import asyncio
import logging
from collections import deque
from typing import Final

from procd.config import InterpreterConfig
from procd.errors import ProcdError, SpawnFailed
from procd.process.supervisor import Supervisor
from procd.services.environment import Environment, MissingProgramError, find_python
from procd.services.interpreter.process import InterpreterProcess
from procd.services.interpreter.worker_protocol import Reply
from procd.tasks import Tasks

log = logging.getLogger(__name__)

# A spare is replaced after this, so that its start doesn't slow the first use of the one taken.
REFILL_DELAY_S: Final = 0.25
# How worker/interpreter.py begins a line about a module.
CANNOT_PRELOAD: Final = "procd: cannot preload "


class Spares:
    """Starts interpreter processes, and keeps `interpreter.warm` of them ready."""

    def __init__(
        self,
        config: InterpreterConfig,
        supervisor: Supervisor,
        environment: Environment,
        work_dir: str,
        tasks: Tasks,
    ) -> None:
        self._config = config
        self._supervisor = supervisor
        self._environment = environment
        self._work_dir = work_dir
        self._tasks = tasks
        self._spares: deque[InterpreterProcess] = deque()
        self._refilling = False
        self._closing = False
        self._preload_reported = False
        environment.on_change = self._replace

    async def wait_turn(self) -> None:
        """Wait until a process may be started; Exhausted if few descriptors are left."""
        await self._supervisor.turns.take()
        self._supervisor.check_descriptors()

    def take(self) -> InterpreterProcess:
        """Return a spare process, or a new one; raises SpawnFailed or Exhausted."""
        self.refill(REFILL_DELAY_S)
        while self._spares:
            process = self._spares.popleft()
            process.poll()
            if process.running:
                return process
        return self._start()

    def discard(self, process: InterpreterProcess) -> None:
        self._tasks.start(process.kill(), "discard an interpreter")

    def _start(self) -> InterpreterProcess:
        env = self._environment.merged({})
        try:
            python = self._config.python or find_python(
                env,
                self._supervisor.child_limits,
                cwd=self._work_dir,
                setting="interpreter.python",
            )
        except MissingProgramError as exc:
            raise SpawnFailed(str(exc)) from exc
        process = InterpreterProcess(
            self._supervisor, python, cwd=self._work_dir, env=env, preload=self._config.preload
        )
        process.ready.add_done_callback(lambda ready: self._report(process, ready.result()))
        return process

    def _report(self, process: InterpreterProcess, ready: Reply | None) -> None:
        """Log the modules that can't be imported, once: all processes are alike."""
        if ready is not None and not self._preload_reported:
            self._preload_reported = True
            for line in process.startup_output:
                if line.startswith(CANNOT_PRELOAD):
                    log.warning("interpreter.preload: %s", line.removeprefix(CANNOT_PRELOAD))

    def _replace(self) -> None:
        """Discard the spares: Python reads much of the environment as it starts."""
        while self._spares:
            self.discard(self._spares.popleft())
        self.refill(REFILL_DELAY_S)

    def refill(self, delay_s: float = 0) -> None:
        if self._config.warm and not self._refilling and not self._closing:
            self._refilling = True
            self._tasks.start(self._refill(delay_s), "start spare interpreters")

    async def _refill(self, delay_s: float) -> None:
        wanted = min(self._config.warm, self._config.max_contexts)
        try:
            await asyncio.sleep(delay_s)
            while len(self._spares) < wanted and not self._closing:
                await self.wait_turn()
                self._spares.append(self._start())
        except ProcdError as exc:
            if not self._closing:
                log.warning("no spare interpreter: %s", exc.message)
        finally:
            self._refilling = False

    async def aclose(self) -> None:
        self._closing = True
        self._environment.on_change = None
        async with asyncio.TaskGroup() as group:
            for process in self._spares:
                group.create_task(process.kill())
