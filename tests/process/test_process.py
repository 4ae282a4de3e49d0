"""Process and Supervisor: exits, output, background children, kills, limits, failed starts."""

import asyncio
import errno
import logging
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from procd.config import ProcessConfig
from procd.errors import SpawnFailed
from procd.output.buffer import Buffer
from procd.output.log import Log, Store
from procd.process.child import ExitStatus
from procd.process.process import STDERR, STDOUT, Process
from procd.process.shell import script_argv
from procd.process.supervisor import Supervisor
from procd.unix import procfs
from procd.unix.fd import pipe, seal_inherited
from tests.process.cgroups import controllers, leaves
from tests.trees import members_of
from tests.waiting import until

# A process that prints its pid and ignores requests to end.
STAY = "trap '' HUP TERM INT; echo $$; exec sleep 1000"
# One whose child is in a session of its own, and an orphan.
SCATTER = '(setsid sh -c "$STAY" &) ; eval "$STAY"'
ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin", "STAY": STAY, "PS1": ""}
MEGABYTE = 1 << 20
KILLED = ExitStatus(signal=signal.SIGKILL)


def new_log(high_bytes: int = 64 * MEGABYTE) -> Log[Buffer]:
    """A log that keeps all output of a test."""
    return Log(Buffer(64 * MEGABYTE), high_bytes)


class Starter:
    """A supervisor, and scripts started by it."""

    def __init__(self, config: ProcessConfig) -> None:
        self.supervisor = Supervisor(config)

    def argv(self, *argv: str, **options: object) -> Process:
        defaults: dict[str, object] = {"cwd": "/", "env": ENV, "output": new_log()}
        return self.supervisor.spawn(argv, **(defaults | options))  # type: ignore[arg-type]  # each test gives what it needs

    def sh(self, script: str, **options: object) -> Process:
        return self.argv("/bin/sh", "-c", script, **options)

    def pty(self, script: str, cwd: str = "/") -> Process:
        return self.supervisor.spawn_pty(
            ("/bin/sh", "-c", script), cwd=cwd, env=ENV, output=new_log(), cols=80, rows=24
        )

    def members(self, process: Process) -> set[int]:
        return set(members_of(process.record.tree, self.supervisor.children))


Supervise = Callable[..., Starter]


@pytest.fixture
def children_before() -> set[int]:
    """The children that other tests' tools keep, such as a browser."""
    return set(procfs.own_children())


@pytest.fixture
async def supervise(children_before: set[int]) -> AsyncIterator[Supervise]:
    """Make a supervisor with these settings; it is closed with the test, and has no children."""
    seal_inherited()
    made: list[Starter] = []

    def make(**settings: object) -> Starter:
        config = ProcessConfig(**{"cgroup": "off", "drain_s": 0.05, **settings})  # type: ignore[arg-type]  # as above
        made.append(Starter(config))
        return made[-1]

    yield make
    for starter in made:
        async with asyncio.timeout(20):
            await starter.supervisor.aclose()
        assert starter.supervisor.children == {}
    assert set(procfs.own_children()) <= children_before


def content(source: Process | Log[Store], stream: int | None = None) -> bytes:
    """All output so far, or that of a stream."""
    store = (source.log if isinstance(source, Process) else source).store
    assert isinstance(store, Buffer)
    return b"".join(run.data for run in store.runs() if stream in (None, run.stream))


async def output_of(process: Process, text: bytes) -> bytes:
    """Wait for this output; returns all until then."""
    await until(lambda: text in content(process))
    return content(process)


async def pids_of(process: Process, count: int) -> set[int]:
    """Wait for as many pids in its output."""
    await until(lambda: content(process).count(b"\n") >= count)
    return {int(pid) for pid in content(process).split()}


async def ended(process: Process) -> ExitStatus:
    async with asyncio.timeout(10):
        return await process.wait()


