"""The alerts that are no service level: each says what is wrong, and docs/runbook.md what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert. ``wait`` is how long ``expr`` has to hold; ``summary`` is what the person on call reads."""

    name: str
    severity: Literal["critical", "warning", "info"]
    wait: str
    expr: str
    summary: str
    labels: tuple[tuple[str, str], ...] = ()


BAD_CODES: Final = 'code=~"internal|unavailable|deadline_exceeded|stream_interrupted"'
"""Ends of requests that are no caller's fault."""
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
        f"sum(rate(router_requests_total{{{BAD_CODES}}}[5m])) / sum(rate(router_requests_total[5m])) > 0.05",
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
