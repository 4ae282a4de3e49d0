"""Child: one status, read once, by its only reader."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from procd.process.child import Child, ExitStatus
from procd.process.spawn import Spec, spawn
from procd.process.tags import TAG_BASE
from procd.process.tree import become_subreaper

ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin"}


class Watched:
    """A child and the statuses that were told; it waits for a line before it ends."""

    def __init__(self, script: str, loop: asyncio.AbstractEventLoop | None = None) -> None:
        stdin, self.to_child = os.pipe()
        self.from_child, stdout = os.pipe()
        spec = Spec(
            argv=("/bin/sh", "-c", script), cwd="/", env=ENV, stdio=(stdin, stdout, os.devnull)
        )
        self.pid = spawn(spec, TAG_BASE + 1)
        os.close(stdin)
        os.close(stdout)
        loop = asyncio.get_running_loop()
        self.told: list[ExitStatus] = []
        self.exited: asyncio.Future[ExitStatus] = loop.create_future()
        self.child = Child(selector or loop, self.pid, self._tell)

    def _tell(self, status: ExitStatus) -> None:
        self.told.append(status)
        self.exited.set_result(status)

    def line(self) -> bytes:
        """The next thing it says."""
        return os.read(self.from_child, 100)

    def go(self) -> None:
        """Give it its line."""
        os.write(self.to_child, b"\n")

    def close(self) -> None:
        os.close(self.to_child)
        os.close(self.from_child)


async def _ended(watched: Watched) -> ExitStatus:
    async with asyncio.timeout(10):
        status = await watched.exited
    watched.close()
    assert watched.told == [status]
    assert not watched.child.running
    with pytest.raises(ChildProcessError):  # it was reaped
        os.waitpid(watched.pid, os.WNOHANG)
    return status


@pytest.mark.parametrize("code", [0, 1, 127, 255])
async def test_an_exit(code: int) -> None:
    """The code of an exit is told once; it was running until then."""
    watched = Watched(f"echo up; read x; exit {code}")
    assert watched.line() == b"up\n"
    assert watched.child.running
    assert watched.told == []
    watched.go()
    status = await _ended(watched)
    assert status == ExitStatus(code=code)
    assert status.shell_code == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
async def test_a_signal(number: signal.Signals) -> None:
    """A signal that is sent ends it and is told; its figure is that of a shell."""
    watched = Watched("echo up; read x")
    assert watched.line() == b"up\n"
    watched.child.signal(number)
    status = await _ended(watched)
    assert status == ExitStatus(signal=number)
    assert status.shell_code == 128 + number


async def test_a_core_dump_is_a_signal() -> None:
    """A signal that dumps core is a signal like any other."""
    watched = Watched("ulimit -c 0; echo up; kill -QUIT $$; read x")
    assert await _ended(watched) == ExitStatus(signal=signal.SIGQUIT)


async def test_the_signal_reaches_this_process_alone() -> None:
    """What the child has started hears nothing of a signal to the child."""
    become_subreaper()  # so that what it has started is ours to wait for
    watched = Watched("exec 3<&0; sh -c 'echo $$; read x <&3; exit 6' & wait")
    orphan = int(watched.line())
    watched.child.signal(signal.SIGKILL)
    async with asyncio.timeout(10):
        assert await watched.exited == ExitStatus(signal=signal.SIGKILL)
    watched.go()
    _, status = os.waitpid(orphan, 0)
    assert os.waitstatus_to_exitcode(status) == 6
    watched.close()


async def test_after_its_end_a_signal_is_nothing() -> None:
    """The pid may be another's: nobody is hit, and nothing is wrong."""
    watched = Watched("exit 0")
    await _ended(watched)
    watched.child.signal(signal.SIGKILL)


async def test_a_zombie_takes_a_signal_quietly() -> None:
    """Between the end and the reading of the status a signal does no harm."""
    watched = Watched("exit 4")
    os.waitid(os.P_PID, watched.pid, os.WEXITED | os.WNOWAIT)
    assert watched.child.running
    watched.child.signal(signal.SIGTERM)
    assert await _ended(watched) == ExitStatus(code=4)


