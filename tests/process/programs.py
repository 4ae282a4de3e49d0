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
    stdin: bytes = b"",
    files: tuple[Source, ...] = (),
    wrappers: tuple[str, ...] = (),
    session: bool = True,
) -> tuple[bytes, int]:
    """Start a program and wait for its end: what it wrote on both streams, and its exit code."""
    reading, writing = os.pipe()
    input_reading, input_writing = os.pipe()
    os.write(input_writing, stdin)
    os.close(input_writing)
    with open(reading, "rb") as output:
        try:
            stdio: tuple[Source, ...] = (input_reading, writing, writing, *files)
            spec = Spec(
                argv=argv, cwd=cwd, env=env, stdio=stdio, wrappers=wrappers, session=session
            )
            pid = spawn(spec, TAG_BASE + 77)
        finally:
            os.close(writing)
            os.close(input_reading)
        content = output.read()
    _, status = os.waitpid(pid, 0)
    return content, os.waitstatus_to_exitcode(status)