def living(pids: set[int]) -> set[int]:
    stats = {pid: procfs.stat_of(pid) for pid in pids}
    return {pid for pid, stat in stats.items() if stat is not None and stat.alive}


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


# Exit and output


async def test_done_is_the_exit_and_the_end_of_output(supervise: Supervise) -> None:
    process = supervise().sh("echo out; echo err >&2; exit 3")
    assert process.running
    assert await ended(process) == ExitStatus(code=3) == process.record.exit
    assert (process.running, process.log.sealed, process.settled) == (False, True, True)
    assert (content(process, STDOUT), content(process, STDERR)) == (b"out\n", b"err\n")
    assert process.record.tree.leader == 0
    async with asyncio.timeout(10):
        await process.wait_killed()  # nothing to wait for
        process.kill()
        await process.wait_killed()


async def test_one_pipe_for_both_streams(supervise: Supervise) -> None:
    process = supervise().sh("for i in 1 2 3; do echo $i; echo -$i >&2; done", merged=True)
    await ended(process)
    assert content(process, STDOUT) == b"1\n-1\n2\n-2\n3\n-3\n"


async def test_terminal_is_done_likewise(supervise: Supervise) -> None:
    process = supervise().pty("echo out; echo err >&2; exit 4")
    assert await ended(process) == ExitStatus(code=4)
    assert content(process) == b"out\r\nerr\r\n"
    assert process.settled


async def test_running_process_that_closed_its_output(supervise: Supervise) -> None:
    reading, writing = pipe()
    script = "exec >/dev/null 2>&1; echo closed >&3; exec sleep 1000"
    process = supervise().sh(script, passed=[writing])
    assert os.read(reading.number, 100) == b"closed\n"
    reading.close()
    process.drain()
    assert (process.running, process.done.done(), process.log.sealed) == (True, False, False)
    process.kill()
    assert await ended(process) == KILLED


async def test_poll_finds_the_exit_before_the_loop_does(supervise: Supervise) -> None:
    process = supervise().sh("echo first; exit 5")
    os.waitid(os.P_PID, process.record.pid, os.WEXITED | os.WNOWAIT)
    assert process.running
    process.poll()
    assert process.record.exit == ExitStatus(code=5)
    assert not process.done.done()
    assert await ended(process) == ExitStatus(code=5)
    assert content(process) == b"first\n"


async def test_single_slow_reader_slows_the_process(supervise: Supervise) -> None:
    log = new_log(high_bytes=100_000)
    news = asyncio.Event()
    cursor = log.attach(0, news.set)
    process = supervise().sh("head -c 4000000 /dev/zero", output=log)
    await until(lambda: log.paused)
    assert log.store.end < 3_000_000, "more than a burst"
    assert process.running
    async with asyncio.timeout(10):
        while not cursor.at_end:
            cursor.advance(log.store.end)
            news.clear()
            if not cursor.at_end:
                await news.wait()
    assert await ended(process) == ExitStatus(code=0)
    assert log.store.end == 4_000_000
    cursor.close()


# Background children


@pytest.mark.parametrize("kind", ["sh", "pty"])
async def test_background_child_is_not_waited_for(supervise: Supervise, kind: str) -> None:
    process = getattr(supervise(), kind)("trap '' HUP; echo first; sleep 1000 & exit 5")
    log = process.log
    assert await ended(process) == ExitStatus(code=5)
    assert content(log).startswith(b"first")
    assert log.sealed
    assert process.log is not log, "the output isn't kept for the background child"
    assert not process.settled


async def test_output_before_the_exit_is_kept_though_paused(supervise: Supervise) -> None:
    reading, writing = pipe()
    log = new_log(high_bytes=1000)
    script = (
        "head -c 2000 /dev/zero; read x <&3; head -c 60000 /dev/zero; printf last;"
        ' sh -c "$STAY" >&2 & exit 0'
    )
    process = supervise().sh(script, output=log, passed=[reading])
    await output_of(process, bytes(2000))
    cursor = log.attach(0, lambda: None)  # it reads nothing
    assert log.paused
    writing.close()
    assert await ended(process) == ExitStatus(code=0)
    assert content(log, STDOUT) == bytes(62_000) + b"last"
    cursor.close()


