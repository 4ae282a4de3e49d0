"""PTY sessions: echo, output to one client and to ten, and many that do nothing."""

import itertools
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from bench import terminal
from bench.programs import Place, Program
from bench.report import Report, median, percentile
from bench.wire import BUFFER_BYTES, FrameCounter, Http, WebSocket, frame

BYTE: Final = frame(b"x")
BYTE_BACK: Final = b"\x82\x01x"
CLIENTS: Final = 10
READERS: Final = 2
ATTACHED: Final = 200
IDLE_S: Final = 3.0

NAMES: Final = itertools.count(1)


@dataclass(slots=True)
class Session:
    """A session of the daemon's."""

    port: int
    name: str

    @classmethod
    def create(cls, port: int) -> "Session":
        """Make one."""
        session = cls(port, f"bench-{next(NAMES)}")
        http = Http(port)
        http.call("POST", "/process/pty", {"id": session.name})
        http.close()
        return session

    @property
    def path(self) -> str:
        """Where to attach."""
        return f"/process/pty/{self.name}/connect?replay=0"

    def attach(self) -> WebSocket:
        """Attach a client, from now on."""
        socket = WebSocket(self.port, self.path)
        socket.receive()  # `connected`
        return socket

    def run(self, script: str) -> WebSocket:
        """Attach and run a script that says when it is ready."""
        socket = self.attach()
        socket.send(script.encode() + b"\n")
        socket.receive_until(terminal.READY)
        return socket

    def delete(self) -> None:
        """End it."""
        http = Http(self.port)
        http.call("DELETE", f"/process/pty/{self.name}")
        http.close()


def echo_latencies(socket: WebSocket, count: int) -> list[float]:
    """A byte there and back, so many times; in seconds each."""
    taken: list[float] = []
    for _ in range(count):
        begin = time.perf_counter()
        socket.echo(BYTE, BYTE_BACK)
        taken.append(time.perf_counter() - begin)
    return taken


def echo_p50(socket: WebSocket, count: int) -> float:
    """The median, in milliseconds."""
    return percentile(echo_latencies(socket, count), 50) * 1000


def measure_echo(
    report: Report, place: Place, procd: Program, server: Program, rounds: int
) -> None:
    """The rows of this group."""
    report.start("echo")
    count = 1000
    session = Session.create(procd.port)
    typing = session.run(terminal.ECHO_SCRIPT)
    empty = WebSocket(server.port, "/echo")
    joined = WebSocket(server.port, "/join")
    raw = terminal.Terminal(place, terminal.ECHO_SCRIPT)
    for warm_up in (typing, empty, joined):
        echo_latencies(warm_up, count)
    terminal.echo_latencies(raw, count)
    ws50: list[float] = []
    ws99: list[float] = []
    pty50: list[float] = []
    pty99: list[float] = []
    joined50: list[float] = []
    joined99: list[float] = []
    p50: list[float] = []
    p99: list[float] = []
    for _ in range(rounds):
        for latencies, into50, into99 in (
            (echo_latencies(empty, count), ws50, ws99),
            (terminal.echo_latencies(raw, count), pty50, pty99),
            (echo_latencies(joined, count), joined50, joined99),
            (echo_latencies(typing, count), p50, p99),
        ):
            into50.append(percentile(latencies, 50) * 1000)
            into99.append(percentile(latencies, 99) * 1000)
    for each in (typing, empty, joined, raw):
        each.close()
    session.delete()
    report.add("floor: WebSocket echo, p50", "ms", ws50)
    report.add("floor: PTY round trip, p50", "ms", pty50)
    # The two together wake more processes than each alone: what the least of servers makes of that.
    both = [ws + raw for ws, raw in zip(ws50, pty50, strict=True)]
    report.add(
        "floor: WebSocket joined to PTY, p50", "ms", joined50,
        floor_name="WebSocket + PTY", floors=both,
    )  # fmt: skip
    report.add(
        "keystroke echo, p50", "ms", p50, floor_name="WebSocket + PTY", floors=both,
        target="<= 1.50", met=lambda ratio, _: ratio <= 1.5,
    )  # fmt: skip
    report.add("keystroke echo, p50, of joined", "ms", p50, floor_name="joined", floors=joined50)
    report.add(
        "keystroke echo, p99", "ms", p99, floor_name="WebSocket + PTY",
        floors=[ws + raw for ws, raw in zip(ws99, pty99, strict=True)],
    )  # fmt: skip


