"""The control plane of a procd that stands alone, as any client of HTTP sees it."""

import asyncio
import json
import shlex
from typing import Any

import aiohttp
import pytest

from procd.http.connection import CONNECTION_LIMIT
from procd.http.control_plane import SANDBOX
from procd.services.sandbox import State
from tests.aliases import Client, MakeClient
from tests.api.access import Secrets, guarded
from tests.api.clients import WAIT_S, Fifo, Gate, execute, raw
from tests.waiting import until

# What the clients refuse a sandbox without, and the types that they check.
REQUIRED = {
    "id": str, "organizationId": str, "name": str, "user": str, "target": str,
    "toolboxProxyUrl": str, "env": dict, "labels": dict, "public": bool, "networkBlockAll": bool,
    "kvm": bool, "cpu": int, "gpu": int, "memory": int, "disk": int,
}  # fmt: skip
REQUIRED_OF_V2 = {
    "id": str, "name": str, "class": str, "status": str, "region": str, "port_map": list,
    "cpu": int, "memory_mib": int, "disk_mib": int, "labels": dict, "created_at": str,
    "toolbox_proxy_url": str,
}  # fmt: skip


async def call(
    client: Client, method: str, path: str, document: object = None, status: int = 200
) -> Any:
    # Not by TestClient, which takes what follows two slashes for a host.
    url = f"http://{client.host}:{client.port}{path}"
    async with client.session.request(method, url, json=document) as reply:
        text = await reply.text()
        assert reply.status == status, text
        return json.loads(text) if text else None


def check_types(sandbox: dict[str, Any], required: dict[str, type]) -> None:
    wrong = {key: sandbox.get(key) for key, kind in required.items()
             if type(sandbox.get(key)) is not kind}  # fmt: skip
    assert wrong == {}


@pytest.mark.parametrize("prefix", ["", "/api", "/"])
async def test_it_is_there_from_the_start(procd: MakeClient, prefix: str) -> None:
    client = await procd()
    sandbox = await call(client, "GET", f"{prefix}/sandbox/local")
    check_types(sandbox, REQUIRED)
    assert (sandbox["id"], sandbox["name"], sandbox["state"]) == ("local", "local", "started")
    assert sandbox["labels"] == {"code-toolbox-language": "python"}
    assert sandbox["toolboxProxyUrl"] == f"http://{client.host}:{client.port}/toolbox"
    assert await call(client, "GET", f"{prefix}/sandbox") == {
        "items": [sandbox], "nextCursor": None, "total": 1,
    }  # fmt: skip
    path = f"/toolbox/{sandbox['id']}/process/execute"
    assert (await call(client, "POST", path, {"command": "echo it"}))["result"] == "it\n"
    sandbox = await call(client, "GET", f"{prefix}/sandboxes/local")
    check_types(sandbox, REQUIRED_OF_V2)
    assert sandbox["status"] == "running"
    assert sandbox["toolbox_proxy_url"] == f"http://{client.host}:{client.port}/toolbox"


async def test_what_is_given_at_creation_comes_back(procd: MakeClient) -> None:
    client = await procd()
    given = {
        "name": "box", "labels": {"team": "x", "code-toolbox-language": "typescript"},
        "env": {"A": "1"}, "public": True, "snapshot": "snap", "target": "eu", "user": "daytona",
        "autoStopInterval": 0.5, "autoArchiveInterval": 60, "autoDeleteInterval": 0,
        "networkBlockAll": True, "volumes": [{"volumeId": "v", "mountPath": "/d"}],
    }  # fmt: skip
    sandbox = await call(client, "POST", "/sandbox", given)
    check_types(sandbox, REQUIRED)
    kept = [name for name in given if name not in ("networkBlockAll", "volumes")]
    assert {name: sandbox[name] for name in kept} == {name: given[name] for name in kept}
    assert (sandbox["networkBlockAll"], sandbox["volumes"]) == (False, [])
    assert await call(client, "GET", "/sandbox/box") == sandbox
    again = await call(client, "POST", "/sandbox", {"env": {}})
    assert (again["name"], again["labels"], again["env"]) == (
        "local", {"code-toolbox-language": "python"}, {},
    )  # fmt: skip
    error = await call(client, "GET", "/sandbox/box", status=404)
    assert (error["code"], error["source"]) == ("NOT_FOUND", "DAYTONA_API")


