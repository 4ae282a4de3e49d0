"""Shell sessions, beside the same shell at the end of a pipe."""

import os
import selectors
import signal
import socket
import time
from datetime import datetime
from typing import Final

from bench.execute import LINE
from bench.http import latencies
from bench.programs import SHELL, Place, Program, environment
from bench.report import Report, median, percentile
from bench.wire import BUFFER_BYTES, FrameCounter, Http, WebSocket, read_all, request

FOLLOWERS: Final = 10
FOLLOWED_BYTES: Final = 200_000_000
LIVE_BYTES: Final = 20_000_000
MARKER_BYTES: Final = 3


class Shell:
    """A shell that is fed and read over pipes: what a session can't be faster than."""

    def __init__(self, place: Place) -> None:
        theirs_in, self._input = os.pipe()
        self._output, theirs_out = os.pipe()
        self._pid = os.posix_spawn(
            SHELL, (SHELL,), environment(place.home),
            file_actions=[
                (os.POSIX_SPAWN_DUP2, theirs_in, 0),
                (os.POSIX_SPAWN_DUP2, theirs_out, 1),
            ],
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)

    def round_trip(self, script: bytes) -> float:
        """Seconds from a line to the word that it is done."""
        begin = time.perf_counter()
        os.write(self._input, script + b"\necho\n")
        os.read(self._output, 4096)
        return time.perf_counter() - begin

    def close(self) -> None:
        """End it."""
        os.close(self._input)
        os.waitpid(self._pid, 0)
        os.close(self._output)


def raw_pipe(place: Place, script: str) -> float:
    """Seconds to run a script and read what it prints."""
    reading, writing = os.pipe()
    begin = time.perf_counter()
    pid = os.posix_spawn(
        SHELL, (SHELL, "-c", script), environment(place.home), setsigdef=(signal.SIGPIPE,),
        file_actions=[(os.POSIX_SPAWN_DUP2, writing, 1)],
    )  # fmt: skip
    os.close(writing)
    read_all(reading)
    os.waitpid(pid, 0)
    os.close(reading)
    return time.perf_counter() - begin


def drain(followers: list[WebSocket]) -> list[FrameCounter]:
    """Read all connections until each has had a close frame."""
    counters = {follower.sock: FrameCounter() for follower in followers}
    for follower in followers:
        counters[follower.sock].feed(memoryview(follower.take()))
    buffer = memoryview(bytearray(BUFFER_BYTES))
    left = len(followers)
    with selectors.EpollSelector() as ready:
        for sock, counter in counters.items():
            if counter.closed:
                left -= 1
            else:
                ready.register(sock, selectors.EVENT_READ)
        while left:
            for key, _ in ready.select():
                one = key.fileobj
                assert isinstance(one, socket.socket)
                got = one.recv_into(buffer)
                counters[one].feed(buffer[:got])
                if not got or counters[one].closed:
                    ready.unregister(one)
                    left -= 1
    return list(counters.values())


def printing(size: int) -> str:
    """A script that prints so many bytes of text."""
    return f"yes '{LINE}' | head -c {size}"


def measure(report: Report, place: Place, procd: Program, server: Program, rounds: int) -> None:
    """The rows of this group."""
    report.start("shells")
    client = Http(procd.port)
    path = "/process/session/bench"
    client.exchange(request("POST", "/process/session", {"sessionId": "bench"}))
    _measure_commands(report, place, procd, server, rounds, path)
    _measure_follow(report, place, procd, rounds, path)
    client.exchange(request("DELETE", path))
    _measure_life(report, procd, client, place, rounds)
    client.close()


def _measure_commands(
    report: Report, place: Place, procd: Program, server: Program, rounds: int, path: str
) -> None:
    shell = Shell(place)
    execute = request("POST", f"{path}/exec", {"command": "true"})
    floors: list[float] = []
    figures: list[float] = []
    for _ in range(rounds):
        http = latencies(server.port, request("GET", "/"), 0.5)
        trips = [shell.round_trip(b"true") for _ in range(500)]
        floors.append((percentile(http, 50) + percentile(trips, 50)) * 1000)
        figures.append(percentile(latencies(procd.port, execute, 1.0), 50) * 1000)
    shell.close()
    report.add(
        "session `true`, p50", "ms", figures, floor_name="HTTP + shell", floors=floors,
        target="<= floor + 1.0 ms", met=lambda _, more: more <= 1.0,
    )  # fmt: skip
    execute = request("POST", f"{path}/exec", {"command": "seq 100000"})
    connection = Http(procd.port)
    floors, figures = [], []
    for _ in range(rounds * 5):
        floors.append(raw_pipe(place, "seq 100000") * 1000)
        begin = time.perf_counter()
        connection.count(execute)
        figures.append((time.perf_counter() - begin) * 1000)
    connection.close()
    report.add(
        "session `seq 100000`", "ms", figures, floor_name="raw pipe", floors=floors,
        target="<= 1.50", met=lambda ratio, _: ratio <= 1.5,
    )  # fmt: skip


