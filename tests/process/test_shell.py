"""Which shell it is, and scripts of any length."""

import os
import re
import sys
from pathlib import Path

import pytest

from procd.errors import SpawnFailed
from procd.process.shell import (
    MAX_ARGUMENT_BYTES,
    PREFERRED,
    SCRIPT_FD,
    Shell,
    script_argv,
)
from procd.process.spawn import Source, Spec, spawn
from procd.process.tags import TAG_BASE
from procd.unix.fd import OwnedFd, seal_inherited

ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
NAMING = [path for path in ("/usr/bin/bash", "/usr/bin/zsh") if os.access(path, os.X_OK)]
SHELLS = [path for path in ("/bin/sh", "/bin/bash") if os.access(path, os.X_OK)]


def _executable(path: Path) -> str:
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


def test_the_override_wins(tmp_path: Path) -> None:
    """A shell that was named is taken, whatever else there is."""
    mine = _executable(tmp_path / "mine")
    assert Shell(mine, "/bin/sh").path() == mine


def test_an_override_that_cannot_be_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not silently replaced by another; the text says what was tried."""
    path = tmp_path / "mine"
    path.write_text("")
    path.chmod(0o644)
    with pytest.raises(SpawnFailed, match=rf"no shell can be executed: tried {path}$"):
        Shell(str(path), "/bin/sh").path()
    monkeypatch.chdir("/")
    with pytest.raises(SpawnFailed):
        Shell("bin/sh", "").path()  # relative
    with pytest.raises(SpawnFailed):
        Shell(str(tmp_path), "").path()  # a directory


def test_the_search_prefers_what_is_listed() -> None:
    """Without an override: the first preferred shell that is listed and there, else a default."""
    listed = Path("/etc/shells").read_text().split() if Path("/etc/shells").exists() else []
    there = [path for path in PREFERRED if path in listed and os.access(path, os.X_OK)]
    assert Shell("", "").path() == (there[0] if there else "/bin/sh")


@pytest.mark.parametrize("name", ["mksh", "fish", "tcsh", "nologin"])
def test_the_user_s_own_is_taken_if_it_can_stand_in_for_sh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("procd.process.process.shell.PREFERRED", ())
    mine = _executable(tmp_path / name)
    assert Shell("", mine).path() == (mine if name == "mksh" else "/bin/sh")
    assert Shell(mine, "").path() == mine, "it was named"


def test_it_is_looked_for_again_when_gone(tmp_path: Path) -> None:
    """A shell that disappears is missed, and found when it is back."""
    mine = _executable(tmp_path / "mine")
    shell = Shell(mine, "")
    assert shell.path() == mine
    Path(mine).unlink()
    with pytest.raises(SpawnFailed):
        shell.path()
    _executable(Path(mine))
    assert shell.path() == mine


@pytest.fixture(autouse=True)
def nothing_inherited() -> None:
    """As procd does at its start: of what pytest was given, nobody knows."""
    seal_inherited()


def run(shell: str, script: str, stdin: bytes = b"") -> tuple[bytes, int]:
    """Hand a script to a shell as a command is: what it says and its exit code."""
    argv, file = script_argv(shell, script)
    reading, writing = os.pipe()
    typed, typing = os.pipe()
    os.write(typing, stdin)
    os.close(typing)
    stdio: list[Source] = [typed, writing, writing]
    if file is not None:
        stdio.append(file.number)
    with open(reading, "rb") as output:
        pid = spawn(Spec(argv=argv, cwd="/", env=ENV, stdio=tuple(stdio)), TAG_BASE + 3)
        os.close(writing)
        os.close(typed)
        if file is not None:
            file.close()
        said = output.read()
    _, status = os.waitpid(pid, 0)
    return said, os.waitstatus_to_exitcode(status)


def long(script: str, size: int) -> str:
    """`script`, after a comment that makes it `size` bytes long."""
    comment = size - len(os.fsencode(script)) - 2
    return "#" + "x" * comment + "\n" + script


def test_a_script_that_fits_is_an_argument() -> None:
    """The longest that execve(2) takes is one argument; one byte more is a file."""
    argv, file = script_argv("/bin/sh", "echo a")
    assert argv == ("/bin/sh", "-c", "--", "echo a")
    assert file is None
    _, file = script_argv("/bin/sh", "x" * (MAX_ARGUMENT_BYTES - 1))
    assert file is None
    _, file = script_argv("/bin/sh", "x" * MAX_ARGUMENT_BYTES)
    assert file is not None
    file.close()
    _, file = script_argv("/bin/sh", "\xe9" * (MAX_ARGUMENT_BYTES // 2))  # bytes count
    assert file is not None
    assert not os.get_inheritable(file.number)
    file.close()


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("size", [100, MAX_ARGUMENT_BYTES - 1, MAX_ARGUMENT_BYTES, 3 << 20])
def test_a_script_of_any_length_runs(shell: str, size: int) -> None:
    """All of it runs, with its input free, its exit code told, and no descriptor too many."""
    listing = f"{sys.executable} -c 'import os; print(os.listdir(\"/proc/self/fd\"))'"
    script = long(f"read line\necho got-$line\n{listing}\nfalse\necho $?\nexit 5", size)
    said, code = run(shell, script, b"typed\nmore\n")
    assert code == 5
    first, fds, last = said.decode().splitlines()
    assert first == "got-typed"
    assert last == "1"
    # The fourth is the listing's own.
    assert sorted(re.findall(r"\d+", fds)) == ["0", "1", "2", "3"]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_long_script_may_use_the_number_itself(shell: str) -> None:
    """The descriptor that the script came by is free for the script's own use."""
    script = long(f"exec {SCRIPT_FD}</dev/null; echo opened; cat <&{SCRIPT_FD}; echo end", 200_000)
    assert run(shell, script) == (b"opened\nend\n", 0)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_long_script_of_odd_bytes(shell: str) -> None:
    """What is no UTF-8 arrives as it was."""
    assert run(shell, long("printf '\udcff\xe9'", 200_000)) == (b"\xff\xc3\xa9", 0)


def test_the_file_is_all_the_script() -> None:
    """The words that close the descriptor and set `$0`, then every byte of the script."""
    script = long("echo end", 5 << 20)
    argv, file = script_argv("/bin/sh", script)
    assert argv == ("/bin/sh", f"/proc/self/fd/{SCRIPT_FD}")
    assert isinstance(file, OwnedFd)
    with open(file.number, "rb", closefd=False) as content:
        content.seek(0)
        said = content.read()
    assert said.startswith(f"exec {SCRIPT_FD}<&-;".encode())
    assert said.endswith(script.encode())
    file.close()


@pytest.mark.parametrize("shell", NAMING)
def test_a_long_script_knows_its_shell(shell: str) -> None:
    """As a short one does."""
    for size in 100, MAX_ARGUMENT_BYTES:
        assert run(shell, long("echo $0", size)) == (f"{shell}\n".encode(), 0)
