"""POST /process/execute: contract, section 6."""

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from procd.services.execute import TIMEOUT_OUTPUT_BYTES
from tests.aliases import MakeClient
from tests.api.clients import (
    WAIT_S,
    Fifo,
    Gate,
    Raw,
    each,
    execute,
    program,
    random_base64,
    raw,
    refused,
    sha256,
)

# Prints its arguments, each when procd has read the one before: `1:text` on stdout, `2:text` on
# stderr, with Python's escapes.
STEPS = """
import array, fcntl, os, sys, termios
for argument in sys.argv[1:]:
    stream, text = argument.split(":", 1)
    os.write(int(stream), text.encode().decode("unicode_escape").encode("latin-1"))
    left = array.array("i", [1])
    while left[0]:
        fcntl.ioctl(int(stream), termios.FIONREAD, left)
        os.sched_yield()
"""


def steps(directory: Path, *arguments: str) -> str:
    """A command that prints these arguments one by one."""
    path = directory / "steps.py"
    path.write_text(STEPS)
    return " ".join([sys.executable, "-S", str(path), *(f"'{argument}'" for argument in arguments)])


async def test_fields_of_the_reply(procd: MakeClient) -> None:
    client = await procd()
    body = await execute(client, "echo out; echo err >&2")
    assert body == {"exitCode": 0, "result": "out\nerr\n"}
    assert await execute(client, "echo out; echo err >&2", split=False) == body
    body = await execute(client, "echo out; echo err >&2", split=True)
    assert body.keys() == {"exitCode", "result", "stdout", "stderr"}
    assert (body["stdout"], body["stderr"]) == ("out\n", "err\n")
    for split in ("yes", 1, "true"):
        document = {"command": "true", "split": split}
        async with client.post("/process/execute", json=document) as reply:
            await refused(reply, 400, "INVALID_REQUEST_BODY")


@each(
    ("command", "code"),
    [
        ("exit 0", 0),
        ("exit 3", 3),
        ("exit 255", 255),
        ("false", 1),
        ("no-such-command-anywhere", 127),
        ("/etc/passwd", 126),
        ("kill -KILL $$", 137),
        ("kill -TERM $$", 143),
        ("kill -SEGV $$", 139),
        ("sh -c 'kill -KILL $$'; exit $?", 137),
        ("if", 2),
    ],
)
async def test_exit_code(procd: MakeClient, command: str, code: int) -> None:
    client = await procd(process={"shell": "/bin/bash"})  # codes differ for what can't be read
    assert (await execute(client, command))["exitCode"] == code


@each(
    ("command", "result"),
    [
        ("for i in 1 2 3; do echo $i; echo -$i >&2; done", "1\n-1\n2\n-2\n3\n-3\n"),
        ("set -x; echo a; cd /; echo b", "+ echo a\na\n+ cd /\n+ echo b\nb\n"),
        (
            "for i in {1..1000}; do echo $i; echo -$i >&2; done",
            "".join(f"{n}\n-{n}\n" for n in range(1, 1001)),
        ),
        (
            f"{sys.executable} -uc '"
            "import sys\nfor n in range(500): print(n); print(-n, file=sys.stderr)'",
            "".join(f"{n}\n{-n}\n" for n in range(500)),
        ),
    ],
)
async def test_order_of_both_streams(procd: MakeClient, command: str, result: str) -> None:
    """It is exact, as both go to one pipe."""
    client = await procd(process={"shell": "/bin/bash"})
    assert (await execute(client, command))["result"] == result


@each(
    ("arguments", "texts"),
    [
        (("1:\\xc3", "1:\\xa9"), ("é", "é", "")),
        (("1:\\xf0\\x9f", "1:\\x98", "1:\\x80!"), ("😀!", "😀!", "")),
        (("1:\\xe2\\x82", "2:-", "1:\\xac"), ("-€", "€", "-")),
        (("1:a\\xff", "1:b\\xc3"), ("a\ufffdb\ufffd", "a\ufffdb\ufffd", "")),
        (("1:\\xc3", "2:\\xa9"), ("\ufffd\ufffd", "\ufffd", "\ufffd")),
        (("2:\\xed\\xa0\\x80.",), ("\ufffd\ufffd\ufffd.", "", "\ufffd\ufffd\ufffd.")),
        (("1:\\x00\\x01\\x1b\\x7f\\r",), ("\x00\x01\x1b\x7f\r", "\x00\x01\x1b\x7f\r", "")),
        (('1:"\\\\</>&',), ('"\\</>&', '"\\</>&', "")),
        (("1:a\\n", "2:b\\n", "1:c\\n", "2:d", "1:e"), ("a\nb\nc\nde", "a\nc\ne", "b\nd")),
    ],
)
async def test_text_of_bytes(
    procd: MakeClient, tmp_path: Path, arguments: tuple[str, ...], texts: tuple[str, str, str]
) -> None:
    body = await execute(await procd(), steps(tmp_path, *arguments), split=True)
    assert (body["result"], body["stdout"], body["stderr"]) == texts


