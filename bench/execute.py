"""POST /process/execute, beside posix_spawn and a pipe."""

import json
import os
import signal
import subprocess
import time
from contextlib import ExitStack
from typing import Final

from bench.http import latencies, rate
from bench.programs import SHELL, Place, Program, environment
from bench.report import Report, percentile
from bench.wire import Http, read_all, request

SCRIPT: Final = "true"
OUTPUT_BYTES: Final = 50_000_000
LINE: Final = "The quick brown fox jumps over the lazy dog, again and again."
# The first makes its text, as most programs do; the others repeat it as fast as a pipe takes it, of
# which the last is as much work to encode as text can be.
OUTPUT_SCRIPTS: Final = {
    "output of 50 MB": f"seq 10000000 | head -c {OUTPUT_BYTES}",
    "output of 50 MB at pipe speed": f"yes '{LINE}' | head -c {OUTPUT_BYTES}",
    "output of 50 MB, every other byte a newline": f"yes | head -c {OUTPUT_BYTES}",
}


class Spawner:
    """The spawn floor's process."""

    def __init__(self, place: Place) -> None:
        self._process = place.helper("bench.spawner", SCRIPT)

    def measure(self, in_flight: int, seconds: float) -> tuple[float, list[float]]:
        """Rate, and the latency of each in seconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{in_flight} {seconds}\n")
        speed, taken = json.loads(self._process.stdout.readline())
        return speed, taken

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def measure(report: Report, place: Place, procd: Program, rounds: int) -> None:
    """The rows of this group."""
    report.start("execute")
    spawner = Spawner(place)
    execute = request("POST", "/process/execute", {"command": SCRIPT})
    floor50: list[float] = []
    floor99: list[float] = []
    p50: list[float] = []
    p99: list[float] = []
    for _ in range(rounds):
        _, taken = spawner.measure(1, 1.0)
        floor50.append(percentile(taken, 50) * 1000)
        floor99.append(percentile(taken, 99) * 1000)
        taken = latencies(procd.port, execute, 1.5)
        p50.append(percentile(taken, 50) * 1000)
        p99.append(percentile(taken, 99) * 1000)
    report.add(
        "execute `true`, p50", "ms", p50, floor_name="spawn", floors=floor50,
        target="<= floor + 1.0 ms", met=lambda _, more: more <= 1.0,
    )  # fmt: skip
    report.add("execute `true`, p99", "ms", p99, floor_name="spawn", floors=floor99)
    for clients in (1, 8, 32):
        # The machine's speed varies by more than what a target leaves.
        floors, rates = rates_of(spawner, procd, clients, rounds if clients == 1 else rounds * 3)
        name = f"execute a second, {clients} client{'s' * (clients > 1)}"
        if clients == 1:
            report.add(name, "/s", rates, floor_name="spawn", floors=floors)
        else:
            report.add(
                name, "/s", rates, floor_name=f"spawn, {clients} in flight", floors=floors,
                target=">= 0.70", met=lambda ratio, _: ratio >= 0.7,
            )  # fmt: skip
    spawner.close()


def rates_of(
    spawner: Spawner, procd: Program, clients: int, rounds: int
) -> tuple[list[float], list[float]]:
    """Of each round: starts a second, so many in flight; and commands, with so many clients."""
    execute = request("POST", "/process/execute", {"command": SCRIPT})
    floors: list[float] = []
    rates: list[float] = []
    for _ in range(rounds):
        floors.append(spawner.measure(clients, 1.0)[0])
        rates.append(rate(procd.port, execute, clients, 1.5))
    return floors, rates


def measure_busy(report: Report, place: Place, procd: Program, rounds: int) -> None:
    """The rows of this group: beside as many programs that never rest as there are processors."""
    report.start("busy")
    spawner = Spawner(place)
    with ExitStack() as others:
        for _ in range(os.cpu_count() or 1):
            never_rests = subprocess.Popen(
                (SHELL, "-c", "while :; do :; done"), start_new_session=True, cwd=place.home
            )
            others.callback(never_rests.wait)
            others.callback(never_rests.kill)
        for clients in (1, 8, 32):
            floors, rates = rates_of(spawner, procd, clients, rounds)
            name = f"execute a second where all is busy, {clients} client{'s' * (clients > 1)}"
            report.add(name, "/s", rates, floor_name=f"spawn, {clients} in flight", floors=floors)
    spawner.close()


def measure_output(report: Report, place: Place, procd: Program, rounds: int) -> None:
    """The rows of this group."""
    report.start("output")
    check_output(procd.port)
    connection = Http(procd.port)
    for name, script in OUTPUT_SCRIPTS.items():
        execute = request("POST", "/process/execute", {"command": script, "timeout": 0})
        connection.count(execute)
        floors: list[float] = []
        figures: list[float] = []
        for _ in range(rounds):
            floors.append(raw_pipe(place, script))
            begin = time.perf_counter()
            if connection.count(execute) < OUTPUT_BYTES:
                raise RuntimeError("output is missing")
            figures.append(OUTPUT_BYTES / 1e6 / (time.perf_counter() - begin))
        report.add(
            name, "MB/s", figures, floor_name="raw pipe", floors=floors,
            target=">= 0.35", met=lambda ratio, _: ratio >= 0.35,
        )  # fmt: skip
    connection.close()
    procd.settle(quiet_s=2.5)  # it gives back what was freed when it has been quiet for a second
    report.add("memory after these", "MiB", [procd.rss_kib / 1024])


def check_output(port: int) -> None:
    """See once that the reply is whole, by a command that prints so much that it is streamed."""
    connection = Http(port)
    script = f"yes '{LINE}' | head -c 300000; echo é >&2"
    reply = b""
    wanted = {"command": script, "split": True}
    connection.sock.sendall(request("POST", "/process/execute", wanted))
    while not reply.endswith(b"\r\n0\r\n\r\n"):
        reply += connection.sock.recv(1 << 20)
    connection.close()
    body = b""
    rest = reply.partition(b"\r\n\r\n")[2]
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    document = json.loads(body)
    whole = (f"{LINE}\n" * (1 + 300000 // len(LINE)))[:300000]
    if document["stdout"] != whole or document["stderr"] != "é\n":
        raise RuntimeError("the output is not what was printed")


def raw_pipe(place: Place, script: str) -> float:
    """MB/s of the same command, read from its pipe and thrown away."""
    reading, writing = os.pipe()
    begin = time.perf_counter()
    pid = os.posix_spawn(
        SHELL, (SHELL, "-c", script), environment(place.home), setsigdef=(signal.SIGPIPE,),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0),
            (os.POSIX_SPAWN_DUP2, writing, 1),
        ],
    )  # fmt: skip
    os.close(writing)
    total = read_all(reading)
    os.waitpid(pid, 0)
    taken = time.perf_counter() - begin
    os.close(reading)
    if total != OUTPUT_BYTES:
        raise RuntimeError("output is missing")
    return OUTPUT_BYTES / 1e6 / taken
