"""Child: a status that another process has read, or keeps."""

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
        return os.read(self.from_child, 100)

    async def exit(self) -> ExitStatus:
        """Wait for its status, which is reported once and reaped."""
        await until(lambda: bool(self.statuses))
        os.close(self.to_child)
        os.close(self.from_child)
        (status,) = self.statuses
        assert not self.child.running
        with pytest.raises(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        return status


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
        for _ in range(10):
            await asyncio.sleep(0)
        assert watched.child.running
    assert await watched.exit() == ExitStatus(signal=signal.SIGKILL)
