"""Request ids, and the line about a request."""

import logging

import pytest

from procd.logging import HumanFormatter, facts
from tests.aliases import MakeClient
from tests.api.clients import connect, create, delete

LOGGER = "procd.http.middleware"


async def test_an_id_for_each_request(procd: MakeClient) -> None:
    client = await procd()
    ids = []
    for path in ("/version", "/nowhere", "/process/pty/none", "/version"):
        async with client.get(path) as reply:
            ids.append(reply.headers["X-Request-Id"])
    assert len(set(ids)) == len(ids)
    assert all(ids)


async def test_the_id_of_a_client_is_kept_if_it_is_safe(procd: MakeClient) -> None:
    client = await procd()
    for given in "a", "0af7651916cd43dd8448eb211c80319c", "Root=1-67891233-abc", "x" * 128:
        async with client.get("/version", headers={"X-Request-Id": given}) as reply:
            assert reply.headers["X-Request-Id"] == given
    for given in "", "a b", "x" * 129, 'a"', "ü", "{}":
        async with client.get("/version", headers={"X-Request-Id": given}) as reply:
            assert reply.headers["X-Request-Id"] not in ("", given)


async def test_on_streams_and_upgrades(procd: MakeClient) -> None:
    client = await procd()
    headers = {"X-Request-Id": "mine"}
    command = {"command": "head -c 3000000 /dev/zero | tr '\\0' x"}
    async with client.post("/process/execute", json=command, headers=headers) as reply:
        assert reply.headers["Transfer-Encoding"] == "chunked"
        assert reply.headers["X-Request-Id"] == "mine"
        assert len((await reply.json())["result"]) == 3_000_000
    await create(client, "t1")
    async with client.ws_connect("/process/pty/t1/connect", headers=headers) as ws:
        assert ws.get_extra_info("peername")
        assert ws._response.headers["X-Request-Id"] == "mine"
    await delete(client, "t1")


def lines(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [each for each in caplog.records if each.name == LOGGER]


async def test_a_line_for_each_request(procd: MakeClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger=LOGGER)
    client = await procd()
    async with client.get("/toolbox/box/process/pty/s3cret?token=s3cret") as reply:
        assert reply.status == 404
    (line,) = lines(caplog)
    told = facts(line)
    assert float(str(told.pop("duration_ms"))) > 0
    assert told == {
        "method": "GET", "route": "/process/pty/{id}", "status": 404, "client": "127.0.0.1",
    }  # fmt: skip


async def test_the_client_behind_a_proxy(
    procd: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger=LOGGER)
    client = await procd(server={"trusted_proxies": ["127.0.0.0/8"]})
    await client.get("/version", headers={"X-Forwarded-For": "1.2.3.4, 203.0.113.9, 127.0.0.2"})
    (line,) = lines(caplog)
    assert facts(line)["client"] == "203.0.113.9"


async def test_no_line_unless_asked_for(
    procd: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger=LOGGER)
    client = await procd()
    await client.get("/version")
    assert not lines(caplog)


class Keeper(logging.Handler):
    """Keeps lines as they are formatted."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.setFormatter(HumanFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


async def test_the_id_is_in_the_lines_of_its_request(procd: MakeClient) -> None:
    client = await procd()
    keeper = Keeper()
    logger = logging.getLogger("procd.services.pty.session")
    logger.addHandler(keeper)
    logger.setLevel(logging.INFO)
    try:
        fields, headers = {"id": "t1"}, {"X-Request-Id": "first"}
        async with client.post("/process/pty", json=fields, headers=headers) as reply:
            assert reply.status == 201
        terminal = await connect(client, "t1")
        await delete(client, "t1")
        await terminal.to_end()
    finally:
        logger.removeHandler(keeper)
        logger.setLevel(logging.NOTSET)
    started = keeper.lines[0]
    assert started.startswith("INFO procd.services.pty")
    assert "pty started request_id=first pty=t1 pid=" in started