async def test_a_strange_language_is_not_passed_on(procd: MakeClient) -> None:
    client = await procd()
    body = {"labels": {"code-toolbox-language": "cobol"}}
    sandbox = await call(client, "POST", "/sandbox", body)
    assert sandbox["labels"] == {"code-toolbox-language": "python"}


async def variable(client: Client, name: str) -> str:
    result: str = (await execute(client, f"echo ${name}"))["result"]
    return result.strip()


async def test_variables_of_creation(procd: MakeClient) -> None:
    """They hold until the next creation or the end, and leave what was there before as it was."""
    client = await procd()
    path = await variable(client, "PATH")
    env = {"PATH": f"/nowhere:{path}", "A": "1", "B": "1"}
    await call(client, "POST", "/sandbox", {"env": env})
    assert await variable(client, "PATH") == f"/nowhere:{path}"
    await call(client, "POST", "/env", {"set": {"A": "2"}, "unset": ["B"]})
    await call(client, "POST", "/env", {"env": {"D": "4"}, "unset": []})
    assert await variable(client, "D") == "4"
    assert (await variable(client, "A"), await variable(client, "B")) == ("2", "")
    await call(client, "POST", "/sandboxes", {"env": {"C": "3"}}, status=201)
    assert (await variable(client, "PATH"), await variable(client, "C")) == (path, "3")
    await call(client, "DELETE", "/sandbox/local")
    assert (await variable(client, "C"), await variable(client, "A")) == ("", "2")


@pytest.mark.parametrize(
    "body", [{"env": {"A-B": "1"}}, {"env": {"A": "x" * (1 << 17)}}, {"labels": {"a": 1}},
             {"autoStopInterval": "soon"}, {"public": "yes"}, [], {"env": ["A=1"]}],
)  # fmt: skip
async def test_a_bad_creation_changes_nothing(procd: MakeClient, body: object) -> None:
    client = await procd()
    before = await call(client, "POST", "/sandbox", {"name": "box", "env": {"A": "1"}})
    error = await call(client, "POST", "/sandbox", body, status=400)
    assert error["source"] == "DAYTONA_API"
    assert await call(client, "GET", "/sandbox/local") == before
    assert await variable(client, "A") == "1"


async def set_up(client: Client) -> None:
    """One of each kind, in use."""
    await call(client, "POST", "/process/session", {"sessionId": "s"}, status=201)
    await call(
        client, "POST", "/process/session/s/exec", {"command": "sleep 99", "async": True}, 202
    )
    await call(client, "POST", "/process/pty", {"id": "t"}, status=201)
    await call(client, "POST", "/process/interpreter/context", {})
    await in_default_context(client, "x = 1")


async def in_default_context(client: Client, code: str) -> str:
    """What the code prints."""
    printed = ""
    async with client.ws_connect("/process/interpreter/execute") as socket:
        await socket.send_json({"code": code})
        async for message in socket:
            if message.type is aiohttp.WSMsgType.TEXT:
                frame = json.loads(message.data)
                printed += frame.get("text", "") if frame["type"] == "stdout" else ""
    return printed


async def left(client: Client) -> tuple[int, int, int, str]:
    return (
        len(await call(client, "GET", "/process/session")),
        len((await call(client, "GET", "/process/pty"))["sessions"]),
        len((await call(client, "GET", "/process/interpreter/context"))["contexts"]),
        (await in_default_context(client, "print('x' in globals())")).strip(),
    )


