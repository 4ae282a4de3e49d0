"""Scripts that turn on the shell that runs them, and users who clean up what is procd's."""

import asyncio
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from procd.api.sessions import SESSIONS
from procd.unix.procfs import stat_of
from tests.aliases import Client, MakeClient
from tests.api.clients import Fifo, Gate, raw, refused, until
from tests.api.sessions import (
    MODERN,
    SHELLS,
    create,
    delete,
    ended,
    follow,
    get,
    keeps_session,
    kind,
    logs,
    of_shell,
    path_of,
    post_exec,
    run,
    start,
)

SILENT = "the shell does not say how this command ended"
EVERY = {"bash", "dash", "zsh", "busybox"}

# After each of these the shell reads its lines and reports nothing, or something else.
HIJACKS = [
    ("command() { :; }", {"dash", "busybox"}),
    ("command() { echo hijack; }", {"dash", "busybox"}),
    ("builtin() { :; }", {"bash", "zsh"}),
    ("set -n", EVERY),
    ("set -r", {"bash", "zsh"}),
    ("enable -n printf; PATH=", {"bash"}),
    ("shopt -s extdebug; trap false DEBUG", {"bash"}),
    ("ulimit -n 4", {"bash"}),
    ("ulimit -n 9", {"dash", "busybox"}),
]


async def test_shell_that_reports_nothing(procd: MakeClient, shell: str) -> None:
    """The command ends as unknown, with a word about it, and the session is over: nothing hangs."""
    client = await of_shell(procd, shell)
    for script, shells in HIJACKS:
        if kind(shell) not in shells:
            continue
        earlier = await start(client, "echo earlier")
        body = await run(client, f"echo begun; {script}")
        if body["exitCode"] == 0:  # this was still reported
            body = await run(client, "echo begun")
        assert body["exitCode"] == -1, script
        assert SILENT in body["stderr"]
        await refused(await post_exec(client, "true"), 410, "SESSION_ENDED")
        assert (await logs(client, earlier))["output"] == "earlier\n"
        await delete(client)
        await create(client)


HARMLESS = [
    "command() { echo hijack; }",
    "printf() { :; }",
    "trap() { :; }; return() { :; }; exit() { :; }",
    "alias command=false builtin=false printf=false .=false",
    "exec 3>&1 4>&2; exec 5</dev/null",
    "trap 'echo usr' USR1; kill -USR1 $$",
    "exit() { echo mine; return 0; }",
    "alias exit='echo mine'",
]


async def test_bash_reports_all_the_same(procd: MakeClient) -> None:
    client = await of_shell(procd, SHELLS["bash"])
    for script in HARMLESS:
        await run(client, script)
        body = await run(client, "echo on; sh -c 'exit 3'")
        assert (body["output"], body["exitCode"]) == ("on\n", 3), script
        assert (await run(client, "echo $?"))["output"] == "3\n"
        await delete(client)
        await create(client)


EXEMPT = [
    "[ -f /nonexistent ] && cat /nonexistent",
    "! true",
    "x=1; false && x=2",
    "while false; do :; done; false && :",
    "for i in 1; do false && :; done",
    "echo said; false || false && :",
]
FAILURES = ["false; echo rest", "f() { false; echo rest; }; f", "(false; echo rest)", "x=$(false)"]


async def test_set_e(procd: MakeClient, shell: str) -> None:
    """What it exempts ends no shell, as where the same lines are typed; what fails does."""
    client = await of_shell(procd, shell)
    await run(client, "set -e")
    for script in EXEMPT:
        assert (await run(client, script))["exitCode"] == 1, script
        assert (await run(client, "echo $?; echo $-"))["output"].startswith("1\n"), script
    for script in FAILURES:
        for before, line in ("set -e", script), ("true", f"set -e; {script}"):
            await delete(client)
            await create(client)
            await run(client, before)
            body = await run(client, line)
            assert (body["output"], body["exitCode"]) == ("", 1), line
            await refused(await post_exec(client, "true"), 410, "SESSION_ENDED")


