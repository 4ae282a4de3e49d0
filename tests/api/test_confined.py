"""The limits of children, each seen from within."""

import asyncio
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from procd.api.sessions import SESSIONS
from procd.services.pty import sessions as pty_sessions
from procd.unix.libc import LIBC
from tests.aliases import MakeClient
from tests.api import cells, sessions
from tests.api.clients import Gate, connect, create, execute
from tests.passable import let_pass
from tests.waiting import until

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user"),
    pytest.mark.skipif(
        None in (shutil.which("setpriv"), shutil.which("prlimit")), reason="util-linux is missing"
    ),
]

UID = 54321
AS_USER: dict[str, Any] = {
    "user": str(UID), "group": "54322", "groups": ["54323", "54324"], "work_dir": "/",
}  # fmt: skip
WHO = "id -u; id -g; id -G; echo $HOME $USER"
EXPECTED = [str(UID), "54322", "54322 54323 54324", f"/ {UID}"]


async def test_execute_as_another_user(procd: MakeClient) -> None:
    client = await procd(process=AS_USER)
    body = await execute(client, WHO)
    assert body["result"].splitlines() == EXPECTED
    # It may open its standard streams by name.
    body = await execute(
        client, "echo out >/dev/stdout; echo err >/dev/stderr; touch /root/x", split=True
    )
    assert body["stdout"] == "out\n"
    assert body["stderr"].startswith("err\n")
    assert "Permission denied" in body["stderr"]
    assert body["exitCode"] == 1
    # A long script is a file that procd has made.
    assert (await execute(client, f"#{'x' * 200_000}\nid -u"))["result"] == f"{UID}\n"


async def test_pipes_of_another_user(procd: MakeClient) -> None:
    """The shell keeps them, or opens them later."""
    client = await procd(process=AS_USER)
    await sessions.create(client)
    body = await sessions.run(client, "exec 3>&1; echo alone")
    assert await (await sessions.follow(client, body["cmdId"])).to_end() == b"alone\n"
    assert (await sessions.run(client, "echo elsewhere >&3"))["output"] == ""
    command_id = await sessions.start(client, "cat; echo $?")
    assert (await sessions.type_in(client, command_id, "typed", eof=True)).status == 204
    assert (await sessions.ended(client, command_id))["exitCode"] == 0
    assert (await sessions.logs(client, command_id))["stdout"].endswith("typed\n0\n")


async def test_folder_of_code_is_read_only(
    procd: MakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """procd would have to remove what the user put there."""
    let_pass(tmp_path)
    programs, folders = tmp_path / "node_modules" / ".bin", tmp_path / "folders"
    programs.mkdir(parents=True)
    folders.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folders))
    runtime = programs / "ts-node"
    runtime.write_text(
        '#!/bin/sh\nid -u; cat "$8"; echo; stat -c %a "$8"; echo 1 >>"$8"\n'
        'cd "${8%/*}"; mkdir deep || touch more || ls || mv code.ts code || rm code.ts\n'
    )
    runtime.chmod(0o755)
    client = await procd(process=AS_USER)
    document = {"language": "typescript", "code": "let it", "cwd": str(tmp_path)}
    async with client.post("/process/code-run", json=document) as reply:
        body = await reply.json()
    lines = body["result"].splitlines()
    assert lines[:3] == [str(UID), "let it", "600"]
    assert len(lines) == 3 + 5, lines
    assert all(line.endswith("Permission denied") for line in lines[3:]), lines
    assert not [*folders.glob("procd-code-*")]


async def test_environment_of_a_caller_reaches_only_the_program(
    procd: MakeClient, tmp_path: Path
) -> None:
    """LD_PRELOAD could have a wrapper that still runs as root load anything."""
    let_pass(tmp_path)
    traces = tmp_path / "traces"
    traces.mkdir()
    traces.chmod(0o777)
    debugged = {"LD_DEBUG": "libs", "LD_DEBUG_OUTPUT": str(traces / "trace")}
    client = await procd(process=AS_USER)

    async def was_read_by_the_user() -> None:
        assert {trace.stat().st_uid for trace in traces.iterdir()} == {UID}
        for trace in traces.iterdir():
            trace.unlink()

    assert (await execute(client, "id -u", envs=debugged))["result"] == f"{UID}\n"
    await was_read_by_the_user()
    await sessions.create(client, envs=debugged)
    await sessions.run(client, "id -u")
    await was_read_by_the_user()
    async with client.post("/env", json={"set": debugged}) as reply:
        assert reply.status == 200
    await create(client, "t")
    terminal = await connect(client, "t")
    await terminal.type(b"id -u; exit\n")
    await terminal.to_end()
    await was_read_by_the_user()


