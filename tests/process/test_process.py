"""Process: done, the background, the end, the kill, and what a failure leaves: nothing."""

import asyncio
import errno
import itertools
import logging
import os
import re
import resource
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from procd.config import ConfigError, ProcessConfig
from procd.errors import Exhausted, SpawnFailed
from procd.output.buffer import Backlog
from procd.output.log import Log, Store
from procd.process.child import ExitStatus
from procd.process.poller import Poller
from procd.process.process import STDERR, STDOUT, Process
from procd.process.shell import script_argv
from procd.process.starts import TOGETHER, Steps
from procd.process.supervisor import Processes
from procd.unix import procfs
from procd.unix.fd import OwnedFd, pipe, seal_inherited
from tests import waiting
from tests.opened import opened_files
from tests.shortage import CALLS, no_memory_for
from tests.trees import members_of

# Somebody who tells his pid and stays, whoever asks him to go.
STAY = "trap '' HUP TERM INT; echo $$; exec sleep 1000"
ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin", "STAY": STAY, "PS1": ""}

MEGABYTE = 1 << 20


def output(high_bytes: int = 64 * MEGABYTE) -> Log[Backlog]:
    """A log that keeps all that a test says."""
    return Log(Backlog(64 * MEGABYTE), high_bytes)


class Supervisor:
    """Processes of one configuration, and scripts started by it."""

    def __init__(self, config: ProcessConfig) -> None:
        self.processes = Processes(config)

    def sh(self, script: str, into: Log[Backlog] | None = None, cwd: str = "/") -> Process:
        return self.processes.spawn(
            ("/bin/sh", "-c", script), cwd=cwd, env=ENV, output=into or output()
        )

    def pty(self, script: str, into: Log[Backlog] | None = None, cwd: str = "/") -> Process:
        return self.processes.spawn_pty(
            ("/bin/sh", "-c", script), cwd=cwd, env=ENV, output=into or output(), cols=80, rows=24
        )


Supervise = Callable[..., Supervisor]


OTHERS: set[int] = set()
OWN_CHILDREN = f"/proc/self/task/{os.getpid()}/children"


@pytest.fixture(autouse=True)
def others() -> None:
    """Note the children that other tests' tools keep for the whole run, such as a browser's."""
    OTHERS.clear()
    OTHERS.update(procfs.own_children())


def started() -> list[int]:
    """The children that this test has."""
    return [pid for pid in procfs.own_children() if pid not in OTHERS]


@pytest.fixture
async def supervise() -> AsyncIterator[Supervise]:
    """Make a supervisor with these settings; it is closed with the test."""
    seal_inherited()
    made: list[Supervisor] = []

    def make(**settings: object) -> Supervisor:
        config = ProcessConfig(**{"cgroup": "off", "drain_s": 0.05, **settings})  # type: ignore[arg-type]  # each test gives what it needs
        made.append(Supervisor(config))
        return made[0]

    yield make
    for supervisor in made:
        async with asyncio.timeout(20):
            await supervisor.processes.aclose()


def said(process: Process) -> bytes:
    """All that it has said so far."""
    return content(process.log)


def content(log: Log[Store]) -> bytes:
    """All that is in a log."""
    assert isinstance(log.store, Backlog)
    return b"".join(run.data for run in log.store.runs())


async def until(process: Process, text: bytes) -> bytes:
    """Wait until it has said this; what it has said by then."""
    news = asyncio.Event()
    cursor = process.log.attach(process.log.store.end, news.set)
    try:
        async with asyncio.timeout(10):
            while text not in said(process):
                assert not process.log.sealed, said(process)
                news.clear()
                await news.wait()
                cursor.advance(process.log.store.end)
    finally:
        cursor.close()
    return said(process)


async def ended(process: Process) -> ExitStatus:
    """Wait until it is done."""
    async with asyncio.timeout(10):
        return await process.done


async def gone(pids: set[int]) -> None:
    """Wait for the end of these processes, which may have ended already."""
    found = []
    for pid in pids:
        try:
            found.append(OwnedFd(os.pidfd_open(pid)))
        except OSError as exc:
            # The latter where others of its group or session are still there, up to Linux 6.12.
            if exc.errno not in {errno.ESRCH, errno.EINVAL}:
                raise
    loop = asyncio.get_running_loop()
    for pidfd in found:
        over = loop.create_future()
        loop.add_reader(pidfd.number, over.set_result, None)
        try:
            async with asyncio.timeout(10):
                await over
        finally:
            loop.remove_reader(pidfd.number)
            pidfd.close()


def descriptors() -> set[str]:
    """What is open here."""
    return set(os.listdir("/proc/self/fd"))


# Done


async def test_done_is_exit_and_end_of_output(supervise: Supervise) -> None:
    """The status is told when all was read; both streams are in the log, each under its name."""
    process = supervise().sh("echo out; echo err >&2; exit 3")
    assert process.running
    assert await ended(process) == ExitStatus(code=3)
    assert not process.running
    assert process.log.sealed
    assert process.settled
    streams = {run.stream: run.data for run in process.log.store.runs()}
    assert streams == {STDOUT: b"out\n", STDERR: b"err\n"}
    assert process.record.exit == ExitStatus(code=3)
    assert process.record.tree.leader == 0


async def test_who_waits_is_told_in_the_moment(supervise: Supervise) -> None:
    """What `done` says is there by then."""
    process = supervise().sh("exit 3")
    told: list[ExitStatus] = []
    process.on_done = lambda: told.append(process.done.result())
    await ended(process)
    assert told == [ExitStatus(code=3)]


