"""spawn: what a child gets, what it does not get, and each way of failing."""

import os
import re
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from procd.errors import SpawnFailed
from procd.process.spawn import Source, Spec, spawn
from procd.process.tags import TAG_BASE, tag_of
from procd.unix import mounts
from procd.unix.fd import seal_inherited
from tests.nobody import NOBODY, as_nobody

TAG = TAG_BASE + 77
ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin"}


def run(
    argv: tuple[str, ...],
    *,
    cwd: str = "/",
    env: Mapping[str, str] = ENV,
    files: tuple[Source, ...] = (),
    wrappers: tuple[str, ...] = (),
) -> bytes:
    """Start a program, wait for its end and return what it said on both streams."""
    reading, writing = os.pipe()
    with open(reading, "rb") as output:
        try:
            stdio: tuple[Source, ...] = (os.devnull, writing, writing, *files)
            spec = Spec(argv=argv, cwd=cwd, env=env, stdio=stdio, wrappers=wrappers)
            pid = spawn(spec, TAG)
        finally:
            os.close(writing)
        said = output.read()
    _, status = os.waitpid(pid, 0)
    assert status == 0, said
    return said


def sh(script: str, cwd: str = "/") -> bytes:
    """Run a script of sh."""
    return run(("/bin/sh", "-c", script), cwd=cwd)


def test_no_descriptor_is_inherited() -> None:
    """The child has 0 to 2 and nothing else, though this process has more."""
    seal_inherited()  # as procd does at its start: of what pytest was given, nobody knows
    extra = os.open("/", os.O_RDONLY)
    try:
        said = run((sys.executable, "-c", "import os; print(os.listdir('/proc/self/fd'))"))
    finally:
        os.close(extra)
    # The fourth is the listing's own.
    assert sorted(re.findall(rb"\d+", said)) == [b"0", b"1", b"2", b"3"]


def test_files_become_descriptors_from_three_on() -> None:
    """A further source becomes the next descriptor; standard input is /dev/null."""
    reading, writing = os.pipe()
    try:
        said = run(
            ("/bin/sh", "-c", "cat; echo given >&3; readlink /proc/self/fd/0"), files=(writing,)
        )
        assert said == b"/dev/null\n"
        assert os.read(reading, 100) == b"given\n"
    finally:
        os.close(reading)
        os.close(writing)


def test_a_descriptor_may_keep_its_number() -> None:
    """A source whose number is the one it is to become is inherited like any other."""
    reading, writing = os.pipe()
    fillers = (os.devnull,) * (writing - 3)
    try:
        run(("/bin/bash", "-c", f"echo given >&{writing}"), files=(*fillers, writing))
        assert os.read(reading, 100) == b"given\n"
    finally:
        os.close(reading)
        os.close(writing)


# Ignores and blocks what can be, handles one, and then is procd.
CARELESS = """
import os, signal, sys
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
signal.signal(signal.SIGUSR1, print)
from procd.process.spawn import Spec, spawn
signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # to wait for it
print(open("/proc/self/status").read(), flush=True)
stdio = (os.devnull, 1, 2)
pid = spawn(Spec(argv=("/bin/cat", "/proc/self/status"), cwd="/", env={}, stdio=stdio), 77)
sys.exit(os.waitpid(pid, 0)[1])
"""


def _masks(status: bytes) -> dict[str, int]:
    return {
        name.decode(): int(mask, 16)
        for name, mask in re.findall(rb"^(Sig(?:Blk|Ign|Cgt)):\s*(\w+)", status, re.MULTILINE)
    }


def test_signals_are_as_new() -> None:
    """Nothing is ignored and nothing blocked, whatever procd was started with."""
    said = subprocess.run((sys.executable, "-c", CARELESS), stdout=subprocess.PIPE, check=True)
    ours, theirs = (
        _masks(b"Sig" + status) for status in re.split(rb"(?m)^SigQ.*$", said.stdout)[1:]
    )
    assert ours["SigBlk"].bit_count() > 55
    assert ours["SigIgn"].bit_count() > 55
    assert theirs == {"SigBlk": 0, "SigIgn": 0, "SigCgt": 0}