async def test_directory_that_only_procd_can_enter(procd: MakeClient, tmp_path: Path) -> None:
    """Nothing is revealed about what is in it."""
    let_pass(tmp_path)
    private, shared = tmp_path / "private", tmp_path / "shared"
    for directory, mode in ((private, 0o700), (shared, 0o750)):
        (directory / "open").mkdir(parents=True)
        (directory / "open" / "secret").write_text("secret\n")
        directory.chmod(mode)
    os.chown(shared, -1, 54324)
    client = await procd(process=AS_USER)
    before = os.getresuid(), os.getresgid(), os.getgroups(), dumpable()
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, cwd=private / "open") as roots:
        places = (
            f"{private}", f"{private}/open", f"{private}/absent", f"{private}/open/secret/x",
            f"/proc/{roots.pid}/cwd", f"/proc/{roots.pid}/root/usr",
        )  # fmt: skip
        for place in places:
            said = f"working directory cannot be entered: {place}: Permission denied"
            body = await execute(client, "cat secret; pwd", cwd=place)
            assert (body["exitCode"], body["result"]) == (-1, said)
            for path, name in (("session", "sessionId"), ("pty", "id")):
                request = {name: "s", "cwd": place}
                async with client.post(f"/process/{path}", json=request) as reply:
                    assert reply.status >= 400
                    assert said in (await reply.json())["message"]
        assert roots.stdin is not None
        roots.stdin.close()
    assert (await execute(client, "cat secret", cwd=f"{shared}/open"))["result"] == "secret\n"
    body = await execute(client, "true", cwd=f"{shared}/absent")
    assert body["result"] == f"working directory does not exist: {shared}/absent"
    assert (os.getresuid(), os.getresgid(), os.getgroups(), dumpable()) == before


async def test_session_as_another_user(procd: MakeClient) -> None:
    client = await procd(process=AS_USER, sessions={"grace_s": 0.2})
    await sessions.create(client)
    assert (await sessions.run(client, WHO))["stdout"].splitlines() == EXPECTED
    command_id = await sessions.start(client, "read x; echo got $x; id -u")
    await sessions.type_in(client, command_id, "typed")
    assert (await sessions.ended(client, command_id))["exitCode"] == 0
    said = await sessions.logs(client, command_id)
    assert said["stdout"].endswith(f"got typed\n{UID}\n")
    body = await sessions.run(
        client, "ls $(dirname $(readlink /proc/$$/fd/1)) 2>&1; setsid sleep 999 &"
    )
    assert "Permission denied" in body["output"], "its directory can be passed, not listed"
    await sessions.delete(client)


async def test_terminal_as_another_user(procd: MakeClient) -> None:
    client = await procd(process=AS_USER)
    await create(client, "t")
    terminal = await connect(client, "t")
    await terminal.type(b"id -u; stat -c %u $(tty); echo by-name > $(tty); exit 3\n")
    await terminal.to_end()
    assert terminal.ending["exitCode"] == 3
    assert f"{UID}\r\n{UID}\r\nby-name\r\n".encode() in terminal.output


async def test_processes_of_another_user_are_killed(procd: MakeClient, tmp_path: Path) -> None:
    client = await procd(process=AS_USER | {"no_new_privs": True})
    await sessions.create(client)
    body = await sessions.run(client, "setsid sleep 1000 >/dev/null 2>&1 & echo $!")
    pid = int(body["stdout"])
    assert f"Uid:\t{UID}" in Path(f"/proc/{pid}/status").read_text()
    await sessions.delete(client)
    assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text()


