"""Process: done, the background, the end, the kill, and what a failure leaves: nothing."""

import asyncio
import errno
import logging
import os
import re
import resource
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from procd.config import ConfigError, ProcessConfig
from procd.errors import Exhausted, SpawnFailed
from procd.output.buffer import Buffer
from procd.output.log import Log, Store
from procd.process.child import ExitStatus
from procd.process.process import STDERR, STDOUT, Process
from procd.process.shell import script_argv
from procd.process.supervisor import Supervisor
from procd.unix import procfs
from procd.unix.fd import OwnedFd, pipe, seal_inherited
from tests import waiting
from tests.opened import opened_files
from tests.trees import members_of

# Somebody who tells his pid and stays, whoever asks him to go.
STAY = "trap '' HUP TERM INT; echo $$; exec sleep 1000"
ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin", "STAY": STAY, "PS1": ""}

MEGABYTE = 1 << 20


def output(high_bytes: int = 64 * MEGABYTE) -> Log[Buffer]:
    """A log that keeps all that a test says."""
    return Log(Buffer(64 * MEGABYTE), high_bytes)


class Starter:
    """A starter of one configuration, and scripts started by it."""

    def __init__(self, config: ProcessConfig) -> None:
        self.all = Supervisor(config)

    def sh(self, script: str, into: Log[Buffer] | None = None, cwd: str = "/") -> Process:
        return self.all.spawn(("/bin/sh", "-c", script), cwd=cwd, env=ENV, output=into or output())

    def pty(self, script: str, into: Log[Buffer] | None = None, cwd: str = "/") -> Process:
        return self.all.spawn_pty(
            ("/bin/sh", "-c", script), cwd=cwd, env=ENV, output=into or output(), cols=80, rows=24
        )


Supervise = Callable[..., Starter]


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
    """Make a starter with these settings; it is closed with the test."""
    seal_inherited()
    made: list[Starter] = []

    def make(**settings: object) -> Starter:
        config = ProcessConfig(**{"cgroup": "off", "drain_s": 0.05, **settings})  # type: ignore[arg-type]  # each test gives what it needs
        made.append(Starter(config))
        return made[0]

    yield make
    for starter in made:
        async with asyncio.timeout(20):
            await starter.all.aclose()


def said(process: Process) -> bytes:
    """All that it has said so far."""
    return content(process.log)


def content(log: Log[Store]) -> bytes:
    """All that is in a log."""
    assert isinstance(log.store, Buffer)
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


async def test_the_end_of_output_is_not_done(supervise: Supervise) -> None:
    """Who has closed his output and lives on is not done."""
    telling = OwnedFd((ends := os.pipe())[1])
    process = supervise().all.spawn(
        ("/bin/sh", "-c", "exec >/dev/null 2>&1; echo closed >&3; exec sleep 1000"),
        cwd="/",
        env=ENV,
        output=output(),
        passed=[telling],
    )
    with open(ends[0], "rb") as told:
        assert told.readline() == b"closed\n"
    process.drain()
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