async def test_an_err_trap_hears_only_of_the_users_failures(procd: MakeClient) -> None:
    client = await of_shell(procd, SHELLS["bash"])
    await run(client, "trap 'echo failed' ERR")
    assert (await run(client, "false && :"))["output"] == ""
    assert (await run(client, "false"))["output"] == "failed\n"


SUBSHELLS = [
    "(echo ${nope:?message})",
    "(: >/nonexistent/file)",
    "x=$(echo ${nope:?message})",
    "(echo ${nope:?message}) & wait $!",
    "{ (echo ${nope:?message}); }",
]


@pytest.mark.parametrize("script", SUBSHELLS)
async def test_a_subshell_that_fails_ends_alone(procd: MakeClient, shell: str, script: str) -> None:
    """It doesn't go on in the place of the shell."""
    client = await of_shell(procd, shell)
    body = await run(client, f"N=1; {script}; echo after; N=2")
    assert (body["stdout"], body["exitCode"]) == ("after\n", 0)
    for _ in range(2):
        body = await run(client, "echo $N; sh -c 'echo $PPID'; echo $$")
        number, asked, said = body["stdout"].split()
        assert (number, asked) == ("2", said)


STATUSES = [
    ("return 300", EVERY, 44),
    ("f() { return -1; }; f", {"bash", "zsh"}, 255),
    ("f() { return 4294967295; }; f", {"bash", "zsh"}, 255),
    # Failures of zsh itself, and what looks like them.
    ("echo [x]; echo rest", {"zsh"}, 1),
    ("x=$((1/0)); echo rest", {"zsh"}, 1),
    ("set -u; echo $nope; echo rest", {"zsh"}, 1),
    ("echo 'unclosed", {"zsh"}, 1),
    (")", {"zsh"}, 1),
    ("f() { echo [x]; echo rest; }; f; echo rest", {"zsh"}, 1),
    ("sh -c 'exit 126'", EVERY, 126),
    ("f() { return 126; }; f", EVERY, 126),
    ("return 126", EVERY, 126),
    ("cat >/dev/null <<END; (exit 126)\na\nEND", EVERY, 126),
]


async def test_statuses(procd: MakeClient, shell: str) -> None:
    client = await of_shell(procd, shell)
    for script, shells, code in STATUSES:
        if kind(shell) in shells:
            body = await run(client, script)
            assert (body["stdout"], body["exitCode"]) == ("", code), script
            assert (await run(client, "echo $?"))["output"] == f"{code}\n", script


LAST_OUTPUT = [
    ("trap 'echo cleanup; echo err >&2' EXIT; exit 3", 3, "cleanup\n", "err\n"),
    ("trap 'echo cleanup; echo err >&2' EXIT; set -e; (exit 4)", 4, "cleanup\n", "err\n"),
    ("trap 'cat; read x || echo \"[$x]\"' EXIT; set -e; sh -c 'exit 3'", 3, "[]\n", ""),
    ("trap 'cat; echo cleaned' EXIT; exit 3", 3, "cleaned\n", ""),
    (
        "set -e; trap 'seq 100000; echo err >&2' EXIT; (exit 4)",
        4,
        "".join(f"{number}\n" for number in range(1, 100_001)),
        "err\n",
    ),
]


async def test_output_of_an_exit_trap(procd: MakeClient, shell: str) -> None:
    """It is the last command's; what the trap reads is never procd's lines."""
    client = await of_shell(procd, shell)
    for script, code, stdout, stderr in LAST_OUTPUT:
        if kind(shell) == "busybox" and "cat" in script:
            continue  # it reads its lines from standard input
        body = await run(client, f"echo said; {script}")
        assert (body["stdout"], body["stderr"], body["exitCode"]) == (
            f"said\n{stdout}",
            stderr,
            code,
        )
        listener = await follow(client, body["cmdId"])
        assert sorted(await listener.to_end()) == sorted(f"said\n{stdout}{stderr}".encode())
        await delete(client)
        await create(client)
    await run(client, "trap 'echo cleanup' EXIT")
    assert (await run(client, "echo on"))["output"] == "on\n", "it lives on"
    assert (await run(client, "exit 2"))["output"] == "cleanup\n"


