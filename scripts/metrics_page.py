"""Writes docs/metrics.md from what the components register, or with ``--check`` says if it is stale.

:func:`catalogue` is the one list: the page is made of it, dashboards and alerts are checked against it, and a
test compares it with what running processes answer.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from beamline_admin.telemetry import Telemetry as AdminTelemetry
from beamline_extensions.model_api.figures import ApiFigures
from beamline_extensions.response_cache.entries import Entries
from beamline_extensions.response_cache.extension import CacheMetrics
from beamline_operator.edges.metrics import OperatorMetrics, Readings
from beamline_router.edges.gate import Gate
from beamline_router.edges.telemetry import Telemetry
from beamline_sdk.metrics import RuntimeMetrics

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "metrics.md"
PROCESS: Final = ("python_", "process_")
"""Beginnings of what prometheus_client itself exports of a process; not ours."""
SERIES: Final = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "info": ("_info",)}
_UNITS: Final = {
    "_seconds": "seconds",
    "_usd_total": "US dollars",
    "_bytes": "bytes",
    "_tokens_total": "tokens",
    "_token_usage": "tokens",
    "_share": "share, 0 to 1",
    "_revision": "revision",
    "_state": "number of the state",
    "_info": "always 1",
}


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of one component. ``name`` is what a query asks for, without a histogram's suffixes."""

    component: str
    name: str
    type: str
    labels: tuple[str, ...]
    meaning: str

    @property
    def unit(self) -> str:
        """By the end of the name; a count where it says nothing."""
        return next((unit for end, unit in _UNITS.items() if self.name.endswith(end)), "count")

    @property
    def series(self) -> tuple[str, ...]:
        """The names of its samples."""
        if self.type == "histogram":
            return tuple(self.name + suffix for suffix in SERIES["histogram"])
        return (self.name,)


COMPONENTS: Final = {
    "router": ("Router", "`/metrics` on its HTTP port."),
    "operator": ("Operator", "`/metrics` on `METRICS_PORT` (9090)."),
    "admin": ("Admin API", "`/metrics` on its HTTP port."),
    "extension": (
        "Extensions",
        "`/metrics` on `METRICS_PORT` (9090), whatever the type: what the runtime of `beamline_sdk` counts. "
        "What the router counts as `extension_requests_total` is the same traffic from the other end. "
        "Go and Node extensions made by `beamline new` export "
        "`beamline_runtime_requests_total{extension_id}` alone.",
    ),
    "provider": ("Providers", "What an extension of type `provider` exports beside that."),
    "model API": (
        "Model APIs",
        "What `openai`, `anthropic` and `openai_compatible` export beside both. Series of `ratelimit` exist "
        "where the API states its limits. At most 64 models are told apart; further ones are `other`.",
    ),
    "response_cache": ("Response cache", "What `response_cache` exports beside the runtime's."),
}
"""Key to title and where it is served."""


def catalogue() -> list[Metric]:
    """Every metric of every component, in the order of the page."""
    router = Telemetry()
    Gate(router, limit=1)
    nothing = Readings(
        queue_depth=lambda: 0,
        leading=lambda: True,
        routers=lambda: 0,
        objects=dict,
        api_calls=dict,
        drift_repairs=dict,
        loop_blocks=lambda: 0,
        watch_events=lambda: 0,
        watch_age_s=lambda: 0.0,
    )
    runtime, provider, apis, cache = (CollectorRegistry() for _ in range(4))
    RuntimeMetrics(runtime, "x", "pre", "1")
    RuntimeMetrics(provider, "x", "provider", "1")
    ApiFigures(apis, "openai", "x")
    others = {api: CollectorRegistry() for api in ("anthropic", "openai_compatible")}
    for api, registry in others.items():
        ApiFigures(registry, api, "x")
    CacheMetrics(cache, Entries())
    everywhere = {metric.name for metric in _of("extension", runtime)}
    found = [
        *_of("router", router.registry),
        *_of("operator", OperatorMetrics(nothing).registry),
        *_of("admin", AdminTelemetry().registry),
        *_of("extension", runtime),
        *(metric for metric in _of("provider", provider) if metric.name not in everywhere),
        *_of("model API", apis),
        *(
            metric
            for api, registry in others.items()
            for metric in _of("model API", registry)
            if metric.name.startswith(f"{api}_")
        ),
        *_of("response_cache", cache),
    ]
    return sorted(found, key=lambda metric: (list(COMPONENTS).index(metric.component), metric.name))


def names() -> set[str]:
    """Every name that a query may ask for."""
    return {name for metric in catalogue() for name in metric.series}


def _of(component: str, registry: CollectorRegistry) -> Iterator[Metric]:
    for collector in tuple(registry._collector_to_names):
        families: Iterable[Any] = collector.collect()
        for family in families:
            source = collector if isinstance(collector, MetricWrapperBase) else family
            name = family.name + (SERIES[family.type][0] if family.type in {"counter", "info"} else "")
            labels = tuple(getattr(source, "_labelnames", ()))
            if family.type == "info":
                labels = tuple(family.samples[0].labels)
            yield Metric(component, name, family.type, labels, family.documentation)


_HEAD: Final = """\
# Metrics

Generated by `python scripts/metrics_page.py` from the code: edit the words there. Every process answers
Prometheus' text format, and OpenMetrics to who asks for it (as Prometheus does): then a bucket may carry
the id of a sampled [trace](observability.md#traces) as its exemplar.

Labels are bounded: ids come from objects that exist, words from closed lists. Tenants, request ids, prompts,
headers and models that callers invent are never labels
(`tests/integration/router/test_router_series.py`); the series of an object that is deleted leave the router
with it. Extensions also export `python_*` and `process_*`.

Where both ends of a call count (`provider_*`, `gen_ai_*`), choose one by `job`, never sum both.
What to look at first: [dashboards and alerts](observability.md#dashboards-and-alerts) and
[service levels](slo.md).
"""


def page() -> str:
    """The page as text."""
    lines = [_HEAD]
    metrics = catalogue()
    for component, (title, where) in COMPONENTS.items():
        lines += [
            f"## {title}",
            "",
            where,
            "",
            "| Name | Type | Unit | Labels | Meaning |",
            "|---|---|---|---|---|",
        ]
        for metric in metrics:
            if metric.component == component:
                labels = ", ".join(f"`{label}`" for label in metric.labels)
                lines.append(
                    f"| `{metric.name}` | {metric.type} | {metric.unit} | {labels} | {metric.meaning} |"
                )
        lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"


def main() -> int:
    text = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text)
    elif not PAGE.exists() or PAGE.read_text() != text:
        print("stale: docs/metrics.md: run `python scripts/metrics_page.py`")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