async def test_no_new_privileges(procd: MakeClient) -> None:
    client = await procd(process={"no_new_privs": True})
    body = await execute(client, "grep NoNewPrivs /proc/self/status")
    assert body["result"].split() == ["NoNewPrivs:", "1"]
    assert "NoNewPrivs:\t0" in Path("/proc/self/status").read_text(), "procd itself"


async def test_resource_limits(procd: MakeClient) -> None:
    before = Path("/proc/self/limits").read_text()
    client = await procd(process={"rlimits": ["nofile=64:128", "core=0"]})
    script = "ulimit -Sn; ulimit -Hn; ulimit -Sc; setsid sh -c 'ulimit -n'"
    assert (await execute(client, script))["result"].split() == ["64", "128", "0", "64"]
    # Its processes are still found by their tag.
    await sessions.create(client)
    body = await sessions.run(client, "(setsid sleep 1000 >/dev/null 2>&1 & echo $!)")
    pid = int(body["stdout"])
    await sessions.delete(client)
    assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text()
    assert Path("/proc/self/limits").read_text() == before


async def test_umask(procd: MakeClient, tmp_path: Path) -> None:
    own = os.umask(0o022)
    os.umask(own)
    client = await procd(process={"umask": "027", "work_dir": str(tmp_path)})
    assert (await execute(client, "sh -c umask; touch new"))["result"] == "0027\n"
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o640
    after = os.umask(own)
    assert after == own


async def test_oom_score(procd: MakeClient) -> None:
    own = int(Path("/proc/self/oom_score_adj").read_text())
    client = await procd(process={"oom_score_adj": 100})
    body = await execute(client, "cat /proc/self/oom_score_adj; cat /proc/$$/oom_score_adj")
    assert body["result"].split() == [str(min(1000, own + 100))] * 2
    assert int(Path("/proc/self/oom_score_adj").read_text()) == own


async def test_one_command_of_another_user_is_terminated(
    procd: MakeClient, tmp_path: Path, shell: str
) -> None:
    """Also in a container without CAP_SYS_RESOURCE, whose root can't mark their processes."""
    let_pass(tmp_path)  # a shell of its own is in there
    client = await procd(process=AS_USER | {"shell": shell})
    await sessions.create(client)
    before = await sessions.run(client, "setsid sleep 1000 >/dev/null 2>&1 & echo $!; false")
    script = "echo $?; (setsid sleep 1000 & echo $!); sleep 1000; echo over"
    command_id = await sessions.start(client, script)
    follower = await sessions.follow(client, command_id)
    while follower.joined.count(b"\n") < 2:
        await follower.step()
    status, orphan = follower.joined.split()
    assert status == b"1"
    kept = sessions.keeps_session(shell)
    await sessions.terminate(client, command_id, kept=kept)
    assert (await sessions.ended(client, command_id))["exitCode"] == 143
    assert not living(int(orphan))
    assert living(int(before["stdout"]))
    if kept:
        assert (await sessions.run(client, "echo on"))["stdout"] == "on\n"
    await sessions.delete(client)
    assert not living(int(before["stdout"]))


