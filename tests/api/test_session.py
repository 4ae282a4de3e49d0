"""Shell sessions, their shell and their commands: contract, section 8."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from procd.api.sessions import SESSIONS
from procd.app import create_app
from procd.config_file import from_mapping
from tests.aliases import MakeClient
from tests.api.clients import Fifo, Gate, each, refused
from tests.api.sessions import (
    MODERN,
    VERSION,
    create,
    delete,
    ended,
    follow,
    get,
    logs,
    of_shell,
    path_of,
    post_exec,
    run,
    start,
)
from tests.conftest import DaemonServer

STATE = [
    ("cd /tmp", "pwd", "/tmp\n"),
    ("a=1; b='x  y'", 'echo "$a $b"', "1 x  y\n"),
    ("f() { echo from f $1; }", "f 2", "from f 2\n"),
    ("export EXPORTED=yes", "sh -c 'echo $EXPORTED'", "yes\n"),
    ("umask 027", "umask | tail -c 4", "027\n"),
    ("set -- a 'b c'", 'echo "$# $2"', "2 b c\n"),
    ("(exit 7)", "echo $?", "7\n"),
    ("return 5", "echo $?", "5\n"),
    ("false", "true\necho $?", "0\n"),
    ("exec 7>/dev/null", "{ echo gone >&7; } && echo ok", "ok\n"),
    ("dir=/mine log=l sp=s ep=e ip=i _ec=9", "echo $dir $log $sp $ep $ip $_ec",
     "/mine l s e i 9\n"),
]  # fmt: skip


async def test_state_is_kept(procd: MakeClient, shell: str) -> None:
    client = await of_shell(procd, shell)
    for number, (first, second, stdout) in enumerate(STATE):
        session_id = f"case {number}"
        await create(client, session_id)
        assert (await run(client, first, session_id))["stderr"] == "", first
        body = await run(client, second, session_id)
        assert (body["stdout"], body["stderr"], body["exitCode"]) == (stdout, "", 0), first


TROUBLES = [
    "printf() { echo fake; }",
    "cat() { echo fake; }; rm() { echo fake; }; read() { echo fake; }",
    "alias printf='echo fake' command=false builtin=false exit=false",
    "alias echo='echo'; unalias echo",
    "set -u",
    "set -f",
    "set -e",
    "set -C",
    "set -v",
    "set -x",
    "set -m",
    "IFS=0123456789",
    "umask 777",
    "PATH=/nonexistent",
    "unset PATH HOME",
    "trap 'echo trapped' EXIT",
    "trap '' TERM INT HUP",
    "cd /; (cd /tmp)",
    "exec 3>&-",
    "exec </dev/null",
    "exec >/dev/null",
    "exec 2>&1",
    "exec 0>&- 1>&- 2>&- 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-",
    "echo 'unbalanced",
    'echo "$(unbalanced',
    "if true; then",
    "done )",
    "cat <<END\nnever ended",
    "cat <<'END' | tr a b\na\nEND",
    "break; continue",
    "true &",
    "true & wait",
    "# only a comment",
    "cat",
    "read x",
]


async def test_nothing_confuses_the_session(procd: MakeClient, shell: str) -> None:
    client = await of_shell(procd, shell)
    for trouble in TROUBLES:
        await run(client, trouble)
        for _ in range(2):
            body = await run(client, "echo 'still here'")
            assert (body["stdout"], body["exitCode"]) == ("still here\n", 0), trouble
        await delete(client)
        await create(client)


SCRIPTS = [
    ("cat <<END\nfirst $((1 + 1))\n  second\nEND\necho after", "first 2\n  second\nafter\n"),
    ("printf 'no newline'", "no newline"),
    ("printf 'a\\0b\\001\\002\\n'", "a\0b\x01\x02\n"),
    ("sleep 0 & wait; echo done", "done\n"),
    ("wait; echo done", "done\n"),
    ("cat; read x; echo $?", "1\n"),
    ("echo one # comment\n# another\necho two", "one\ntwo\n"),
    ("echo 'ü € 😀'", "ü € 😀\n"),
    ("for i in 1 2\ndo\n  echo $i\ndone\n\n\n", "1\n2\n"),
    ("case $- in *i*) echo interactive;; *) echo plain;; esac", "plain\n"),
]


async def test_script(procd: MakeClient, shell: str) -> None:
    client = await of_shell(procd, shell)
    for command, stdout in SCRIPTS:
        body = await run(client, command)
        assert (body["output"], body["stdout"], body["stderr"]) == (stdout, stdout, ""), command
        assert body["exitCode"] == 0


async def test_jobs_are_the_users_own(procd: MakeClient, shell: str, tmp_path: Path) -> None:
    client = await of_shell(procd, shell)
    out = tmp_path / "jobs"
    await run(client, f"jobs >{out}")
    assert out.read_text() == ""
    await run(client, "sleep 1000 &")
    await run(client, f"jobs >{out}")
    assert out.read_text().count("\n") == 1
    await delete(client)


async def test_unusual_scripts(procd: MakeClient, shell: str) -> None:
    """One of 10 MB, and one with a NUL."""
    client = await of_shell(procd, shell)
    script = "".join(f": {'x' * 1000}\n" for _ in range(10_000)) + "echo end"
    body = await run(client, script)
    assert (body["stdout"], body["exitCode"]) == ("end\n", 0)
    body = await run(client, "echo a\0b")
    assert body["stdout"].replace("\0", "") == "ab\n"
    assert (await run(client, "echo on"))["stdout"] == "on\n"
    shown: Any = await get(client, "/process/session")
    assert [each["command"] for each in shown[0]["commands"]] == [
        script,
        "echo a\0b",
        "echo on",
    ]


ENDS = [
    ("exit 3", 3),
    ("exit", 0),
    ("set -e; false; echo not reached", 1),
    ("exec true", 0),
    ("exec sh -c 'exit 9'", 9),
    ("kill -KILL $$", 137),
    ("kill -TERM $$", 143),
    ("echo said; exit 4", 4),
]


async def test_end_of_the_shell(procd: MakeClient, shell: str) -> None:
    client = await of_shell(procd, shell)
    for command, code in ENDS:
        first = await start(client, "echo first")
        reply = await post_exec(client, command)
        body = await reply.json()
        assert (reply.status, body["exitCode"]) == (200, code)
        assert body["stdout"] == ("said\n" if "said" in command else "")
        await refused(await post_exec(client, "true"), 410, "SESSION_ENDED")
        await refused(await post_exec(client, "true", runAsync=True), 410, "SESSION_ENDED")
        assert (await logs(client, first))["stdout"] == "first\n"
        listed = await get(client, "/process/session/s")
        assert [shown.get("exitCode") for shown in listed["commands"]] == [0, code]
        assert listed["ended"] is True
        async with client.post("/process/session", json={"sessionId": "s"}) as again:
            await refused(again, 409, "CONFLICT")
        await delete(client)
        await create(client)


async def test_queued_commands_end_with_the_shell(procd: MakeClient, gate: Gate) -> None:
    client = await procd()
    await create(client)
    first = await start(client, f"read x <{gate}; exit 5")
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(post_exec(client, "echo never"))
        queued = await start(client, "echo never")
        gate.open()
    await refused(waiting.result(), 410, "SESSION_ENDED")
    assert (await ended(client, first))["exitCode"] == 5
    assert "exitCode" not in (await get(client, "/process/session/s"))["commands"][-1]
    async with client.get(path_of(queued)) as reply:
        await refused(reply, 410, "SESSION_ENDED")
    assert (await logs(client, queued))["output"] == ""


async def test_background_child_holds_nothing_up_and_is_heard(
    procd: MakeClient, shell: str, gate: Gate
) -> None:
    client = await of_shell(procd, shell)
    reply = await run(client, f"(read x <{gate}; echo late; echo err >&2) & echo early")
    assert reply["output"] == "early\n"
    listener = await follow(client, reply["cmdId"])
    await listener.until(b"early\n")
    assert (await run(client, "echo next"))["output"] == "next\n"
    gate.open()
    await listener.to_end()
    assert {k: bytes(v) for k, v in listener.streams.items()} == {1: b"early\nlate\n", 2: b"err\n"}
    body = await logs(client, reply["cmdId"])
    assert (body["stdout"], body["stderr"]) == ("early\nlate\n", "err\n")


async def test_commands_run_in_order(procd: MakeClient, tmp_path: Path, gate: Gate) -> None:
    client = await procd()
    await create(client)
    out = tmp_path / "order"
    ids = [await start(client, f"read x <{gate}; echo 0 >>{out}")]
    async with asyncio.TaskGroup() as group:
        for number in range(1, 9):
            if number % 2:
                ids.append(await start(client, f"echo {number} >>{out}"))
            else:
                task = group.create_task(post_exec(client, f"echo {number} >>{out}"))
                while len((await get(client, "/process/session/s"))["commands"]) <= number:
                    pass
                assert not task.done()
        gate.open()
    assert out.read_text().split() == [str(number) for number in range(9)]


async def test_queued_commands_are_visible(procd: MakeClient, gate: Gate) -> None:
    client = await procd()
    await create(client)
    running = await start(client, f"read x <{gate}")
    queued = await start(client, "echo queued")
    session = await get(client, "/process/session/s")
    assert session["sessionId"] == "s"
    assert [command["id"] for command in session["commands"]] == [running, queued]
    assert "startedAt" in await get(client, path_of(running))
    shown = await get(client, path_of(queued))
    assert shown == {"id": queued, "command": "echo queued"}
    assert await logs(client, queued) == {"output": "", "stdout": "", "stderr": ""}
    listener = await follow(client, queued)
    gate.open()
    assert await listener.to_end() == b"queued\n"
    shown = await ended(client, queued)
    assert shown["startedAt"] <= shown["endedAt"]
    assert shown["outputBytes"] == len("queued\n")


async def test_oldest_commands_are_forgotten(procd: MakeClient, gate: Gate) -> None:
    client = await procd(sessions={"max_commands": 3})
    await create(client)
    first = await start(client, f"(read x <{gate}) & true")
    await ended(client, first)
    second = (await run(client, "echo second"))["cmdId"]
    await run(client, "echo third")
    await run(client, "echo fourth")
    commands = [c["command"] for c in (await get(client, "/process/session/s"))["commands"]]
    assert commands[1:] == ["echo third", "echo fourth"]
    assert len(commands) == 3, "the first still has a child that may speak"
    async with client.get(path_of(second) + "/logs") as reply:
        await refused(reply, 404, "PROCESS_NOT_FOUND")
    gate.open()


async def test_create_and_list(procd: MakeClient) -> None:
    client = await procd()
    assert await get(client, "/process/session") == []  # type: ignore[comparison-overlap]  # a list
    await create(client, "b")
    await create(client, "a")
    await run(client, "exit 2", "a")
    listed: Any = await get(client, "/process/session")
    assert [session["sessionId"] for session in listed] == ["b", "a"]
    assert listed[0] == {"sessionId": "b", "commands": []}
    assert listed[1]["ended"] is True
    assert listed[1]["commands"][0]["exitCode"] == 2


BAD_CREATES = [
    (b"", "INVALID_REQUEST_BODY"),
    (b"{", "INVALID_REQUEST_BODY"),
    (b"[]", "INVALID_REQUEST_BODY"),
    (b"{}", "INVALID_REQUEST_BODY"),
    (b'{"sessionId": ""}', "INVALID_REQUEST_BODY"),
    (b'{"sessionId": 5}', "INVALID_REQUEST_BODY"),
    (b'{"sessionId": null}', "INVALID_REQUEST_BODY"),
    (b'{"sessionId": "x", "env": {"A": 1}}', "INVALID_REQUEST_BODY"),
    (b'{"sessionId": "x", "env": []}', "INVALID_REQUEST_BODY"),
    (b'{"sessionId": "x", "env": {"A": "\\u0000"}}', "INVALID_REQUEST_BODY"),
    (b'{"sessionId": "x", "cwd": 1}', "INVALID_REQUEST_BODY"),
    (b'{"sessionId": "x", "env": {"1A": "x"}}', "BAD_REQUEST"),
    (b'{"sessionId": "x", "envs": {"A=B": "x"}}', "BAD_REQUEST"),
    (b'{"sessionId": "entrypoint"}', "BAD_REQUEST"),
    (b'{"sessionId": "../x"}', "BAD_REQUEST"),
    (b'{"sessionId": "a/b"}', "BAD_REQUEST"),
    (b'{"sessionId": ".."}', "BAD_REQUEST"),
    (b'{"sessionId": "."}', "BAD_REQUEST"),
    (b'{"sessionId": "a\\nb"}', "BAD_REQUEST"),
    (b'{"sessionId": "a\\u0000b"}', "BAD_REQUEST"),
    (b'{"sessionId": "a\\u007f"}', "BAD_REQUEST"),
    (b'{"sessionId": "%s"}' % (b"x" * 256), "BAD_REQUEST"),
]


async def test_bad_create(procd: MakeClient) -> None:
    client = await procd()
    for body, code in BAD_CREATES:
        async with client.post("/process/session", data=body) as reply:
            await refused(reply, 400, code)
    assert await get(client, "/process/session") == []  # type: ignore[comparison-overlap]  # a list


@pytest.mark.parametrize(
    "session_id",
    ["a$(touch y)", "with spaces in it", "`id`", "'\"\\", "-rf", "ü€", "a~:@b.c", "{x}", "x" * 255],
)
async def test_id_is_only_a_name(procd: MakeClient, tmp_path: Path, session_id: str) -> None:
    client = await procd(sessions={"state_dir": str(tmp_path), "grace_s": 0.2})
    await create(client, session_id, cwd=str(tmp_path))
    body = await run(client, "pwd", session_id)
    assert body["output"] == f"{tmp_path}\n"
    assert (await logs(client, body["cmdId"], session_id))["stdout"] == f"{tmp_path}\n"
    assert (await get(client, f"/process/session/{session_id}"))["sessionId"] == session_id
    await delete(client, session_id)
    (root,) = tmp_path.iterdir()
    assert list(root.glob("[0-9]*")) == []


async def test_create_takes_cwd_and_environment(procd: MakeClient, tmp_path: Path) -> None:
    client = await procd()
    fields = {"env": {"A": "1", "B": "x  y\n"}, "envs": {"A": "2"}}
    await create(client, "s", cwd=str(tmp_path), **fields)
    body = await run(client, 'pwd; echo "$A$B"')
    assert body["stdout"] == f"{tmp_path}\n2x  y\n\n"


@each(("version", "at_home"), [("0.102.9", True), ("0.103.0", False), ("", False)])
async def test_where_a_session_starts(
    procd: MakeClient, monkeypatch: pytest.MonkeyPatch, version: str, at_home: bool
) -> None:
    monkeypatch.setenv("HOME", "/usr")
    client = await procd(process={"work_dir": "/etc"})
    headers = {VERSION: version} if version else {}
    body = {"sessionId": "s"}
    async with client.post("/process/session", json=body, headers=headers) as reply:
        assert reply.status == 201
    assert (await run(client, "pwd"))["output"] == ("/usr\n" if at_home else "/etc\n")


async def test_failed_create_leaves_no_session(procd: MakeClient, tmp_path: Path) -> None:
    client = await procd(sessions={"state_dir": str(tmp_path)})
    body = {"sessionId": "s", "cwd": "/nonexistent"}
    async with client.post("/process/session", json=body) as reply:
        await refused(reply, 500, "INTERNAL_SERVER_ERROR")
    (root,) = tmp_path.iterdir()
    assert list(root.glob("[0-9]*")) == []
    await create(client)
    missing = await procd(process={"shell": "/nonexistent"})
    async with missing.post("/process/session", json={"sessionId": "s"}) as reply:
        await refused(reply, 500, "INTERNAL_SERVER_ERROR")
    async with missing.get("/process/session/s") as reply:
        await refused(reply, 404, "PROCESS_NOT_FOUND")


BAD_EXECS = [
    (b"", "INVALID_REQUEST_BODY"),
    (b"nonsense", "INVALID_REQUEST_BODY"),
    (b"{}", "INVALID_REQUEST_BODY"),
    (b'{"command": null}', "INVALID_REQUEST_BODY"),
    (b'{"command": ["a"]}', "INVALID_REQUEST_BODY"),
    (b'{"command": "\\ud800"}', "INVALID_REQUEST_BODY"),
    (b'{"command": "true", "runAsync": "yes"}', "INVALID_REQUEST_BODY"),
    (b'{"command": "true", "async": 1}', "INVALID_REQUEST_BODY"),
    (b'{"command": "true", "suppressInputEcho": 0}', "INVALID_REQUEST_BODY"),
    (b'{"command": "true", "timeout": -1}', "INVALID_REQUEST_BODY"),
    (b'{"command": "true", "timeout": 1.5}', "INVALID_REQUEST_BODY"),
    (b'{"command": "  \\n\\t "}', "BAD_REQUEST"),
]


async def test_bad_exec(procd: MakeClient) -> None:
    client = await procd()
    await create(client)
    for body, code in BAD_EXECS:
        async with client.post("/process/session/s/exec", data=body) as reply:
            await refused(reply, 400, code)
    assert (await get(client, "/process/session/s"))["commands"] == []


async def test_unknown(procd: MakeClient) -> None:
    client = await procd()
    await create(client)
    await refused(await post_exec(client, "true", "nope"), 404, "PROCESS_NOT_FOUND")
    for path in (
        "/process/session/nope",
        path_of("x", "nope"),
        path_of("x"),
        path_of("x") + "/logs",
        "/process/session/entrypoint",
        "/process/session/entrypoint/logs",
        path_of("entrypoint_command", "entrypoint"),
    ):
        async with client.get(path) as reply:
            await refused(reply, 404, "PROCESS_NOT_FOUND")
    for action in ("input", "signal", "terminate"):
        for session_id in ("s", "nope"):
            url = f"{path_of('x', session_id)}/{action}"
            async with client.post(url, json={"data": "x", "signal": "INT"}) as reply:
                await refused(reply, 404, "PROCESS_NOT_FOUND")


@pytest.mark.parametrize("field", ["runAsync", "async"])
async def test_replies(procd: MakeClient, field: str) -> None:
    client = await procd()
    await create(client)
    fields: dict[str, Any] = {field: True}
    reply = await post_exec(client, "echo a; echo b >&2; (exit 4)", **fields)
    body = await reply.json()
    command_id = body.pop("cmdId")
    nothing = dict.fromkeys(("output", "stdout", "stderr", "exitCode"))
    assert (reply.status, body) == (202, nothing)
    assert (await ended(client, command_id))["exitCode"] == 4
    body = await run(client, "echo a; echo b >&2; (exit 4)")
    del body["cmdId"]
    assert sorted(body.pop("output")) == sorted("a\nb\n")
    assert body == {"stdout": "a\n", "stderr": "b\n", "exitCode": 4}


async def test_command_goes_on_without_its_client(
    procd: MakeClient, alive: Fifo, gate: Gate
) -> None:
    client = await procd()
    await create(client)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(
            post_exec(client, f"echo here >{alive}; read x <{gate}; echo done")
        )
        assert await alive.line() == "here"
        waiting.cancel()
    gate.open()
    (command,) = (await get(client, "/process/session/s"))["commands"]
    assert (await ended(client, command["id"]))["exitCode"] == 0
    assert (await logs(client, command["id"]))["output"] == "done\n"


async def test_state_is_private(procd: MakeClient, tmp_path: Path) -> None:
    client = await procd(sessions={"state_dir": str(tmp_path)})
    await create(client)
    await run(client, "echo secret")
    (root,) = tmp_path.iterdir()
    (directory,) = root.glob("[0-9]*")
    assert (root.stat().st_mode & 0o777, directory.stat().st_mode & 0o777) == (0o700, 0o700)
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}
    sessions = client.app[SESSIONS]
    await sessions.aclose()
    assert list(tmp_path.iterdir()) == []


async def with_entrypoint(aiohttp_client: Any, *argv: str, shell: str = "") -> TestClient[Any, Any]:
    """A server that was started with a command."""
    config = from_mapping({"sessions": {"grace_s": 0.2}, "process": {"shell": shell}})
    app = create_app(config, entrypoint=argv)
    client: TestClient[Any, Any] = await aiohttp_client(DaemonServer(app, config))
    return client


ENTRYPOINT = path_of("entrypoint_command", "entrypoint")


async def test_entrypoint(aiohttp_client: Any) -> None:
    client = await with_entrypoint(aiohttp_client, "printf", "[%s]\n", "a  b", "$HOME'\"", "")
    shown = await get(client, ENTRYPOINT + "?wait=20")
    assert shown["exitCode"] == 0
    session = await get(client, "/process/session/entrypoint")
    assert (session["sessionId"], session["commands"]) == ("entrypoint", [shown])
    for path in ("/process/session/entrypoint/logs", ENTRYPOINT + "/logs"):
        body = await get(client, path)
        assert body["stdout"] == "[a  b]\n[$HOME'\"]\n[]\n"
    assert await get(client, "/process/session") == []  # type: ignore[comparison-overlap]  # a list
    async with client.get("/process/session/entrypoint/logs") as reply:
        assert (await reply.read())[:5] == b"\x01\x01\x01[a", "never without markers"
    async with client.get(ENTRYPOINT + "/logs") as reply:
        assert (await reply.read())[:2] == b"[a"
    listener = await follow(
        client, "", path="/process/session/entrypoint/logs", headers={}, labelled=True
    )
    assert (await listener.to_end()).startswith(b"[a  b]")


async def test_an_entrypoint_that_is_not_text(aiohttp_client: Any, shell: str) -> None:
    """Its arguments arrive byte by byte, and its command can be told, and run as it is told."""
    argument = b"a\xff\xfe'\x80\xe9\xc3\xa9$HOME"
    argv = ("printf", "%s|", os.fsdecode(argument))
    client = await with_entrypoint(aiohttp_client, *argv, shell=shell)
    shown = await get(client, ENTRYPOINT + "?wait=20")
    await create(client)
    again = await run(client, shown["command"])
    for session_id, command_id in (("entrypoint", shown["id"]), ("s", again["cmdId"])):
        listener = await follow(client, command_id, session_id)
        assert await listener.to_end() == argument + b"|"


async def test_entrypoint_is_not_to_be_touched(aiohttp_client: Any) -> None:
    client = await with_entrypoint(aiohttp_client, "sleep", "1000")
    await refused(await post_exec(client, "true", "entrypoint"), 400, "BAD_REQUEST")
    async with client.delete("/process/session/entrypoint") as reply:
        await refused(reply, 400, "BAD_REQUEST")
    for action in ("input", "signal", "terminate"):
        body = {"data": "x", "signal": "TERM"}
        async with client.post(f"{ENTRYPOINT}/{action}", json=body) as reply:
            await refused(reply, 400, "BAD_REQUEST")
    async with client.post("/process/session", json={"sessionId": "entrypoint"}) as reply:
        await refused(reply, 400, "BAD_REQUEST")
    assert "exitCode" not in await get(client, ENTRYPOINT, **MODERN)
