"""Writes alerts and the Grafana dashboard, or with ``--check`` says if a copy is stale (exit code 1).

:data:`ALERTS` is the one list; docs/runbook.md has a section per alert, and a test compares the two, as it
compares every metric named here with what the components export. Each file is written twice: below
deploy/observability for those who bring their own Prometheus, and into the chart, which can read nothing
outside of itself.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

ROOT = Path(__file__).resolve().parent.parent
FOLDERS: Final = (ROOT / "deploy" / "observability", ROOT / "charts" / "beamline" / "files")
RUNBOOK: Final = "docs/runbook.md"


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert. ``wait`` is how long ``expr`` has to hold; ``summary`` is what the person on call reads."""

    name: str
    severity: Literal["critical", "warning", "info"]
    wait: str
    expr: str
    summary: str


_BAD_CODES: Final = 'code=~"internal|unavailable|deadline_exceeded|stream_interrupted"'
ALERTS: Final = (
    Alert(
        "BeamlineNoRouter",
        "critical",
        "2m",
        "absent(router_requests_in_flight)",
        "No router is scraped: nobody answers requests, or Prometheus does not reach the routers.",
    ),
    Alert(
        "BeamlineRequestsFail",
        "critical",
        "5m",
        f"sum(rate(router_requests_total{{{_BAD_CODES}}}[5m])) / sum(rate(router_requests_total[5m])) > 0.05",
        "{{ $value | humanizePercentage }} of the requests end in an error that is not the caller's.",
    ),
    Alert(
        "BeamlineRequestsSlow",
        "warning",
        "10m",
        "histogram_quantile(0.99, sum by (le) (rate(router_request_duration_seconds_bucket[5m]))) > 30",
        "1 of 100 requests takes more than {{ $value | humanizeDuration }}.",
    ),
    Alert(
        "BeamlineRouterOverloaded",
        "warning",
        "5m",
        "max by (namespace, pod) (router_overload_share) > 0.05",
        "Router {{ $labels.pod }} refuses {{ $value | humanizePercentage }} of its requests for overload.",
    ),
    Alert(
        "BeamlineManyRefusals",
        "info",
        "15m",
        "sum by (reason) (rate(router_refused_total[10m])) > 1",
        "{{ $value | humanize }} requests per second are refused at the door: {{ $labels.reason }}.",
    ),
    Alert(
        "BeamlineTableStale",
        "warning",
        "2m",
        "max by (namespace, pod) (extension_registry_age_seconds) > 180",
        "Router {{ $labels.pod }} serves a table that is {{ $value | humanizeDuration }} old.",
    ),
    Alert(
        "BeamlineRoutersDisagree",
        "warning",
        "5m",
        "max by (namespace) (extension_registry_revision)"
        " - min by (namespace) (extension_registry_revision) > 0",
        "Routers of {{ $labels.namespace }} have served different revisions of the registry for 5 minutes.",
    ),
    Alert(
        "BeamlineReloadsFail",
        "warning",
        "0m",
        "sum by (namespace, pod) (increase(extension_registry_reload_errors_total[10m])) > 5",
        "Router {{ $labels.pod }} can't reload its table; the last good one serves on.",
    ),
    Alert(
        "BeamlineBreakerOpen",
        "warning",
        "5m",
        "max by (extension_id) (extension_breaker_state) == 2",
        "The breaker of {{ $labels.extension_id }} has been open for 5 minutes.",
    ),
    Alert(
        "BeamlineExtensionIsolated",
        "info",
        "1h",
        "max by (extension_id) (extension_breaker_state) == 3",
        "{{ $labels.extension_id }} has been isolated by hand for an hour.",
    ),
    Alert(
        "BeamlineExtensionFails",
        "warning",
        "10m",
        'sum by (extension_id) (rate(extension_requests_total{status="error"}[5m]))'
        " / sum by (extension_id) (rate(extension_requests_total[5m])) > 0.2",
        "{{ $value | humanizePercentage }} of the steps of {{ $labels.extension_id }} fail.",
    ),
    Alert(
        "BeamlineProviderSlow",
        "info",
        "15m",
        "histogram_quantile(0.95, sum by (provider_id, le) (rate(provider_latency_seconds_bucket[5m]))) > 20",
        "1 of 20 calls of {{ $labels.provider_id }} takes more than {{ $value | humanizeDuration }}.",
    ),
    Alert(
        "BeamlineExtensionOverloaded",
        "warning",
        "10m",
        'sum by (extension_id) (rate(beamline_runtime_refused_total{reason="overloaded"}[5m])) > 0.1',
        "{{ $labels.extension_id }} has no place for all of its requests.",
    ),
    Alert(
        "BeamlineNoLeader",
        "critical",
        "2m",
        "(sum(beamline_operator_leader) or vector(0)) < 1",
        "No operator leads: changes of objects have no effect. Requests are served on.",
    ),
    Alert(
        "BeamlineTwoLeaders",
        "critical",
        "1m",
        "sum by (namespace, job) (beamline_operator_leader) > 1",
        "{{ $value }} operators of {{ $labels.namespace }} believe that they lead.",
    ),
    Alert(
        "BeamlineOperatorBehind",
        "warning",
        "10m",
        "max by (namespace) (beamline_operator_queue_depth) > 100",
        "{{ $value }} objects wait for the operator of {{ $labels.namespace }}.",
    ),
    Alert(
        "BeamlineReconcilesFail",
        "warning",
        "10m",
        'sum by (kind) (rate(beamline_operator_reconcile_seconds_count{result!="ok"}[5m]))'
        " / sum by (kind) (rate(beamline_operator_reconcile_seconds_count[5m])) > 0.5",
        "More than half of the reconciles of {{ $labels.kind }} objects don't succeed.",
    ),
    Alert(
        "BeamlineNoRouterReports",
        "critical",
        "3m",
        "max by (namespace) (beamline_operator_leader * beamline_operator_routers) == 0"
        " and on (namespace) max by (namespace) (beamline_operator_leader) == 1",
        "The operator of {{ $labels.namespace }} hears of no router: NATS, or all of the routers, are away.",
    ),
    Alert(
        "BeamlineOperatorBlocked",
        "warning",
        "0m",
        "sum by (namespace, pod) (increase(beamline_operator_loop_blocks_total[10m])) > 5",
        "The event loop of operator {{ $labels.pod }} stands still again and again.",
    ),
    Alert(
        "BeamlineDriftRepaired",
        "info",
        "0m",
        "sum by (what) (increase(beamline_operator_drift_repairs_total[15m])) > 20",
        "Somebody else keeps changing what the operator owns ({{ $labels.what }}).",
    ),
    Alert(
        "BeamlineMigrationFailed",
        "critical",
        "0m",
        'max by (namespace, job_name) (kube_job_status_failed{job_name=~".*-migration-[0-9a-f]{8}"}) > 0',
        "Migration {{ $labels.job_name }} has failed; the new operator waits, all else runs on.",
    ),
)