@pytest.mark.parametrize("script", ["false", "if true; then ls /none; fi", "x=$(false)"])
async def test_what_an_exit_trap_says_of_a_failure(
    procd: MakeClient, shell: str, script: str
) -> None:
    """On both streams, and nothing of how the shell came there."""
    client = await of_shell(procd, shell)
    await run(client, "trap 'echo status $? >&2; echo said; set +x; ls /none' EXIT; set -ex")
    body = await run(client, script)
    assert body["stdout"] == "said\n"
    assert "status" in body["stderr"]
    assert "/none" in body["stderr"].splitlines()[-1]
    if kind(shell) != "zsh":
        assert "/proc/" not in body["stderr"]


async def test_zshexit_is_not_run_by_procd(procd: MakeClient) -> None:
    client = await of_shell(procd, SHELLS["zsh"])
    await run(client, "alias case=false return=false; disable -r case")
    await run(client, "zshexit() { echo ended; }")
    for script, code in ("false", 1), ("(exit 6)", 6), ("echo on", 0):
        body = await run(client, f"zshexit() {{ :; }}; {script}; zshexit() {{ echo ended; }}; "
                         f"() {{ \\return {code} }}")  # fmt: skip
        assert (body["stdout"].removeprefix("on\n"), body["exitCode"]) == ("", code)
    assert (await run(client, "exit 2"))["output"] == "ended\n"


@pytest.mark.parametrize("ending", ["sh -c 'exit 3'", "exit 3"])
@pytest.mark.parametrize("options", ["-x", "-eux"])
async def test_nothing_of_ours_is_traced(
    procd: MakeClient, shell: str, options: str, ending: str
) -> None:
    """Whether it is the end of the shell or not."""
    client = await of_shell(procd, shell)
    await run(client, f"set {options}")
    body = await run(client, ending)
    assert body["exitCode"] == 3
    traced = body["stderr"].splitlines()
    if kind(shell) == "zsh":  # it can't be kept from naming what sources the script, and its end
        traced = [line for line in traced if not re.search("> (\\. /proc/|return 3$)", line)]
    assert traced
    assert all("exit 3" in line for line in traced)


async def test_nothing_of_ours_is_traced_where_a_script_is_left(
    procd: MakeClient, shell: str, alive: Fifo
) -> None:
    client = await of_shell(procd, shell)
    script = f"set -x; sh -c 'echo ready >{alive}; exec sleep 1000'"
    command_id = await start(client, script)
    assert await alive.line() == "ready"
    async with client.post(f"{path_of(command_id)}/terminate") as reply:
        assert reply.status == (204 if keeps_session(shell) else 410)
    traced = (await logs(client, command_id))["stderr"].splitlines()
    assert "sleep 1000" in traced[0]
    assert [line for line in traced[1:] if "Terminated" not in line] == []


DUPLICATES = [
    "exec 4<&0; echo ok",
    "{ cat <&4; } 4<&0; echo ok",
    "f() { cat <&4; }; f 4<&0; echo ok",
    "if true; then exec 9<&0; fi; echo ok",
    "x=$(exec 4<&0; echo ok); echo $x",
    "exec 7<&0 </dev/null; exec 0<&7 7<&-; echo ok",
]


async def test_standard_input_may_be_duplicated(procd: MakeClient, shell: str) -> None:
    client = await of_shell(procd, shell)
    for script in DUPLICATES:
        for line in (script, "echo ok"):
            body = await run(client, line)
            assert (body["output"], body["exitCode"]) == ("ok\n", 0), script


