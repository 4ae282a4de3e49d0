"""What a session's shell is told, said to shells of each kind."""

import os
import shlex
import subprocess
import tracemalloc
from pathlib import Path

import pytest

from procd.process.tags import TAG_BASE
from procd.services.shell.dialect import (
    builtin_word,
    fed,
    is_running,
    leaving,
    retag_in_shell,
    sourced,
    sourcing,
    untraced,
    with_status,
)
from procd.unix.fd import OwnedFd, write_all
from tests.api.sessions import SHELLS as SESSION_SHELLS

SHELLS = [path for path in ("/bin/sh", "/bin/bash") if os.access(path, os.X_OK)]
EVERY = [path for path in SESSION_SHELLS.values() if os.access(path, os.X_OK)]
NOBODY = 65534
TAGGING = [path for path in ("/usr/bin/bash", "/usr/bin/zsh") if os.access(path, os.X_OK)]


def run(shell: str, script: str, user: int | None = None, *passed: int) -> tuple[bytes, int]:
    """What a shell says of a script on its standard output, and its exit code."""
    argv = [shell, "-c", script]
    if shell.endswith("busybox"):
        argv.insert(1, "sh")
    done = subprocess.run(argv, stdout=subprocess.PIPE, check=False, user=user, pass_fds=passed)
    return done.stdout, done.returncode


@pytest.mark.parametrize("shell", SHELLS)
def test_sourced_where_set_e_is_on(shell: str, tmp_path: Path) -> None:
    """Only what fails within a script ends the shell, and the status is the script's."""
    lines = [f"{builtin_word(shell)} set -e"]
    for number, script in enumerate([b"(exit 3) && :", b"echo $?", b"", b"false; echo rest"]):
        path = tmp_path / f"{number}"
        path.write_bytes(sourced(shell, script))
        lines += [sourcing(shell, str(path), ">&1"), "echo $?"]
    # The status of a command before is lost to `echo`.
    assert run(shell, "\n".join(lines)) == (b"3\n0\n0\n0\n", 1)


@pytest.mark.parametrize("shell", EVERY)
def test_signals_that_follow_each_other_between_scripts(shell: str, tmp_path: Path) -> None:
    """What is due between scripts may come within another that is, and within one more."""
    if shell.endswith("busybox"):
        (tmp_path / "sh").symlink_to(shell)
        shell = str(tmp_path / "sh")
    trap = f"{builtin_word(shell)} trap {shlex.quote(leaving(shell, 143))} URG"
    due = "kill -URG $$; :"
    for _ in range(3):  # streams put aside: by procd's own line, and by what comes within it
        due = untraced(due)
    read = tmp_path / "read"
    read.write_text("\n".join([trap, due, "echo here"]))
    with read.open() as lines:
        argv = fed(shell, str(read)).argv
        done = subprocess.run(argv, stdin=lines, stdout=subprocess.PIPE, check=False)
    assert (done.stdout, done.returncode) == (b"here\n", 0)


@pytest.mark.parametrize("shell", EVERY)
def test_a_status_where_no_process_can_be_started(shell: str) -> None:
    """It is told and set all the same."""
    script = OwnedFd(os.memfd_create("script"))
    write_all(script, sourced(shell, b"return 9"))
    lines = [
        "ulimit -u 0 2>/dev/null || ulimit -p 0",
        sourcing(shell, f"/proc/self/fd/{script.number}", ">&1"),
        "echo $?",
        f"{builtin_word(shell)} set -e",
        untraced(with_status(shell, 7)),
        "echo $?",
    ]
    user = NOBODY if os.geteuid() == 0 else None  # no such limit holds for root
    assert run(shell, "\n".join(lines), user, script.number) == (b"9\n7\n", 0)
    script.close()


@pytest.mark.parametrize("shell", TAGGING)
def test_a_shell_that_tags_itself_without_a_program(
    monkeypatch: pytest.MonkeyPatch, shell: str
) -> None:
    """It is a line of its own, whatever follows it."""
    monkeypatch.setenv("PATH", "/nowhere")
    assert run(shell, f"{retag_in_shell(shell, TAG_BASE + 7)}(exit 3)") == (b"", 3)


@pytest.mark.parametrize("shell", TAGGING)
def test_a_shell_that_tags_itself(shell: str) -> None:
    """It takes no process, of which there may be too many."""
    tag = TAG_BASE + 7
    by_itself, _, _ = retag_in_shell(shell, tag).partition("||")
    said, code = run(shell, f"{untraced(by_itself)}\ncat /proc/$$/limits")
    assert code == 0
    assert f"Max realtime timeout      {tag} ".encode() in said


def test_of_a_command_line_only_what_might_be_the_shells_is_read() -> None:
    """A process can have it be as long as its address space."""
    argv = ("/bin/sh", "-c", "echo up; read x", *["x" * 100_000] * 10)
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        assert is_running(process.pid, argv)
        assert not is_running(process.pid, argv[:-1])
        tracemalloc.start()
        try:
            assert not is_running(process.pid, argv[:3])
            assert tracemalloc.get_traced_memory()[1] < 100_000
        finally:
            tracemalloc.stop()
