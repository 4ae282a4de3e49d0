"""Child: its status is read once, and signals reach no other process."""

import asyncio
import os
import select
import signal
import subprocess
import sys

import pytest

from procd.process.child import Child, ExitStatus
from procd.process.spawn import Spec, spawn
from procd.process.tags import TAG_BASE
from procd.process.tree import become_subreaper
from tests.process.collector import turn
from tests.waiting import until


class Watched:
    """A child that is watched; it can wait for its input."""

    def __init__(self, script: str) -> None:
        stdin, self.to_child = os.pipe()
        self.from_child, stdout = os.pipe()
        spec = Spec(
            argv=("/bin/sh", "-c", script),
            cwd="/",
            env={"PATH": "/usr/bin:/bin"},
            stdio=(stdin, stdout, os.devnull),
        )
        self.pid = spawn(spec, TAG_BASE + 1)
        os.close(stdin)
        os.close(stdout)
        self.statuses: list[ExitStatus] = []
        self.child = Child(asyncio.get_running_loop(), self.pid, self.statuses.append)

    def line(self) -> bytes:
        """The next line of its output."""
        return os.read(self.from_child, 100)

    def close_input(self) -> None:
        os.close(self.to_child)
        self.to_child = -1

    def close(self) -> None:
        if self.to_child >= 0:
            self.close_input()
        os.close(self.from_child)

    async def exit(self) -> ExitStatus:
        """Wait for its status, which is reported once and reaped."""
        await until(lambda: bool(self.statuses))
        self.close()
        (status,) = self.statuses
        assert not self.child.running
        with pytest.raises(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        return status


@pytest.mark.parametrize(
    ("script", "status", "shell_code"),
    [
        ("exit 0", ExitStatus(code=0), 0),
        ("exit 255", ExitStatus(code=255), 255),
        ("ulimit -c 0; kill -QUIT $$; read x", ExitStatus(signal=signal.SIGQUIT), 131),
    ],
)
async def test_exit(script: str, status: ExitStatus, shell_code: int) -> None:
    watched = Watched(f"read x; {script}")
    assert watched.child.running
    watched.close_input()
    assert await watched.exit() == status
    assert status.shell_code == shell_code
    watched.child.signal(signal.SIGKILL)  # the pid may be another's
    watched.child.poll()


async def test_signal_reaches_the_child_alone() -> None:
    become_subreaper()  # so that its child can be waited for here
    watched = Watched("exec 3<&0; sh -c 'echo $$; read x <&3; exit 6' & wait")
    grandchild = int(watched.line())
    watched.child.signal(signal.SIGKILL)
    await until(lambda: watched.statuses == [ExitStatus(signal=signal.SIGKILL)])
    watched.close_input()
    assert os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]) == 6
    watched.close()


async def test_signal_to_a_zombie() -> None:
    watched = Watched("exit 4")
    os.waitid(os.P_PID, watched.pid, os.WEXITED | os.WNOWAIT)
    assert watched.child.running
    watched.child.signal(signal.SIGTERM)
    assert await watched.exit() == ExitStatus(code=4)


async def test_status_that_another_has_read() -> None:
    watched = Watched("exit 3")
    os.waitpid(watched.pid, 0)
    watched.child.signal(signal.SIGTERM)
    assert await watched.exit() == ExitStatus()
    assert ExitStatus().shell_code == -1


# Linux, PTRACE_SEIZE.
TRACER = """
import ctypes, sys
print(ctypes.CDLL(None).ptrace(0x4206, int(sys.argv[1]), 0, 0), flush=True)
sys.stdin.read()
"""


async def test_status_that_a_tracer_keeps() -> None:
    """The pidfd is readable, but there is no status until the tracer has ended."""
    watched = Watched("echo up; read x")
    assert watched.line() == b"up\n"
    argv = (sys.executable, "-c", TRACER, str(watched.pid))
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as tracer:
        assert tracer.stdout is not None
        if tracer.stdout.readline() != b"0\n":
            watched.child.signal(signal.SIGKILL)
            await watched.exit()
            pytest.skip("nothing may be traced here")
        watched.child.signal(signal.SIGKILL)
        pidfd = os.pidfd_open(watched.pid)
        select.select([pidfd], [], [])
        os.close(pidfd)
        await turn()
        assert watched.child.running
    assert await watched.exit() == ExitStatus(signal=signal.SIGKILL)


async def test_close_leaves_the_status_to_others() -> None:
    watched = Watched("exit 5")
    watched.child.close()
    watched.child.close()
    watched.child.signal(signal.SIGKILL)
    watched.child.poll()
    assert os.waitstatus_to_exitcode(os.waitpid(watched.pid, 0)[1]) == 5
    assert watched.statuses == []
    watched.close()


async def test_poll_reads_the_status_before_the_loop_does() -> None:
    watched = Watched("read x; exit 3")
    watched.child.poll()
    assert watched.statuses == []
    watched.close_input()
    os.waitid(os.P_PID, watched.pid, os.WEXITED | os.WNOWAIT)
    watched.child.poll()
    watched.child.poll()
    assert watched.statuses == [ExitStatus(code=3)]
    assert await watched.exit() == ExitStatus(code=3)