async def test_who_waits_is_told_that_a_process_is_abandoned(supervise: Supervise) -> None:
    """Once; and not of one that is done."""
    running, over = supervise().sh("exec sleep 1000"), supervise().sh("exit 3")
    await ended(over)
    told: list[str] = []
    running.on_done, over.on_done = lambda: told.append("running"), lambda: told.append("over")
    pid = running.record.pid
    for process in (running, over, running):
        process.abandon()
    assert told == ["running"]
    assert running.done.cancelled()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


async def test_the_end_of_output_is_not_done(supervise: Supervise) -> None:
    """Who has closed his output and lives on is not done."""
    telling = OwnedFd((ends := os.pipe())[1])
    process = supervise().processes.spawn(
        ("/bin/sh", "-c", "exec >/dev/null 2>&1; echo closed >&3; exec sleep 1000"),
        cwd="/",
        env=ENV,
        output=output(),
        passed=[telling],
    )
    with open(ends[0], "rb") as told:
        assert told.readline() == b"closed\n"
    process.take_pending()
    assert all(reader.ended for reader in process._readers)
    assert not process.done.done()
    assert not process.log.sealed
    assert process.running
    process.kill()
    assert await ended(process) == ExitStatus(signal=signal.SIGKILL)


async def test_four_megabytes_before_the_exit(supervise: Supervise) -> None:
    """Whatever was said before the exit is in the log when it is done, to the byte."""
    process = supervise().sh("head -c 4194304 /dev/zero; printf end; exit 1")
    assert await ended(process) == ExitStatus(code=1)
    assert said(process) == bytes(4 * MEGABYTE) + b"end"


async def test_a_terminal_is_done_likewise(supervise: Supervise) -> None:
    """On a terminal the end of output is EIO, and it is all the same."""
    process = supervise().pty("echo out; echo err >&2; exit 4")
    assert await ended(process) == ExitStatus(code=4)
    assert said(process) == b"out\r\nerr\r\n"
    assert process.settled


NO_ROOM = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Filling:
    """A selector with room for so many descriptors more. Source: epoll_ctl(2), ENOSPC."""

    def __init__(self, selector: Poller, room: int, failure: Exception = NO_ROOM) -> None:
        self._selector = selector
        self._room = room
        self._failure = failure

    def __getattr__(self, name: str) -> Any:
        return getattr(self._selector, name)

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        """As the real one does, while there is room."""
        if not self._room:
            raise self._failure
        self._room -= 1
        self._selector.add_reader(fd, callback)


@pytest.mark.parametrize(
    ("failure", "told"),
    [(NO_ROOM, (SpawnFailed, "No space left")), (MemoryError(), (MemoryError, None))],
)
@pytest.mark.parametrize("room", [0, 1, 2])
async def test_what_can_not_be_watched_is_taken_back(
    supervise: Supervise, room: int, failure: Exception, told: tuple[type[Exception], str | None]
) -> None:
    """It is no process, and nothing of it is left, whichever of its descriptors was too many."""
    supervisor = supervise()
    before, poller = descriptors(), supervisor.processes.poller
    supervisor.processes.poller = Filling(poller, room, failure)  # type: ignore[assignment]  # it does what one does
    with pytest.raises(told[0], match=told[1]):
        supervisor.sh("exec sleep 1000")
    if room < 2:
        with pytest.raises(told[0], match=told[1]):
            supervisor.pty("exec sleep 1000")
    supervisor.processes.poller = poller
    async with asyncio.timeout(10):
        while supervisor.processes.supervised or descriptors() != before:
            await asyncio.sleep(0)
    after = supervisor.sh("echo out; echo err >&2")  # whose descriptors have the same numbers
    await ended(after)
    assert sorted(said(after).split()) == [b"err", b"out"]