async def test_long_text_is_not_cut_in_characters(procd: MakeClient) -> None:
    # Every read but the first begins in the middle of a character.
    body = await execute(await procd(), "printf x; yes é | head -n 300000 | tr -d '\\n'")
    assert body["result"] == "x" + "é" * 300_000


@each(
    ("command", "result"),
    [
        ("cat <<END\nfirst $((1 + 1))\n  second\nEND\necho after", "first 2\n  second\nafter\n"),
        ("for i in 1 2\ndo\n  echo $i\ndone\n", "1\n2\n"),
        ("echo one # comment\n# another\necho two", "one\ntwo\n"),
        ('f() { echo "$@"; }; f \'a  b\' "c"', "a  b c\n"),
        ("\n\n  echo indented", "indented\n"),
        ("echo a \\\n  b", "a b\n"),
        ("echo $#", "0\n"),
        ("echo 'ü €'", "ü €\n"),
        ("case $- in *i*) echo interactive;; *) echo plain;; esac", "plain\n"),
        ("readlink /proc/self/fd/0; cat", "/dev/null\n"),
        ("echo nested | sh -c 'read x; echo $x'", "nested\n"),
        ("true", ""),
        ("printf '\\n \\n'", "\n \n"),
    ],
)
@each("padding", [0, 128 << 10, 10 << 20])
async def test_script(procd: MakeClient, command: str, result: str, padding: int) -> None:
    script = command + "\n" + "#" * padding
    assert (await execute(await procd(), script))["result"] == result


@each("closing", ["", " >/dev/null 2>&1"])
async def test_background_child_is_not_waited_for(procd: MakeClient, closing: str) -> None:
    client = await procd(execute={"default_timeout_s": 15})
    body = await execute(client, f"sleep 3600{closing} & echo x")
    assert (body["exitCode"], body["result"]) == (0, "x\n")


async def test_background_child_never_gets_sigpipe(
    procd: MakeClient, gate: Gate, alive: Fifo
) -> None:
    client = await procd()
    # More than a pipe holds.
    child = f"exec 9>{alive}; read x <{gate}; yes | head -c 1000000; echo status $? >&9"
    body = await execute(client, f"({child}) & echo x")
    assert body["result"] == "x\n"
    gate.open()
    assert await alive.line() == "status 0"
    await alive.ended()


async def test_output_just_before_the_exit_is_not_lost(procd: MakeClient, gate: Gate) -> None:
    command = f"(read x <{gate}) & yes | head -c 60000; echo last >&2"
    body = await execute(await procd(), command, split=True)
    gate.open()
    assert (len(body["stdout"]), body["stderr"]) == (60_000, "last\n")


ESCAPES = {
    "child": "sleep 3600",
    "setsid": "setsid sleep 3600",
    "orphan": "(setsid sh -c 'sleep 3600; :' &)",
    "double fork": "(sh -c 'setsid sh -c \"(env -i sleep 3600 &)\" &' &)",
    "ignoring": "setsid sh -c 'trap \"\" TERM HUP INT; sleep 3600; sleep 3600'",
    "stopped": "setsid sh -c 'kill -STOP $$; sleep 3600'",
}


@pytest.mark.parametrize("escape", ESCAPES)
async def test_timeout_kills_the_tree(procd: MakeClient, alive: Fifo, escape: str) -> None:
    client = await procd()
    command = (
        f"exec 9>{alive}; echo out; echo err >&2; {ESCAPES[escape]} & echo begun >&9; "
        "wait; sleep 3600"
    )
    async with client.post("/process/execute", json={"command": command, "timeout": 3}) as reply:
        body = await refused(reply, 408, "PROCESS_EXECUTION_TIMEOUT")
    assert body["message"] == "command execution timeout"
    assert body["result"] == "out\nerr\n"
    assert await alive.line() == "begun"
    await alive.ended()


