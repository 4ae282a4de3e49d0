"""Which shell is used, its name, and long scripts."""

import os
from pathlib import Path

import pytest

from procd.process.shell import MAX_ARGUMENT_BYTES, PREFERRED, SCRIPT_FD, Shell, script_argv
from procd.unix.fd import seal_inherited
from tests.process.programs import run

NAMING = [path for path in ("/usr/bin/bash", "/usr/bin/zsh") if os.access(path, os.X_OK)]
SHELLS = [path for path in ("/bin/sh", "/bin/bash") if os.access(path, os.X_OK)]


def test_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first preferred shell in /etc/shells, else the user's if it can run scripts for sh."""
    listed = Path("/etc/shells").read_text().split() if Path("/etc/shells").exists() else []
    usable = [path for path in PREFERRED if path in listed and os.access(path, os.X_OK)]
    assert Shell("", "").path() == (usable[0] if usable else "/bin/sh")
    monkeypatch.setattr("procd.process.shell.PREFERRED", ())
    for name in ("mksh", "fish", "tcsh", "nologin"):
        mine = str(tmp_path / name)
        Path(mine).symlink_to("/bin/sh")
        assert Shell("", mine).path() == (mine if name == "mksh" else "/bin/sh")


@pytest.fixture(autouse=True)
def nothing_inherited() -> None:
    seal_inherited()


def run_script(shell: str, script: str) -> tuple[bytes, int]:
    argv, file = script_argv(shell, script)
    try:
        return run(argv, files=() if file is None else (file.number,))
    finally:
        if file is not None:
            file.close()


def padded(script: str, size: int) -> str:
    """`script`, after a comment that makes it `size` bytes long."""
    comment = size - len(os.fsencode(script)) - 2
    return "#" + "x" * comment + "\n" + script


@pytest.mark.parametrize("shell", SHELLS)
def test_long_script_may_use_its_descriptor(shell: str) -> None:
    script = padded(f"exec {SCRIPT_FD}</dev/null; cat <&{SCRIPT_FD}; echo end", 200_000)
    assert run_script(shell, script) == (b"end\n", 0)


@pytest.mark.parametrize("shell", NAMING)
@pytest.mark.parametrize("size", [100, MAX_ARGUMENT_BYTES])
def test_name_of_the_shell(shell: str, size: int) -> None:
    assert run_script(shell, padded("echo $0", size)) == (f"{shell}\n".encode(), 0)
