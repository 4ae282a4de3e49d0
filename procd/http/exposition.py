"""What /metrics answers, made by prometheus_client.

Source: Prometheus exposition formats; OpenMetrics 1.0. Everything is read when it is asked for.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from procd import __version__
from procd.http.figures import Figures
from procd.http.middleware import RequestMetrics
from procd.metrics import Histogram


def encode(figures: Figures, lag_s: float, accept: str) -> tuple[bytes, str]:
    """The figures in the format that the scraper prefers, and its content type.

    Args:
        lag_s: of the event loop, measured for this scrape.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(figures, lag_s))
    ProcessCollector(registry=registry)  # registers itself
    try:
        encoder, content_type = choose_encoder(accept)
    except TypeError:  # the library's, where a version is no number
        encoder, content_type = choose_encoder("")
    return encoder(registry), content_type


class _Families(Collector):
    def __init__(self, figures: Figures, lag_s: float) -> None:
        self._figures = figures
        self._lag_s = lag_s

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily("procd_build", "procd itself", {"version": __version__})
        yield from _request_families(self._figures.requests)
        yield _histogram(
            "procd_spawn_duration_seconds",
            "time to start a process",
            [],
            [([], self._figures.spawn_times)],
        )
        received = {name: each.received_bytes for name, each in self._figures.traffic.items()}
        yield _counter(
            "procd_received_bytes", "payload received from clients", "transport", received
        )
        sent = {name: each.sent_bytes for name, each in self._figures.traffic.items()}
        yield _counter("procd_sent_bytes", "payload sent to clients", "transport", sent)
        yield _counter(
            "procd_clients_dropped", "WebSocket clients given up", "reason", self._figures.dropped
        )
        yield GaugeMetricFamily(
            "procd_loop_lag_seconds", "a turn of the event loop, at this moment", self._lag_s
        )
        for name, (doc, read) in self._figures.gauges.items():
            yield GaugeMetricFamily(name, doc, read())


def _counter(name: str, doc: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, doc, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family


def _request_families(requests: RequestMetrics) -> Iterator[Metric]:
    counter = CounterMetricFamily(
        "procd_http_requests", "requests answered", labels=["method", "route", "status"]
    )
    seen = [stats for stats in requests.all if stats.statuses]
    for stats in seen:
        for status, count in stats.statuses.items():
            counter.add_metric([stats.method, stats.pattern, str(status)], count)
    yield counter
    yield _histogram(
        "procd_http_request_duration_seconds",
        "time to answer, WebSockets not included",
        ["method", "route"],
        [([stats.method, stats.pattern], stats.durations) for stats in seen],
    )


def _histogram(
    name: str, doc: str, labels: list[str], rows: Iterable[tuple[list[str], Histogram]]
) -> Metric:
    family = HistogramMetricFamily(name, doc, labels=labels)
    for values, durations in rows:
        bounds = [*map(str, durations.bounds_s), "+Inf"]
        sums = itertools.accumulate(durations.counts)
        family.add_metric(values, list(zip(bounds, sums, strict=True)), durations.sum_s)
    return family