def test_a_session_of_its_own() -> None:
    """The child leads its session and its process group, and has no terminal."""
    fields = run(("/bin/cat", "/proc/self/stat")).rpartition(b")")[2].split()
    _, _, group, session, terminal = fields[:5]
    pid = run(("/bin/sh", "-c", "echo $$; cut -d' ' -f5,6 /proc/$$/stat")).split()
    assert pid[0] == pid[1] == pid[2]
    assert group == session
    assert int(session) != os.getsid(0)
    assert terminal == b"0"


def test_the_tag_is_inherited_and_not_kept_here() -> None:
    """The child has the tag, and what it starts; this process has the limit it had before."""
    before = resource.getrlimit(resource.RLIMIT_RTTIME)
    script = "echo $$; sh -c 'echo $$; read x'; exit"
    stdin, to_child = os.pipe()
    from_child, stdout = os.pipe()
    argv = ("/bin/sh", "-c", script)
    spec = Spec(argv=argv, cwd="/", env=ENV, stdio=(stdin, stdout, os.devnull))
    pid = spawn(spec, TAG)
    os.close(stdin)
    os.close(stdout)
    with open(from_child, "rb") as lines, open(to_child, "wb", buffering=0) as end:
        pids = [int(lines.readline()), int(lines.readline())]
        assert pids[0] == pid
        assert [tag_of(member) for member in pids] == [TAG, TAG]
        end.write(b"\n")
    os.waitpid(pid, 0)
    assert resource.getrlimit(resource.RLIMIT_RTTIME) == before
    assert tag_of(os.getpid()) == 0


def test_the_environment_is_the_one_given() -> None:
    """No variable is inherited; PWD is added and the mapping given stays as it was."""
    env = {"A": "1", "EMPTY": "", "U": "caf\xe9 \udcff"}
    said = run(("/usr/bin/env",), env=env, cwd="/usr")
    assert set(said.splitlines()) == {
        b"A=1", b"EMPTY=", b"U=caf\xc3\xa9 \xff", b"PWD=/usr",
    }  # fmt: skip
    assert "PWD" not in env


WRAPPER = ("/bin/sh", "-c", 'tr "\\0" "\\n" </proc/$$/environ; exec "$0" "$@"')
"""Tells its environment, and what each process of its own can be seen to be given."""


@pytest.mark.parametrize("cwd", ["/usr", "."])
def test_a_wrapper_has_nothing_of_the_environment(cwd: str) -> None:
    """The program has it to the byte, whatever it is called and whatever is in it."""
    env = {
        "LD_PRELOAD": "", "A": "x \"y\" 'z' $HOME ${v0} \\n #\n\t", "U": "caf\xe9 \udcff",
        "_": "/x", "BASH_FUNC_f%%": "() { :; }", "it's \\ odd\n": "1", "LAST": "a=b",
    }  # fmt: skip
    program = ("/usr/bin/env", "--null")
    said = run(program, env=env, cwd=cwd, wrappers=WRAPPER)
    wanted = b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in env.items())
    wanted += b"PWD=/usr\0" if cwd == "/usr" else b""
    assert said.endswith(wanted)
    seen = said.removesuffix(wanted)
    assert seen
    assert not re.search(rb"^(?!v\d+=)\w+=", seen, re.MULTILINE)
    assert run(program, env={}, cwd=".", wrappers=WRAPPER) == b""


