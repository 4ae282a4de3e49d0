"""/healthz while 64 clients execute, 50 terminals flood and 20 clients follow a log."""

from typing import Final

from bench.http import latencies
from bench.programs import Place
from bench.report import Report, percentile
from bench.wire import request

SECONDS: Final = 3.0


def measure(report: Report, place: Place, rounds: int) -> None:
    """The rows of this group, from a procd of their own."""
    report.start("load")
    fifty: list[float] = []
    ninety_nine: list[float] = []
    with place.procd() as procd:
        crowd = place.helper("bench.crowd", str(procd.port))
        assert crowd.stdin is not None
        assert crowd.stdout is not None
        if crowd.stdout.readline() != "ready\n":
            raise RuntimeError("the crowd did not come")
        for _ in range(rounds):
            taken = latencies(procd.port, request("GET", "/healthz"), SECONDS)
            fifty.append(percentile(taken, 50) * 1000)
            ninety_nine.append(percentile(taken, 99) * 1000)
        crowd.stdin.close()
        crowd.wait()
        crowd.stdout.close()
    report.add("/healthz under load, p50", "ms", fifty)
    report.add(
        "/healthz under load, p99", "ms", ninety_nine,
        target="< 50 ms", met=lambda value, _: value < 50,
    )  # fmt: skip