async def test_timeout_with_a_long_output(procd: MakeClient) -> None:
    """The reply has its beginning and its end, as the SDKs wait only 5 s longer for it."""
    client = await procd(execute={"default_timeout_s": 2.0})
    command = "echo begin; echo once >&2; yes x | head -c 9000000; echo end; sleep 3600"
    document = {"command": command, "split": True}
    async with client.post("/process/execute", json=document) as reply:
        body = await refused(reply, 408, "PROCESS_EXECUTION_TIMEOUT")
    half = TIMEOUT_OUTPUT_BYTES // 2
    for text in (body["result"], body["stdout"]):
        head, number, tail = re.split(r"\n\[\.\.\. (\d+) bytes dropped \.\.\.\]\n", text)
        assert (head[:6], tail[-6:]) == ("begin\n", "x\nend\n")
        assert half - 5 <= len(head) <= half
        assert len(tail) == half
        assert int(number) == 9_000_010 + 5 * ("once" in text) - len(head) - len(tail)
    assert body["stderr"] == "once\n"
    assert body["truncated"] is True


async def test_command_has_a_process_group_and_no_terminal(procd: MakeClient) -> None:
    command = "[ $$ = $(cut -d' ' -f5 /proc/$$/stat) ] && cat </dev/tty"
    body = await execute(await procd(), command)
    assert body["exitCode"] == 1
    assert "o such device or address" in body["result"]


@each(
    ("sections", "timeouts"),
    [
        ({"default_timeout_s": 0.2}, [None]),
        ({"default_timeout_s": 0, "max_timeout_s": 0.2}, [None, 0, 3600]),
        ({"default_timeout_s": 3600, "max_timeout_s": 0.2}, [None, 0, (1 << 32) - 1]),
    ],
)
async def test_timeout_of_config(
    procd: MakeClient, sections: dict[str, Any], timeouts: list[int | None]
) -> None:
    client = await procd(execute=sections)
    for timeout in timeouts:
        document = {"command": "sleep 3600", "timeout": timeout}
        async with (
            asyncio.timeout(WAIT_S),
            client.post("/process/execute", json=document) as reply,
        ):
            await refused(reply, 408, "PROCESS_EXECUTION_TIMEOUT")


@pytest.mark.parametrize("default_timeout_s", [0, 0.2])
async def test_timeout_0_is_unlimited(
    procd: MakeClient, gate: Gate, alive: Fifo, default_timeout_s: float
) -> None:
    client = await procd(execute={"default_timeout_s": default_timeout_s})
    waits = f"echo begun >{alive}; read x <{gate}; echo passed"
    async with asyncio.TaskGroup() as group:
        unlimited = group.create_task(execute(client, waits, timeout=0))
        assert await alive.line() == "begun"
        # One that began later has timed out, so this one would have.
        document = {"command": "sleep 3600", "timeout": None if default_timeout_s else 1}
        async with client.post("/process/execute", json=document) as reply:
            await refused(reply, 408, "PROCESS_EXECUTION_TIMEOUT")
        assert not unlimited.done()
        gate.open()
    assert unlimited.result()["result"] == "passed\n"


@pytest.mark.parametrize("way", ["reset", "leave", "end input"])
async def test_disconnect_kills_the_tree(procd: MakeClient, alive: Fifo, way: str) -> None:
    client = await procd()
    command = f"exec 9>{alive}; {ESCAPES['orphan']} & echo begun >&9; wait; sleep 3600"
    body = f'{{"command": "{command.replace(chr(34), chr(92) + chr(34))}", "timeout": 0}}'.encode()
    async with raw(client) as rude:
        await rude.request(f"POST /process/execute HTTP/1.1\nContent-Length: {len(body)}", body)
        assert await alive.line() == "begun"
        if way == "reset":
            rude.reset()
        elif way == "leave":
            await rude.leave()
        else:
            rude.end_input()  # and wait longer than an answer may take then
        await alive.ended()
    assert (await execute(client, "echo fine"))["result"] == "fine\n"


