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
from procd.process.supervisor import ExtraPipe, Supervisor
from procd.services.environment import Environment, check_names, cost_bytes
from procd.unix.fd import OwnedFd

# How much output a reply has when time ran out. The SDKs wait 5 s longer for it than the command
# may take, and drop the output.
TIMEOUT_OUTPUT_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecuteRequest:
    """What to run.

    Attributes:
        timeout_s: None for the default, 0 for none.
        split: whether stdout and stderr are told apart. If not, their order is exact.
    """

    command: str
    cwd: str = ""
    envs: Mapping[str, str] = field(default_factory=dict)
    timeout_s: int | None = None
    split: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecuteResult:
    """How a command ended, and its output.

    Attributes:
        exit_code: as a shell's `$?`; -1 if it could not be started; None if time ran out.
        output: less a gap if there was too much to keep, or to send when time ran out.
    """

    exit_code: int | None
    output: Buffer

    @property
    def truncated(self) -> bool:
        """Whether the output has a gap."""
        return self.output.kept_bytes < self.output.end


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to start, and the descriptors that it gets.

    Attributes:
        stdin, passed, extra: see `Supervisor.spawn`.
        split: whether stdout and stderr get a pipe each.
    """

    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]
    stdin: OwnedFd | None = None
    passed: tuple[OwnedFd, ...] = ()
    extra: ExtraPipe | None = None
    split: bool = False


class Executions:
    """Runs commands, each in a shell of its own.

    Attributes:
        running: how many there are.
    """

    def __init__(
        self,
        config: ExecuteConfig,
        supervisor: Supervisor,
        shell: Shell,
        environment: Environment,
        work_dir: str,
    ) -> None:
        self._config = config
        self._supervisor = supervisor
        self._shell = shell
        self._environment = environment
        self._work_dir = work_dir
        self.running = 0
        self.memory = supervisor.memory
        self.child_limits = supervisor.child_limits

    async def run(self, request: ExecuteRequest) -> ExecuteResult:
        """Run a command until its shell has exited and its output has been read.

        When time runs out, or the caller is cancelled, its whole tree is killed; the reply doesn't
        wait for that.

        Raises:
            BadRequest: a blank command, or an invalid environment name.
            Exhausted: `execute.max_concurrent` commands run, or too much output is in memory.

        Source: Process API contract, section 6.
        """
        if not request.command.strip():
            raise BadRequest("command cannot be empty or whitespace-only")
        check_names(request.envs)
        timeout_s: float | None = request.timeout_s
        if timeout_s is None:
            timeout_s = self._config.default_timeout_s

        def program() -> Program:
            argv, script = script_argv(self._shell.path(), request.command)
            return Program(
                argv=argv,
                cwd=request.cwd or self._work_dir,
                env=self._environment.merged(request.envs),
                passed=(script,) if script is not None else (),
                split=request.split,
            )

        size = cost_bytes(request.envs, request.command, request.cwd)
        return await self.run_program(program, timeout_s, size)

    async def run_program(
        self,
        program: Callable[[], Program],
        timeout_s: float,
        size: int = 0,
        on_output: Callable[[Buffer], None] = lambda _: None,
    ) -> ExecuteResult:
        """Run what `program` returns, which is called once it is certain that there is room for it.

        Args:
            timeout_s: 0 for none; `execute.max_timeout_s` holds in any case.
            size: what the request takes in memory, bytes.
            on_output: called with the buffer of the output before anything is in it.

        Raises:
            Exhausted: `execute.max_concurrent` commands run, or too much output is in memory.
        """
        if self.running >= self._config.max_concurrent:
            raise Exhausted(f"limit of {self._config.max_concurrent} commands is reached")
        self._supervisor.check_memory(size)
        cap_bytes = self._config.max_output_bytes
        output = Buffer(cap_bytes, cap_bytes // 2, self._supervisor.memory)
        output.claim(size)
        on_output(output)
        self.running += 1
        try:
            await self._supervisor.turns.take()
            process = self._spawn(program(), Log(output, cap_bytes))
            exit_code = await self._exit_code(process, self._limited(timeout_s))
        except SpawnFailed as exc:
            output.append(exc.message.encode(), STDERR)
            exit_code = -1
        finally:
            self.running -= 1
        if exit_code is None:
            output.cut(TIMEOUT_OUTPUT_BYTES)
        return ExecuteResult(exit_code=exit_code, output=output)

    def _spawn(self, program: Program, output: Log[Buffer]) -> Process:
        return self._supervisor.spawn(
            program.argv,
            cwd=program.cwd,
            env=program.env,
            output=output,
            stdin=program.stdin,
            passed=program.passed,
            extra=program.extra,
            merged=not program.split,
            session=False,
        )

    def _limited(self, timeout_s: float) -> float | None:
        ceiling_s = self._config.max_timeout_s
        if ceiling_s and (not timeout_s or timeout_s > ceiling_s):
            timeout_s = ceiling_s
        return timeout_s or None

    async def _exit_code(self, process: Process, timeout_s: float | None) -> int | None:
        """Wait for the end; None if time ran out before. Then the tree is killed."""
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

    def _abort(self, process: Process) -> None:
        """Take no more of its output, and kill its tree in the background."""
        process.log.seal()
        self._supervisor.tasks.start(process.wait_then_kill({}, 0), f"kill {process.record.pid}")
