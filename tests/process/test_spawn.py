"""spawn: what a child inherits and what not, and why a start fails."""

import os
import re
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from procd.errors import SpawnFailed
from procd.process.spawn import MAX_PATH_BYTES, MAX_STRING_BYTES, Spec, check_startable, spawn
from procd.process.tags import TAG_BASE, tag_of
from procd.unix import file
from procd.unix.fd import seal_inherited
from procd.unix.procfs import own_children
from tests.nobody import NOBODY, as_nobody
from tests.process.programs import ENV, run

TAG = TAG_BASE + 77
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def sh(script: str, cwd: str = "/") -> str:
    """The output of a script that succeeds."""
    output, code = run(("/bin/sh", "-c", script), cwd=cwd)
    assert code == 0, output
    return output.decode()


def test_no_descriptor_is_inherited() -> None:
    seal_inherited()
    extra = os.open("/", os.O_RDONLY)
    try:
        output, _ = run((sys.executable, "-c", "import os; print(os.listdir('/proc/self/fd'))"))
    finally:
        os.close(extra)
    # 3 is the listing's own.
    assert sorted(re.findall(rb"\d+", output)) == [b"0", b"1", b"2", b"3"]


@pytest.mark.parametrize("same", [False, True])
def test_further_sources_are_descriptors_from_three_on(same: bool) -> None:
    """Also one that keeps its number."""
    reading, writing = os.pipe()
    target = writing if same else 3
    try:
        run(
            ("/bin/bash", "-c", f"echo given >&{target}"),
            files=(*[os.devnull] * (target - 3), writing),
        )
        assert os.read(reading, 100) == b"given\n"
    finally:
        os.close(reading)
        os.close(writing)


# Ignores, blocks and handles signals, and then spawns.
CARELESS = """
import os, signal, sys
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
signal.signal(signal.SIGUSR1, print)
from procd.process.spawn import Spec, spawn
signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # to wait for it
stdio = (os.devnull, 1, 2)
pid = spawn(Spec(argv=("/bin/cat", "/proc/self/status"), cwd="/", env={}, stdio=stdio), 77)
sys.exit(os.waitpid(pid, 0)[1])
"""


def test_signals_have_their_default() -> None:
    done = subprocess.run((sys.executable, "-c", CARELESS), stdout=subprocess.PIPE, check=True)
    masks = re.findall(rb"^Sig(?:Blk|Ign|Cgt):\s*(\w+)", done.stdout, re.MULTILINE)
    assert masks == [b"0" * 16] * 3
    assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN, "Python ignores it"
    assert sh("sh -c 'kill -PIPE $$'; echo $?") == "141\n"


@pytest.mark.parametrize("session", [True, False])
def test_session_or_process_group_of_its_own(session: bool) -> None:
    script = "echo $$; cut -d' ' -f5,6 /proc/$$/stat"
    output, _ = run(("/bin/sh", "-c", script), session=session)
    pid, group, found = output.split()
    assert group == pid
    assert int(found) == (int(pid) if session else os.getsid(0))


def test_tag_is_inherited_and_not_kept_here() -> None:
    before = resource.getrlimit(resource.RLIMIT_RTTIME)
    stdin, to_child = os.pipe()
    from_child, stdout = os.pipe()
    argv = ("/bin/sh", "-c", "echo $$; sh -c 'echo $$; read x'; exit")
    pid = spawn(Spec(argv=argv, cwd="/", env=ENV, stdio=(stdin, stdout, os.devnull)), TAG)
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


def test_environment_is_the_one_given() -> None:
    env = {"A": "1", "EMPTY": "", "U": "caf\xe9 \udcff"}
    output, _ = run(("/usr/bin/env",), env=env, cwd="/usr")
    assert set(output.splitlines()) == {
        b"A=1", b"EMPTY=", b"U=caf\xc3\xa9 \xff", b"PWD=/usr",
    }  # fmt: skip
    assert "PWD" not in env


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


def test_pwd_keeps_links(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    argv = ("/bin/sh", "-c", "pwd; pwd -P")
    output, _ = run(argv, cwd=str(tmp_path / "link"), env={**ENV, "PWD": "/wrong"})
    assert output.decode().splitlines() == [f"{tmp_path}/link", os.path.realpath(tmp_path / "real")]


def test_own_directory_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative one is relative to it."""
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    assert sh("pwd -P", cwd="sub").strip() == os.path.realpath(tmp_path / "sub")
    assert os.getcwd() == os.path.realpath(tmp_path)
    with pytest.raises(SpawnFailed):
        run(("/absent",), cwd="/usr")
    assert os.getcwd() == os.path.realpath(tmp_path)


@as_root
@pytest.mark.parametrize("meanwhile", [False, True])
def test_own_directory_that_cannot_be_entered_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meanwhile: bool
) -> None:
    """procd goes to the root directory."""
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
                refusal = "working directory cannot be entered: .: Permission denied"
                assert refused(cwd=".") == refusal
            assert sh("pwd", cwd="/usr") == "/usr\n"
            assert os.getcwd() == "/"
    finally:
        os.close(directory)


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


@pytest.mark.parametrize(
    ("cwd", "env", "startable"),
    [
        ("/", {}, True),
        ("/" + "d/" * (MAX_PATH_BYTES // 2 - 1), {}, True),
        ("/" + "d/" * (MAX_PATH_BYTES // 2), {}, False),
        ("/", {"A": "x" * (MAX_STRING_BYTES - 3)}, True),
        ("/", {"A": "x" * (MAX_STRING_BYTES - 2)}, False),
        ("/", {"A": "\xe9" * (MAX_STRING_BYTES // 2)}, False),
        ("/", {f"A{number}": "x" * 100_000 for number in range(15)}, True),
        ("/", {f"A{number}": "x" * 100_000 for number in range(70)}, False),
    ],
)
def test_check_startable_foretells_the_kernel(
    cwd: str, env: dict[str, str], startable: bool
) -> None:
    """It is refused with the same message."""
    stdio = (os.devnull, os.devnull, os.devnull)
    spec = Spec(argv=("/bin/true",), cwd=cwd, env=env, stdio=stdio)
    if startable:
        check_startable(cwd, env)
        if cwd == "/":
            os.waitpid(spawn(spec, TAG), 0)
        return
    messages = []
    for start in (lambda: check_startable(cwd, env), lambda: spawn(spec, TAG)):
        with pytest.raises(SpawnFailed) as caught:
            start()
        messages.append(caught.value.message)
    assert messages[0] == messages[1]