async def test_name_of_the_shell_and_what_its_children_have(procd: MakeClient, shell: str) -> None:
    client = await of_shell(procd, shell)
    if kind(shell) == "zsh":
        await run(client, "unsetopt function_argzero")
    assert (await run(client, "echo $0 $#"))["output"] == f"{shell} 0\n"
    body = await run(client, "python3 -c 'import os; print(os.listdir(\"/proc/self/fd\"))'")
    assert body["output"] == "['0', '1', '2', '3']\n", "and what lists them"


async def test_a_file_that_bash_begins_with_reads(procd: MakeClient, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("cat; begun=yes")
    client = await procd(process={"shell": SHELLS["bash"]})
    await create(client, env={"BASH_ENV": str(tmp_path / "env")})
    assert (await run(client, "echo $begun"))["output"] == "yes\n"


async def test_state_directory_is_deleted(procd: MakeClient, tmp_path: Path, shell: str) -> None:
    """As by `rm -rf /tmp/*`: the command that does it ends, and all goes on but earlier logs."""
    client = await of_shell(procd, shell, sessions={"state_dir": str(tmp_path), "grace_s": 0.2})
    await create(client, "other")
    before = (await run(client, "echo before"))["cmdId"]
    (directory,) = tmp_path.glob("procd-*")
    body = await run(client, f"echo said; sleep 0.1; rm -rf {directory}; echo done; (exit 3)")
    assert (body["output"], body["exitCode"]) == ("said\ndone\n", 3)
    async with client.get(path_of(before) + "/logs", headers=MODERN) as reply:
        body = await refused(reply, 500, "INTERNAL_SERVER_ERROR")
        assert body["message"] == "log can't be read: No such file or directory"
    for name in ("s", "other"):
        assert (await run(client, "echo on", name))["output"] == "on\n"
    await create(client, "new")
    assert (await run(client, "seq 3", "new"))["output"] == "1\n2\n3\n"
    async with client.get("/readyz") as reply:
        assert reply.status == 200


async def leave(client: Client, request: str, body: bytes = b"") -> None:
    """Ask, and be gone before the answer."""
    async with raw(client) as rude:
        await rude.request(f"{request} HTTP/1.1\nContent-Length: {len(body)}", body)
        await rude.leave()


@pytest.mark.parametrize("way", ["delete", "terminate", "timeout"])
async def test_a_client_that_leaves_before_it_is_answered(
    procd: MakeClient, alive: Fifo, way: str
) -> None:
    """What it has asked for is done."""
    client = await procd(sessions={"grace_s": 0.2})
    await create(client)
    script = f"sh -c 'trap \"\" TERM; echo ready; sleep 1000; sleep 1000' >{alive}"
    timeout = 3 if way == "timeout" else 0
    command_id = await start(client, script, timeout=timeout)
    assert await alive.line() == "ready"
    if way == "delete":
        await leave(client, "DELETE /process/session/s")
    elif way == "terminate":
        await leave(client, f"POST {path_of(command_id)}/terminate")
    await alive.ended()
    if way != "delete":
        assert (await ended(client, command_id))["exitCode"] in (137, 143)
        assert (await run(client, "echo on"))["output"] == "on\n"


async def test_wait_for_a_command_that_is_deleted(procd: MakeClient, alive: Fifo) -> None:
    client = await procd(sessions={"grace_s": 0.1})
    await create(client)
    command_id = await start(client, f"echo ready >{alive}; sleep 1000")
    assert await alive.line() == "ready"
    async with raw(client) as waiting:
        await waiting.request(f"GET {path_of(command_id)}?wait=60 HTTP/1.1")
        await get(client, "/process/session/s")  # that one is being served by now
        await delete(client)
        status, headers = await waiting.head()
        (length,) = (h.split()[1] for h in headers if h.lower().startswith("content-length:"))
        body = json.loads(await waiting.exactly(int(length)))
    assert (status, body["code"]) == (410, "SESSION_ENDED")
    assert body["message"] == "session was deleted"


@pytest.mark.parametrize("ending", ["exit 3", "exec true"])
async def test_what_a_shell_leaves_behind_outlives_it(
    procd: MakeClient, shell: str, ending: str, alive: Fifo, gate: Gate
) -> None:
    """Its late output reaches the log."""
    client = await of_shell(procd, shell)
    command_id = await start(
        client, f"(echo begun >{alive}; read x <{gate}; echo late; echo gone >{alive}) & {ending}"
    )
    assert await alive.line() == "begun"
    await ended(client, command_id)
    gate.open()
    assert await alive.line() == "gone"
    async with asyncio.timeout(20):
        while (await logs(client, command_id))["output"] != "late\n":
            continue


async def test_a_program_in_the_place_of_the_shell(
    procd: MakeClient, shell: str, alive: Fifo, gate: Gate
) -> None:
    """Its exit status is the command's; it may be the same shell once more."""
    client = await of_shell(procd, shell)
    command_id = await start(
        client, f"exec python3 -c 'open(\"{alive}\", \"w\").write(\"begun\\n\"); "
        f"open(\"{gate}\").readline(); print(\"said\"); exit(7)'",
    )  # fmt: skip
    assert await alive.line() == "begun"
    gate.open()
    assert (await ended(client, command_id))["exitCode"] == 7
    assert (await logs(client, command_id))["output"] == "said\n"
    await refused(await post_exec(client, "true"), 410, "SESSION_ENDED")
    await delete(client)
    await create(client)
    command_id = await start(client, f"echo begun; exec {shell}", suppressInputEcho=True)
    await (await follow(client, command_id)).until(b"begun\n")
    body = {"data": "echo said\nexit 7\n"}
    async with client.post(f"{path_of(command_id)}/input", json=body) as reply:
        assert reply.status == 204
    assert (await ended(client, command_id))["exitCode"] == 7
    assert (await logs(client, command_id))["output"] == "begun\nsaid\n"


@pytest.mark.parametrize("way", ["signal", "terminate", "timeout"])
async def test_a_program_in_the_place_of_the_shell_is_reached(
    procd: MakeClient, shell: str, alive: Fifo, way: str
) -> None:
    client = await of_shell(procd, shell, sessions={"grace_s": 20.0})
    background = int((await run(client, "sleep 3600 >/dev/null 2>&1 & echo $!"))["output"])
    text = "import os, signal, time; signal.signal(signal.SIGTERM, lambda *_: os._exit(5))\n"
    text += f"with open('{alive}', 'w') as file: file.write('begun\\n')\n"
    text += "while True: time.sleep(0.05)"
    fields: dict[str, Any] = {"timeout": 3} if way == "timeout" else {}
    command_id = await start(client, f'exec python3 -c "{text}"', **fields)
    assert await alive.line() == "begun"
    if way != "timeout":
        body = {"signal": "SIGTERM"}
        async with client.post(f"{path_of(command_id)}/{way}", json=body) as reply:
            assert reply.status == 204
        os.kill(background, 0)
    expected = 137 if way == "timeout" else 5
    assert (await ended(client, command_id))["exitCode"] == expected


async def test_what_an_idle_trap_reads(procd: MakeClient, shell: str, alive: Fifo) -> None:
    if kind(shell) == "busybox":
        pytest.skip("reads its lines from standard input")
    client = await of_shell(procd, shell)
    trap = f"cat; echo trapped >{alive}"
    pid = int((await run(client, f"trap '{trap}' USR1; echo $$"))["output"])

    async def idle() -> bool:
        stat = stat_of(pid)
        return stat is not None and stat.state == "S"

    # zsh runs a trap amid its `printf`, which has reported the status and still holds it: what the
    # trap says comes with that then.
    await until(idle)
    os.kill(pid, signal.SIGUSR1)
    # Some come to it with the next line only.
    assert (await run(client, "echo on"))["stdout"] == "on\n"
    assert await alive.line() == "trapped"
    assert (await run(client, "echo on"))["stdout"] == "on\n"


IDLE_ENDS = [("true", "exit 0"), ("true", "exit 5"), ("true", "exec true"), ("set -e", "false")]


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGKILL])
async def test_what_an_idle_shell_ends_with_is_no_commands_status(
    procd: MakeClient, shell: str, number: int
) -> None:
    """Whether it ends at once or as it comes to the next command: that has never run."""
    client = await of_shell(procd, shell)
    for before, trap in IDLE_ENDS:
        body = await run(client, f"trap '{trap}' USR1; echo $$")
        await run(client, before)
        os.kill(int(body["output"]), number)
        await refused(await post_exec(client, "echo never"), 410, "SESSION_ENDED")
        shown = (await get(client, "/process/session/s"))["commands"]
        assert [each.get("exitCode") for each in shown] in ([0, 0], [0, 0, None])
        await refused(await post_exec(client, "true"), 410, "SESSION_ENDED")
        await delete(client)
        await create(client)


