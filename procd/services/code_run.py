"""Runs one program in Python, JavaScript or TypeScript (contract, section 7).

The program's text is never on a command line, nor seen by a shell: it is an anonymous file.
"""

import os
import secrets
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from procd import worker
from procd.config import CodeRunConfig
from procd.errors import BadRequest, SpawnFailed
from procd.output.budget import Budget
from procd.output.buffer import Buffer
from procd.output.log import Log
from procd.process.process import STDERR, Process
from procd.process.supervisor import ExtraPipe, Supervisor
from procd.services.environment import (
    Environment,
    MissingProgramError,
    check_names,
    cost_bytes,
    find_program,
    find_python,
)
from procd.services.execute import ExecuteResult, Executions
from procd.unix.fd import OwnedFd, anonymous_file, pipe
from procd.unix.file import remove_tree

WORKER_DIR: Final = Path(worker.__file__).parent
# Options of Node and what runs on it; the path is as Node names it.
PRELOADING: Final = ("--require", str((WORKER_DIR / "argv.cjs").resolve()))
# Only a program that names one can show a chart; any other is run by `python3 -`.
CHARTING: Final = ("matplotlib", "pylab")
LANGUAGES: Final = ("python", "javascript", "typescript")
CODE_FILE: Final = "code.ts"
MAX_REASON_BYTES: Final = 1024
TS_NODE_OPTIONS: Final = '{"module":"CommonJS"}'
STRIPS_TYPES: Final = "process.allowedNodeEnvironmentFlags.has('--experimental-strip-types')"
PROBE_TIMEOUT_S: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeRunRequest:
    """What to run; `timeout_s` 0 is none."""

    code: str
    language: str
    argv: tuple[str, ...] = ()
    cwd: str = ""
    envs: Mapping[str, str] = field(default_factory=dict)
    timeout_s: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeRunResult:
    """How it ended, and the JSON of the charts that it showed, oldest first."""

    execution: ExecuteResult
    charts: list[bytes]


class Artifacts:
    """Collects the charts of a program, which the runner writes to a pipe of its own.

    The program can write to that pipe as well, so a chart is a line that begins with a key which
    only the runner is told. What comes beyond `cap_bytes`, or beyond the memory that `claim`
    counts, is dropped. Source: Process API contract, section 7.4.
    """

    def __init__(self, cap_bytes: int) -> None:
        self.key = secrets.token_hex(16)
        self.cap_bytes = cap_bytes
        self.claim: Callable[[int], bool] = lambda _: True
        self.overflown = False
        self.charts: list[bytes] = []
        self._left_bytes = cap_bytes
        self._partial = bytearray()

    def feed(self, data: bytes) -> None:
        kept = data[: self._left_bytes]
        if kept and not self.claim(2 * len(kept)):  # the reply takes a copy
            self.cap_bytes -= self._left_bytes
            self._left_bytes = 0
            kept = b""
        self._left_bytes -= len(kept)
        self.overflown |= len(kept) < len(data)
        self._partial += kept
        if b"\n" in kept:
            *lines, self._partial = self._partial.split(b"\n")
            key = self.key.encode()
            self.charts += [bytes(line[len(key) :]) for line in lines if line.startswith(key)]


class CodeRuns:
    """Runs programs under the limits of `execute`."""

    def __init__(
        self,
        config: CodeRunConfig,
        executions: Executions,
        environment: Environment,
        work_dir: str,
    ) -> None:
        self._config = config
        self._executions = executions
        self._environment = environment
        self._work_dir = work_dir
        # By path of a Node: whether it can run TypeScript by itself.
        self._strips_types: dict[str, bool] = {}

    async def run(self, request: CodeRunRequest) -> CodeRunResult:
        """Run a program until it has ended and its output has been read; raises as `run_process`.

        Without an interpreter the exit code is 127, and the output names it.
        """
        if request.language not in LANGUAGES:
            raise BadRequest(f"unsupported language: {request.language}")
        check_names(request.envs)
        run = _Run(
            request,
            request.cwd or self._work_dir,
            self._environment.merged(request.envs),
            Artifacts(self._config.max_artifact_bytes),
            self._executions.supervisor,
            self._config.python,
        )
        try:
            match request.language:
                case "python":
                    start = run.python
                case "javascript":
                    start = run.javascript
                case _:
                    run.argv = await self._typescript(run)
                    start = run.typescript
            size = cost_bytes(request.envs, request.code, request.cwd, *request.argv)
            execution = await self._executions.run_process(start, request.timeout_s, size)
        except MissingProgramError as exc:
            execution = _not_started(127, f"{exc}\n")
        except SpawnFailed as exc:  # of Node, to ask it what it can run
            execution = _not_started(-1, exc.message)
        finally:
            run.close()
        if run.artifacts.overflown:
            text = f"procd: charts beyond {run.artifacts.cap_bytes} bytes were dropped\n"
            execution.output.append(text.encode(), STDERR)
        return CodeRunResult(execution=execution, charts=run.artifacts.charts)

    async def _typescript(self, run: "_Run") -> tuple[str, ...]:
        """The arguments that run a TypeScript file.

        Source: Process API contract, section 7.2, for the arguments of ts-node; Node.js manual,
        "Modules: TypeScript".
        """
        if ts_node := run.which("ts-node"):
            return (ts_node, "-T", "--ignore-diagnostics", "5107", "-O", TS_NODE_OPTIONS)
        if tsx := run.which("tsx"):
            return (tsx,)
        node = run.find("node")
        if node not in self._strips_types:
            await self._probe(node, run)
        if not self._strips_types.get(node):
            raise MissingProgramError(
                "ts-node: not found (nor tsx, nor a Node.js that strips types)"
            )
        return (node, "--no-warnings", "--experimental-strip-types")

    async def _probe(self, node: str, run: "_Run") -> None:
        """Ask a Node whether it strips types, and keep the answer if it is true or false."""
        argv = (node, "-p", STRIPS_TYPES)
        result = await self._executions.run_process(partial(run.spawn, argv), PROBE_TIMEOUT_S)
        answer = b"".join(part.data for part in result.output.runs()).strip()
        if result.exit_code == -1:
            raise SpawnFailed(answer.decode())
        if result.exit_code == 0 and answer in (b"true", b"false"):
            self._strips_types[node] = answer == b"true"


