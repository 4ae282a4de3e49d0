"""What children get of the daemon, and what becomes of those whose parents have died."""

import asyncio
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack

import aiohttp
import pytest

from procd.process.reaper import REAP_DELAY_S
from procd.unix.own_process import SYS_KEYCTL
from tests.daemon.conftest import Start
from tests.daemon.daemon import (
    PATIENCE_S,
    PROCD,
    Daemon,
    NotifySocket,
    Watch,
    children,
    descriptors,
    environment,
    eventually,
)
from tests.daemon.test_service import execute


async def in_terminal(http: aiohttp.ClientSession, daemon: Daemon, typed: str, last: str) -> str:
    """Type something into a new terminal and return the output as far as `last`."""
    async with http.ws_connect(f"{daemon.url}/process/pty/create-connect?id=t") as ws:
        assert (await ws.receive_json())["status"] == "connected"
        await ws.send_bytes(typed.encode())
        output = ""
        while last not in output:
            output += (await ws.receive(timeout=PATIENCE_S)).data.decode()
        return output


async def test_environment_is_not_the_daemons_own(
    start: Start, http: aiohttp.ClientSession
) -> None:
    daemon = start(env={"PROCD_LOG_LEVEL": "warning", "INVOCATION_ID": "x", "KEPT": "kept"})
    with open(f"/proc/{daemon.pid}/environ") as file:
        own = file.read()
    assert "NOTIFY_SOCKET=" in own
    assert "PROCD_LOG_LEVEL=" in own
    in_execute = (await execute(http, daemon, "env"))["result"]
    terminal = await in_terminal(http, daemon, "env; echo do''ne\n", "done\r\n")
    for seen in (in_execute, terminal):
        assert "KEPT=kept" in seen
        for private in ("PROCD_", "NOTIFY_SOCKET", "INVOCATION_ID"):
            assert private not in seen


@pytest.mark.parametrize("script_bytes", [0, 200_000])
async def test_no_descriptor_of_the_daemon_is_inherited(
    start: Start,
    http: aiohttp.ClientSession,
    watch: Callable[[list[int]], Watch],
    script_bytes: int,
) -> None:
    reading, writing = os.pipe()
    try:
        daemon = start(pass_fds=[writing])
    finally:
        os.close(writing)
    assert writing in descriptors(daemon.pid)  # the daemon has it, and keeps it to itself
    padding = "#" * script_bytes
    answer = await execute(http, daemon, f"{padding}\nsleep 1000 & echo $!")
    pids = [int(answer["result"])]
    terminal = await in_terminal(http, daemon, "sleep 1000 & echo pi''d=$! do''ne\n", " done\r\n")
    pids.append(int(terminal.rpartition("pid=")[2].partition(" ")[0]))
    watch(pids)
    # Not before they execute sleep: until then they are copies of the shell, with the shell's own.
    assert await asyncio.to_thread(
        eventually, lambda: all(set(descriptors(pid)) == {0, 1, 2} for pid in pids)
    ), [descriptors(pid) for pid in pids]
    assert daemon.stop() == 0
    assert os.read(reading, 1) == b""  # nobody holds the other end any more
    os.close(reading)


async def test_signals_are_as_at_boot(start: Start, http: aiohttp.ClientSession) -> None:
    # Started by something that ignores and blocks signals, as a shell's background job does.
    signals = {signal.SIGINT, signal.SIGQUIT, signal.SIGHUP}
    for number in signals:
        signal.signal(number, signal.SIG_IGN)
    old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        daemon = start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)
        for number in signals:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
    answer = await execute(http, daemon, "grep -E '^Sig(Blk|Ign)' /proc/self/status")
    terminal = await in_terminal(
        http, daemon, "grep -E '^Sig(Blk|Ign)' /proc/self/status; echo do''ne\n", "done\r\n"
    )
    for seen in (answer["result"], terminal.replace("\r", "")):
        assert "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n" in seen


BOUNDED = ("sh", "-c", 'ulimit -Sn 60; ulimit -Hn 1000; exec "$@"', "sh", *PROCD)
SHOW_LIMITS = "echo $(ulimit -Sn) $(ulimit -Hn)"


async def test_the_limit_of_descriptors_is_the_one_procd_was_started_with(
    start: Start, http: aiohttp.ClientSession
) -> None:
    daemon = start(command=BOUNDED)
    assert resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE) == (1000, 1000)
    assert (await execute(http, daemon, SHOW_LIMITS))["result"] == "60 1000\n"
    with ExitStack() as held:
        # With more than a child may have, it starts what it has started before.
        while len(descriptors(daemon.pid)) < 100:
            connection = held.enter_context(socket.create_connection((daemon.host, daemon.port)))
            connection.sendall(b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n")
            connection.recv(1)
        soft, hard = (await execute(http, daemon, SHOW_LIMITS))["result"].split()
        assert 60 <= int(soft) < 200
        assert hard == "1000"
        terminal = await in_terminal(http, daemon, f"{SHOW_LIMITS} do''ne\n", " done\r\n")
        assert "\n60 1000 done" in terminal
    assert resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE) == (1000, 1000)


