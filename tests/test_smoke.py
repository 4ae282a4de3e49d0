"""One look at each part through a real socket."""

from tests.aliases import MakeClient


async def test_execute(procd: MakeClient) -> None:
    client = await procd()
    reply = await client.post(
        "/process/execute", json={"command": "echo out; echo err >&2; exit 3"}
    )
    assert reply.status == 200
    body = await reply.json()
    assert body == {"exitCode": 3, "result": "out\nerr\n"}


async def test_pty(procd: MakeClient) -> None:
    client = await procd()
    assert (await client.post("/process/pty", json={"id": "t1"})).status == 201
    ws = await client.ws_connect("/process/pty/t1/connect")
    assert (await ws.receive_json())["status"] == "connected"
    await ws.send_bytes(b"exit 3\n")
    while not ws.closed:
        await ws.receive()
    assert ws.close_code == 1011
