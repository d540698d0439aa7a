"""The operator's metrics: histograms that are fed, and gauges that are read when somebody scrapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from beamline_contract.objects import ObjectKey


@dataclass(frozen=True, slots=True)
class Readings:
    """What a scrape reads; each must be cheap and never block."""

    queue_depth: Callable[[], int]
    leading: Callable[[], bool]
    routers: Callable[[], int]
    objects: Callable[[], Mapping[str, int]]
    api_calls: Callable[[], Mapping[tuple[str, int], int]]
    drift_repairs: Callable[[], Mapping[str, int]]
    """By what was repaired: ``row``, or the kind of an owned object."""
    loop_blocks: Callable[[], int]
    watch_events: Callable[[], int]
    watch_age_s: Callable[[], float | None]


class OperatorMetrics(Collector):
    """All metrics of one operator, in a registry of its own."""

    def __init__(self, readings: Readings) -> None:
        self.registry = CollectorRegistry()
        self._readings = readings
        self._reconcile = Histogram(
            "beamline_operator_reconcile_seconds",
            "Time of one reconcile.",
            ("kind", "result"),
            registry=self.registry,
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
        )
        self.registry.register(self)

    def observe(self, key: ObjectKey, result: str, seconds: float) -> None:
        """One reconcile ended: ok | retry | fenced | error."""
        self._reconcile.labels(key.kind, result).observe(seconds)

    def collect(self) -> Iterator[Any]:
        """For prometheus_client."""
        read = self._readings
        yield _gauge("beamline_operator_queue_depth", "Objects that are due and wait.", read.queue_depth())
        yield _gauge("beamline_operator_leader", "1 where this process holds the lease.", int(read.leading()))
        yield _gauge("beamline_operator_routers", "Routers that reported lately.", read.routers())
        age = read.watch_age_s()
        if age is not None:
            yield _gauge("beamline_operator_watch_age_seconds", "Seconds since the last watch event.", age)
        yield _counter("beamline_operator_watch_events", "Watch events taken in.", read.watch_events())
        repairs = CounterMetricFamily(
            "beamline_operator_drift_repairs", "What others changed and was put right.", labels=["what"]
        )
        for what, count in sorted(read.drift_repairs().items()):
            repairs.add_metric([what], count)
        yield repairs
        yield _counter(
            "beamline_operator_loop_blocks", "Times the event loop was blocked.", read.loop_blocks()
        )
        size = GaugeMetricFamily("extension_registry_size", "Objects by kind.", labels=["kind"])
        for kind, count in read.objects().items():
            size.add_metric([kind], count)
        yield size
        calls = CounterMetricFamily(
            "beamline_operator_api_calls", "Kubernetes API requests.", labels=["verb", "code"]
        )
        for (verb, code), count in sorted(read.api_calls().items()):
            calls.add_metric([verb, str(code)], count)
        yield calls


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def _counter(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, value=value)