async def test_the_limit_of_descriptors_is_the_one_that_is_set(
    start: Start, http: aiohttp.ClientSession
) -> None:
    daemon = start(command=BOUNDED, env={"PROCD_PROCESS_RLIMITS": "nofile=80:90"})
    assert (await execute(http, daemon, SHOW_LIMITS))["result"] == "80 90\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_where_nothing_can_be_marked(start: Start, http: aiohttp.ClientSession) -> None:
    """Marks need a higher hard limit than there is, and procd may not raise it: all runs."""
    without = ("setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource")
    bounded = (*without, "prlimit", "--rttime=1000:2000", *PROCD)
    daemon = start(command=bounded, env={"PROCD_PROCESS_USER": "nobody"}, cwd="/")
    async with http.ws_connect(f"{daemon.url}/process/interpreter/execute") as ws:
        await ws.send_json({"code": "print(1)"})
        assert (await ws.receive_json(timeout=PATIENCE_S))["text"] == "1\n"
    async with http.post(f"{daemon.url}/process/session", json={"sessionId": "s"}) as reply:
        assert reply.status == 201
    body = {"command": "(exit 3)"}
    async with http.post(f"{daemon.url}/process/session/s/exec", json=body) as reply:
        assert (await reply.json())["exitCode"] == 3
    daemon.stop()
    assert "the hard RLIMIT_RTTIME is 2000" in daemon.stderr()


# As in most containers. Those who are another user's may not be looked at closely, nor be marked.
LIKE_A_CONTAINER = (
    "setpriv", "--bounding-set=-sys_ptrace,-sys_resource", "--inh-caps=-sys_ptrace,-sys_resource",
)  # fmt: skip
WAIT_FOR_USR1 = """sh -c 'trap "echo late; exit" USR1; echo $$; while :; do sleep 0.1; done' &"""


async def say(http: aiohttp.ClientSession, daemon: Daemon, command: str) -> list[bytes]:
    """Run a command in a session; each message of its log to the end, in which SIGUSR1 is sent."""
    session = f"{daemon.url}/process/session"
    async with http.post(session, json={"sessionId": "s"}) as reply:
        assert reply.status == 201
    async with http.post(f"{session}/s/exec", json={"command": command}) as reply:
        number = (await reply.json())["cmdId"]
    said: list[bytes] = []
    async with http.ws_connect(f"{session}/s/command/{number}/logs?follow=true") as ws:
        while (message := await ws.receive(timeout=PATIENCE_S)).type is aiohttp.WSMsgType.BINARY:
            said.append(message.data)
            if message.data.strip().isdigit():
                os.kill(int(message.data), signal.SIGUSR1)
        assert message.type is aiohttp.WSMsgType.CLOSE
    return said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_a_log_ends_that_the_shell_keeps(start: Start, http: aiohttp.ClientSession) -> None:
    """Though procd may not look at the shell: when all that the command has started has ended."""
    nobody = {"PROCD_PROCESS_USER": "nobody", "PROCD_PROCESS_SHELL": "/bin/bash"}
    daemon = start(command=(*LIKE_A_CONTAINER, *PROCD), env=nobody, cwd="/")
    *_, last = await say(http, daemon, f"exec 3>&1; {WAIT_FOR_USR1}")
    assert last == b"late\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_a_log_lasts_where_nothing_can_be_marked(
    start: Start, http: aiohttp.ClientSession
) -> None:
    """Nor the shell be looked at: whatever a command has started is heard to its end."""
    bounded = (*LIKE_A_CONTAINER, "prlimit", "--rttime=1000:2000", *PROCD)
    daemon = start(command=bounded, env={"PROCD_PROCESS_USER": "nobody"}, cwd="/")
    *_, last = await say(http, daemon, WAIT_FOR_USR1)
    assert last == b"late\n"