@pytest.mark.parametrize("wrappers", [(), ("/bin/sh", "-c", 'exec "$0" "$@"')])
def test_a_directory_that_may_not_answer(
    monkeypatch: pytest.MonkeyPatch, wrappers: tuple[str, ...]
) -> None:
    """What runs there has its environment as elsewhere."""
    monkeypatch.setattr(mounts, "REMOTE", (b"proc",))
    env = {**ENV, "A": "x \"y\" 'z' $HOME ${v0} \\n #\n\t", "it's \\ odd\n": "1"}
    said = run(("/usr/bin/env", "--null"), env=env, cwd="/proc/sys", wrappers=wrappers)
    given = {**env, "PWD": "/proc/sys"}
    assert said == b"".join(os.fsencode(f"{name}={value}\0") for name, value in given.items())
    program = ("/bin/pwd", "-P")
    assert run(program, env=env, cwd="/proc/sys", wrappers=wrappers) == b"/proc/sys\n"


def test_many_variables_in_a_directory_that_may_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are no argument, which would be too long."""
    monkeypatch.setattr(mounts, "REMOTE", (b"proc",))
    env = {f"NAME_OF_A_VARIABLE_{number:06}": "x" for number in range(6000)}
    said = run(("/usr/bin/env",), env=env, cwd="/proc/sys")
    assert said.count(b"\n") == len({*env, "PWD"})


def test_no_value_is_an_argument() -> None:
    """Every user of the machine can read the arguments of every process."""
    arguments = ("/bin/sh", "-c", 'tr "\\0" "\\n" </proc/$$/cmdline; exec "$0" "$@"')
    said = run(("/bin/true",), env={"KEY": "a secret"}, wrappers=arguments)
    assert b"KEY" in said
    assert b"secret" not in said


def test_pwd_keeps_the_name_that_was_used(tmp_path: Path) -> None:
    """A link stays a link for the shell's pwd, whatever PWD said before."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    link = str(tmp_path / "link")
    said = run(("/bin/sh", "-c", "pwd; pwd -P"), cwd=link, env={**ENV, "PWD": "/wrong"})
    assert said.decode().splitlines() == [link, os.path.realpath(link)]


def test_a_relative_directory_is_relative_to_here(tmp_path: Path) -> None:
    """A relative cwd starts at this process's own, which stays where it is."""
    here = os.getcwd()
    (tmp_path / "sub").mkdir()
    os.chdir(tmp_path)
    try:
        assert sh("pwd -P", cwd="sub").decode().strip() == os.path.realpath(tmp_path / "sub")
        assert os.getcwd() == os.path.realpath(tmp_path)
    finally:
        os.chdir(here)


def test_here_is_still_here() -> None:
    """The change of directory is over when the call is, after success as after failure."""
    here = os.getcwd()
    assert sh("pwd", cwd="/usr") == b"/usr\n"
    assert os.getcwd() == here
    assert os.path.samefile("/proc/self/cwd", here)
    with pytest.raises(SpawnFailed):
        run(("/absent",), cwd="/usr")
    assert os.getcwd() == here


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody without permission")
@pytest.mark.parametrize("meanwhile", [False, True])
def test_here_cannot_be_entered_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, meanwhile: bool
) -> None:
    """It keeps nobody from running elsewhere, and procd stays at the root."""
    os.chown(tmp_path, NOBODY, -1)
    monkeypatch.chdir(tmp_path)
    directory = os.open(".", os.O_RDONLY)

    def close(*arguments: Any, start: Callable[..., int] = os.posix_spawn, **named: Any) -> int:
        pid = start(*arguments, **named)
        os.fchmod(directory, 0)
        return pid

    try:
        with as_nobody():
            if meanwhile:
                monkeypatch.setattr("os.posix_spawn", close)
            else:
                os.fchmod(directory, 0)
                assert sh("pwd", cwd=str(tmp_path)) == f"{tmp_path}\n".encode()
                refusal = "working directory cannot be entered: .: Permission denied"
                assert _refused(cwd=".") == refusal
            assert sh("pwd", cwd="/usr") == b"/usr\n"
            assert os.getcwd() == "/"
            assert sh("pwd", cwd="/usr") == b"/usr\n"
    finally:
        os.close(directory)


