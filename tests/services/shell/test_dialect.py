"""The lines for a session's shell, given to shells of each kind."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from procd.process.tags import TAG_BASE
from procd.services.shell.dialect import Dialect, untraced
from procd.unix.fd import OwnedFd, write_all
from tests.passable import let_pass

NOBODY = 65534


@pytest.fixture
def dialect(shell: str) -> Dialect:
    return Dialect(shell)


def run(dialect: Dialect, script: str, user: int | None = None, *passed: int) -> tuple[bytes, int]:
    """What a shell writes to its standard output, and its exit code."""
    argv = [dialect.shell, "-c", script]
    done = subprocess.run(argv, stdout=subprocess.PIPE, check=False, user=user, pass_fds=passed)
    return done.stdout, done.returncode


def test_scripts_where_set_e_is_on(dialect: Dialect, tmp_path: Path) -> None:
    """Only a failure within a script ends the shell; the status is the script's."""
    lines = ["set -e\n"]
    for number, script in enumerate([b"(exit 3) && :", b"echo $?", b"", b"false; echo rest"]):
        path = tmp_path / f"{number}"
        path.write_bytes(dialect.script(script))
        lines += [dialect.sourcing(str(path), ">&1"), "echo $?\n"]
    # `echo` has the status of the script before it, and the next script that of `echo`.
    assert run(dialect, "".join(lines)) == (b"3\n0\n0\n0\n", 1)


def test_a_signal_to_leave_between_scripts(dialect: Dialect, tmp_path: Path) -> None:
    """It does nothing, though it comes within a line of procd's or within another."""
    due = "kill -URG $$; :"
    for _ in range(3):
        due = untraced(due)
    read = tmp_path / "read"
    start = dialect.start(str(read))
    read.write_text(f"{start.first_lines}{due}echo here\n")
    with read.open() as lines:
        done = subprocess.run(start.argv, stdin=lines, stdout=subprocess.PIPE, check=False)
    assert (done.stdout, done.returncode) == (b"here\n", 0)


def test_a_status_where_no_process_can_be_started(dialect: Dialect, tmp_path: Path) -> None:
    script = OwnedFd(os.memfd_create("script"))
    write_all(script, dialect.script(b"return 9"))
    lines = [
        "ulimit -u 0 2>/dev/null || ulimit -p 0\n",
        dialect.sourcing(f"/proc/self/fd/{script.number}", ">&1"),
        "echo $?\nset -e\n",
        dialect.prepare(7, ""),
        "echo $?\n",
    ]
    let_pass(tmp_path)  # a shell may be in there
    user = NOBODY if os.geteuid() == 0 else None  # no such limit holds for root
    assert run(dialect, "".join(lines), user, script.number) == (b"9\n7\n", 0)
    script.close()


@pytest.mark.parametrize("path", [os.environ["PATH"], "/nowhere"])
def test_a_shell_that_sets_its_tag(
    dialect: Dialect, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """bash and zsh need no program for it."""
    if not dialect.can_leave:
        pytest.skip("it takes a program")
    monkeypatch.setenv("PATH", path)
    tag = TAG_BASE + 7
    script = f"{dialect.prepare(3, dialect.retag(tag))}echo $?; while read -r line; do "
    script += 'case $line in *"realtime timeout"*) echo "$line";; esac; done </proc/$$/limits'
    said, _ = run(dialect, script)
    status, limit = said.decode().splitlines()
    assert (status, limit.split()[3]) == ("3", str(tag))


def test_paths_are_quoted(dialect: Dialect, tmp_path: Path) -> None:
    script, report = tmp_path / "it's $(a)\nscript", tmp_path / "it's a report"
    script.write_bytes(dialect.script(b"echo said; (exit 3)"))
    output = shlex.quote(str(tmp_path / "out put"))
    lines = dialect.sourcing(str(script), f">{output}") + dialect.report(5, str(report))
    assert run(dialect, lines) == (b"", 0)
    assert ((tmp_path / "out put").read_text(), report.read_text()) == ("said\n", "5 3\n")
