"""Interpreter contexts, beside an aiohttp WebSocket and the same Python without procd."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Final

from bench.programs import Place, Program, environment
from bench.report import Report, median, percentile
from bench.wire import BUFFER_BYTES, CLOSE, FrameCounter, Http, WebSocket, parse_header

# The system's where there is one: what it takes of memory and time differs from build to build.
PYTHON: Final = shutil.which("python3", path="/usr/bin:/usr/local/bin:/bin") or "python3"
COUNTED: Final = 200_000
PRINTING: Final = f"for i in range({COUNTED}): print(i)"
# A write for each line, as a context makes: what isn't written may be lost with the process.
LINE_BY_LINE: Final = f"import sys; sys.stdout.reconfigure(line_buffering=True)\n{PRINTING}"
PRINTED: Final = "".join(f"{number}\n" for number in range(COUNTED))
CONTEXTS: Final = 100
PATH: Final = "/process/interpreter"


def execute(port: int, code: str, context_id: str = "default") -> float:
    """Run code over a connection of its own; seconds until it is said to be over."""
    begin = time.perf_counter()
    socket = WebSocket(port, f"{PATH}/execute")
    socket.send(json.dumps({"code": code, "contextId": context_id}).encode())
    opcode, payload = socket.receive()
    while opcode != CLOSE:
        opcode, payload = socket.receive()
    taken = time.perf_counter() - begin
    socket.close()
    if payload != b"\x03\xe8":  # 1000, and no reason
        raise RuntimeError(f"closed: {payload!r}")
    return taken


def echo(port: int) -> float:
    """Connect and send what a server sends back: seconds."""
    begin = time.perf_counter()
    socket = WebSocket(port, "/echo")
    socket.send(b"pass")
    socket.receive()
    taken = time.perf_counter() - begin
    socket.close()
    return taken


def start_up(place: Place) -> float:
    """Seconds in which Python starts, prints and ends."""
    begin = time.perf_counter()
    subprocess.run(
        (PYTHON, "-c", "print(1)"), check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
        env=environment(place.home), cwd=place.home,
    )  # fmt: skip
    return time.perf_counter() - begin


def raw_rate(place: Place, script: str = PRINTING) -> float:
    """MB/s at which Python prints into a pipe, from its first byte on."""
    reading, writing = os.pipe()
    pid = os.posix_spawn(
        PYTHON, (PYTHON, "-c", script), environment(place.home), setsigdef=(signal.SIGPIPE,),
        file_actions=[(os.POSIX_SPAWN_DUP2, writing, 1)],
    )  # fmt: skip
    os.close(writing)
    parts = [os.read(reading, BUFFER_BYTES)]
    begin = time.perf_counter()
    while parts[-1]:
        parts.append(os.read(reading, BUFFER_BYTES))
    taken = time.perf_counter() - begin
    os.waitpid(pid, 0)
    os.close(reading)
    return _checked("".join(part.decode() for part in parts)) / taken


def printed_rate(port: int) -> float:
    """MB/s of the same in a context, as text, from its first byte on."""
    socket = WebSocket(port, f"{PATH}/execute")
    socket.send(json.dumps({"code": PRINTING}).encode())
    counter = FrameCounter()
    buffer = memoryview(bytearray(BUFFER_BYTES))
    data = bytearray(socket.take())
    counter.feed(memoryview(bytes(data)))
    begin = 0.0
    while not counter.closed:
        got = socket.sock.recv_into(buffer)
        if not got:
            raise ConnectionError("closed without a word")
        begin = begin or time.perf_counter()
        counter.feed(buffer[:got])
        data += buffer[:got]
    taken = time.perf_counter() - begin
    socket.close()
    return _checked(_text(bytes(data))) / taken


def _text(data: bytes) -> str:
    found: list[str] = []
    position = 0
    while (header := parse_header(data[position : position + 10])) is not None:
        opcode, header_bytes, length = header
        begin = position + header_bytes
        position = begin + length
        if opcode != CLOSE:
            document: dict[str, Any] = json.loads(data[begin:position])
            if document["type"] == "stdout":
                found.append(document["text"])
    return "".join(found)


def _checked(text: str) -> float:
    if text != PRINTED:
        raise RuntimeError(f"output is not what it should be: {len(text)} of {len(PRINTED)}")
    return len(text) / 1e6


def measure(report: Report, place: Place, server: Program, rounds: int) -> None:
    """The rows of this group."""
    report.start("interpreter")
    version = subprocess.run((PYTHON, "-V"), check=True, capture_output=True, text=True)
    name = version.stdout.strip()
    with place.procd(PROCD_INTERPRETER_PYTHON=PYTHON) as procd:
        _measure_executions(report, place, procd, server, rounds)
        _measure_spares(report, procd, server, rounds)
    with place.procd(PROCD_INTERPRETER_PYTHON=PYTHON, PROCD_INTERPRETER_WARM="0") as procd:
        _measure_starts(report, place, procd, rounds)
        _measure_memory(report, procd, name)


def _measure_executions(
    report: Report, place: Place, procd: Program, server: Program, rounds: int
) -> None:
    for _ in range(50):
        echo(server.port)
        execute(procd.port, "pass")
    floors: list[float] = []
    figures: list[float] = []
    for _ in range(rounds * 2):
        floors.append(percentile([echo(server.port) for _ in range(300)], 50) * 1000)
        taken = [execute(procd.port, "pass") for _ in range(300)]
        figures.append(percentile(taken, 50) * 1000)
    report.add(
        "execute `pass` in a context, p50", "ms", figures, floor_name="WebSocket echo",
        floors=floors, target="<= floor + 1.5 ms", met=lambda _, more: more <= 1.5,
    )  # fmt: skip
    floors, figures = [], []
    by_line: list[float] = []
    for _ in range(rounds * 2):
        floors.append(raw_rate(place))
        by_line.append(raw_rate(place, LINE_BY_LINE))
        figures.append(printed_rate(procd.port))
    report.add(
        f"{COUNTED} lines from a context", "MB/s", figures, floor_name="raw pipe", floors=floors,
        target=">= 0.30", met=lambda ratio, _: ratio >= 0.3,
    )  # fmt: skip
    report.add(
        "the same, beside one write a line", "MB/s", figures, floor_name="raw pipe",
        floors=by_line,
    )  # fmt: skip


def _first_result(procd: Program, client: Http) -> tuple[float, str]:
    begin = time.perf_counter()
    context_id: str = client.call("POST", f"{PATH}/context", {})["id"]
    execute(procd.port, "print(1)", context_id)
    return time.perf_counter() - begin, context_id


def _measure_spares(report: Report, procd: Program, server: Program, rounds: int) -> None:
    client = Http(procd.port)
    floors: list[float] = []
    figures: list[float] = []
    for _ in range(rounds * 5):
        _wait_for_spare(procd)
        floors.append(percentile([echo(server.port) for _ in range(20)], 50) * 1000)
        taken, context_id = _first_result(procd, client)
        figures.append(taken * 1000)
        client.call("DELETE", f"{PATH}/context/{context_id}")
    client.close()
    report.add(
        "new context's first result", "ms", figures, floor_name="WebSocket echo", floors=floors,
        target="<= floor + 5 ms", met=lambda _, more: more <= 5,
    )  # fmt: skip


def _wait_for_spare(procd: Program) -> None:
    """Until the default context's interpreter and one more are there and do nothing any more."""
    before: dict[int, int] = {}
    while len(before) != 2 or before != {pid: _cpu_ticks(pid) for pid in before}:
        before = {pid: _cpu_ticks(pid) for pid in _children(procd)}
        time.sleep(0.1)