async def replies(rude: Raw, count: int) -> list[str]:
    results = []
    for _ in range(count):
        status, headers = await rude.head()
        assert status == 200
        (size,) = (int(each.split()[1]) for each in headers if "Content-Length" in each)
        results.append(json.loads(await rude.exactly(size))["result"])
    return results


@each("count", [1, 40])
async def test_client_that_has_closed_its_half_is_answered(procd: MakeClient, count: int) -> None:
    """As with `printf 'GET …' | nc`."""
    client = await procd()
    async with raw(client) as rude:
        for number in range(count):
            body = json.dumps({"command": f"sleep 0.0{number % 2}; echo {number}"}).encode()
            head = f"POST /process/execute HTTP/1.1\nContent-Length: {len(body)}"
            await rude.request(head, body)
        rude.end_input()
        assert await replies(rude, count) == [f"{number}\n" for number in range(count)]
        assert await rude.rest() == b""


async def test_long_answer_to_a_client_that_has_closed_its_half(procd: MakeClient) -> None:
    client = await procd()
    body = json.dumps({"command": "head -c 20000000 /dev/zero | tr '\\0' z"}).encode()
    async with raw(client, receive_bytes=4096) as rude:
        await rude.request(f"POST /process/execute HTTP/1.1\nContent-Length: {len(body)}", body)
        status, _ = await rude.head()
        assert status == 200
        rude.end_input()
        assert (await rude.rest()).count(b"z") == 20_000_000


@each("connection", ["keep-alive", "close"])
async def test_long_answer_to_http_1_0(procd: MakeClient, connection: str) -> None:
    client = await procd()
    body = b'{"command": "yes | head -c 600000"}'
    async with raw(client) as old:
        head = "POST /process/execute HTTP/1.0\nContent-Length: {}\nConnection: {}"
        await old.request(head.format(len(body), connection), body)
        reply = (await old.rest()).partition(b"\r\n\r\n")[2]
    assert json.loads(reply)["result"] == "y\n" * 300_000


@each("extra", [0, 1, 9000])
async def test_output_above_the_limit(procd: MakeClient, extra: int) -> None:
    client = await procd(execute={"max_output_bytes": 2048})
    command = f"printf '%01024d' 1; yes -- - | tr -d '\\n' | head -c {extra}; printf '%01024d' 2"
    body = await execute(client, command)
    marker = f"\n[... {extra} bytes dropped ...]\n" if extra else ""
    assert body["result"] == f"{1:01024d}{marker}{2:01024d}"
    assert body.get("truncated") == (True if extra else None)
    assert body["exitCode"] == 0


async def test_long_output_is_truncated_and_drained(procd: MakeClient) -> None:
    client = await procd(execute={"max_output_bytes": 1 << 20})
    body = await execute(client, "yes 12345678 | head -c 90000000; echo end")
    dropped = 90_000_004 - (1 << 20)
    head, tail = body["result"].split(f"\n[... {dropped} bytes dropped ...]\n")
    assert head == ("12345678\n" * 60_000)[: 1 << 19]
    assert tail == ("12345678\n" * 60_000)[-(1 << 19) + 4 :] + "end\n"
    assert (body["truncated"], body["exitCode"]) == (True, 0)


@each(
    ("cwd", "words"),
    [
        ("/nowhere/at/all", "working directory does not exist: /nowhere/at/all"),
        ("/etc/passwd", "not a directory"),
    ],
)
async def test_bad_cwd(procd: MakeClient, cwd: str, words: str) -> None:
    body = await execute(await procd(), "echo ran", cwd=cwd)
    assert body["exitCode"] == -1
    assert words in body["result"]
    assert "ran" not in body["result"]


async def test_cwd(procd: MakeClient, tmp_path: Path) -> None:
    client = await procd(process={"work_dir": "/usr"})
    (tmp_path / "link").symlink_to("/usr")
    body = await execute(client, "pwd; pwd -P", cwd=str(tmp_path / "link"))
    assert body["result"] == f"{tmp_path}/link\n/usr\n"
    odd = tmp_path / "ü $x 'y'"
    odd.mkdir()
    assert (await execute(client, "pwd", cwd=str(odd)))["result"] == f"{odd}\n"
    for default in ("", None):
        assert (await execute(client, "pwd", cwd=default))["result"] == "/usr\n"