def _start(client: Http, path: str, script: str) -> str:
    reply = client.call("POST", f"{path}/exec", {"command": script, "runAsync": True})
    return f"{path}/command/{reply['cmdId']}"


def _measure_follow(report: Report, place: Place, procd: Program, rounds: int, path: str) -> None:
    client = Http(procd.port)
    command = _start(client, path, printing(FOLLOWED_BYTES))
    client.call("GET", f"{command}?wait=60")
    floors: list[float] = []
    figures: list[float] = []
    for _ in range(rounds):
        floors.append(FOLLOWED_BYTES / 1e6 / raw_pipe(place, printing(FOLLOWED_BYTES)))
        begin = time.perf_counter()
        follower = WebSocket(procd.port, f"{command}/logs?follow=true")
        (counter,) = drain([follower])
        figures.append(FOLLOWED_BYTES / 1e6 / (time.perf_counter() - begin))
        follower.close()
        if counter.payload_bytes != FOLLOWED_BYTES:
            raise RuntimeError(f"output is missing: {counter.payload_bytes}")
    report.add(
        "follow of a 200 MB log", "MB/s", figures, floor_name="raw pipe", floors=floors,
        target=">= 0.50", met=lambda ratio, _: ratio >= 0.5,
    )  # fmt: skip
    alone: list[float] = []
    followed: list[float] = []
    for _ in range(rounds):
        command = _start(client, path, printing(LIVE_BYTES))
        alone.append(_taken(client.call("GET", f"{command}?wait=60")))
        command = _start(client, path, f"read x; {printing(LIVE_BYTES)}")
        followers = [WebSocket(procd.port, f"{command}/logs?follow=true") for _ in range(FOLLOWERS)]
        begin = time.time()
        client.exchange(request("POST", f"{command}/input", {"data": "go"}))
        drain(followers)
        ended = client.call("GET", command)["endedAt"]
        followed.append(_moment(ended) - begin)
        for follower in followers:
            follower.close()
    report.add(
        "20 MB with ten followers", "s", followed, floor_name="without", floors=alone,
        target="<= 1.50", met=lambda ratio, _: ratio <= 1.5,
    )  # fmt: skip
    late: list[float] = []
    for _ in range(rounds * 5):
        command = _start(client, path, "read x; echo done")
        follower = WebSocket(procd.port, f"{command}/logs?follow=true")
        client.exchange(request("POST", f"{command}/input", {"data": "go"}))
        drain([follower])
        closed = time.time()
        late.append((closed - _moment(client.call("GET", command)["endedAt"])) * 1000)
        follower.close()
    report.add("close after the end", "ms", late, target="<= 20", met=lambda *_: median(late) <= 20)
    client.close()


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _taken(command: dict[str, str]) -> float:
    return _moment(command["endedAt"]) - _moment(command["startedAt"])


def _measure_life(report: Report, procd: Program, client: Http, place: Place, rounds: int) -> None:
    floors: list[float] = []
    creates: list[float] = []
    deletes: list[float] = []
    for index in range(rounds * 20):
        begin = time.perf_counter()
        shell = Shell(place)
        floors.append((time.perf_counter() - begin) * 1000)
        shell.close()
        begin = time.perf_counter()
        client.exchange(request("POST", "/process/session", {"sessionId": f"life{index}"}))
        created = time.perf_counter()
        client.exchange(request("DELETE", f"/process/session/life{index}"))
        creates.append((created - begin) * 1000)
        deletes.append((time.perf_counter() - created) * 1000)
    report.add(
        "session create, p50", "ms", creates, floor_name="spawn alone", floors=floors,
        target="<= floor + 1.5 ms", met=lambda _, more: more <= 1.5,
    )  # fmt: skip
    report.add("idle session delete", "ms", deletes, target="<= 10",
               met=lambda *_: median(deletes) <= 10)  # fmt: skip


def measure_many(report: Report, place: Place, sessions: int) -> None:
    """Many sessions with ten finished commands each, in a daemon of their own."""
    report.start("many shells")
    with place.procd() as procd:
        client = Http(procd.port)
        before = 0
        for index in range(sessions + 1):
            client.exchange(request("POST", "/process/session", {"sessionId": f"s{index}"}))
            for _ in range(10):
                client.call("POST", f"/process/session/s{index}/exec", {"command": "true"})
            if not index:
                procd.settle()
                before = procd.rss_kib
        procd.settle()
        each = (procd.rss_kib - before) / sessions
        report.add(f"memory of a session, {sessions} of them", "KiB", [each], target="<= 60",
                   met=lambda *_: each <= 60)  # fmt: skip
        listing = request("GET", "/process/session")
        ticks = procd.cpu_ticks
        count = 20
        for _ in range(count):
            client.count(listing)
        cpu = (procd.cpu_ticks - ticks) * 1000 / os.sysconf("SC_CLK_TCK") / count
        report.add("list of them, CPU", "ms", [cpu], target="< 50", met=lambda *_: cpu < 50)
        client.close()