async def test_an_idle_shell_that_is_to_leave_a_script(procd: MakeClient, shell: str) -> None:
    """As when a command ends by itself in the moment in which it is told to."""
    client = await of_shell(procd, shell)
    pid = int((await run(client, "echo $$; (exit 3)"))["output"])
    for code in 3, 0, 0:
        os.kill(pid, signal.SIGURG)
        body = await run(client, "echo $?")
        assert (body["stdout"], body["stderr"], body["exitCode"]) == (f"{code}\n", "", 0)
    await run(client, "set -e")
    for _ in range(3):
        os.kill(pid, signal.SIGURG)
        body = await run(client, "echo on")
        assert (body["stdout"], body["stderr"], body["exitCode"]) == ("on\n", "", 0)


# So many descriptors do for the shell to read on and to report, but not to open a script.
FEW = {"bash": 6, "dash": 14, "busybox": 13}


async def test_a_command_that_the_shell_cannot_open(procd: MakeClient, shell: str) -> None:
    """It has no exit code, and its log says why; not so in zsh, which says so itself, or ends."""
    client = await of_shell(procd, shell)
    if kind(shell) not in FEW:
        pytest.skip("there is no such number")
    await run(client, f"ulimit -n {FEW[kind(shell)]}")
    for _ in range(2):
        body = await run(client, "echo never")
        assert (body["exitCode"], body["stdout"]) == (-1, "")
        assert "cannot start a command: the shell could not open" in body["stderr"]
        # What the shell says itself, if anything.
        assert ("Too many open files" in body["stderr"]) == (kind(shell) == "bash")


