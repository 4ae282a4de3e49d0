"""GET /metrics: what Prometheus scrapes.

Source: Prometheus exposition formats; OpenMetrics 1.0. Everything is read when it is asked for.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from aiohttp import hdrs, web
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
from procd.http.middleware import RequestMetrics
from procd.http.openapi import Doc
from procd.metrics import Histogram, Traffic
from procd.tasks import loop_lag_s


@dataclass(kw_only=True, eq=False)
class Figures(Collector):
    """Turns the figures of requests, processes and connections into families of metrics.

    Attributes:
        traffic: by the name of the transport.
        dropped: how many clients were dropped, by reason.
        gauges: by name: a description, and what returns the amount.
        lag_s: of the event loop, measured for each scrape.
    """

    requests: RequestMetrics
    spawn_times: Histogram
    traffic: Mapping[str, Traffic]
    dropped: Mapping[str, int]
    gauges: Mapping[str, tuple[str, Callable[[], float]]]
    lag_s: float = 0.0

    def __post_init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)
        ProcessCollector(registry=self.registry)  # registers itself

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily("procd_build", "procd itself", {"version": __version__})
        yield from _request_families(self.requests)
        yield _histogram(
            "procd_spawn_duration_seconds", "time to start a process", [], [([], self.spawn_times)]
        )
        received = {name: each.received_bytes for name, each in self.traffic.items()}
        yield _counter(
            "procd_received_bytes", "payload received from clients", "transport", received
        )
        sent = {name: each.sent_bytes for name, each in self.traffic.items()}
        yield _counter("procd_sent_bytes", "payload sent to clients", "transport", sent)
        yield _counter(
            "procd_clients_dropped", "WebSocket clients given up", "reason", self.dropped
        )
        yield GaugeMetricFamily(
            "procd_loop_lag_seconds", "a turn of the event loop, at this moment", self.lag_s
        )
        for name, (doc, read) in self.gauges.items():
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


FIGURES = web.AppKey("FIGURES", Figures)


async def metrics(request: web.Request) -> web.Response:
    """Show figures for Prometheus.

    The format is the one that the scraper prefers: text or OpenMetrics.
    """
    figures = request.app[FIGURES]
    figures.lag_s = await loop_lag_s()
    try:
        encode, content_type = choose_encoder(request.headers.get(hdrs.ACCEPT, ""))
    except TypeError:  # the library's, where a version is no number
        encode, content_type = choose_encoder("")
    return web.Response(body=encode(figures.registry), headers={hdrs.CONTENT_TYPE: content_type})


routes = [
    web.get(
        "/metrics", metrics, doc=Doc(id="getMetrics", content={"text/plain": "procd_ptys 1.0\n"})
    )
]
