"""From exec to the first answer, and what that takes, beside a bare aiohttp server."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from bench.programs import BARE, SERVE, Place, Program
from bench.report import Report, median
from bench.wire import Http, request

MOST_RATIO: Final = 1.4
MOST_MORE_MIB: Final = 10
IDLE_S: Final = 10.0
PACKAGES: Final = 10


def measure(report: Report, place: Place, rounds: int) -> None:
    """The rows of this group; a first start of each, which writes .pyc files, isn't counted."""
    report.start("start")
    for program in (place.bare(), place.procd()):
        with program:
            pass
    floors: dict[str, list[float]] = {"start": [], "first": [], "later": []}
    figures: dict[str, list[float]] = {"start": [], "first": [], "later": []}
    for _ in range(rounds):
        bare = _start(place.bare, floors)
        procd = _start(place.procd, figures)
        with bare, procd:
            time.sleep(IDLE_S)
            floors["later"].append(bare.rss_kib / 1024)
            figures["later"].append(procd.rss_kib / 1024)
    report.add(
        "cold start", "ms", figures["start"], floor_name="bare aiohttp", floors=floors["start"],
        target=f"<= {MOST_RATIO} x floor", met=lambda ratio, _: ratio <= MOST_RATIO,
    )  # fmt: skip
    for name, key in (("idle memory", "first"), (f"the same {IDLE_S:.0f} s later", "later")):
        report.add(
            name, "MiB", figures[key], floor_name="bare aiohttp", floors=floors[key],
            target=f"<= floor + {MOST_MORE_MIB} MiB", met=lambda _, more: more <= MOST_MORE_MIB,
        )  # fmt: skip
    _measure_imports(report, place, rounds)


def _start(make: Callable[[], Program], taken: dict[str, list[float]]) -> Program:
    begin = time.perf_counter()
    program = make()
    client = Http(program.port)
    client.exchange(request("GET", "/version"))
    taken["start"].append((time.perf_counter() - begin) * 1000)
    taken["first"].append(program.rss_kib / 1024)
    client.close()
    return program


def _measure_imports(report: Report, place: Place, rounds: int) -> None:
    """The packages whose modules take procd longest to import, what they import not included."""
    floors: list[Counter[str]] = []
    figures: list[Counter[str]] = []
    for _ in range(rounds):
        floors.append(_import_times(place.import_times(BARE)))
        figures.append(_import_times(place.import_times(SERVE)))
    names = {name for each in figures for name in each}
    times = {name: [each[name] for each in figures] for name in names}
    longest = sorted(names, key=lambda name: median(times[name]), reverse=True)[:PACKAGES]
    times["of all"] = [each.total() for each in figures]
    for name in ["of all", *longest]:
        base = [each.total() if name == "of all" else each[name] for each in floors]
        report.add(
            f"import {name}", "ms", [us / 1000 for us in times[name]], floor_name="bare aiohttp",
            floors=[us / 1000 for us in base],
        )  # fmt: skip


def _import_times(text: str) -> Counter[str]:
    """Microseconds by top-level package. Source: Python, "-X importtime"."""
    taken: Counter[str] = Counter()
    for line in text.splitlines():
        if not line.startswith("import time:"):
            continue  # a line of the log
        own, _, name = line.removeprefix("import time:").split("|")
        if own.strip().isdecimal():  # or else it is the heading
            taken[name.strip().partition(".")[0]] += int(own)
    return taken