BACKGROUND = """
import os
os.write(1, b"before")
gate, go = os.pipe()
if os.fork():
    os.read(3, 1)
    os._exit(0)
os.close(go)
os.read(gate, 1)  # until its parent has exited
os.read(3, 1)
for _ in range(64):
    os.write(1, bytes(65536))
    os.write(2, bytes(65536))
os.kill(os.getpid(), 12)  # SIGUSR2
"""


@pytest.mark.parametrize("lagging", [False, True])
async def test_background_child_gets_no_sigpipe(supervise: Supervise, lagging: bool) -> None:
    """It writes 8 MB after the end of the process, though a reader of the log lags."""
    reading, writing = pipe()
    log = new_log(high_bytes=5)
    starter = supervise()
    process = starter.argv(sys.executable, "-c", BACKGROUND, output=log, passed=[reading])
    await output_of(process, b"before")
    cursor = log.attach(0 if lagging else log.store.end, lambda: None)
    assert log.paused == lagging
    os.write(writing.number, b"x")
    assert await ended(process) == ExitStatus(code=0)
    (orphan,) = starter.members(process)
    writing.close()
    await until(lambda: not living({orphan}))
    info = os.waitid(os.P_PID, orphan, os.WEXITED | os.WNOWAIT)
    assert info is not None
    assert (info.si_code, info.si_status) == (os.CLD_KILLED, signal.SIGUSR2)
    assert content(log) == b"before"
    cursor.close()


# Input, terminal


async def test_terminal_whose_program_closes_it_for_a_while(supervise: Supervise) -> None:
    """It is no end of the output."""
    script = "exec 3</dev/null 0<&3 1>&3 2>&1; exec 0<>$T 1>&0 2>&0; echo again; read x; exit 7"
    process = supervise().pty(f"T=$(tty); echo first; {script}")
    await output_of(process, b"again")
    assert process.stdin is not None
    process.stdin.write(b"x\n")
    assert await ended(process) == ExitStatus(code=7)


async def test_terminal_closed_while_input_is_queued(supervise: Supervise) -> None:
    starter = supervise()
    process = starter.pty("stty raw -echo; echo ready; exec sleep 1000")
    await output_of(process, b"ready")
    assert process.stdin is not None
    process.stdin.write(b"x" * 100_000)
    assert process.stdin.queued_bytes
    process.close()
    assert process.stdin.queued_bytes == 0
    assert await ended(process) == ExitStatus(signal=signal.SIGHUP)


async def test_close_ends_a_writer_with_sigpipe(supervise: Supervise) -> None:
    process = supervise().sh("echo up; while :; do echo more; done")
    await output_of(process, b"up")
    process.close()
    process.close()
    assert await ended(process) == ExitStatus(signal=signal.SIGPIPE)
    assert process.settled


# Ending


async def test_end_signals_first(supervise: Supervise) -> None:
    """A stopped process handles it as well, as it is continued."""
    process = supervise().sh(
        "trap 'echo bye; exit 8' TERM; echo up; kill -STOP $$; sleep 1000 & wait"
    )
    await output_of(process, b"up")
    os.waitid(os.P_PID, process.record.pid, os.WSTOPPED)
    async with asyncio.timeout(10):
        await process.end(signal.SIGTERM, 10)
    assert await ended(process) == ExitStatus(code=8)
    assert content(process) == b"up\nbye\n"


async def test_end_kills_the_tree_after_the_grace(supervise: Supervise) -> None:
    starter = supervise()
    process = starter.sh('sh -c "$STAY" & setsid sh -c "$STAY" & eval "$STAY"')
    pids = await pids_of(process, 3)
    async with asyncio.timeout(10):
        await process.end(signal.SIGTERM, 0.05)
    assert await ended(process) == KILLED
    assert living(pids) == starter.members(process) == set()


