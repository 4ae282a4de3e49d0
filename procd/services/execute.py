"""One-shot commands: run a script to its end, or to the end of its time."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from procd.config import ExecuteConfig
from procd.errors import BadRequest, Exhausted, SpawnFailed
from procd.output.buffer import Buffer
from procd.output.log import Log
from procd.process.process import STDERR, Process
from procd.process.shell import Shell, script_argv
from procd.process.supervisor import Supervisor
from procd.services.environment import Environment, check_names, cost_bytes

# How much output a reply has when time ran out. The SDKs wait 5 s longer for it than the command
# may take, and drop the output.
TIMEOUT_OUTPUT_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecuteRequest:
    """What to run; `timeout_s` None is the default, 0 none.

    With `split`, stdout and stderr are told apart; without, their order is exact.
    """

    command: str
    cwd: str = ""
    envs: Mapping[str, str] = field(default_factory=dict)
    timeout_s: int | None = None
    split: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecuteResult:
    """How a command ended, and its output, with a gap if there was too much of it.

    `exit_code` is as a shell's `$?`; -1 if it could not be started; None if time ran out.
    """

    exit_code: int | None
    output: Buffer

    @property
    def truncated(self) -> bool:
        """Whether the output has a gap."""
        return self.output.kept_bytes < self.output.end


class Executions:
    """Runs commands, each in a shell of its own."""

    def __init__(
        self,
        config: ExecuteConfig,
        supervisor: Supervisor,
        shell: Shell,
        environment: Environment,
        work_dir: str,
    ) -> None:
        self.supervisor = supervisor
        self.running = 0
        self._processes: set[Process] = set()
        self._config = config
        self._shell = shell
        self._environment = environment
        self._work_dir = work_dir

    async def run(self, request: ExecuteRequest) -> ExecuteResult:
        """Run a command until its shell has exited and its output has been read.

        When time runs out, or the caller is cancelled, its whole tree is killed; the reply doesn't
        wait for that. Raises BadRequest (blank, or an environment name) or as `run_process`.

        Source: Process API contract, section 6.
        """
        if not request.command.strip():
            raise BadRequest("command cannot be empty or whitespace-only")
        check_names(request.envs)
        timeout_s: float | None = request.timeout_s
        if timeout_s is None:
            timeout_s = self._config.default_timeout_s

        def start(output: Log[Buffer]) -> Process:
            argv, script = script_argv(self._shell.path(), request.command)
            return self.supervisor.spawn(
                argv,
                cwd=request.cwd or self._work_dir,
                env=self._environment.merged(request.envs),
                output=output,
                passed=(script,) if script is not None else (),
                merged=not request.split,
                session=False,
            )

        size = cost_bytes(request.envs, request.command, request.cwd)
        return await self.run_process(start, timeout_s, size)

    async def run_process(
        self, start: Callable[[Log[Buffer]], Process], timeout_s: float, size: int = 0
    ) -> ExecuteResult:
        """Run what `start` starts, once it is certain that there is room for it.

        `timeout_s` 0 is none, but `execute.max_timeout_s` holds; `size` is what the request takes
        in memory, in bytes. Raises Exhausted: too many commands run, or too much output is in
        memory.
        """
        if self.running >= self._config.max_concurrent:
            raise Exhausted(f"limit of {self._config.max_concurrent} commands is reached")
        self.supervisor.check_memory(size)
        cap_bytes = self._config.max_output_bytes
        output = Buffer(cap_bytes, cap_bytes // 2, self.supervisor.memory)
        output.claim(size)
        self.running += 1
        try:
            await self.supervisor.turns.take()
            process = start(Log(output, cap_bytes))
            self._processes.add(process)
            try:
                exit_code = await self._exit_code(process, self._limited(timeout_s))
            finally:
                self._processes.discard(process)
        except SpawnFailed as exc:
            output.append(exc.message.encode(), STDERR)
            exit_code = -1
        finally:
            self.running -= 1
        if exit_code is None:
            output.cut(TIMEOUT_OUTPUT_BYTES)
        return ExecuteResult(exit_code=exit_code, output=output)

    def _limited(self, timeout_s: float) -> float | None:
        ceiling_s = self._config.max_timeout_s
        if ceiling_s and (not timeout_s or timeout_s > ceiling_s):
            timeout_s = ceiling_s
        return timeout_s or None

    async def _exit_code(self, process: Process, timeout_s: float | None) -> int | None:
        try:
            async with asyncio.timeout(timeout_s):
                return (await process.wait()).shell_code
        except TimeoutError:
            process.poll()
            if not process.running:  # it ended in time: the event loop is late
                return (await process.wait()).shell_code
            process.drain()
            self._abort(process)
            return None
        except asyncio.CancelledError:
            self._abort(process)
            raise

    async def kill_all(self) -> None:
        """Kill the commands that run, with their trees; each is answered with its exit code."""
        await asyncio.gather(*(process.wait_then_kill({}, 0) for process in self._processes))

    def _abort(self, process: Process) -> None:
        process.log.seal()
        self.supervisor.tasks.start(process.wait_then_kill({}, 0), f"kill {process.record.pid}")