@pytest.mark.parametrize("kind", ["sh", "pty"])
async def test_what_was_started_by_what_is_taken_back(
    supervise: Supervise, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start that fails when the program has begun leaves nothing of what that has started."""
    supervisor = supervise()
    told = tmp_path / "told"
    pids: set[int] = set()

    def short(pid: int, flags: int = 0, pidfd_open: Callable[[int], int] = os.pidfd_open) -> int:
        if pids:
            return pidfd_open(pid)
        while not (told.exists() and len(told.read_text().split()) == 2):
            pass
        pids.update(map(int, told.read_text().split()), {pid})
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr("os.pidfd_open", short)
    with pytest.raises(SpawnFailed, match="cannot supervise a process: Cannot allocate memory"):
        getattr(supervisor, kind)(
            f'exec >{told}; (setsid sh -c "$STAY" &); sh -c "$STAY" & exec sleep 1000'
        )
    assert len(pids) == 3
    await gone(pids)
    async with asyncio.timeout(10):
        while started():
            await asyncio.sleep(0)


async def test_a_background_child_is_not_waited_for(supervise: Supervise) -> None:
    """After the exit the output is waited for no longer than `drain_s`."""
    process = supervise().sh('echo first; sh -c "$STAY" & exit 5')
    log = process.log
    assert await ended(process) == ExitStatus(code=5)
    assert b"first\n" in content(log)
    assert log.sealed
    assert process.log is not log, "it doesn't keep what nobody can add to"
    assert not process.settled, "the child still holds the output open"


@pytest.mark.parametrize("child", ["", 'sh -c "$STAY" & '])
async def test_who_looks_knows_of_the_exit(supervise: Supervise, child: str) -> None:
    """Before the loop has had a turn to tell it; done is set as ever, with all that was said."""
    process = supervise().sh(f"echo first; {child}exit 5")
    os.waitid(os.P_PID, process.record.pid, os.WEXITED | os.WNOWAIT)
    log = process.log
    assert process.running
    process.look()
    assert process.record.exit == ExitStatus(code=5)
    assert not process.done.done()
    assert await ended(process) == ExitStatus(code=5)
    assert content(log).startswith(b"first\n")


@pytest.mark.parametrize("failure", [MemoryError(), OSError(errno.EFAULT, "Bad address")])
@pytest.mark.parametrize("terminal", [False, True])
async def test_an_end_whose_last_words_can_not_be_read(
    supervise: Supervise,
    monkeypatch: pytest.MonkeyPatch,
    complaints: list[BaseException | None],
    failure: Exception,
    terminal: bool,
) -> None:
    """They are lost, in the end, and the end is told; so is a failure that nobody expects."""
    monkeypatch.setattr("procd.process.process.MEMORY_WAIT_S", 0.1)
    supervisor = supervise()
    start = supervisor.pty if terminal else supervisor.sh
    process = start('sh -c "$STAY" & exit 3')

    def short(number: int, size: int, read: Callable[[int, int], bytes] = os.read) -> bytes:
        if not process.running:
            raise failure
        return read(number, size)

    monkeypatch.setattr("os.read", short)
    assert await ended(process) == ExitStatus(code=3)
    monkeypatch.undo()
    assert set(complaints) == (set() if isinstance(failure, MemoryError) else {failure})
    complaints.clear()


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("background", ["", 'sh -c "$STAY" & '])
async def test_an_end_waits_for_memory_to_keep_what_was_said(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch, terminal: bool, background: str
) -> None:
    """Though the time to wait for a background child is over."""
    refused: list[bytes] = []
    append = Backlog.append

    def short(store: Backlog, data: bytes, stream: int = 0) -> None:
        if len(refused) < 2:
            refused.append(data)
            raise MemoryError
        append(store, data, stream)

    monkeypatch.setattr(Backlog, "append", short)
    supervisor = supervise()
    start = supervisor.pty if terminal else supervisor.sh
    process = start(f"{background}printf last; exit 3")
    log = process.log
    assert await ended(process) == ExitStatus(code=3)
    monkeypatch.undo()
    assert refused[0] == refused[1]
    assert b"last" in content(log)  # $STAY may have said its pid


async def test_what_was_said_before_done_is_kept(supervise: Supervise) -> None:
    """What the kernel holds when the drain is over is taken, though the source is paused."""
    reading, writing = pipe()
    log = output(high_bytes=1000)
    process = supervise().processes.spawn(
        (
            "/bin/sh",
            "-c",
            "head -c 2000 /dev/zero; read x <&3; head -c 60000 /dev/zero; printf last;"
            ' sh -c "$STAY" >&2 & exit 0',
        ),
        cwd="/",
        env=ENV,
        output=log,
        passed=[reading],
    )
    await until(process, bytes(2000))
    cursor = log.attach(0, lambda: None)  # reads nothing
    assert log.paused
    writing.close()
    assert await ended(process) == ExitStatus(code=0)
    stdout = b"".join(run.data for run in log.store.runs() if run.stream == STDOUT)
    assert stdout == bytes(62_000) + b"last"
    cursor.close()


@pytest.mark.parametrize("lagging", [False, True])
async def test_a_background_child_gets_no_broken_pipe(supervise: Supervise, lagging: bool) -> None:
    """After done its output is read and dropped: it goes on writing and is never stopped.

    No reader of the log holds it back either, however far behind.
    """
    reading, writing = pipe()
    log = output(high_bytes=5)
    processes = supervise().processes
    process = processes.spawn(
        (
            sys.executable,
            "-c",
            "import os\n"
            "os.write(1, b'before')\n"
            "gate, go = os.pipe()\n"
            "if os.fork(): os.read(3, 1); os._exit(0)\n"
            "os.close(go); os.read(gate, 1)\n"  # until its parent has gone
            "os.read(3, 1)\n"  # and the test has seen it
            "for _ in range(64): os.write(1, bytes(65536)); os.write(2, bytes(65536))\n"
            "os.kill(os.getpid(), 12)\n",  # SIGUSR2: its end is its own
        ),
        cwd="/",
        env=ENV,
        output=log,
        passed=[reading],
    )
    assert reading.closed
    await until(process, b"before")
    cursor = log.attach(0 if lagging else log.store.end, lambda: None)
    assert log.paused == lagging
    os.write(writing.number, b"x")
    assert await ended(process) == ExitStatus(code=0)
    (orphan,) = members_of(process.record.tree, processes.pids)
    writing.close()
    await gone({orphan})
    # Eight megabytes went nowhere, and it ended as it meant to: not by SIGPIPE.
    info = os.waitid(os.P_PID, orphan, os.WEXITED | os.WNOWAIT)
    assert info is not None
    assert (info.si_code, info.si_status) == (os.CLD_KILLED, signal.SIGUSR2)
    assert content(log) == b"before"
    cursor.close()


async def test_a_lone_slow_reader_slows_the_process(supervise: Supervise) -> None:
    """While the only reader lags the process is held back; it goes on when he does."""
    log = output(high_bytes=100_000)
    news = asyncio.Event()
    cursor = log.attach(0, news.set)
    process = supervise().sh("head -c 2000000 /dev/zero; exit 0", log)
    async with asyncio.timeout(10):
        while not log.paused:
            news.clear()
            await news.wait()
        # Up to the pipes' capacity and a burst, no more than that gets away.
        assert log.store.end < 1_000_000
        assert process.running
        while not cursor.at_end:
            news.clear()
            if cursor.offset == log.store.end:
                await news.wait()
            cursor.advance(log.store.end)
    assert await ended(process) == ExitStatus(code=0)
    assert log.store.end == 2_000_000
    cursor.close()


# Surroundings


async def test_a_command_has_no_input_and_no_terminal(supervise: Supervise) -> None:
    """Standard input is /dev/null; each stream is a pipe that may be opened by its name."""
    process = supervise().sh(
        "readlink /proc/self/fd/0; cat; echo named >/dev/stderr;"
        " (: </dev/tty) 2>/dev/null || echo no"
    )
    assert await ended(process) == ExitStatus(code=0)
    assert sorted(said(process).split()) == [b"/dev/null", b"named", b"no"]


async def test_a_terminal_takes_input_and_a_size(supervise: Supervise) -> None:
    """What is written is typed; a resize is a winsize, and after the end nothing."""
    process = supervise().pty("stty size; read x; stty size; echo got-$x")
    await until(process, b"24 80\r\n")
    process.resize(100, 50)
    assert process.stdin is not None
    process.stdin.write(b"typed\n")
    assert await ended(process) == ExitStatus(code=0)
    assert said(process).endswith(b"50 100\r\ngot-typed\r\n")
    process.resize(1, 1)
    process.stdin.write(b"nobody")
    assert process.stdin.queued_bytes == 0


async def test_a_terminal_that_goes_while_input_waits(supervise: Supervise) -> None:
    """What waits goes with it; who has the number of its descriptor next is not mistaken for it."""
    supervisor = supervise()
    process = supervisor.pty("stty raw -echo; echo ready; exec sleep 1000")
    await until(process, b"ready")
    assert process.stdin is not None
    assert process.master is not None
    process.stdin.write(b"x" * 100_000)
    assert process.stdin.queued_bytes
    number = process.master.number
    process.kill()
    process.hang_up()
    assert process.stdin.queued_bytes == 0
    following = supervisor.pty("read x; echo got-$x")
    assert following.stdin is not None
    assert following.master is not None
    assert following.master.number == number
    following.stdin.write(b"typed\n")
    assert await ended(following) == ExitStatus(code=0)
    assert said(following).endswith(b"got-typed\r\n")
    await process.killed()


async def test_a_given_input_is_its_own(supervise: Supervise) -> None:
    """A pipe for input: what is written arrives, and its end is an end for the child."""
    reading, writing = pipe()
    process = supervise().processes.spawn(
        ("/bin/sh", "-c", "cat; exit 6"), cwd="/", env=ENV, output=output(), stdin=reading
    )
    assert reading.closed
    os.write(writing.number, b"to the reader")
    writing.close()
    assert await ended(process) == ExitStatus(code=6)
    assert said(process) == b"to the reader"


# The end


async def test_end_hangs_up_first(supervise: Supervise) -> None:
    """Who leaves at the signal leaves by it, and is not killed."""
    program = (
        "import os, signal\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})\n"
        "os.write(1, b'up')\n"
        "signal.sigwait({signal.SIGHUP})\n"
        "os.write(1, b'bye')\n"
        "os._exit(7)\n"
    )
    process = supervise().processes.spawn(
        (sys.executable, "-c", program), cwd="/", env=ENV, output=output()
    )
    await until(process, b"up")
    async with asyncio.timeout(10):
        await process.end(signal.SIGHUP, 10)
    assert await ended(process) == ExitStatus(code=7)
    assert said(process) == b"upbye"


async def test_end_kills_who_stays(supervise: Supervise) -> None:
    """Who ignores the signal is killed after the grace, and so is all that descends from it."""
    process = supervise().sh('sh -c "$STAY" & setsid sh -c "$STAY" & eval "$STAY"')
    pids = set(map(int, (await until_lines(process, 3)).split()))
    async with asyncio.timeout(10):
        await process.end(signal.SIGTERM, 0.05)
    assert await ended(process) == ExitStatus(signal=signal.SIGKILL)
    assert not members_of(process.record.tree, [])
    assert len(pids) == 3


async def test_end_wakes_the_stopped(supervise: Supervise) -> None:
    """A stopped process hears the signal, for it is continued."""
    process = supervise().sh(
        "trap 'echo bye; exit 8' TERM; echo up; kill -STOP $$; sleep 1000 & wait"
    )
    await until(process, b"up")
    os.waitid(os.P_PID, process.record.pid, os.WSTOPPED)
    async with asyncio.timeout(10):
        await process.end(signal.SIGTERM, 10)
    assert await ended(process) == ExitStatus(code=8)


async def test_end_takes_one_walk(supervise: Supervise) -> None:
    """Who is told to end is woken in the same."""
    process = supervise().sh('sh -c "$STAY" & eval "$STAY"')
    pids = set(map(int, (await until_lines(process, 2)).split()))
    with opened_files() as opened:
        assert set(await process.tell(signal.SIGTERM)) == pids
    assert opened.count(OWN_CHILDREN) == 1


async def test_end_after_the_end_ends_what_is_left(supervise: Supervise) -> None:
    """The process is over; its orphan in another session is not, and is ended."""
    process = supervise().sh('setsid sh -c "$STAY" & read x; exit 0')
    await ended(process)
    (orphan,) = members_of(process.record.tree, [])
    async with asyncio.timeout(10):
        await process.end(signal.SIGTERM, 0.05)
    await gone({orphan})
    assert not members_of(process.record.tree, [])


async def until_lines(process: Process, count: int) -> bytes:
    """Wait until it has said as many lines."""
    news = asyncio.Event()
    cursor = process.log.attach(process.log.store.end, news.set)
    async with asyncio.timeout(10):
        while said(process).count(b"\n") < count:
            news.clear()
            await news.wait()
            cursor.advance(process.log.store.end)
    cursor.close()
    return said(process)


async def test_kill_ends_the_tree(supervise: Supervise) -> None:
    """Everyone is ended wherever he went; a second call while it goes on is the same kill."""
    process = supervise().sh('sh -c "$STAY" & (setsid sh -c "$STAY" &) ; eval "$STAY"')
    pids = set(map(int, (await until_lines(process, 3)).split()))
    process.kill()
    process.kill()
    async with asyncio.timeout(10):
        await process.killed()
    assert await ended(process) == ExitStatus(signal=signal.SIGKILL)
    assert not members_of(process.record.tree, [])
    await gone(pids)
    assert process.settled


async def test_a_kill_of_one_is_no_kill_of_another(supervise: Supervise) -> None:
    """Two processes, each with orphans: the one goes, the other hears nothing."""
    supervisor = supervise()
    one = supervisor.sh('(setsid sh -c "$STAY" &) ; eval "$STAY"')
    two = supervisor.sh('(setsid sh -c "$STAY" &) ; read x <&2; eval "$STAY"')
    await until_lines(one, 2)
    await until_lines(two, 1)
    before = set(members_of(two.record.tree, supervisor.processes.pids))
    one.kill()
    async with asyncio.timeout(10):
        await one.killed()
    assert set(members_of(two.record.tree, supervisor.processes.pids)) == before
    assert two.running


SCATTERED = """
setsid sh -c "$STAY" &
sh -c "$STAY" &
(setsid sh -c "$STAY" &)
eval "$STAY"
"""


# Of each call the first few that a kill makes, and those of which it makes more than that.
SHORTAGES = [
    *itertools.product(("os.open", "os.read"), (0, 1, 2, 4, 8)),
    *itertools.product(("os.pidfd_open",), (0, 1, 2, 3, 4)),
    ("resource.prlimit", 0),
]


@pytest.mark.parametrize(("call", "failing"), SHORTAGES)
@pytest.mark.parametrize("ours", [True, False])
async def test_a_kill_that_there_is_no_memory_for(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch, call: str, failing: int, *, ours: bool
) -> None:
    """Whichever look it fails: it is made again, and the process itself is killed at once."""
    process = supervise().sh(SCATTERED)
    pids = {*map(int, (await until_lines(process, 4)).split())}
    before = descriptors()

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    if not ours:  # the first of its process group
        monkeypatch.setattr("os.killpg", refuse)
    looks = no_memory_for(monkeypatch, call, failing)
    process.kill()
    assert await ended(process) == ExitStatus(signal=signal.SIGKILL)
    async with asyncio.timeout(10):
        await process.killed()
    assert next(looks) > failing
    monkeypatch.undo()
    await gone(pids)
    assert descriptors() <= before


@pytest.mark.parametrize("call", CALLS)
async def test_an_end_that_there_is_no_memory_for(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Who couldn't be told is killed all the same."""
    process = supervise().sh(SCATTERED)
    pids = {*map(int, (await until_lines(process, 4)).split())}
    looks = no_memory_for(monkeypatch, call)
    async with asyncio.timeout(10):
        await process.end(signal.SIGTERM, 0.05)
    assert next(looks) > 0
    monkeypatch.undo()
    await gone(pids)


async def test_an_end_that_there_is_no_memory_to_wait_for(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asked hears of that, and all are killed."""
    supervisor = supervise()
    process = supervisor.sh(SCATTERED)
    pids = {*map(int, (await until_lines(process, 4)).split())}

    async def short() -> None:
        monkeypatch.undo()
        raise MemoryError

    monkeypatch.setattr(supervisor.processes.trees.looks, "take", short)
    with pytest.raises(MemoryError):
        await process.end(signal.SIGTERM, 1000)
    await gone(pids)


@pytest.mark.parametrize("call", CALLS)
async def test_emptiness_that_there_is_no_memory_to_see(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Who waits for it waits on, and is told."""
    supervisor = supervise()
    process = supervisor.sh(SCATTERED)
    await until_lines(process, 4)
    looks = no_memory_for(monkeypatch, call)
    waiting = asyncio.ensure_future(supervisor.processes.trees.emptied(process.record.tree))
    await asyncio.sleep(0)
    assert next(looks) > 0
    assert not waiting.done()
    process.kill()
    async with asyncio.timeout(10):
        await waiting


@pytest.mark.parametrize("room", [0, 1, 2])
async def test_what_there_is_no_memory_to_take_back(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """It is taken back once there is some."""
    supervisor = supervise()
    before, poller = descriptors(), supervisor.processes.poller
    supervisor.processes.poller = Filling(poller, room, MemoryError())  # type: ignore[assignment]  # it does what one does
    looks = no_memory_for(monkeypatch, "os.open")
    with pytest.raises(MemoryError):
        supervisor.sh('sh -c "$STAY" & exec sleep 1000')
    assert next(looks) > 0
    supervisor.processes.poller = poller
    async with asyncio.timeout(10):
        while supervisor.processes.supervised or descriptors() != before or started():
            await asyncio.sleep(0)


async def test_an_end_that_there_is_no_room_to_wait_for(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was told to leave is killed after the grace all the same."""
    process = supervise().sh('eval "$STAY"')
    await until_lines(process, 1)
    loop = asyncio.get_running_loop()
    refusals = [OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))] * 2

    def short(
        fd: int,
        callback: Callable[[], None],
        add_reader: Callable[[int, Callable[[], None]], None] = loop.add_reader,
    ) -> None:
        if refusals:
            raise refusals.pop()
        add_reader(fd, callback)

    monkeypatch.setattr(loop, "add_reader", short)
    async with asyncio.timeout(10):
        await process.end(signal.SIGTERM, 0.05)
    assert await ended(process) == ExitStatus(signal=signal.SIGKILL)
    assert len(refusals) < 2


async def test_nobody_to_wait_for(supervise: Supervise) -> None:
    """`killed` without a kill returns; a kill after everyone's end is none."""
    process = supervise().sh("exit 0")
    await ended(process)
    async with asyncio.timeout(10):
        await process.killed()
        process.kill()
        await process.killed()


async def test_everyone_hears_a_hang_up(supervise: Supervise) -> None:
    """The output of what holds it open is closed: who writes gets SIGPIPE from then on."""
    process = supervise().sh("echo up; while :; do echo more; done")
    await until(process, b"up")
    process.hang_up()
    process.hang_up()
    async with asyncio.timeout(10):
        status = await asyncio.shield(process.done)
    assert status == ExitStatus(signal=signal.SIGPIPE)
    assert process.settled


# Orphans


async def test_orphans_are_reaped_and_nobody_else(supervise: Supervise) -> None:
    """The sweep takes the statuses of ended orphans; a supervised child's stays for its reader."""
    processes = supervise().processes
    reading, writing = pipe()
    process = processes.spawn(
        # Once its subshell has ended, what that has started is ours.
        ("/bin/sh", "-c", "(sh -c 'echo $$' &) ; echo 0; read x <&3; exit 9"),
        cwd="/",
        env=ENV,
        output=output(),
        passed=[reading],
    )
    leader = process.record.pid
    (orphan,) = {*map(int, (await until_lines(process, 2)).split())} - {0}
    os.waitid(os.P_PID, orphan, os.WEXITED | os.WNOWAIT)
    writing.close()
    os.waitid(os.P_PID, leader, os.WEXITED | os.WNOWAIT)
    processes.orphans.sweep()
    assert started() == [leader]
    assert await ended(process) == ExitStatus(code=9)
    assert started() == []


async def test_news_of_a_child_plan_one_sweep(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An orphan's end is news by itself: a sweep is planned, and closing takes it back.

    Until the sweep there is no further news.
    """
    monkeypatch.setattr("procd.process.reaper.SWEEP_DELAY_S", 600.0)
    processes = supervise().processes
    assert processes.orphans.planned is None
    first = processes.spawn(
        ("/bin/sh", "-c", "(sh -c 'echo $$' &) ; exit 0"), cwd="/", env=ENV, output=output()
    )
    (orphan,) = map(int, (await until(first, b"\n")).split())
    await ended(first)
    await gone({orphan})
    await waiting.until(lambda: processes.orphans.planned is not None)
    sweep = processes.orphans.planned
    assert sweep is not None
    assert not sweep.cancelled()
    assert signal.SIGCHLD in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    await ended(processes.spawn(("/bin/true",), cwd="/", env=ENV, output=output()))
    assert processes.orphans.planned is sweep
    processes.orphans.sweep()
    assert signal.SIGCHLD not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert processes.orphans.planned is None
    await processes.aclose()
    assert sweep.cancelled()
    assert started() == []


async def test_one_sweep_at_a_time(supervise: Supervise) -> None:
    """While one has still to come to some, none is begun beside it, but planned."""
    processes = supervise().processes
    processes.orphans.sweep()
    assert processes.orphans.planned is None
    with opened_files() as opened:
        processes.orphans.sweep()
    assert OWN_CHILDREN not in opened
    assert processes.orphans.planned is not None
    async with asyncio.timeout(10):
        await processes.tasks.aclose(10)
    with opened_files() as opened:
        processes.orphans.sweep()
    assert OWN_CHILDREN in opened
    assert processes.orphans.planned is None


async def test_orphans_without_a_descriptor(supervise: Supervise) -> None:
    """They can't be looked for: another sweep is planned, and closing goes on."""
    processes = supervise().processes
    with spare_descriptors(0):
        processes.orphans.sweep()
        processes.stop()
    assert processes.orphans.planned is not None
    assert not processes.orphans.planned.cancelled()


async def test_close_ends_everything(supervise: Supervise) -> None:
    """Processes, terminals, their background and the orphans of earlier ones: all is ended."""
    handler = signal.getsignal(signal.SIGCHLD)
    supervisor = supervise()
    assert signal.getsignal(signal.SIGCHLD) != handler
    early = supervisor.sh('sh -c "exec >/dev/null 2>&1; $STAY" & exit 0')
    await ended(early)
    assert len(members_of(early.record.tree, supervisor.processes.pids)) == 1
    command = supervisor.sh('(setsid sh -c "$STAY" &) ; eval "$STAY"')
    terminal = supervisor.pty('(setsid sh -c "$STAY" &) ; eval "$STAY"')
    await until_lines(command, 2)
    await until_lines(terminal, 2)
    async with asyncio.timeout(10):
        await supervisor.processes.aclose()
    assert started() == []
    assert command.done.result() == ExitStatus(signal=signal.SIGKILL)
    assert terminal.done.result() == ExitStatus(signal=signal.SIGKILL)
    assert supervisor.processes.pids == {}
    assert signal.getsignal(signal.SIGCHLD) == handler


async def test_many_are_ended_in_one_walk(supervise: Supervise) -> None:
    """Not each in one of its own, for which all children are gone through."""
    supervisor = supervise()
    many = [supervisor.sh('eval "$STAY"') for _ in range(50)]
    for process in many:
        await until_lines(process, 1)
    with opened_files() as opened:
        supervisor.processes.stop()
        walks = opened.count(OWN_CHILDREN)
        async with asyncio.timeout(20):
            await supervisor.processes.aclose()
    assert walks == 1
    assert opened.count(OWN_CHILDREN) < len(many)
    assert {process.done.result() for process in many} == {ExitStatus(signal=signal.SIGKILL)}
    assert started() == []


async def test_some_are_left_alone(supervise: Supervise) -> None:
    """A stop with exceptions spares them, their background and their orphans, and nobody else."""
    supervisor = supervise()
    script = (
        '(setsid sh -c "$STAY" &) ; sh -c "$STAY" & (ulimit -S -R 5000; sh -c "$STAY" &) ; wait'
    )
    argv = ("/bin/bash", "-c", script)
    spared, other = (
        supervisor.processes.spawn(argv, cwd="/", env=ENV, output=output()) for _ in range(2)
    )
    theirs = set(map(int, (await until_lines(other, 3)).split()))
    kept = set(map(int, (await until_lines(spared, 3)).split()))
    supervisor.processes.stop(but={spared.record.pid})
    await gone(theirs | {other.record.pid})
    await ended(other)
    members = members_of(spared.record.tree, supervisor.processes.pids)
    assert set(members) == kept | {spared.record.pid}


async def test_nothing_is_started_once_closing_has_begun(supervise: Supervise) -> None:
    """Nor by those who had their turn coming: nobody would end it."""
    supervisor = supervise()
    command = supervisor.sh('eval "$STAY"')
    await until_lines(command, 1)
    closing = asyncio.ensure_future(supervisor.processes.aclose())
    await asyncio.sleep(0)
    assert not closing.done()
    for start in (supervisor.sh, supervisor.pty):
        with pytest.raises(SpawnFailed, match="procd is stopping"):
            start("exit 0")
    async with asyncio.timeout(10):
        await closing
    assert started() == []


# Limits and failures


async def test_no_more_than_so_many(supervise: Supervise) -> None:
    """At the limit a start is refused; a place is free again when one has settled."""
    supervisor = supervise(max_processes=2)
    first, second = supervisor.sh('eval "$STAY"'), supervisor.pty('eval "$STAY"')
    before = descriptors()
    for start in (supervisor.sh, supervisor.pty):
        with pytest.raises(Exhausted, match="limit of 2 processes"):
            start("exit 0")
    assert descriptors() == before
    first.kill()
    await ended(first)
    third = supervisor.sh("exit 0")
    await ended(third)
    assert second.running


async def test_no_more_than_so_many_in_one_turn(supervise: Supervise) -> None:
    """Of those that are started side by side, too; those that are refused leave nothing."""
    processes = supervise(max_processes=1).processes
    before = descriptors()

    async def start() -> Process:
        over = asyncio.get_running_loop().create_future()
        started: list[Process] = []

        def steps() -> Steps[None]:
            spec = ("/bin/sleep", "60")
            started.append((yield from processes.starting(spec, cwd="/", env=ENV, output=output())))
            over.set_result(None)

        processes.starts.begin(steps(), over)
        await over
        return started[0]

    results = await asyncio.gather(*(start() for _ in range(TOGETHER)), return_exceptions=True)
    first, *others = results
    assert isinstance(first, Process)
    assert [type(each) for each in others] == [Exhausted] * (TOGETHER - 1)
    first.kill()
    await first.killed()
    await ended(first)
    assert descriptors() == before
    assert processes.supervised == 0


@pytest.mark.parametrize(
    ("argv", "cwd", "text"),
    [
        (("/absent",), "/", "program does not exist: /absent"),
        (("/bin/true",), "/absent", "working directory does not exist: /absent"),
        (("/bin/true", "x" * MEGABYTE), "/", "arguments and environment are too long"),
    ],
)
async def test_a_failed_start_leaves_nothing(
    supervise: Supervise, argv: tuple[str, ...], cwd: str, text: str
) -> None:
    """No descriptor, no child, no place taken; the script's file is closed all the same."""
    processes = supervise(max_processes=1).processes
    before = descriptors()
    for _ in range(3):
        _, script = script_argv("/bin/sh", "#" * 200_000)
        with pytest.raises(SpawnFailed, match=text):
            processes.spawn(
                argv, cwd=cwd, env=ENV, output=output(), passed=[script] if script else []
            )
        with pytest.raises(SpawnFailed, match=text):
            processes.spawn_pty(argv, cwd=cwd, env=ENV, output=output(), cols=80, rows=24)
    assert descriptors() == before
    assert started() == []
    assert processes.pids == {}


@contextmanager
def spare_descriptors(count: int) -> Iterator[None]:
    """Have no more than `count` descriptors to spare."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    lowest = os.dup(0)
    taken.append(lowest)
    # Fill the holes below the highest number, so that the limit is exactly what is left.
    highest = max(map(int, os.listdir("/proc/self/fd")))
    while (number := os.dup(0)) <= highest:
        taken.append(number)
    os.close(number)
    resource.setrlimit(resource.RLIMIT_NOFILE, (number + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in taken:
            os.close(number)


@pytest.mark.parametrize("kind", ["sh", "pty"])
async def test_no_descriptor_to_spare(
    supervise: Supervise, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many are missing, the start is refused in words, and nothing is left behind."""
    for kept in ("RESERVED", "MOMENTARY"):  # connections and commands have taken them
        monkeypatch.setattr(f"procd.unix.fd.{kept}", 0)
    supervisor = supervise()
    start, here = getattr(supervisor, kind), os.getcwd()
    before = descriptors()
    refusals: list[str] = []
    for count in range(16):
        process: Process | None = None
        with spare_descriptors(count):
            try:
                process = start("echo up; exit 0", cwd=here)
            except (Exhausted, SpawnFailed) as exc:
                refusals.append(exc.message)
        if process is not None:
            assert await ended(process) == ExitStatus(code=0)
        # What couldn't be supervised is being killed.
        await waiting.until(lambda: descriptors() == before)
        assert supervisor.processes.pids == {}
        if process is not None:
            break
    assert 1 < len(refusals) < 15
    assert all("open files" in text for text in refusals)


# A cgroup of its own


def _cgroup_root() -> Path | None:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        if rest.split()[0] != "cgroup2":
            continue
        path = Path(fields.split()[4]) / f"procd-test-{uuid4().hex}"
        try:
            path.mkdir()
        except OSError:
            continue
        if (path / "cgroup.kill").exists():
            return path
        path.rmdir()
    return None


@pytest.fixture
def cgroup_root() -> Iterator[Path]:
    """A cgroup of the test's own."""
    path = _cgroup_root()
    if path is None:
        pytest.skip("no cgroup v2 with cgroup.kill that can be written to")
    yield path
    for leaf in path.iterdir():
        if leaf.is_dir():
            leaf.rmdir()
    path.rmdir()


def _leaves(root: Path) -> list[Path]:
    return [path for path in root.iterdir() if path.is_dir()]


async def test_a_terminal_has_a_leaf(cgroup_root: Path, supervise: Supervise) -> None:
    """All that runs in a terminal is in one leaf, which goes with it; a command has none."""
    supervisor = supervise(cgroup=str(cgroup_root))
    await ended(supervisor.sh("exit 0"))
    assert _leaves(cgroup_root) == []
    process = supervisor.pty("read x; sh -c 'echo $$; read x'; exit 0")
    (leaf,) = _leaves(cgroup_root)
    assert process.record.leaf is not None
    assert process.record.leaf.path == leaf
    assert process.stdin is not None
    process.stdin.write(b"\n")
    await until_lines(process, 2)  # the echo, and a pid
    inner = int(said(process).split()[-1])
    pids = set(map(int, (leaf / "cgroup.procs").read_text().split()))
    assert {process.record.pid, inner} <= pids
    process.stdin.write(b"\n")
    assert await ended(process) == ExitStatus(code=0)
    assert _leaves(cgroup_root) == []
    assert process.record.leaf is None


async def test_a_tree_in_a_leaf_is_killed(cgroup_root: Path, supervise: Supervise) -> None:
    """Everyone inside is ended, other sessions and orphans as well."""
    process = supervise(cgroup=str(cgroup_root)).pty(
        'read x; (setsid sh -c "$STAY" &) ; sh -c "$STAY" & eval "$STAY"'
    )
    (leaf,) = _leaves(cgroup_root)
    assert process.stdin is not None
    process.stdin.write(b"\n")
    await until_lines(process, 4)
    pids = set(map(int, (leaf / "cgroup.procs").read_text().split()))
    assert len(pids) == 3
    process.kill()
    async with asyncio.timeout(10):
        await process.killed()
    assert await ended(process) == ExitStatus(signal=signal.SIGKILL)
    await gone(pids)
    assert not leaf.exists() or (leaf / "cgroup.procs").read_text() == ""


async def test_without_room_for_a_leaf(
    cgroup_root: Path, supervise: Supervise, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the kernel refuses a leaf the process runs all the same, with a warning."""
    (cgroup_root / "cgroup.max.descendants").write_text("0")
    with caplog.at_level(logging.WARNING, "procd.process.process.supervisor"):
        process = supervise(cgroup=str(cgroup_root)).pty("echo up; exit 0")
    assert process.record.leaf is None
    (record,) = caplog.records
    assert "has no cgroup of its own" in record.getMessage()
    assert await ended(process) == ExitStatus(code=0)
    assert said(process) == b"up\r\n"


async def test_a_cgroup_that_is_none() -> None:
    """A setting that can't be used refuses to start, and changes nothing."""
    handler = signal.getsignal(signal.SIGCHLD)
    with pytest.raises(ConfigError, match="not the absolute path of a writable cgroup v2: /absent"):
        Processes(ProcessConfig(cgroup="/absent"))
    assert signal.getsignal(signal.SIGCHLD) == handler


def _controllers(path: Path) -> set[str]:
    return set((path / "cgroup.controllers").read_text().split())


async def test_limits_of_a_cgroup(cgroup_root: Path, supervise: Supervise) -> None:
    """A command has a leaf then, with its limits, and no more tasks than they say."""
    if not {"pids", "memory", "cpu"} <= _controllers(cgroup_root):
        pytest.skip("the pids, memory and cpu controllers are not delegated")
    supervisor = supervise(
        cgroup=str(cgroup_root), pids_max=3, memory_max_bytes=64 << 20, cpu_weight=50
    )
    process = supervisor.pty("read x; sleep 1000 & sleep 1000 & sleep 1000 & exit 0")
    (leaf,) = (each for each in _leaves(cgroup_root) if each.name != "procd-daemon")
    assert (leaf / "pids.max").read_text() == "3\n"
    assert (leaf / "memory.max").read_text() == f"{64 << 20}\n"
    assert (leaf / "cpu.weight").read_text() == "50\n"
    usage = process.usage()
    assert usage is not None
    assert set(usage) == {"cpuUsec", "memoryBytes", "pids"}
    assert process.stdin is not None
    process.stdin.write(b"\n")
    await ended(process)
    assert re.search(b"cannot fork|fork: ", said(process), re.IGNORECASE)  # dash's, or bash's
    process.kill()
    await process.killed()


async def test_limits_where_no_cgroup_is_delegated(
    supervise: Supervise, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning, and everything runs without them."""
    with caplog.at_level(logging.WARNING, "procd.process.process.supervisor"):
        supervisor = supervise(cgroup="off", pids_max=3, memory_max_bytes=1 << 20)
    (record,) = caplog.records
    assert record.getMessage() == "no cgroup v2 is delegated: memory.max, pids.max are not set"
    process = supervisor.sh("exit 5")
    assert await ended(process) == ExitStatus(code=5)
    assert process.usage() is None


async def test_a_hurried_process_is_as_any_other(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where others are taken to keep all processors busy: its priority, and what it says."""
    script = "cut -d' ' -f18,19,41 /proc/self/stat"
    supervisor = supervise()
    usual = supervisor.sh(script)
    await ended(usual)
    monkeypatch.setattr("procd.process.process.hurry.BUSY_START_S", -1.0)
    for start in (supervisor.sh, supervisor.pty):
        for _ in range(10):
            process = start(script)
            await ended(process)
            assert said(process).split() == said(usual).split()