def alerts() -> str:
    """The groups of a PrometheusRule, or of a rule file of Prometheus."""
    lines = ["groups:", "  - name: beamline", "    rules:"]
    for alert in ALERTS:
        lines += [
            f"      - alert: {alert.name}",
            f"        expr: {json.dumps(alert.expr)}",
            f"        for: {alert.wait}",
            f"        labels: {{severity: {alert.severity}}}",
            "        annotations:",
            f"          summary: {json.dumps(alert.summary)}",
            f"          runbook_url: {json.dumps(f'{RUNBOOK}#{alert.name.lower()}')}",
        ]
    return "\n".join(lines) + "\n"


_PANELS: Final[tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...]] = (
    (
        "Requests per second, by end",
        "reqps",
        (("sum by (code) (rate(router_requests_total[5m]))", "{{code}}"),),
    ),
    (
        "Time of a request",
        "s",
        tuple(
            (
                f"histogram_quantile({share},"
                " sum by (le) (rate(router_request_duration_seconds_bucket[5m])))",
                f"p{share * 100:g}",
            )
            for share in (0.5, 0.95, 0.99)
        ),
    ),
    ("Requests in flight", "short", (("sum by (pod) (router_requests_in_flight)", "{{pod}}"),)),
    ("Refused at the door", "reqps", (("sum by (reason) (rate(router_refused_total[5m]))", "{{reason}}"),)),
    (
        "Steps that fail",
        "reqps",
        (
            (
                "sum by (extension_id, reason) (rate(extension_failures_total[5m]))",
                "{{extension_id}} {{reason}}",
            ),
        ),
    ),
    (
        "Breakers (0 closed, 1 half-open, 2 open, 3 isolated)",
        "short",
        (("max by (extension_id) (extension_breaker_state)", "{{extension_id}}"),),
    ),
    (
        "Time of a provider, p95",
        "s",
        (
            (
                "histogram_quantile(0.95,"
                " sum by (provider_id, le) (rate(provider_latency_seconds_bucket[5m])))",
                "{{provider_id}}",
            ),
        ),
    ),
    (
        "Tokens per second",
        "short",
        (("sum by (provider_id, type) (rate(provider_tokens_total[5m]))", "{{provider_id}} {{type}}"),),
    ),
    ("Revision that routers serve", "short", (("max by (pod) (extension_registry_revision)", "{{pod}}"),)),
    ("Age of the routers' tables", "s", (("max by (pod) (extension_registry_age_seconds)", "{{pod}}"),)),
    (
        "Reconciles per second, by result",
        "ops",
        (
            (
                "sum by (kind, result) (rate(beamline_operator_reconcile_seconds_count[5m]))",
                "{{kind}} {{result}}",
            ),
        ),
    ),
    (
        "Operators: leader, queue, routers heard of",
        "short",
        (
            ("sum(beamline_operator_leader)", "leaders"),
            ("max(beamline_operator_queue_depth)", "queue"),
            ("max(beamline_operator_routers)", "routers"),
        ),
    ),
)