def _measure_starts(report: Report, place: Place, procd: Program, rounds: int) -> None:
    client = Http(procd.port)
    floors: list[float] = []
    figures: list[float] = []
    for _ in range(rounds * 5):
        floors.append(start_up(place) * 1000)
        taken, context_id = _first_result(procd, client)
        figures.append(taken * 1000)
        client.call("DELETE", f"{PATH}/context/{context_id}")
    client.close()
    report.add(
        "the same without a spare", "ms", figures, floor_name="python3 -c", floors=floors,
        target="<= floor + 15 ms", met=lambda _, more: more <= 15,
    )  # fmt: skip


def _measure_memory(report: Report, procd: Program, name: str) -> None:
    client = Http(procd.port)
    before = 0
    for number in range(CONTEXTS + 1):
        _first_result(procd, client)
        if not number:
            procd.settle()
            before = procd.rss_kib
    procd.settle()
    each = (procd.rss_kib - before) / CONTEXTS
    resident = median(_rss_kib(pid) / 1024 for pid in _children(procd))
    client.close()
    report.add(f"idle context, {name}", "MiB", [resident], target="<= 14",
               met=lambda *_: resident <= 14)  # fmt: skip
    report.add(f"idle context in procd, {CONTEXTS} of them", "KiB", [each], target="<= 40",
               met=lambda *_: each <= 40)  # fmt: skip


def _children(program: Program) -> list[int]:
    text = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text()
    return [int(pid) for pid in text.split()]


def _cpu_ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return -1  # it has ended
    return int(fields[11]) + int(fields[12])


def _rss_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise RuntimeError("no VmRSS")