async def test_a_status_that_somebody_took() -> None:
    """If another has waited for it, its end is told all the same, as unknown; no signal hits it."""
    watched = Watched("exit 3")
    os.waitpid(watched.pid, 0)
    watched.child.signal(signal.SIGTERM)
    status = await _ended(watched)
    assert status == ExitStatus()
    assert status.shell_code == -1


class Left:
    """The loop as a selector, and whether it has been left."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.add_reader = self._loop.add_reader
        self.add_writer = self._loop.add_writer
        self.remove_writer = self._loop.remove_writer
        self.left = asyncio.Event()

    def remove_reader(self, fd: int, /) -> bool:
        self.left.set()
        return self._loop.remove_reader(fd)


# Linux, PTRACE_SEIZE.
TRACER = """
import ctypes, sys
print(ctypes.CDLL(None).ptrace(0x4206, int(sys.argv[1]), 0, 0), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("forgotten", [False, True])
async def test_a_status_that_a_tracer_keeps(forgotten: bool) -> None:
    """Until that has waited, or ended, the pidfd is readable and there is no status."""
    selector = Left()
    watched = Watched("echo up; read x", selector)
    assert watched.line() == b"up\n"
    pipe = subprocess.PIPE
    argv = (sys.executable, "-c", TRACER, str(watched.pid))
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe) as tracer:
        assert tracer.stdout is not None
        seized = tracer.stdout.readline() == b"0\n"
        watched.child.signal(signal.SIGKILL)
        async with asyncio.timeout(10):
            await selector.left.wait()
        assert watched.child.running is seized
        if forgotten:
            watched.child.forget()
    if forgotten:
        os.waitpid(watched.pid, 0)
        watched.close()
        return
    assert await _ended(watched) == ExitStatus(signal=signal.SIGKILL)
    if not seized:
        pytest.skip("nothing may be traced here")


async def test_forget_leaves_the_status_to_others() -> None:
    """Given up, it tells nothing, and its descriptor is closed; twice is as good as once."""
    watched = Watched("echo up; read x; exit 5")
    assert watched.line() == b"up\n"
    watched.child.forget()
    watched.child.forget()
    assert not watched.child.running
    watched.child.signal(signal.SIGKILL)
    watched.go()
    _, status = os.waitpid(watched.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 5
    assert watched.told == []
    watched.close()


async def test_each_has_its_own_status() -> None:
    """Many that end at once are not mixed up."""
    children = [Watched(f"read x; exit {code}") for code in range(20)]
    go: list[Callable[[], None]] = [watched.go for watched in children]
    for each in go:
        each()
    async with asyncio.timeout(10):
        codes = [(await watched.exited).code for watched in children]
    for watched in children:
        watched.close()
    assert codes == list(range(20))


async def test_a_look_takes_the_status_at_once() -> None:
    """Without a turn of the loop, and once; while it lives, or when all is told, it is nothing."""
    watched = Watched("echo up; read x; exit 3")
    assert watched.line() == b"up\n"
    watched.child.look()
    assert watched.told == []
    watched.go()
    os.waitid(os.P_PID, watched.pid, os.WEXITED | os.WNOWAIT)
    watched.child.look()
    watched.child.look()
    assert watched.told == [ExitStatus(code=3)]
    assert await _ended(watched) == ExitStatus(code=3)
    watched.child.look()


async def test_a_look_after_forget() -> None:
    """The status is left to others."""
    watched = Watched("exit 5")
    watched.child.forget()
    watched.child.look()
    _, status = os.waitpid(watched.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 5
    assert watched.told == []
    watched.close()


class Full:
    """A selector that can watch nothing more. Source: epoll_ctl(2), ENOSPC."""

    def add_reader(self, fd: int, callback: Callable[[], None], /) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def remove_reader(self, fd: int, /) -> bool:
        return False

    add_writer = add_reader
    remove_writer = remove_reader


async def test_one_that_can_not_be_watched_leaves_no_descriptor() -> None:
    """Whoever has started it takes it back."""
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="No space left"):
        Child(Full(), os.getpid(), lambda _: None)
    assert os.listdir("/proc/self/fd") == before
