"""Figures: where /metrics finds what it tells."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aiohttp import web

from procd.http.middleware import RequestMetrics
from procd.metrics import Histogram, Traffic


@dataclass(kw_only=True, eq=False)
class Figures:
    """The figures of requests, processes and connections.

    Attributes:
        traffic: by the name of the transport.
        dropped: how many clients were dropped, by reason.
        gauges: by name: a description, and what returns the amount.
    """

    requests: RequestMetrics
    spawn_times: Histogram
    traffic: Mapping[str, Traffic]
    dropped: Mapping[str, int]
    gauges: Mapping[str, tuple[str, Callable[[], float]]]


FIGURES = web.AppKey("FIGURES", Figures)