@dataclass(slots=True)
class _Run:
    request: CodeRunRequest
    cwd: str
    env: Mapping[str, str]
    artifacts: Artifacts
    supervisor: Supervisor
    python_path: str  # empty: the one on PATH
    argv: tuple[str, ...] = ()  # of what runs TypeScript
    folder: Path | None = None

    def find(self, *names: str) -> str:
        return find_program(self.env, self.supervisor.child_limits, *names, cwd=self.cwd)

    def which(self, name: str) -> str | None:
        """The path of a program among the directory's own Node packages, or on PATH."""
        path = f"node_modules/.bin:{self.env.get('PATH', os.defpath)}"
        try:
            return find_program({"PATH": path}, self.supervisor.child_limits, name, cwd=self.cwd)
        except MissingProgramError:
            return None

    def spawn(
        self,
        argv: tuple[str, ...],
        output: Log[Buffer],
        stdin: OwnedFd | None = None,
        passed: tuple[OwnedFd, ...] = (),
        extra: ExtraPipe | None = None,
    ) -> Process:
        return self.supervisor.spawn(
            argv,
            cwd=self.cwd,
            env=self.env,
            output=output,
            stdin=stdin,
            passed=passed,
            extra=extra,
            merged=True,
            session=False,
        )

    def python(self, output: Log[Buffer]) -> Process:
        """Python, with the code as its input; with charts, through the runner."""
        python = self.python_path or find_python(
            self.env, self.supervisor.child_limits, cwd=self.cwd, setting="code_run.python"
        )
        code = _code_file(self.request.code)
        if not any(name in self.request.code for name in CHARTING):
            return self.spawn((python, "-u", "-", *self.request.argv), output, stdin=code)
        try:
            reading, writing = pipe()
        except OSError as exc:
            code.close()
            raise SpawnFailed(f"cannot start a process: {exc.strerror}") from exc

        self.artifacts.claim = partial(_claim, self.supervisor.memory, output.store)
        runner = (str(WORKER_DIR / "run_code.py"), str(self.artifacts.cap_bytes))
        argv = (python, "-u", *runner, self.artifacts.key, *self.request.argv)
        charts = ExtraPipe(reading, self.artifacts.feed)
        return self.spawn(argv, output, passed=(code, writing), extra=charts)

    def javascript(self, output: Log[Buffer]) -> Process:
        argv = (self.find("node"), *PRELOADING, "-", *self.request.argv)
        return self.spawn(argv, output, stdin=_code_file(self.request.code))

    def typescript(self, output: Log[Buffer]) -> Process:
        """No runner takes TypeScript by descriptor, so the code is in a file."""
        limits = self.supervisor.child_limits
        try:
            self.folder = Path(tempfile.mkdtemp(prefix="procd-code-"))
            path = self.folder / CODE_FILE
            path.write_text(self.request.code, encoding="utf-8")
            path.chmod(0o600)
            limits.give(str(path))
            if limits.run_as is not None:
                # Passable, not writable: what another user put there, procd would have to remove.
                self.folder.chmod(0o711)
        except OSError as exc:
            raise SpawnFailed(f"cannot hold the code: {exc.strerror}") from exc
        return self.spawn((*self.argv, *PRELOADING, str(path), *self.request.argv), output)

    def close(self) -> None:
        if self.folder is not None:
            with suppress(OSError):  # removed, or replaced, by the program
                (self.folder / CODE_FILE).unlink()  # though no descriptor is left for rmtree
            remove_tree(self.folder)


def _not_started(exit_code: int, text: str) -> ExecuteResult:
    output = Buffer(MAX_REASON_BYTES)
    output.append(text.encode(), STDERR)
    return ExecuteResult(exit_code=exit_code, output=output)


def _claim(memory: Budget, output: Buffer, size: int) -> bool:
    memory.relieve(size)
    return output.claim(size)


def _code_file(code: str) -> OwnedFd:
    try:
        return anonymous_file("procd-code", code.encode())
    except OSError as exc:
        raise SpawnFailed(f"cannot hold the code: {exc.strerror}") from exc
