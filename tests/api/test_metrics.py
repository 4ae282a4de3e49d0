"""GET /metrics: what is counted, and that what a client chooses never becomes a label."""

import asyncio
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

from procd.app import ROUTES
from tests.aliases import Client, MakeClient
from tests.api.clients import (
    WAIT_S,
    Fifo,
    Gate,
    connect,
    create,
    delete,
    each,
    execute,
    json_body,
    raw,
    refused,
)

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


async def scrape(client: Client) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """All samples, by name and labels."""
    async with client.get("/metrics") as reply:
        assert reply.status == 200
        assert reply.headers["Content-Type"].startswith("text/plain; version=")
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(await reply.text())
            for sample in family.samples
        }


def value(samples: Samples, name: str, **labels: str) -> float:
    """One sample; 0 if it isn't there."""
    return samples.get((name, frozenset(labels.items())), 0.0)


def requests(samples: Samples, method: str, route: str, status: int) -> float:
    """How many requests of one route were answered so."""
    return value(
        samples, "procd_http_requests_total", method=method, route=route, status=str(status)
    )


async def test_requests_by_pattern_and_status(procd: MakeClient) -> None:
    client = await procd()
    for path in ("/process/pty/a", "/process/pty/b/", "/toolbox/box/process/pty/c"):
        async with client.get(path) as reply:
            assert reply.status == 404
    async with client.get("/version") as reply:
        assert reply.status == 200
    samples = await scrape(client)
    assert requests(samples, "GET", "/process/pty/{id}", 404) == 3
    assert requests(samples, "GET", "/version", 200) == 1
    labels = {"method": "GET", "route": "/process/pty/{id}"}
    name = "procd_http_request_duration_seconds"
    assert value(samples, f"{name}_count", **labels) == 3
    assert value(samples, f"{name}_bucket", le="+Inf", **labels) == 3
    assert value(samples, f"{name}_bucket", le="60.0", **labels) == 3
    assert 0 < value(samples, f"{name}_sum", **labels) < 3 * WAIT_S


async def test_no_label_is_a_client_s_choice(procd: MakeClient) -> None:
    client = await procd()
    for method, path in (("GET", "/a"), ("PROPFIND", "/b"), ("GET", "/process/nowhere/at/all")):
        async with client.request(method, path) as reply:
            assert reply.status == 404
    samples = await scrape(client)
    assert requests(samples, "any", "unmatched", 404) == 3
    patterns = {route.path for route in ROUTES} | {"unmatched"}
    routes = {dict(labels).get("route", "unmatched") for _, labels in samples}
    assert routes <= patterns


async def test_a_client_that_goes_is_counted(procd: MakeClient, alive: Fifo, gate: Gate) -> None:
    client = await procd()
    command = f"echo here > {alive}; read x < {gate}"
    running = asyncio.create_task(client.post("/process/execute", json={"command": command}))
    async with asyncio.timeout(WAIT_S):
        assert await alive.line() == "here"
        samples = await scrape(client)
        assert value(samples, "procd_executes") == 1
        assert value(samples, "procd_processes") == 1
        running.cancel()
        await asyncio.wait([running])
        await alive.ended()
        while requests(await scrape(client), "POST", "/process/execute", 499) != 1:
            await asyncio.sleep(0)
    assert value(await scrape(client), "procd_executes") == 0


