"""HTTP alone: the least a request costs, in an empty aiohttp server and in procd."""

import selectors
import socket
import time
from typing import Final

from bench.programs import Place, Program
from bench.report import Report, percentile
from bench.wire import Http, complete, request

TOKEN: Final = "b" * 32


def latencies(port: int, whole_request: bytes, seconds: float) -> list[float]:
    """One request after another, in seconds each."""
    connection = Http(port)
    for _ in range(20):
        connection.exchange(whole_request)
    taken: list[float] = []
    begin = before = time.perf_counter()
    while before - begin < seconds:
        connection.exchange(whole_request)
        now = time.perf_counter()
        taken.append(now - before)
        before = now
    connection.close()
    return taken


def rate(port: int, whole_request: bytes, clients: int, seconds: float) -> float:
    """Requests a second from so many clients at a time."""
    connections = [Http(port) for _ in range(clients)]
    done = 0
    partial: dict[socket.socket, bytes] = {}
    with selectors.EpollSelector() as ready:
        for connection in connections:
            ready.register(connection.sock, selectors.EVENT_READ)
            connection.sock.sendall(whole_request)
        begin = now = time.perf_counter()
        while now - begin < seconds:
            for key, _ in ready.select():
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                reply = partial.pop(sock, b"") + sock.recv(65536)
                if not complete(reply):
                    partial[sock] = reply
                    continue
                if not reply.startswith(b"HTTP/1.1 200"):
                    raise RuntimeError(reply.decode())
                done += 1
                sock.sendall(whole_request)
            now = time.perf_counter()
    for connection in connections:
        connection.close()
    time.sleep(0.1)  # what was under way ends here, and not in the next round
    return done / (now - begin)


def measure_gate(report: Report, place: Place, rounds: int) -> None:
    """What it costs a request to show its token, be counted and get its id."""
    report.start("gate")
    version = request("GET", "/version")
    shown = version.replace(b"\r\n", f"\r\nAuthorization: Bearer {TOKEN}\r\n".encode(), 1)
    floors: list[float] = []
    figures: list[float] = []
    with place.procd(PROCD_AUTH_TOKEN=TOKEN) as gated, place.ungated() as bare:
        for _ in range(rounds * 4):
            floors.append(percentile(latencies(bare.port, version, 0.5), 50) * 1e6)
            figures.append(percentile(latencies(gated.port, shown, 0.5), 50) * 1e6)
    report.add(
        "gate, metrics and request id", "us", figures, floor_name="without", floors=floors,
        target="<= floor + 30 us", met=lambda _, more: more <= 30,
    )  # fmt: skip


def measure(report: Report, procd: Program, server: Program, rounds: int) -> None:
    """The rows of this group."""
    report.start("HTTP")
    floors: list[float] = []
    floor_rates: list[float] = []
    figures: list[float] = []
    rates: list[float] = []
    for _ in range(rounds):
        least = request("GET", "/constant")
        version = request("GET", "/version")
        floors.append(percentile(latencies(server.port, least, 0.5), 50) * 1000)
        figures.append(percentile(latencies(procd.port, version, 0.5), 50) * 1000)
        floor_rates.append(rate(server.port, least, 32, 0.5))
        rates.append(rate(procd.port, version, 32, 0.5))
    report.add("GET /version, p50", "ms", figures, floor_name="aiohttp constant", floors=floors)
    report.add(
        "GET a second, 32 clients", "/s", rates, floor_name="aiohttp constant", floors=floor_rates
    )
