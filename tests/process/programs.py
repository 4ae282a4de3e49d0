"""Running a program by `spawn` to its end."""

import os
from collections.abc import Mapping

from procd.process.spawn import Source, Spec, spawn
from procd.process.tags import TAG_BASE

ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin"}


def run(
    argv: tuple[str, ...],
    *,
    cwd: str = "/",
    env: Mapping[str, str] = ENV,
    files: tuple[Source, ...] = (),
    wrappers: tuple[str, ...] = (),
    session: bool = True,
) -> tuple[bytes, int]:
    """Start a program and wait for its end: what it wrote on both streams, and its exit code."""
    reading, writing = os.pipe()
    with open(reading, "rb") as output:
        try:
            stdio: tuple[Source, ...] = (os.devnull, writing, writing, *files)
            spec = Spec(argv=argv, cwd=cwd, env=env, stdio=stdio, wrappers=wrappers)
            pid = spawn(spec, TAG_BASE + 77)
        finally:
            os.close(writing)
        content = output.read()
    _, status = os.waitpid(pid, 0)
    return content, os.waitstatus_to_exitcode(status)