def one_client(port: int, size: int) -> float:
    """MB/s of a program's output to one client."""
    session = Session.create(port)
    socket = session.run(terminal.output_script(size))
    counter = FrameCounter()
    buffer = memoryview(bytearray(BUFFER_BYTES))
    sock, wanted = socket.sock, size + len(terminal.DONE)
    begin = time.perf_counter()
    socket.send(b"\n")
    while counter.payload_bytes < wanted:
        got = sock.recv_into(buffer)
        if not got:
            raise ConnectionError(f"closed after {counter.payload_bytes} bytes")
        counter.feed(buffer[:got])
    taken = time.perf_counter() - begin
    socket.close()
    session.delete()
    return size / 1e6 / taken


def ten_clients(place: Place, port: int, size: int) -> float:
    """MB/s of a program's output to ten clients, together."""
    session = Session.create(port)
    session.run(terminal.output_script(size)).close()
    readers = [
        place.helper(
            "bench.readers", str(port), session.path, str(CLIENTS // READERS),
            str(size + len(terminal.DONE)),
        )
        for _ in range(READERS)
    ]  # fmt: skip
    for reader in readers:
        _read(reader)
    begin = time.monotonic()
    _write(readers[0], "type\n")
    for reader in readers[1:]:
        _write(reader, "read\n")
    end = max(float(_read(reader)) for reader in readers)
    for reader in readers:
        reader.communicate("\n")
    session.delete()
    return CLIENTS * size / 1e6 / (end - begin)


def _read(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError("a reader has failed")
    return line


def _write(process: "subprocess.Popen[str]", line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line)


def measure_output(report: Report, place: Place, procd: Program, rounds: int) -> None:
    """The rows of this group."""
    report.start("stream")
    floors: list[float] = []
    one: list[float] = []
    ten: list[float] = []
    for _ in range(rounds):
        floors.append(terminal.read_rate(place, 100_000_000))
        one.append(one_client(procd.port, 100_000_000))
        ten.append(ten_clients(place, procd.port, 20_000_000))
    report.add(
        "one client, 100 MB", "MB/s", one, floor_name="PTY master", floors=floors,
        target=">= 0.80", met=lambda ratio, _: ratio >= 0.8,
    )  # fmt: skip
    report.add("ten clients, 20 MB each", "MB/s", ten, floor_name="PTY master", floors=floors)
    report.add(
        "ten clients : one client", "MB/s", ten, floor_name="one client", floors=one,
        target=">= 4.00", met=lambda ratio, _: ratio >= 4.0,
    )  # fmt: skip


def measure_idle(report: Report, place: Place, rounds: int, sessions: int) -> None:
    """The rows of this group: many idle sessions in one daemon, a lone one in another."""
    report.start("idle")
    count = 1000
    with place.procd() as lone, place.procd() as crowd:
        Session.create(crowd.port)
        crowd.settle()
        first_kib = crowd.rss_kib
        crowded = [Session.create(crowd.port) for _ in range(sessions - 1)]
        crowd.settle()
        per_session = (crowd.rss_kib - first_kib) / (sessions - 1)
        report.add(
            "memory of an idle session", "KiB", [per_session],
            target="<= 40", met=lambda kib, _: kib <= 40,
        )  # fmt: skip
        ticks = []
        for _ in range(2):
            before = crowd.cpu_ticks
            time.sleep(IDLE_S)
            ticks.append(float(crowd.cpu_ticks - before))
        report.add(
            "CPU while idle", "ticks in 3 s", ticks, target="0", met=lambda used, _: used == 0
        )
        one = Session.create(lone.port).run(terminal.ECHO_SCRIPT)
        among = crowded[sessions // 2].run(terminal.ECHO_SCRIPT)
        for each in (one, among):
            echo_latencies(each, count)
        floors: list[float] = []
        figures: list[float] = []
        for _ in range(rounds):
            floors.append(echo_p50(one, count))
            figures.append(echo_p50(among, count))
        report.add(
            "echo among idle sessions, p50", "ms", figures, floor_name="lone session",
            floors=floors, target="<= 1.30", met=lambda ratio, _: ratio <= 1.3,
        )  # fmt: skip
        for each in (one, among):
            each.close()
        begin = time.perf_counter()
    report.add("SIGTERM with these sessions", "s", [time.perf_counter() - begin])


def measure_attached(report: Report, place: Place, rounds: int) -> None:
    """The rows of this group: idle sessions with a client each."""
    report.start("attached")
    figures: list[float] = []
    for _ in range(min(rounds, 3)):
        with place.procd() as procd, ExitStack() as clients:
            clients.callback(Session.create(procd.port).attach().close)
            procd.settle()
            before = procd.rss_kib
            for _ in range(ATTACHED):
                clients.callback(Session.create(procd.port).attach().close)
            procd.settle()
            figures.append((procd.rss_kib - before) / ATTACHED)
    report.add("memory of an attached session", "KiB", [median(figures)])