@pytest.mark.parametrize("name", ["bash", "zsh"])
async def test_who_ends_one_command_leaves_the_next_alone(
    procd: MakeClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """Though the shell may start a program, a slow one here, to be told apart from the first."""
    slow = tmp_path / "prlimit"
    slow.write_text(f'#!/bin/sh\nsleep 0.05\nexec {shutil.which("prlimit")} "$@"\n')
    slow.chmod(0o755)
    let_pass(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    client = await procd(process=AS_USER | {"shell": sessions.SHELLS[name]})
    await sessions.create(client)
    for _ in range(5):
        first = await sessions.start(client, "sleep 100 & sleep 100 & sleep 100 | sleep 100")
        follower = await sessions.follow(client, first)
        second = await sessions.start(client, "echo ok; sleep 0.1; (exit 7)")
        await sessions.terminate(client, first)
        await follower.to_end()
        assert (await sessions.ended(client, second))["exitCode"] == 7
        assert (await sessions.logs(client, second))["output"] == "ok\n"


@pytest.mark.parametrize("way", ["signal", "terminate"])
async def test_what_is_yet_to_become_the_shell_is_no_commands(
    procd: MakeClient,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    gate: Gate,
    shell: str,
    way: str,
) -> None:
    """While privileges are still being set, a command's end is not the session's."""
    wrapper = tmp_path / "setpriv"
    wrapper.write_text(f'#!/bin/sh\nread x <{gate}\nexec {shutil.which("setpriv")} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    client = await procd(
        process={"no_new_privs": True, "shell": shell}, sessions={"grace_s": 1000.0}
    )
    await sessions.create(client)
    script = "sh -c 'exit 3'" if way == "signal" else "sleep 1000; echo over"
    command_id = await sessions.start(client, script)
    path = f"{sessions.path_of(command_id)}/{way}"
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(client.post(path, json={"signal": "SIGTERM"}))
        command = client.app[SESSIONS].get("s").commands.get(command_id)
        await until(lambda: asked.done() or command._ending is not None)
        gate.open()
    kept = way == "signal" or sessions.keeps_session(shell)
    assert asked.result().status == (204 if kept else 410)
    asked.result().release()
    expected = 3 if way == "signal" else 143
    assert (await sessions.ended(client, command_id))["exitCode"] == expected
    if kept:
        assert (await sessions.run(client, "echo on"))["stdout"] == "on\n"


with_system_python = pytest.mark.skipif(
    not Path("/usr/bin/python3").exists(), reason="no Python that every user may run"
)


@with_system_python
@pytest.mark.parametrize("closed", ["the way", "what a link leads to", "the program"])
async def test_programs_are_those_that_the_user_can_run(
    procd: MakeClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, closed: str
) -> None:
    """As in a shell, others on PATH are skipped."""
    let_pass(tmp_path)
    bin_, private = tmp_path / "bin", tmp_path / "private"
    bin_.mkdir()
    private.mkdir()
    (private / "python3").write_text("#!/bin/sh\necho not for you\n")
    (private / "python3").chmod(0o744 if closed == "the program" else 0o755)
    if closed == "what a link leads to":
        (bin_ / "python3").symlink_to(private / "python3")
    else:
        bin_ = private
    if closed != "the program":
        private.chmod(0o700)
    monkeypatch.setenv("PATH", f"{bin_}:/usr/bin:/bin")
    client = await procd(process=AS_USER)
    code = "print(6 * 7)"
    assert (await execute(client, f"python3 -c '{code}'"))["result"] == "42\n"
    async with client.post("/process/code-run", json={"code": code, "language": "python"}) as reply:
        assert (await reply.json())["result"] == "42\n"
    assert await cells.said(client, code) == "42\n"


@with_system_python
async def test_cell_is_interrupted_with_what_it_has_started(
    procd: MakeClient,
) -> None:
    client = await procd(process=AS_USER, interpreter={"python": "/usr/bin/python3"})
    code = "import os, subprocess; earlier = subprocess.Popen(['sleep', '3600'])"
    assert not await cells.said(client, code)
    cell = await cells.run(client, "print('in'); ended = os.system('exec sleep 3600')", timeout=3)
    assert cell.close == (4008, "")
    assert await cells.said(client, "print(ended, earlier.poll())") == "2 None\n"


def dumpable() -> int:
    """Whether this process may be traced: prctl(2), PR_GET_DUMPABLE."""
    value: int = LIBC.prctl(3)
    return value


def living(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and " Z " not in stat.read_text()


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is missing")
async def test_zsh_newuser_is_not_run(
    procd: MakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the user has no startup files at first."""
    let_pass(tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, UID, -1)
    # Where this user may read.
    directory = shutil.copytree(pty_sessions.ZSH_DIRECTORY, tmp_path / "zsh")
    monkeypatch.setattr(pty_sessions, "ZSH_DIRECTORY", directory)
    client = await procd(process={**AS_USER, "shell": shutil.which("zsh")})
    for terminal_id, greeting in (("new", ""), ("old", "hello")):
        await create(client, terminal_id, envs={"HOME": str(home)})
        terminal = await connect(client, terminal_id)
        await terminal.type(b"echo $((40+2)) $greeting $ZDOTDIR $HOME; exit\r")
        await terminal.to_end()
        assert " ".join(["42", *greeting.split(), f"{home}\r\n"]).encode() in terminal.output
        (home / ".zshrc").write_text("greeting=hello\n")
