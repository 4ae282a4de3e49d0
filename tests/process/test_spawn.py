"""spawn: the environment behind a wrapper, and why a start fails."""

import os
import re
import resource
import stat
from pathlib import Path
from typing import Any

import pytest

from procd.errors import SpawnFailed
from procd.process.spawn import Spec, spawn
from procd.process.tags import TAG_BASE
from procd.unix import file
from procd.unix.procfs import own_children
from tests.process.programs import ENV, run

TAG = TAG_BASE + 77


ODD_ENV = {
    "LD_PRELOAD": "", "A": "x \"y\" 'z' $HOME ${v0} \\n #\n\t", "U": "caf\xe9 \udcff",
    "_": "/x", "BASH_FUNC_f%%": "() { :; }", "it's \\ odd\n": "1", "LAST": "a=b",
}  # fmt: skip
# Prints the environment of the wrapper, and then that of the program.
WRAPPER = ("/bin/sh", "-c", 'tr "\\0" "\\n" </proc/$$/environ; exec "$0" "$@"')


@pytest.mark.parametrize("cwd", ["/usr", "."])
def test_wrapper_does_not_see_the_environment(cwd: str) -> None:
    program = ("/usr/bin/env", "--null")
    output, _ = run(program, env=ODD_ENV, cwd=cwd, wrappers=WRAPPER)
    wanted = b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in ODD_ENV.items())
    wanted += b"PWD=/usr\0" if cwd == "/usr" else b""
    assert output.endswith(wanted)
    seen = output.removesuffix(wanted)
    assert seen
    assert not re.search(rb"^(?!v\d+=)\w+=", seen, re.MULTILINE)
    assert run(program, env={}, cwd=".", wrappers=WRAPPER) == (b"", 0)


def test_no_value_is_an_argument() -> None:
    """Every user can read the arguments of every process."""
    wrapper = ("/bin/sh", "-c", 'tr "\\0" "\\n" </proc/$$/cmdline; exec "$0" "$@"')
    output, _ = run(("/bin/true",), env={"KEY": "a secret"}, wrappers=wrapper)
    assert b"KEY" in output
    assert b"secret" not in output


@pytest.mark.parametrize("wrappers", [(), ("/bin/sh", "-c", 'exec "$0" "$@"')])
def test_remote_directory(monkeypatch: pytest.MonkeyPatch, wrappers: tuple[str, ...]) -> None:
    """The child enters it itself; its environment is the same, though it has many variables."""
    monkeypatch.setattr(file, "REMOTE", (b"proc",))
    many = 0 if wrappers else 6000
    env = {f"NAME_OF_A_VARIABLE_{number:06}": "x" for number in range(many)} | ODD_ENV
    output, _ = run(("/usr/bin/env", "--null"), env=env, cwd="/proc/sys", wrappers=wrappers)
    env["PWD"] = "/proc/sys"
    assert output == b"".join(os.fsencode(f"{name}={value}\0") for name, value in env.items())
    output, _ = run(("/bin/pwd", "-P"), cwd="/proc/sys", wrappers=wrappers)
    assert output == b"/proc/sys\n"


def refused(
    argv: tuple[str, ...] = ("/bin/true",),
    cwd: str = "/",
    wrappers: tuple[str, ...] = (),
    stdin: str = os.devnull,
) -> str:
    """Why a start fails; it changes nothing."""
    spec = Spec(
        argv=argv, cwd=cwd, env=ENV, stdio=(stdin, os.devnull, os.devnull), wrappers=wrappers
    )
    before = os.getcwd(), resource.getrlimit(resource.RLIMIT_RTTIME), own_children()
    with pytest.raises(SpawnFailed) as caught:
        spawn(spec, TAG)
    assert (os.getcwd(), resource.getrlimit(resource.RLIMIT_RTTIME), own_children()) == before
    return caught.value.message


LONG_NAME = "/" + "d" * 300


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ({"cwd": "/absent/dir"}, "working directory does not exist: /absent/dir"),
        ({"cwd": "/etc/passwd"}, "working directory is not a directory: /etc/passwd"),
        (
            {"cwd": LONG_NAME},
            f"working directory cannot be entered: {LONG_NAME}: File name too long",
        ),
        ({"argv": ("/absent/program",)}, "program does not exist: /absent/program"),
        (
            {"argv": ("/bin/true", "x" * (1 << 20))},
            "arguments and environment are too long for execve",
        ),
        (
            {"argv": ("/a=b/program",), "wrappers": ("/bin/sh", "-c", ":")},
            "program cannot be executed: /a=b/program: its path has a = in it",
        ),
        (
            {"stdin": "/absent/null"},  # as /dev/null in a bad container
            "cannot start a process: /absent/null: No such file or directory",
        ),
    ],
)
def test_refused(case: dict[str, Any], message: str) -> None:
    assert refused(**case) == message


@pytest.mark.parametrize(
    ("mode", "content", "reason"),
    [
        (0o644, b"#!/bin/sh\n", "program cannot be executed: {}: Permission denied"),
        (0o755, b"\x00\x01", "program cannot be executed: {}: Exec format error"),
        (0o777, None, "cannot start a process: Too many levels of symbolic links"),
    ],
)
def test_file_that_is_no_program(
    tmp_path: Path, mode: int, content: bytes | None, reason: str
) -> None:
    program = tmp_path / "program"
    if content is None:
        program.symlink_to(program)
    else:
        program.write_bytes(content)
        program.chmod(mode)
        assert stat.S_IMODE(program.stat().st_mode) == mode
    assert refused((str(program),)) == reason.format(program)