async def test_where_no_file_is_watched(procd: MakeClient, shell: str) -> None:
    """As where others have all that inotify gives a user: commands run and end all the same."""
    client = await of_shell(procd, shell)
    client.app[SESSIONS]._open_watch.close()
    pid = int((await run(client, "trap 'exit 9' USR1; echo $$"))["output"])
    assert (await run(client, "echo on"))["output"] == "on\n"
    os.kill(pid, signal.SIGUSR1)
    await post_exec(client, "echo never")  # its exit code may be that of the trap
    await refused(await post_exec(client, "true"), 410, "SESSION_ENDED")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("name", ["bash", "dash", "zsh"])
async def test_an_idle_shell_of_another_user(procd: MakeClient, name: str) -> None:
    """Its script is a file with a name: it is known all the same whether it was opened."""
    user = {"shell": SHELLS[name], "user": "54321", "work_dir": "/"}
    client = await procd(process=user, sessions={"grace_s": 0.2})
    await create(client)
    pid = int((await run(client, "trap 'exit 0' USR1; echo $$"))["output"])
    os.kill(pid, signal.SIGURG)
    assert (await run(client, "echo on"))["output"] == "on\n"
    os.kill(pid, signal.SIGUSR1)
    await refused(await post_exec(client, "echo never"), 410, "SESSION_ENDED")
    await delete(client)
    await create(client)
    assert (await run(client, "exit 3"))["exitCode"] == 3