def _children() -> set[str]:
    return set(Path("/proc/thread-self/children").read_text().split())


def _refused(
    argv: tuple[str, ...] = ("/bin/true",),
    cwd: str = "/",
    wrappers: tuple[str, ...] = (),
    stdin: str = os.devnull,
) -> str:
    stdio = (stdin, os.devnull, os.devnull)
    spec = Spec(argv=argv, cwd=cwd, env=ENV, stdio=stdio, wrappers=wrappers)
    here = os.getcwd()
    limit = resource.getrlimit(resource.RLIMIT_RTTIME)
    before = _children()
    with pytest.raises(SpawnFailed) as caught:
        spawn(spec, TAG)
    assert os.getcwd() == here
    assert resource.getrlimit(resource.RLIMIT_RTTIME) == limit
    assert _children() <= before, "somebody was started"
    return caught.value.message


def test_a_directory_that_is_not_there() -> None:
    """The text says that it is the directory, and which."""
    assert _refused(cwd="/absent/dir") == "working directory does not exist: /absent/dir"


def test_a_directory_that_is_a_file() -> None:
    """A file is no directory."""
    assert _refused(cwd="/etc/passwd") == "working directory is not a directory: /etc/passwd"


def test_a_directory_of_an_impossible_name() -> None:
    """Any other error of chdir(2) is told with the system's own words."""
    name = "/" + "d" * 300
    assert _refused(cwd=name) == f"working directory cannot be entered: {name}: File name too long"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody without permission")
def test_a_directory_that_is_closed(tmp_path: Path) -> None:
    """No permission to enter: the text says so."""
    closed = tmp_path / "closed"
    closed.mkdir(0o700)
    with as_nobody():
        text = _refused(cwd=str(closed))
    assert re.fullmatch(r"working directory cannot be entered: .*: Permission denied", text)


def test_a_program_that_is_not_there() -> None:
    """The text says that it is the program, and which."""
    assert _refused(("/absent/program",)) == "program does not exist: /absent/program"


@pytest.mark.parametrize(
    ("mode", "content", "reason"),
    [(0o644, b"#!/bin/sh\n", "Permission denied"), (0o755, b"\x00\x01", "Exec format error")],
)
def test_a_program_that_cannot_be_executed(
    tmp_path: Path, mode: int, content: bytes, reason: str
) -> None:
    """A file without the bit, and one that is no program."""
    program = tmp_path / "program"
    program.write_bytes(content)
    program.chmod(mode)
    assert stat.S_IMODE(program.stat().st_mode) == mode
    assert _refused((str(program),)) == f"program cannot be executed: {program}: {reason}"


def test_an_input_that_is_not_there() -> None:
    """As /dev/null in a bad container: the text doesn't say that it is the program."""
    text = "cannot start a process: /absent/null: No such file or directory"
    assert _refused(stdin="/absent/null") == text


def test_a_program_that_would_be_taken_for_a_variable() -> None:
    """Behind a wrapper its path can't be told from an assignment."""
    message = _refused(("/a=b/program",), wrappers=("/bin/sh", "-c", ":"))
    assert message == "program cannot be executed: /a=b/program: its path has a = in it"


def test_one_argument_too_long() -> None:
    """E2BIG is told in words that say what is too long."""
    argv = ("/bin/true", "x" * (1 << 20))
    assert _refused(argv) == "arguments and environment are too long for execve"


def test_a_program_that_is_a_loop(tmp_path: Path) -> None:
    """Any other error keeps the system's words."""
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert _refused((str(loop),)) == "cannot start a process: Too many levels of symbolic links"


def test_a_signal_ends_it_as_by_default() -> None:
    """A child that breaks a pipe dies of SIGPIPE, as in any shell, though Python ignores it."""
    assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN
    assert sh("sh -c 'kill -PIPE $$'; echo $?") == b"141\n"