@pytest.mark.parametrize("kind", ["sh", "pty"])
async def test_what_was_started_by_what_is_taken_back(
    supervise: Supervise, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start that fails when the program has begun leaves nothing of what that has started."""
    starter = supervise()
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
        getattr(starter, kind)(
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
    process.poll()
    assert process.record.exit == ExitStatus(code=5)
    assert not process.done.done()
    assert await ended(process) == ExitStatus(code=5)
    assert content(log).startswith(b"first\n")


async def test_what_was_said_before_done_is_kept(supervise: Supervise) -> None:
    """What the kernel holds when the drain is over is taken, though the source is paused."""
    reading, writing = pipe()
    log = output(high_bytes=1000)
    process = supervise().all.spawn(
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
    processes = supervise().all
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
    (orphan,) = members_of(process.record.tree, processes.children)
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
    starter = supervise()
    process = starter.pty("stty raw -echo; echo ready; exec sleep 1000")
    await until(process, b"ready")
    assert process.stdin is not None
    assert process.terminal is not None
    process.stdin.write(b"x" * 100_000)
    assert process.stdin.queued_bytes
    number = process.terminal.master.number
    process.kill()
    process.close()
    assert process.stdin.queued_bytes == 0
    following = starter.pty("read x; echo got-$x")
    assert following.stdin is not None
    assert following.terminal is not None
    assert following.terminal.master.number == number
    following.stdin.write(b"typed\n")
    assert await ended(following) == ExitStatus(code=0)
    assert said(following).endswith(b"got-typed\r\n")
    await process.wait_killed()


async def test_a_given_input_is_its_own(supervise: Supervise) -> None:
    """A pipe for input: what is written arrives, and its end is an end for the child."""
    reading, writing = pipe()
    process = supervise().all.spawn(
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
    process = supervise().all.spawn(
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
        await process.wait_killed()
    assert await ended(process) == ExitStatus(signal=signal.SIGKILL)
    assert not members_of(process.record.tree, [])
    await gone(pids)
    assert process.settled


async def test_a_kill_of_one_is_no_kill_of_another(supervise: Supervise) -> None:
    """Two processes, each with orphans: the one goes, the other hears nothing."""
    starter = supervise()
    one = starter.sh('(setsid sh -c "$STAY" &) ; eval "$STAY"')
    two = starter.sh('(setsid sh -c "$STAY" &) ; read x <&2; eval "$STAY"')
    await until_lines(one, 2)
    await until_lines(two, 1)
    before = set(members_of(two.record.tree, starter.all.children))
    one.kill()
    async with asyncio.timeout(10):
        await one.wait_killed()
    assert set(members_of(two.record.tree, starter.all.children)) == before
    assert two.running


async def test_nobody_to_wait_for(supervise: Supervise) -> None:
    """`killed` without a kill returns; a kill after everyone's end is none."""
    process = supervise().sh("exit 0")
    await ended(process)
    async with asyncio.timeout(10):
        await process.wait_killed()
        process.kill()
        await process.wait_killed()


async def test_everyone_hears_a_hang_up(supervise: Supervise) -> None:
    """The output of what holds it open is closed: who writes gets SIGPIPE from then on."""
    process = supervise().sh("echo up; while :; do echo more; done")
    await until(process, b"up")
    process.close()
    process.close()
    async with asyncio.timeout(10):
        status = await asyncio.shield(process.done)
    assert status == ExitStatus(signal=signal.SIGPIPE)
    assert process.settled


# Orphans


async def test_orphans_are_reaped_and_nobody_else(supervise: Supervise) -> None:
    """The sweep takes the statuses of ended orphans; a supervised child's stays for its reader."""
    processes = supervise().all
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
    processes.reaper.reap()
    assert started() == [leader]
    assert await ended(process) == ExitStatus(code=9)
    assert started() == []


async def test_close_ends_everything(supervise: Supervise) -> None:
    """Supervisor, terminals, their background and the orphans of earlier ones: all is ended."""
    handler = signal.getsignal(signal.SIGCHLD)
    starter = supervise()
    assert signal.getsignal(signal.SIGCHLD) != handler
    early = starter.sh('sh -c "exec >/dev/null 2>&1; $STAY" & exit 0')
    await ended(early)
    assert len(members_of(early.record.tree, starter.all.children)) == 1
    command = starter.sh('(setsid sh -c "$STAY" &) ; eval "$STAY"')
    terminal = starter.pty('(setsid sh -c "$STAY" &) ; eval "$STAY"')
    await until_lines(command, 2)
    await until_lines(terminal, 2)
    async with asyncio.timeout(10):
        await starter.all.aclose()
    assert started() == []
    assert command.done.result() == ExitStatus(signal=signal.SIGKILL)
    assert terminal.done.result() == ExitStatus(signal=signal.SIGKILL)
    assert starter.all.children == {}
    assert signal.getsignal(signal.SIGCHLD) == handler


async def test_many_are_ended_in_one_walk(supervise: Supervise) -> None:
    """Not each in one of its own, for which all children are gone through."""
    starter = supervise()
    many = [starter.sh('eval "$STAY"') for _ in range(50)]
    for process in many:
        await until_lines(process, 1)
    with opened_files() as opened:
        starter.all.stop()
        walks = opened.count(OWN_CHILDREN)
        async with asyncio.timeout(20):
            await starter.all.aclose()
    assert walks == 1
    assert opened.count(OWN_CHILDREN) < len(many)
    assert {process.done.result() for process in many} == {ExitStatus(signal=signal.SIGKILL)}
    assert started() == []


async def test_some_are_left_alone(supervise: Supervise) -> None:
    """A stop with exceptions spares them, their background and their orphans, and nobody else."""
    starter = supervise()
    script = (
        '(setsid sh -c "$STAY" &) ; sh -c "$STAY" & (ulimit -S -R 5000; sh -c "$STAY" &) ; wait'
    )
    argv = ("/bin/bash", "-c", script)
    spared, other = (starter.all.spawn(argv, cwd="/", env=ENV, output=output()) for _ in range(2))
    theirs = set(map(int, (await until_lines(other, 3)).split()))
    kept = set(map(int, (await until_lines(spared, 3)).split()))
    starter.all.stop(but={spared.record.pid})
    await gone(theirs | {other.record.pid})
    await ended(other)
    members = members_of(spared.record.tree, starter.all.children)
    assert set(members) == kept | {spared.record.pid}


async def test_nothing_is_started_once_closing_has_begun(supervise: Supervise) -> None:
    """Nor by those who had their turn coming: nobody would end it."""
    starter = supervise()
    command = starter.sh('eval "$STAY"')
    await until_lines(command, 1)
    closing = asyncio.ensure_future(starter.all.aclose())
    await asyncio.sleep(0)
    assert not closing.done()
    for start in (starter.sh, starter.pty):
        with pytest.raises(SpawnFailed, match="procd is stopping"):
            start("exit 0")
    async with asyncio.timeout(10):
        await closing
    assert started() == []


# Limits and failures


async def test_no_more_than_so_many(supervise: Supervise) -> None:
    """At the limit a start is refused; a place is free again when one has settled."""
    starter = supervise(max_processes=2)
    first, second = starter.sh('eval "$STAY"'), starter.pty('eval "$STAY"')
    before = descriptors()
    for start in (starter.sh, starter.pty):
        with pytest.raises(Exhausted, match="limit of 2 processes"):
            start("exit 0")
    assert descriptors() == before
    first.kill()
    await ended(first)
    third = starter.sh("exit 0")
    await ended(third)
    assert second.running


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
    processes = supervise(max_processes=1).all
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
    assert processes.children == {}


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
    for kept in ("RESERVED", "SHORT_LIVED"):  # connections and commands have taken them
        monkeypatch.setattr(f"procd.unix.fd.{kept}", 0)
    starter = supervise()
    start, here = getattr(starter, kind), os.getcwd()
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
        assert starter.all.children == {}
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
    starter = supervise(cgroup=str(cgroup_root))
    await ended(starter.sh("exit 0"))
    assert _leaves(cgroup_root) == []
    process = starter.pty("read x; sh -c 'echo $$; read x'; exit 0")
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
        await process.wait_killed()
    assert await ended(process) == ExitStatus(signal=signal.SIGKILL)
    await gone(pids)
    assert not leaf.exists() or (leaf / "cgroup.procs").read_text() == ""


async def test_without_room_for_a_leaf(
    cgroup_root: Path, supervise: Supervise, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the kernel refuses a leaf the process runs all the same, with a warning."""
    (cgroup_root / "cgroup.max.descendants").write_text("0")
    with caplog.at_level(logging.WARNING, "procd.process.process.starter"):
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
        Supervisor(ProcessConfig(cgroup="/absent"))
    assert signal.getsignal(signal.SIGCHLD) == handler


def _controllers(path: Path) -> set[str]:
    return set((path / "cgroup.controllers").read_text().split())


async def test_limits_of_a_cgroup(cgroup_root: Path, supervise: Supervise) -> None:
    """A command has a leaf then, with its limits, and no more tasks than they say."""
    if not {"pids", "memory", "cpu"} <= _controllers(cgroup_root):
        pytest.skip("the pids, memory and cpu controllers are not delegated")
    starter = supervise(
        cgroup=str(cgroup_root), pids_max=3, memory_max_bytes=64 << 20, cpu_weight=50
    )
    process = starter.pty("read x; sleep 1000 & sleep 1000 & sleep 1000 & exit 0")
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
    await process.wait_killed()


async def test_limits_where_no_cgroup_is_delegated(
    supervise: Supervise, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning, and everything runs without them."""
    with caplog.at_level(logging.WARNING, "procd.process.process.starter"):
        starter = supervise(cgroup="off", pids_max=3, memory_max_bytes=1 << 20)
    (record,) = caplog.records
    assert record.getMessage() == "no cgroup v2 is delegated: memory.max, pids.max are not set"
    process = starter.sh("exit 5")
    assert await ended(process) == ExitStatus(code=5)
    assert process.usage() is None