async def test_what_lives(procd: MakeClient) -> None:
    client = await procd()
    before = await scrape(client)
    for name in ("executes", "processes", "ptys", "sessions", "websockets", "log_bytes"):
        assert before[f"procd_{name}", frozenset()] == 0
    await create(client, "t1")
    async with client.post("/process/session", json={"sessionId": "s1"}) as reply:
        assert reply.status == 201
    async with client.post("/process/session/s1/exec", json={"command": "echo 123"}) as reply:
        assert reply.status == 200
    terminal = await connect(client, "t1")
    samples = await scrape(client)
    assert value(samples, "procd_ptys") == 1
    assert value(samples, "procd_sessions") == 1
    assert value(samples, "procd_processes") == 2
    assert value(samples, "procd_websockets") == 1
    assert value(samples, "procd_log_bytes") >= 4
    assert value(samples, "procd_spawn_duration_seconds_count") == 2
    assert 0 < value(samples, "procd_spawn_duration_seconds_sum") < WAIT_S
    assert 0 < value(samples, "procd_loop_lag_seconds") < WAIT_S
    await delete(client, "t1")
    await terminal.to_end()
    async with client.delete("/process/session/s1") as reply:
        assert reply.status == 204
    samples = await scrape(client)
    for name in ("ptys", "sessions", "processes", "log_bytes"):
        assert value(samples, f"procd_{name}") == 0
    # A WebSocket is counted, but how long it was open is no latency.
    labels = {"method": "GET", "route": "/process/pty/{id}/connect"}
    assert requests(samples, "GET", "/process/pty/{id}/connect", 101) == 1
    assert value(samples, "procd_http_request_duration_seconds_count", **labels) == 0


async def test_memory_for_output(procd: MakeClient) -> None:
    """How near the limit it is, which procd may have set itself, is told before work is refused."""
    most, size = 8 << 20, 600_000
    client = await procd(process={"max_total_output_bytes": most})
    samples = await scrape(client)
    assert value(samples, "procd_output_memory_limit_bytes") == most
    assert value(samples, "procd_output_memory_bytes") == 0
    await create(client, "t1", lazyStart=True, envs={f"A{n}": "x" * (size // 6) for n in range(6)})
    assert size < value(await scrape(client), "procd_output_memory_bytes") < most
    await delete(client, "t1")
    assert value(await scrape(client), "procd_output_memory_bytes") == 0


@each("resets", [False, True])
async def test_a_client_that_goes_without_a_close(procd: MakeClient, resets: bool) -> None:
    """What it had was a WebSocket, whose time is no latency."""
    client = await procd()
    await create(client, "t1")
    async with raw(client) as peer:
        await peer.upgrade("/process/pty/t1/connect")
        if resets:
            peer.reset()
    async with asyncio.timeout(WAIT_S):
        while value(samples := await scrape(client), "procd_websockets") != 0:
            pass
    route = "/process/pty/{id}/connect"
    assert requests(samples, "GET", route, 101) == 1
    assert requests(samples, "GET", route, 499) == 0
    labels = {"method": "GET", "route": route}
    assert value(samples, "procd_http_request_duration_seconds_count", **labels) == 0
    await delete(client, "t1")


async def test_bytes(procd: MakeClient) -> None:
    client = await procd(process={"shell": "/bin/sh"})
    size = 3_000_000  # streamed
    body = await execute(client, f"head -c {size} /dev/zero | tr '\\0' x")
    assert len(body["result"]) == size
    async with client.post("/process/execute", data=json_body({"command": "x" * size})):
        pass
    await create(client, "t1")
    terminal = await connect(client, "t1")
    await terminal.type(b"stty -echo; echo re''ady\n")
    await terminal.until(lambda output: b"ready" in output)
    samples = await scrape(client)
    sent, received = "procd_sent_bytes_total", "procd_received_bytes_total"
    assert value(samples, sent, transport="http") > size
    assert value(samples, received, transport="http") > size
    assert value(samples, sent, transport="websocket") > len(b"ready")
    assert value(samples, received, transport="websocket") == len(b"stty -echo; echo re''ady\n")
    await delete(client, "t1")


async def test_openmetrics_if_asked(procd: MakeClient) -> None:
    client = await procd()
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    async with client.get("/metrics", headers=accept) as reply:
        assert reply.headers["Content-Type"].startswith("application/openmetrics-text")
        assert (await reply.text()).endswith("# EOF\n")


async def test_about_procd_itself(procd: MakeClient) -> None:
    samples = await scrape(await procd())
    assert value(samples, "process_open_fds") > 0
    assert [labels for name, labels in samples if name == "procd_build_info"]


async def test_switched_off(procd: MakeClient) -> None:
    client = await procd(metrics={"enabled": False})
    async with client.get("/metrics") as reply:
        await refused(reply, 404, "NOT_FOUND")