async def test_end_after_the_exit_ends_orphans(supervise: Supervise) -> None:
    starter = supervise()
    process = starter.sh('setsid sh -c "$STAY" & read x; exit 0')
    await ended(process)
    (orphan,) = starter.members(process)
    async with asyncio.timeout(10):
        await process.end(signal.SIGTERM, 0.05)
    assert living({orphan}) == set()


async def test_kill_ends_the_tree_and_no_other(supervise: Supervise) -> None:
    starter = supervise()
    process, other = starter.sh(SCATTER), starter.sh(SCATTER)
    pids, others = await pids_of(process, 2), await pids_of(other, 2)
    process.kill()
    process.kill()
    async with asyncio.timeout(10):
        await process.wait_killed()
    assert await ended(process) == KILLED
    assert living(pids) == starter.members(process) == set()
    assert process.settled
    assert living(others) == others


async def test_aclose_ends_everything(supervise: Supervise, children_before: set[int]) -> None:
    """Also the orphans of processes that have settled; meanwhile nothing can be started."""
    handler = signal.getsignal(signal.SIGCHLD)
    starter = supervise()
    assert signal.getsignal(signal.SIGCHLD) != handler
    early = starter.sh('sh -c "exec >/dev/null 2>&1; $STAY" & exit 0')
    await ended(early)
    assert len(starter.members(early)) == 1
    processes = [starter.sh(SCATTER), starter.pty(SCATTER)]
    for process in processes:
        await pids_of(process, 2)
    closing = asyncio.ensure_future(starter.supervisor.aclose())
    await asyncio.sleep(0)
    for start in (starter.sh, starter.pty):
        with pytest.raises(SpawnFailed, match="procd is stopping"):
            start("exit 0")
    async with asyncio.timeout(10):
        await closing
    assert set(procfs.own_children()) <= children_before
    assert [process.done.result() for process in processes] == [KILLED] * 2
    assert signal.getsignal(signal.SIGCHLD) == handler


async def test_stop_spares_some_trees(supervise: Supervise) -> None:
    """Also their background, and orphans without a tag."""
    starter = supervise()
    script = (
        '(setsid sh -c "$STAY" &) ; sh -c "$STAY" & (ulimit -S -R 5000; sh -c "$STAY" &) ; wait'
    )
    spared, other = (starter.argv("/bin/bash", "-c", script) for _ in range(2))
    spared_pids, other_pids = await pids_of(spared, 3), await pids_of(other, 3)
    starter.supervisor.stop(but={spared.record.pid})
    assert await ended(other) == KILLED
    await until(lambda: not living(other_pids))
    assert starter.members(spared) == spared_pids | {spared.record.pid}


# Limits and failures


@pytest.mark.parametrize(
    ("argv", "cwd", "text"),
    [
        (("/absent",), "/", "program does not exist: /absent"),
        (("/bin/true",), "/absent", "working directory does not exist: /absent"),
        (("/bin/true", "x" * MEGABYTE), "/", "arguments and environment are too long"),
    ],
)
async def test_failed_start_leaves_nothing(
    supervise: Supervise, argv: tuple[str, ...], cwd: str, text: str
) -> None:
    starter = supervise(max_processes=1)
    before = descriptors()
    for _ in range(3):
        _, script = script_argv("/bin/sh", "#" * 200_000)
        assert script is not None
        with pytest.raises(SpawnFailed, match=text):
            starter.argv(*argv, cwd=cwd, passed=[script])
        with pytest.raises(SpawnFailed, match=text):
            starter.supervisor.spawn_pty(argv, cwd=cwd, env=ENV, output=new_log(), cols=80, rows=24)
    assert descriptors() == before
    assert starter.supervisor.children == {}