def dashboard() -> str:
    """A Grafana dashboard; its data source is chosen in the dashboard."""
    panels: list[dict[str, Any]] = []
    for number, (title, unit, targets) in enumerate(_PANELS):
        panels.append(
            {
                "id": number + 1,
                "type": "timeseries",
                "title": title,
                "datasource": {"type": "prometheus", "uid": "${datasource}"},
                "gridPos": {"h": 8, "w": 12, "x": 12 * (number % 2), "y": 8 * (number // 2)},
                "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
                "targets": [
                    {"refId": chr(ord("A") + index), "expr": expr, "legendFormat": legend}
                    for index, (expr, legend) in enumerate(targets)
                ],
            }
        )
    variable = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}
    page = {
        "uid": "beamline",
        "title": "Beamline",
        "tags": ["beamline"],
        "schemaVersion": 39,
        "time": {"from": "now-3h", "to": "now"},
        "refresh": "30s",
        "templating": {"list": [variable]},
        "panels": panels,
    }
    return json.dumps(page, indent=1) + "\n"


def main(arguments: list[str]) -> int:
    """Writes or checks all copies; returns the exit code."""
    wanted = {"alerts.yaml": alerts(), "dashboard.json": dashboard()}
    stale = []
    for path, text in ((folder / name, text) for folder in FOLDERS for name, text in wanted.items()):
        if "--check" in arguments:
            if not path.exists() or path.read_text() != text:
                stale.append(str(path.relative_to(ROOT)))
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    if stale:
        print(f"stale: {', '.join(stale)}: run `python scripts/observability.py`")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
