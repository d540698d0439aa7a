"""Alerts and dashboard ask only for metrics that a component exports, and every alert has its section in the
runbook.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator

import pytest
import yaml
from prometheus_client import CollectorRegistry

from beamline_admin.telemetry import Telemetry as AdminTelemetry
from beamline_operator.edges.metrics import OperatorMetrics, Readings
from beamline_router.edges.gate import Gate
from beamline_router.edges.telemetry import Telemetry
from beamline_sdk.metrics import RuntimeMetrics

from .rendering import CHART, ROOT

sys.path.insert(0, str(ROOT / "scripts"))
from observability import ALERTS, dashboard

FOREIGN = {"kube_job_status_failed"}
"""Of kube-state-metrics: where that is missing, the alert is silent."""
FUNCTIONS = {
    "absent", "sum", "max", "min", "rate", "increase", "by", "on", "and", "or", "le", "vector",
    "histogram_quantile",
}  # fmt: skip


def _exported() -> set[str]:
    """Every series' name that the components can export."""
    router = Telemetry()
    Gate(router, limit=1, anonymous=False, nats_keys=False)
    operator = OperatorMetrics(
        Readings(
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
    )
    runtime = CollectorRegistry()
    RuntimeMetrics(runtime, "x", "provider", "1")
    names = set()
    for registry in (router.registry, operator.registry, AdminTelemetry().registry, runtime):
        for family in registry.collect():
            suffixes = {
                "counter": ("_total",),
                "histogram": ("_bucket", "_count", "_sum"),
                "info": ("_info",),
            }
            names |= {family.name + suffix for suffix in suffixes.get(family.type, ("",))}
    return names


def _asked(expr: str) -> set[str]:
    """The names of series in an expression."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^]]*\]|\b(by|on) \([^)]*\)', " ", expr)
    return set(re.findall(r"[a-z_]{2,}", bare)) - FUNCTIONS


def _expressions() -> Iterator[str]:
    yield from (alert.expr for alert in ALERTS)
    for panel in json.loads(dashboard())["panels"]:
        yield from (target["expr"] for target in panel["targets"])


@pytest.mark.parametrize("expr", sorted(set(_expressions())))
def test_an_expression_asks_for_what_is_exported(expr: str) -> None:
    assert _asked(expr)
    assert _asked(expr) - FOREIGN <= _exported()
    assert expr.count("(") == expr.count(")")


def test_a_metric_that_nobody_exports_is_found() -> None:
    assert _asked('sum by (a) (rate(router_reqests_total{code="x"}[5m])) > 1') == {"router_reqests_total"}
    assert not _asked("sum(rate(router_reqests_total[5m]))") <= _exported()


def test_every_alert_has_its_section_in_the_runbook_and_every_section_its_alert() -> None:
    sections = re.findall(r"^## (Beamline\w+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE)
    assert sections == [alert.name for alert in ALERTS]


def test_the_alerts_are_what_prometheus_reads() -> None:
    (group,) = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())["groups"]
    assert [rule["alert"] for rule in group["rules"]] == [alert.name for alert in ALERTS]
    for rule in group["rules"]:
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"
