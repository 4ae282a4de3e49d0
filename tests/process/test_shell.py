"""Which shell is used, and scripts of any length."""

import os
import re
import sys
from pathlib import Path

import pytest

from procd.errors import SpawnFailed
from procd.process.shell import MAX_ARGUMENT_BYTES, PREFERRED, SCRIPT_FD, Shell, script_argv
from procd.unix.fd import seal_inherited
from tests.process.programs import run

NAMING = [path for path in ("/usr/bin/bash", "/usr/bin/zsh") if os.access(path, os.X_OK)]
SHELLS = [path for path in ("/bin/sh", "/bin/bash") if os.access(path, os.X_OK)]


def executable(path: Path) -> str:
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


def test_override_is_used_and_searched_for_again(tmp_path: Path) -> None:
    path = executable(tmp_path / "mine")
    shell = Shell(path, "/bin/sh")
    assert shell.path() == path
    Path(path).unlink()
    with pytest.raises(SpawnFailed, match=rf"no shell can be executed: tried {path}$"):
        shell.path()
    executable(Path(path))
    assert shell.path() == path


def test_override_that_cannot_be_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").write_text("")
    monkeypatch.chdir("/")
    for path in (f"{tmp_path}/mine", "bin/sh", str(tmp_path)):
        with pytest.raises(SpawnFailed, match="no shell can be executed"):
            Shell(path, "/bin/sh").path()


def test_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first preferred shell in /etc/shells, else the user's if it can run scripts for sh."""
    listed = Path("/etc/shells").read_text().split() if Path("/etc/shells").exists() else []
    usable = [path for path in PREFERRED if path in listed and os.access(path, os.X_OK)]
    assert Shell("", "").path() == (usable[0] if usable else "/bin/sh")
    monkeypatch.setattr("procd.process.shell.PREFERRED", ())
    for name in ("mksh", "fish", "tcsh", "nologin"):
        mine = executable(tmp_path / name)
        assert Shell("", mine).path() == (mine if name == "mksh" else "/bin/sh")


@pytest.fixture(autouse=True)
def nothing_inherited() -> None:
    seal_inherited()


def run_script(shell: str, script: str, stdin: bytes = b"") -> tuple[bytes, int]:
    argv, file = script_argv(shell, script)
    try:
        return run(argv, stdin=stdin, files=() if file is None else (file.number,))
    finally:
        if file is not None:
            file.close()


def padded(script: str, size: int) -> str:
    """`script`, after a comment that makes it `size` bytes long."""
    comment = size - len(os.fsencode(script)) - 2
    return "#" + "x" * comment + "\n" + script


@pytest.mark.parametrize(
    ("script", "fits"),
    [
        ("x" * (MAX_ARGUMENT_BYTES - 1), True),
        ("x" * MAX_ARGUMENT_BYTES, False),
        ("\xe9" * (MAX_ARGUMENT_BYTES // 2), False),
    ],
)
def test_script_that_fits_is_an_argument(script: str, fits: bool) -> None:
    argv, file = script_argv("/bin/sh", script)
    if fits:
        assert (argv, file) == (("/bin/sh", "-c", "--", script), None)
        return
    assert file is not None
    assert not os.get_inheritable(file.number)
    content = os.pread(file.number, 1 << 20, 0).decode()
    file.close()
    assert content.startswith(f"exec {SCRIPT_FD}<&-;")
    assert content.endswith(script)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("size", [300, MAX_ARGUMENT_BYTES - 1, MAX_ARGUMENT_BYTES, 3 << 20])
def test_script_of_any_length(shell: str, size: int) -> None:
    """Its input is free, no descriptor is left open, and bytes outside of UTF-8 are kept."""
    listing = f"{sys.executable} -c 'import os; print(os.listdir(\"/proc/self/fd\"))'"
    script = f"read line\necho got-$line\n{listing}\nprintf '\udcff\xe9'\nexit 5"
    output, code = run_script(shell, padded(script, size), b"typed\nmore\n")
    assert code == 5
    first, descriptors, last = output.splitlines()
    assert (first, last) == (b"got-typed", b"\xff\xc3\xa9")
    # 3 is the listing's own.
    assert sorted(re.findall(rb"\d+", descriptors)) == [b"0", b"1", b"2", b"3"]


@pytest.mark.parametrize("shell", SHELLS)
def test_long_script_may_use_its_descriptor(shell: str) -> None:
    script = padded(f"exec {SCRIPT_FD}</dev/null; cat <&{SCRIPT_FD}; echo end", 200_000)
    assert run_script(shell, script) == (b"end\n", 0)


@pytest.mark.parametrize("shell", NAMING)
@pytest.mark.parametrize("size", [100, MAX_ARGUMENT_BYTES])
def test_name_of_the_shell(shell: str, size: int) -> None:
    assert run_script(shell, padded("echo $0", size)) == (f"{shell}\n".encode(), 0)