@pytest.mark.parametrize(
    ("method", "path", "state"),
    [("DELETE", "/sandbox/local", "destroyed"), ("POST", "/sandbox/local/stop", "stopped"),
     ("DELETE", "/sandboxes/local", "destroyed"), ("POST", "/sandboxes/local/stop", "stopped")],
)  # fmt: skip
async def test_the_end_ends_all_that_runs(
    procd: MakeClient, alive: Fifo, method: str, path: str, state: str
) -> None:
    client = await procd()
    await set_up(client)
    assert await left(client) == (1, 1, 1, "True")
    command = asyncio.ensure_future(execute(client, f"echo up >{alive}; sleep 99 >{alive}"))
    assert await alive.line() == "up"
    async with client.request(method, path) as reply:
        assert reply.status in (200, 204)
        if reply.status == 200 and method == "DELETE":
            assert (await reply.json())["state"] == "destroyed"
    assert (await command)["exitCode"] == 137
    await alive.ended()
    assert await left(client) == (0, 0, 0, "False")
    assert (await call(client, "GET", "/sandbox/local"))["state"] == state
    listed = (await call(client, "GET", "/sandbox"))["items"]
    assert [each["state"] for each in listed] == ([] if state == "destroyed" else [state])
    assert (await call(client, "POST", "/sandbox/local/start"))["state"] == "started"


