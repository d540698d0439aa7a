"""What running processes export is what docs/metrics.md says, and every expression of dashboards and alerts
finds it, asked by a real Prometheus that scrapes all of them under load.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from observedworld import IN_CI, ROOT, Observed, missing
from prometheus_client.parser import text_string_to_metric_families

from harness.processes import eventually

sys.path.insert(0, str(ROOT / "scripts"))
from metrics_page import PROCESS, Metric, catalogue
from observability import ALERTS
from observing import slo
from observing.dashboards import DASHBOARDS
from observing.panels import Panel

pytestmark = [pytest.mark.xdist_group("observed"), pytest.mark.timeout(240)]

PARTS = {
    "router": {"router"},
    "operator": {"operator"},
    "admin": {"admin"},
    "normalize-text": {"extension"},
    "mock-provider": {"extension", "provider"},
    "openai": {"extension", "provider", "model API"},
    "response_cache": {"extension", "response_cache"},
}
"""Process to the sections of the page that it is described by."""
SILENT = {
    "kube_job_status_failed": "kube-state-metrics exports it",
    "provider_cost_usd_total": "only where a price is configured and a model API is called",
}
"""Names that an alert asks for and that have no series here, with the reason."""


@pytest.fixture(scope="module")
def observed(cluster: Any) -> Iterator[Observed]:
    made = Observed(cluster)
    try:
        yield made.start()
    finally:
        made.close()


@pytest.fixture(scope="module")
def prometheus(observed: Observed) -> Observed:
    if (reason := missing()) is not None:
        if IN_CI:
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return observed.prometheus()


def families(text: str) -> dict[str, tuple[str, set[frozenset[str]]]]:
    """By name as a query asks: the type, and the label names of its samples."""
    found: dict[str, tuple[str, set[frozenset[str]]]] = {}
    for family in text_string_to_metric_families(text):
        if family.name.startswith(PROCESS) or family.name.endswith("_created"):
            continue
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = {
            frozenset(sample.labels) - {"le"} for sample in family.samples if "_created" not in sample.name
        }
        found[name] = (family.type, labels)
    return found


@pytest.mark.parametrize("part", PARTS)
def test_a_process_exports_what_the_page_says_and_nothing_else(observed: Observed, part: str) -> None:
    process = next(one for jobs in observed.jobs.values() for one in jobs if one.name == part)
    told = [metric for metric in catalogue() if metric.component in PARTS[part]]
    if part == "openai":
        told = [one for one in told if not one.name.startswith(("anthropic_", "openai_compatible_"))]
    said = {metric.name: metric for metric in told}
    running = families(observed.text(process))
    assert set(running) == set(said)
    for name, (kind, labels) in running.items():
        metric: Metric = said[name]
        assert kind == ("gauge" if metric.type == "info" else metric.type), name
        assert labels <= {frozenset(metric.labels)}, name


def targets() -> Iterator[Any]:
    for dashboard in DASHBOARDS:
        for panel in dashboard.panels:
            for number, (expr, legend) in enumerate(panel.targets):
                name = f"{dashboard.uid}: {panel.title} {number}"
                yield pytest.param(panel, expr.replace("$extension", ".+"), legend, id=name)


@pytest.mark.parametrize(("panel", "expr", "legend"), list(targets()))
def test_a_panel_shows_series_with_the_labels_of_its_legend(
    prometheus: Observed, panel: Panel, expr: str, legend: str
) -> None:
    series = prometheus.query(expr)
    wanted = set(re.findall(r"\{\{(\w+)\}\}", legend))
    assert series or panel.empty, "nothing to see, and no reason why"
    for one in series:
        assert wanted <= one["metric"].keys()
    if not wanted:
        assert len(series) <= 1, "several lines of one name"


def test_every_rule_is_evaluated_without_a_fault(prometheus: Observed) -> None:
    rules = [rule for group in prometheus.api("rules")["groups"] for rule in group["rules"]]
    assert len(rules) == len(ALERTS) + len(slo.recordings())
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []
    firing = {rule["name"] for rule in rules if rule.get("state") == "firing"}
    assert firing <= {"BeamlineOperatorBlocked"}, "nothing here is wrong for minutes"


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: f"{alert.name} {dict(alert.labels)}")
def test_an_alert_watches_series_that_exist_and_fires_with_the_labels_it_names(
    prometheus: Observed, alert: Any
) -> None:
    prometheus.query(alert.expr)
    names = set(re.findall(r"\b(?:beamline|extension|provider|router|kube)[a-z_:0-9]*", _bare(alert.expr)))
    assert names
    for name in names - SILENT.keys():
        assert prometheus.query(f"count({name})"), f"nobody exports {name}"
    asked = set(re.findall(r"\$labels\.(\w+)", alert.summary))
    assert asked <= set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", alert.expr))))


def test_the_exemplars_feature_takes_what_the_router_answers(prometheus: Observed) -> None:
    (router,) = prometheus.jobs["router"]
    scraped = [
        one for one in prometheus.api("targets")["activeTargets"] if str(router.port) in one["scrapeUrl"]
    ]
    assert [(one["health"], one["lastError"]) for one in scraped] == [("up", "")]


def test_an_exemplar_that_prometheus_has_stored_leads_to_a_trace_that_was_sent(prometheus: Observed) -> None:
    now = time.time()
    found = prometheus.api(
        "query_exemplars",
        query="router_request_duration_seconds_bucket",
        start=f"{now - 600:.0f}",
        end=f"{now + 60:.0f}",
    )
    stored = {one["labels"]["trace_id"] for series in found for one in series["exemplars"]}
    assert stored

    def sent() -> set[str]:
        return {span.trace_id.hex() for span in prometheus.collector.named("router.request")}

    eventually(lambda: stored & sent(), "a stored exemplar's trace is sent")


def _bare(expr: str) -> str:
    return re.sub(r"\b(by|on) \([^)]*\)|\{[^}]*\}", " ", expr)


def test_a_name_that_nobody_exports_and_an_expression_that_is_none_are_found(prometheus: Observed) -> None:
    assert prometheus.query("sum by (code) (rate(router_reqests_total[5m]))") == []
    with pytest.raises(AssertionError, match="parse error"):
        prometheus.query("sum by (rate(router_requests_total[5m])")
