"""Floor: posix_spawn and wait of the shell with a script, so many in flight at a time.

A process of its own, since it waits for any child. Reads lines of `IN_FLIGHT SECONDS`; answers each
with one of JSON: `rate` a second, and the latencies in seconds.
"""

import json
import os
import sys
import time

from bench.programs import SHELL


def spawn(script: str) -> int:
    """Start the shell with the script, on /dev/null."""
    return os.posix_spawn(
        SHELL, (SHELL, "-c", script), os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0),
            (os.POSIX_SPAWN_DUP2, 0, 1),
            (os.POSIX_SPAWN_DUP2, 0, 2),
        ],
    )  # fmt: skip


def measure(script: str, in_flight: int, seconds: float) -> tuple[float, list[float]]:
    """The rate, and the latency of each."""
    latencies: list[float] = []
    started: dict[int, float] = {}
    begin = now = time.perf_counter()
    while now - begin < seconds:
        while len(started) < in_flight:
            at = time.perf_counter()
            started[spawn(script)] = at
        pid, _ = os.waitpid(-1, 0)
        now = time.perf_counter()
        latencies.append(now - started.pop(pid))
    elapsed = now - begin
    for pid in started:
        os.waitpid(pid, 0)
    return len(latencies) / elapsed, latencies


if __name__ == "__main__":
    for line in sys.stdin:
        in_flight_text, seconds_text = line.split()
        result = measure(sys.argv[1], int(in_flight_text), float(seconds_text))
        print(json.dumps(result), flush=True)