# Has a key that whoever possesses the session keyring may see, and becomes its arguments.
WITH_KEY = """
import ctypes, os, sys
number, *argv = sys.argv[1:]
call = ctypes.CDLL(None).syscall
joined = call(int(number), 1, b"procd-test")
if joined < 0 or call(int(number) - 2, b"user", b"roots", b"x", 1, joined) < 0:
    sys.exit(1)
os.execvp(argv[0], argv)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_keys_of_procds_are_not_another_users(
    start: Start, http: aiohttp.ClientSession
) -> None:
    with_key = (sys.executable, "-c", WITH_KEY, str(SYS_KEYCTL.get(os.uname().machine, -1)))
    if subprocess.run([*with_key, "true"], check=False).returncode:
        pytest.skip("the kernel takes no keys here")
    daemon = start(command=(*with_key, *PROCD), env={"PROCD_PROCESS_USER": "nobody"}, cwd="/")
    body = await execute(http, daemon, "id -un; cat /proc/keys")
    assert body["exitCode"] == 0
    assert body["result"].startswith("nobody\n")
    assert "roots" not in body["result"]


async def test_standard_streams_may_be_closed(http: aiohttp.ClientSession) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    notify = NotifySocket()
    process = subprocess.Popen(
        [
            "sh", "-c", 'exec "$0" -m procd serve --port "$1" <&- >&- 2>&-',
            sys.executable, str(port),
        ],
        env=environment(NOTIFY_SOCKET=notify.address),
    )  # fmt: skip
    nothing = tempfile.TemporaryFile()  # noqa: SIM115 - the daemon's to close
    daemon = Daemon(process, port, notify, nothing, pid=process.pid)
    try:
        assert (await asyncio.to_thread(notify.receive))["READY"] == "1"
        answer = await execute(http, daemon, "cat; echo out; echo err >&2; exit 3")
        assert answer == {
            "status": 200, "exitCode": 3,
            "result": "out\nerr\n",
        }  # fmt: skip
        terminal = await in_terminal(http, daemon, "tty; echo do''ne\n", "done\r\n")
        assert "/dev/pts/" in terminal
        assert daemon.stop() == 0
    finally:
        daemon.discard()


async def test_orphans_are_reaped(
    start: Start, http: aiohttp.ClientSession, watch: Callable[[list[int]], Watch]
) -> None:
    daemon = start()
    answer = await execute(http, daemon, "(setsid sleep 1000 > /dev/null 2>&1 & echo $!)")
    pid = int(answer["result"])
    watched = watch([pid])
    assert children(daemon.pid) == [pid]  # the daemon has become its parent
    os.kill(pid, signal.SIGTERM)
    assert watched.survivors(within_s=PATIENCE_S) == []
    assert await asyncio.to_thread(eventually, lambda: children(daemon.pid) == [])


async def test_reaping_takes_nobodys_status(
    start: Start, http: aiohttp.ClientSession, watch: Callable[[list[int]], Watch]
) -> None:
    """When the daemon wakes up late, commands that have ended wait beside the orphans."""
    daemon = start()
    codes = list(range(20))
    executing = [
        asyncio.ensure_future(execute(http, daemon, f"kill -STOP $$; exit {code}"))
        for code in codes
    ]
    stopped = await asyncio.to_thread(eventually, lambda: states(daemon.pid) == ["T"] * len(codes))
    assert stopped, states(daemon.pid)
    shells = children(daemon.pid)
    watched = watch(shells)
    # It has had news of its children and will look for orphans a second later.
    os.kill(daemon.pid, signal.SIGSTOP)
    for pid in shells:
        os.kill(pid, signal.SIGCONT)
    assert watched.survivors(within_s=PATIENCE_S) == []
    await asyncio.sleep(REAP_DELAY_S + 0.5)
    os.kill(daemon.pid, signal.SIGCONT)
    answers = await asyncio.gather(*executing)
    assert [answer["exitCode"] for answer in answers] == codes


def states(pid: int) -> list[str]:
    """The states of a process's children. Source: proc_pid_stat(5), field 3."""
    found = []
    for child in children(pid):
        with open(f"/proc/{child}/stat") as file:
            found.append(file.read().rpartition(")")[2].split()[0])
    return found


def _new_pid_namespace() -> list[str]:
    """The command that starts another one as PID 1."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("there is no unshare(1)")
    for extra in ((), ("--user", "--map-root-user")):
        command = [unshare, *extra, "--fork", "--kill-child", "--pid", "--mount-proc"]
        if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
            return command
    pytest.skip("a new PID namespace is not permitted here")


async def test_as_the_init_of_a_pid_namespace(start: Start, http: aiohttp.ClientSession) -> None:
    daemon = start(command=[*_new_pid_namespace(), sys.executable, "-m", "procd"])
    (daemon.pid,) = children(daemon.process.pid)
    assert (await execute(http, daemon, "echo $PPID"))["result"] == "1\n"

    # Orphans end while commands do, and no status is taken for another one.
    orphaning = "(setsid sh -c 'exit 9' & setsid sh -c 'sleep 0.1; exit 8' &) > /dev/null 2>&1; "
    codes = list(range(100))
    answers = await asyncio.gather(
        *(execute(http, daemon, f"{orphaning} exit {code}") for code in codes)
    )
    assert [answer["exitCode"] for answer in answers] == codes
    assert (await execute(http, daemon, "kill -TERM $$"))["exitCode"] == 128 + signal.SIGTERM
    assert await asyncio.to_thread(eventually, lambda: children(daemon.pid) == [])

    # An init has no default actions: it must have handlers to be stopped at all.
    assert (await execute(http, daemon, "(setsid sleep 1000 > /dev/null 2>&1 &)"))["exitCode"] == 0
    assert await asyncio.to_thread(daemon.stop) == 0