async def test_no_shell(procd: MakeClient, tmp_path: Path) -> None:
    path = tmp_path / "program"
    client = await procd(process={"shell": str(path)})
    body = await execute(client, "echo x")
    assert body["exitCode"] == -1
    assert str(path) in body["result"]
    path.write_bytes(b"not a program")
    path.chmod(0o755)
    assert (await execute(client, "echo x"))["exitCode"] == -1
    program(tmp_path, 'echo "$1"')
    assert (await execute(client, "echo x"))["result"] == "-c\n", "a shell that came is found"


async def test_envs(procd: MakeClient) -> None:
    envs = {"A": "1\n2", "_b9": "ü=x", "HOME": "/nowhere", "EMPTY": ""}
    client = await procd()
    body = await execute(
        client, 'printf "%s|" "$A" "$_b9" "$HOME" "${EMPTY-unset}"; env | wc -l', envs=envs
    )
    assert body["result"].startswith("1\n2|ü=x|/nowhere||")
    assert int(body["result"].rsplit("|", 1)[1]) > len(envs), "procd's own variables are there too"
    body = await execute(
        client, "echo $A $B $C", env={"A": "1", "B": "1"}, envs={"B": "2", "C": "2"}
    )
    assert body["result"] == "1 2 2\n", "env is another name, as in sessions"
    body = await execute(client, "echo x", envs={"A": "x" * (200 << 10)})
    assert body["exitCode"] == -1
    assert "too long" in body["result"]


async def test_no_setting_of_procd_reaches_the_command(
    procd: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROCD_LOG_LEVEL", "info")
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere")
    body = await execute(await procd(), "env | grep -E '^(PROCD_|NOTIFY_SOCKET)'")
    assert (body["exitCode"], body["result"]) == (1, "")


@each("name", ["A-B", "1A", "", "A B", "A=B", "Ü", "A\n"])
async def test_bad_environment_name(procd: MakeClient, tmp_path: Path, name: str) -> None:
    client = await procd()
    document = {"command": f"touch {tmp_path}/ran", "envs": {"GOOD": "1", name: "2"}}
    async with client.post("/process/execute", json=document) as reply:
        body = await refused(reply, 400, "BAD_REQUEST")
    assert body["message"] == f"invalid environment variable name: '{name}'"
    assert not (tmp_path / "ran").exists()


@each("blank", [" ", "\n", "\t\r\n ", "\u00a0\u2003"])
async def test_blank_command(procd: MakeClient, blank: str) -> None:
    client = await procd()
    async with client.post("/process/execute", json={"command": blank}) as reply:
        body = await refused(reply, 400, "BAD_REQUEST")
    assert body["message"] == "command cannot be empty or whitespace-only"


async def test_200_at_once(procd: MakeClient, gate: Gate, alive: Fifo) -> None:
    client = await procd()
    async with asyncio.TaskGroup() as group:
        runs = [
            group.create_task(
                execute(client, f"echo begun >{alive}; read x <{gate}; echo {i}; exit {i}")
            )
            for i in range(200)
        ]
        # aiohttp's client keeps at most 100 connections: the first half has to pass first.
        for half in range(2):
            for _ in range(100):
                assert await alive.line() == "begun"
            assert half or not any(run.done() for run in runs)
            gate.open(100)
    assert [(run.result()["exitCode"], run.result()["result"]) for run in runs] == [
        (i, f"{i}\n") for i in range(200)
    ]


async def test_20_mb_of_random_base64(procd: MakeClient, tmp_path: Path) -> None:
    client = await procd()
    data = random_base64(20 << 20)
    (tmp_path / "data").write_bytes(data)
    body = await execute(client, f"cat {tmp_path}/data; sha256sum <{tmp_path}/data >&2", split=True)
    assert sha256(body["stdout"].encode()) == sha256(data)
    assert body["stderr"].split()[0] == sha256(data)
    assert len(body["result"]) == len(body["stdout"]) + len(body["stderr"])


async def test_limit_of_commands_at_a_time(procd: MakeClient, gate: Gate, alive: Fifo) -> None:
    client = await procd(execute={"max_concurrent": 2})
    waits = f"echo begun >{alive}; read x <{gate}"
    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            _task = group.create_task(execute(client, waits))
            assert await alive.line() == "begun"
        async with client.post("/process/execute", json={"command": "true"}) as reply:
            await refused(reply, 429, "LIMIT_REACHED")
        gate.open(2)
    assert (await execute(client, "echo again"))["result"] == "again\n"