async def test_the_end_goes_on_without_its_client(
    procd: MakeClient, gate: Gate, alive: Fifo
) -> None:
    """What is told to end has its time of grace."""
    client = await procd(sessions={"grace_s": float(WAIT_S)})
    await call(client, "POST", "/process/session", {"sessionId": "s"}, status=201)
    leave = f"read x <{gate}; echo told >{alive}; exit"
    script = f"trap '{leave}' TERM; echo up >{alive}; read x <>{gate}"
    command = {"command": f"sh -c {shlex.quote(script)}", "async": True}
    await call(client, "POST", "/process/session/s/exec", command, status=202)
    assert await alive.line() == "up"
    connections = client.app[CONNECTION_LIMIT]
    before = len(connections)
    async with raw(client) as bare:
        await bare.send(b"DELETE /sandbox/local HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await until(lambda: client.app[SANDBOX].state is State.DESTROYED)
        await bare.leave()
    await until(lambda: len(connections) == before)
    await execute(client, "true")  # by now it would have been killed
    gate.open(2)  # if the first passes before it has the signal
    assert await alive.line() == "told"
    await alive.ended()


async def test_a_creation_leaves_what_runs(procd: MakeClient) -> None:
    client = await procd()
    await set_up(client)
    await call(client, "POST", "/sandbox", {})
    assert await left(client) == (1, 1, 1, "True")


async def test_settings(procd: MakeClient) -> None:
    client = await procd()
    sandbox: dict[str, Any] = {}
    labels = {"labels": {"a": "b"}}
    assert await call(client, "PUT", "/sandbox/local/labels", labels) == labels
    for path, name, minutes in (
        ("autostop", "autoStopInterval", 15), ("autopause", "autoPauseInterval", 5),
        ("autoarchive", "autoArchiveInterval", 60), ("autodelete", "autoDeleteInterval", -1),
    ):  # fmt: skip
        sandbox = await call(client, "POST", f"/sandbox/local/{path}/{minutes}")
        assert sandbox[name] == minutes
        await call(client, "POST", f"/sandbox/local/{path}/soon", status=400)
    assert (await call(client, "POST", "/sandbox/local/public/true"))["public"] is True
    await call(client, "POST", "/sandbox/local/last-activity", {}, status=201)
    assert sandbox["labels"] == {"a": "b", "code-toolbox-language": "python"}


@pytest.mark.parametrize(
    ("query", "found"),
    [("", True), ('labels={"a":"b"}', True), ('labels={"a":"c"}', False), ("labels=null", True),
     ("id=lo", True), ("id=x", False), ("name=bo", True), ("name=lo", False),
     ("states=started", True), ("states=stopped,started", True), ("states=stopped", False),
     ("cursor=2", False), ("limit=1&sort=name&order=asc", True)],
)  # fmt: skip
async def test_filters_of_lists(procd: MakeClient, query: str, found: bool) -> None:
    client = await procd()
    await call(client, "POST", "/sandbox", {"name": "box", "labels": {"a": "b"}})
    expected = ["local"] if found else []
    for path, key in (("/sandbox", "items"), ("/sandbox/paginated", "items"),
                      ("/sandboxes", "sandboxes"), ("/sandboxes/search", "sandboxes")):  # fmt: skip
        items = (await call(client, "GET", f"{path}?{query}"))[key]
        assert [item["id"] for item in items] == expected
    await call(client, "GET", "/sandbox?labels=[", status=400)


async def test_previews(procd: MakeClient) -> None:
    client = await procd()
    preview = await call(client, "GET", "/sandbox/local/ports/3000/preview-url")
    url = f"http://{client.host}:3000"
    assert preview == {"sandboxId": "local", "url": url, "token": ""}
    signed = await call(client, "GET", "/sandbox/local/ports/3000/signed-preview-url")
    assert signed == {"sandboxId": "local", "port": 3000, "url": url, "token": ""}
    await call(client, "GET", "/sandbox/local/ports/70000/preview-url", status=400)


async def test_what_one_machine_does_not_have(procd: MakeClient) -> None:
    client = await procd()
    for method, path, source in (
        ("GET", "/volumes", "DAYTONA_API"), ("GET", "/volumes/by-name/v", "DAYTONA_API"),
        ("POST", "/snapshots", "DAYTONA_API"), ("POST", "/sandbox/local/archive", "DAYTONA_API"),
        ("GET", "/sandboxes/local/images", "DAYTONA_API"), ("GET", "/files", "DAYTONA_DAEMON"),
        ("POST", "/toolbox/local/files/bulk-upload", "DAYTONA_DAEMON"),
        ("POST", "/toolbox/local/git/clone", "DAYTONA_DAEMON"),
        ("POST", "/toolbox/local/lsp/start", "DAYTONA_DAEMON"),
    ):  # fmt: skip
        error = await call(client, method, path, {}, status=501)
        assert (error["code"], error["source"]) == ("NOT_SUPPORTED", source)
        assert "Daytona's clients" in error["message"]


@pytest.mark.parametrize("enabled", ["false", False])
async def test_switched_off(procd: MakeClient, enabled: object) -> None:
    client = await procd(standalone={"enabled": enabled})
    await call(client, "GET", "/sandbox/local", status=404)
    await call(client, "GET", "/socket.io", status=404)
    await call(client, "GET", "/git/status", status=501)


async def test_behind_a_gateway_it_is_off_unless_it_is_wanted(procd: MakeClient) -> None:
    proxies = {"trusted_proxies": ["127.0.0.1"]}
    client = await procd(server=proxies)
    await call(client, "GET", "/sandbox/local", status=404)
    client = await procd(server=proxies, standalone={"enabled": "true", "sandbox_id": "box-1"})
    headers = {"X-Forwarded-Host": "sandboxes.example", "X-Forwarded-Proto": "https"}
    async with client.get("/sandbox/box-1", headers=headers) as reply:
        assert (await reply.json())["toolboxProxyUrl"] == "https://sandboxes.example/toolbox"


async def packet(socket: aiohttp.ClientWebSocketResponse) -> tuple[str, dict[str, Any]]:
    """The type of the next packet and what it has."""
    text: str = await socket.receive_str()
    kind = text.rstrip().partition("{")[0]
    return kind, json.loads(text[len(kind) :])


async def test_the_event_socket(procd: MakeClient) -> None:
    client = await procd()
    async with client.ws_connect("/socket.io/?EIO=4&transport=websocket") as socket:
        kind, opening = await packet(socket)
        assert kind == "0"
        assert opening.keys() == {"sid", "upgrades", "pingInterval", "pingTimeout", "maxPayload"}
        await socket.send_str('40{"token":"anything"}')
        assert (await packet(socket))[0] == "40"
        await socket.send_str("41")
        assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE


@pytest.mark.parametrize(
    "message", ['40{"token":"wrong"}', "40{}", "40", "40[", "hello", '40{"token":1}']
)
async def test_the_event_socket_wants_a_token(
    procd: MakeClient, secrets: Secrets, message: str
) -> None:
    client = await guarded(procd, secrets)
    async with client.ws_connect("/socket.io/?EIO=4&transport=websocket") as socket:
        await packet(socket)
        await socket.send_str(message)
        assert await packet(socket) == ("44", {"message": "Unauthorized"})
        assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
    async with client.ws_connect("/socket.io/?EIO=4&transport=websocket") as socket:
        await packet(socket)
        await socket.send_str("40" + json.dumps({"token": secrets.read}))
        assert (await packet(socket))[0] == "40"