@pytest.mark.parametrize("kind", ["sh", "pty"])
async def test_process_that_cannot_be_supervised_is_killed(
    supervise: Supervise, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And all that it has started by then."""
    starter = supervise()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    pids: set[int] = set()

    def fail(pid: int, flags: int = 0, pidfd_open: Callable[[int], int] = os.pidfd_open) -> int:
        if pids:
            return pidfd_open(pid)
        with fifo.open() as lines:
            pids.update({pid, int(lines.readline()), int(lines.readline())})
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr("os.pidfd_open", fail)
    with pytest.raises(SpawnFailed, match="cannot supervise a process: Cannot allocate memory"):
        getattr(starter, kind)(
            f'exec >{fifo}; (setsid sh -c "$STAY" &); sh -c "$STAY" & exec sleep 1000'
        )
    assert len(pids) == 3
    await until(lambda: not living(pids))


# cgroups


async def test_leaf_of_a_terminal(cgroup_root: Path, supervise: Supervise) -> None:
    """All that runs in a terminal is in it, and is killed with it; a command has none."""
    starter = supervise(cgroup=str(cgroup_root))
    await ended(starter.sh("exit 0"))
    assert leaves(cgroup_root) == []
    process = starter.pty(f'read x; sh -c "$STAY" & {SCATTER}')
    (leaf,) = leaves(cgroup_root)
    assert process.record.leaf is not None
    assert process.record.leaf.path == leaf
    assert process.stdin is not None
    process.stdin.write(b"\n")
    await until(lambda: content(process).count(b"\n") == 4)  # the echo, and three pids
    pids = set(map(int, (leaf / "cgroup.procs").read_text().split()))
    assert pids >= {*map(int, content(process).split()), process.record.pid}
    process.kill()
    async with asyncio.timeout(10):
        await process.wait_killed()
    assert await ended(process) == KILLED
    assert living(pids) == set()
    assert process.record.leaf is None


async def test_without_room_for_a_leaf(
    cgroup_root: Path, supervise: Supervise, caplog: pytest.LogCaptureFixture
) -> None:
    (cgroup_root / "cgroup.max.descendants").write_text("0")
    process = supervise(cgroup=str(cgroup_root)).pty("echo up; exit 0")
    assert process.record.leaf is None
    assert "has no cgroup of its own" in caplog.text
    assert await ended(process) == ExitStatus(code=0)


async def test_limits_of_a_cgroup(cgroup_root: Path, supervise: Supervise) -> None:
    if not {"pids", "memory", "cpu"} <= controllers(cgroup_root):
        pytest.skip("the pids, memory and cpu controllers are not delegated")
    starter = supervise(
        cgroup=str(cgroup_root), pids_max=3, memory_max_bytes=64 << 20, cpu_weight=50
    )
    process = starter.pty("read x; sleep 1000 & sleep 1000 & sleep 1000 & exit 0")
    (leaf,) = (each for each in leaves(cgroup_root) if each.name != "procd-daemon")
    limits = [(leaf / name).read_text() for name in ("pids.max", "memory.max", "cpu.weight")]
    assert limits == ["3\n", f"{64 << 20}\n", "50\n"]
    usage = process.usage()
    assert usage is not None
    assert set(usage) == {"cpuUsec", "memoryBytes", "pids"}
    assert process.stdin is not None
    process.stdin.write(b"\n")
    await ended(process)
    assert re.search(b"cannot fork|fork: ", content(process), re.IGNORECASE)  # dash's, or bash's
    process.kill()
    await process.wait_killed()


async def test_limits_without_a_delegated_cgroup(
    supervise: Supervise, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        starter = supervise(cgroup="off", pids_max=3, memory_max_bytes=1 << 20)
    assert "no cgroup v2 is delegated: memory.max, pids.max are not set" in caplog.text
    process = starter.sh("exit 5")
    assert await ended(process) == ExitStatus(code=5)
    assert process.usage() is None
