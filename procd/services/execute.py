"""One-shot commands: run a script to its end, or to the end of its time."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from procd.config import ExecuteConfig
from procd.errors import BadRequest, Exhausted, SpawnFailed
from procd.output.buffer import Backlog
from procd.output.log import Log
from procd.process.process import STDERR, Process
from procd.process.shell import Shell, script_argv
from procd.process.starts import Steps
from procd.process.supervisor import Apart, Processes
from procd.services.environment import Environment, check_names, cost_bytes
from procd.unix.fd import OwnedFd

# Output that is told when time ran out. The SDKs wait 5 s longer for the reply than the command may
# take, and drop the output.
LATE_BYTES: Final = 4 << 20

# Called with the log of a command's output before anything is in it.
Watch = Callable[[Log[Backlog]], None]


def unwatched(_: Log[Backlog]) -> None:
    """Watches nothing."""


@dataclass(slots=True, kw_only=True)
class ExecuteRequest:
    """What to run; `timeout_s` None means the default, 0 none."""

    command: str
    cwd: str = ""
    envs: Mapping[str, str] = field(default_factory=dict)
    timeout_s: int | None = None


@dataclass(slots=True, kw_only=True)
class ExecuteResult:
    """How it ended and what it said.

    Attributes:
        exit_code: as a shell's `$?`; -1 if it could not be started; None if time ran out.
        output: both streams in order of arrival, less a gap if there was too much to keep, or to
            tell when time ran out.
    """

    exit_code: int | None
    output: Backlog

    @property
    def truncated(self) -> bool:
        """Whether the output has a gap."""
        return self.output.kept_bytes < self.output.end


@dataclass(slots=True, kw_only=True)
class Program:
    """What is to be started, and the descriptors that are handed to it.

    Attributes:
        apart, merged: see `Processes.starting`.
    """

    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]
    stdin: OwnedFd | None = None
    passed: tuple[OwnedFd, ...] = ()
    apart: Apart | None = None
    merged: bool = False


class _Run:
    """One command from its request to its end.

    Attributes:
        over: done when the command is, or when its time is up.
        process: None until it has been started.
        left: whether nobody waits for it any more.
    """

    __slots__ = ("_loop", "_timer", "left", "over", "process")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self.over = self._loop.create_future()
        self.process: Process | None = None
        self.left = False

    def watch(self, process: Process, timeout_s: float | None) -> None:
        """It has been started; from now on its time counts, if there is a limit to it."""
        self.process = process
        process.on_done = self._wake
        if timeout_s is not None:
            self._timer = self._loop.call_later(timeout_s, self._time_up)

    def _wake(self) -> None:
        if not self.over.done():
            self.over.set_result(None)

    def _time_up(self) -> None:
        assert self.process is not None
        self.process.look()
        if self.process.running:  # else it is done as soon as its output is in
            self._wake()

    def leave(self) -> None:
        """Wait for it no more."""
        if self.process is not None:
            self.process.on_done = None
        if self._timer is not None:
            self._timer.cancel()
        self.left = True
        del self.over  # if it has a failure, the traceback of that leads here


class Executions:
    """Runs commands, each in a shell of its own.

    Attributes:
        running: how many there are.
    """

    def __init__(
        self,
        config: ExecuteConfig,
        processes: Processes,
        shell: Shell,
        environment: Environment,
        work_dir: str,
    ) -> None:
        self._config = config
        self._processes = processes
        self._shell = shell
        self._environment = environment
        self._work_dir = work_dir
        self.running = 0
        self.memory = processes.memory
        self.confinement = processes.confinement

    async def run(self, request: ExecuteRequest, watch: Watch) -> ExecuteResult:
        """Run a command until its shell has exited and its output is in.

        When time runs out, or the caller is cancelled, its whole tree is killed; the answer doesn't
        wait for that.

        Raises:
            BadRequest: a blank command, or a bad environment name.
            Exhausted: `execute.max_concurrent` commands are running, or too much
                output is held in memory.

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
            )

        size = cost_bytes(request.envs, request.command, request.cwd)
        return await self.run_program(program, timeout_s, watch, size)

    async def run_program(
        self,
        program: Callable[[], Program],
        timeout_s: float,
        watch: Watch = unwatched,
        size: int = 0,
    ) -> ExecuteResult:
        """Run what `program` makes, once it is certain that there is room for it.

        Args:
            timeout_s: 0 for none; the configured ceiling holds in any case.
            size: what the request for it takes in memory, bytes.

        Raises:
            Exhausted: `execute.max_concurrent` commands are running, or too much is held in memory.
        """
        if self.running >= self._config.max_concurrent:
            raise Exhausted(f"limit of {self._config.max_concurrent} commands is reached")
        self._processes.check_memory(size)
        cap_bytes = self._config.max_output_bytes
        store = Backlog(cap_bytes, cap_bytes // 2, self._processes.memory)
        store.claim(size)
        self.running += 1
        try:
            output = Log(store, cap_bytes)
            watch(output)
            run = _Run()
            self._processes.starts.begin(self._starting(program, output, timeout_s, run), run.over)
            try:
                await run.over
            except SpawnFailed as exc:
                output.append(exc.message.encode(), STDERR)
                return ExecuteResult(exit_code=-1, output=store)
            except BaseException:  # cancelled, or no memory to wait for it with
                if run.process is not None:
                    self._abort(run.process)
                raise
            finally:
                run.leave()
            assert run.process is not None
            exit_code = self._ended(run.process)
            if exit_code is None:
                store.cut(LATE_BYTES)
            return ExecuteResult(exit_code=exit_code, output=store)
        finally:
            self.running -= 1

    def _starting(
        self, program: Callable[[], Program], output: Log[Backlog], timeout_s: float, run: _Run
    ) -> Steps[None]:
        made = program()
        process = yield from self._processes.starting(
            made.argv,
            cwd=made.cwd,
            env=made.env,
            output=output,
            stdin=made.stdin,
            passed=made.passed,
            apart=made.apart,
            merged=made.merged,
        )
        if run.left or run.over.done():  # cancelled amid the start
            self._abort(process)
        else:
            run.watch(process, self._limited(timeout_s))

    def _limited(self, timeout_s: float) -> float | None:
        ceiling_s = self._config.max_timeout_s
        if ceiling_s and (not timeout_s or timeout_s > ceiling_s):
            timeout_s = ceiling_s
        return timeout_s or None

    def _ended(self, process: Process) -> int | None:
        """The exit code; None if time was up: then the command is ended."""
        if process.done.done():
            return process.done.result().shell_code
        process.take_pending()
        self._abort(process)
        return None

    def _abort(self, process: Process) -> None:
        """Take no more of its output, and kill it: many whose time is up at once, few in a turn."""
        process.log.seal()
        self._processes.tasks.start(process.see_off({}, 0), f"kill {process.record.pid}")
