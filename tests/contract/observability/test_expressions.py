"""Alerts and dashboards ask only for metrics that a component exports, and every alert has its section in the
runbook.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "scripts"))
from metrics_page import catalogue, names  # noqa: E402
from observability import ALERTS, FOLDERS, files  # noqa: E402
from observing import slo  # noqa: E402
from observing.dashboards import DASHBOARDS  # noqa: E402

FOREIGN = {"kube_job_status_failed"}
"""Of kube-state-metrics: where that is missing, the alert is silent."""
FUNCTIONS = {
    "absent", "sum", "max", "min", "rate", "increase", "by", "on", "and", "or", "le", "vector", "count",
    "histogram_quantile", "avg_over_time",
}  # fmt: skip
WANTED = {
    "extension_registry_size", "extension_registry_reload_duration_seconds", "provider_cost_usd_total",
    "extension_registry_reload_errors_total", "extension_requests_total", "extension_failures_total",
    "extension_request_duration_seconds", "provider_requests_total", "provider_latency_seconds",
    "provider_tokens_total", "openai_provider_requests_total", "openai_provider_tokens_total",
    "openai_provider_request_duration_seconds", "anthropic_provider_requests_total",
    "anthropic_provider_request_duration_seconds", "anthropic_provider_tokens_total",
    "gen_ai_client_operation_duration_seconds", "gen_ai_client_token_usage",
}  # fmt: skip
"""What operators of other systems know, and dashboards of theirs ask for."""
NEVER = {"tenant", "tenant_id", "model", "request_id", "trace_id", "policy", "prompt", "user"}
RECORDED = {name for name, _ in slo.recordings()}


def _asked(expr: str) -> set[str]:
    """The names of series in an expression."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^]]*\]|\b(by|on) \([^)]*\)', " ", expr)
    return set(re.findall(r"[a-z_:][a-z_:0-9]+", bare)) - FUNCTIONS


def _expressions() -> Iterator[str]:
    yield from (alert.expr for alert in ALERTS)
    yield from (expr for _, expr in slo.recordings())
    for dashboard in DASHBOARDS:
        for panel in dashboard.panels:
            yield from (expr for expr, _ in panel.targets)


@pytest.mark.parametrize("expr", sorted(set(_expressions())))
def test_an_expression_asks_for_what_is_exported_or_recorded(expr: str) -> None:
    assert _asked(expr)
    assert _asked(expr) - FOREIGN <= names() | RECORDED
    assert expr.count("(") == expr.count(")")


def test_a_metric_that_nobody_exports_is_found() -> None:
    assert _asked('sum by (a) (rate(router_reqests_total{code="x"}[5m])) > 1') == {"router_reqests_total"}
    assert not _asked("sum(rate(router_reqests_total[5m]))") <= names()


def test_the_names_that_are_promised_are_there_with_bounded_labels() -> None:
    metrics = catalogue()
    assert {metric.name for metric in metrics} >= WANTED
    assert not {label for metric in metrics for label in metric.labels} & NEVER
    assert all(metric.meaning for metric in metrics)


def test_every_alert_has_its_section_in_the_runbook_and_every_section_its_alert() -> None:
    sections = re.findall(r"^## (Beamline\w+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE)
    assert sections == list(dict.fromkeys(alert.name for alert in ALERTS))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_the_rules_carry_severity_and_the_place_in_the_runbook(folder: Path) -> None:
    recorded, alerting = yaml.safe_load((folder / "alerts.yaml").read_text())["groups"]
    assert [rule["record"] for rule in recorded["rules"]] == [name for name, _ in slo.recordings()]
    assert [rule["alert"] for rule in alerting["rules"]] == [alert.name for alert in ALERTS]
    for rule in alerting["rules"]:
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"


def test_every_dashboard_is_whole_and_linked_with_the_others() -> None:
    pages = {name: json.loads(text) for name, text in files().items() if name.endswith(".json")}
    assert sorted(pages) == [
        "beamline-extension.json", "beamline-operator.json", "beamline-router.json", "beamline.json",
    ]  # fmt: skip
    for page in pages.values():
        assert len({panel["id"] for panel in page["panels"]}) == len(page["panels"]) >= 12
        spots = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in page["panels"]]
        assert len(set(spots)) == len(spots), "no panel covers another"
        assert all(panel["targets"] and panel["fieldConfig"]["defaults"]["unit"] for panel in page["panels"])
        assert {link["url"] for link in page["links"]} == {
            f"/d/{other['uid']}" for other in pages.values() if other is not page
        }
