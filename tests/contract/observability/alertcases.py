"""When each alert fires and when it does not: series in promtool's notation, one value a minute.

``quiet`` is as near to ``fires`` as the alert's threshold allows to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Series = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Case:
    """One alert. ``at`` is when Prometheus is asked; ``alerts`` how many fire then."""

    name: str
    at: str
    fires: Series
    quiet: Series
    alerts: int = 1


def requests(bad: float, minutes: int = 40, code: str = "internal") -> Series:
    """``bad`` of 1,000 requests a minute end in ``code``."""
    return {
        f'router_requests_total{{door="http",code="{code}"}}': f"0+{bad}x{minutes}",
        'router_requests_total{door="nats",code="ok"}': f"0+{1000 - bad}x{minutes}",
    }


def histogram(  # noqa: PLR0917 -- a table's columns
    name: str, within: int, bound: str, above: str, labels: str = "", minutes: int = 40
) -> Series:
    """``within`` of 100 observations a minute are at most ``bound``, the rest at most ``above``."""
    return {
        f'{name}_bucket{{{labels}le="{bound}"}}': f"0+{within}x{minutes}",
        f'{name}_bucket{{{labels}le="{above}"}}': f"0+100x{minutes}",
        f'{name}_bucket{{{labels}le="+Inf"}}': f"0+100x{minutes}",
        f"{name}_count{{{labels.rstrip(',')}}}": f"0+100x{minutes}",
    }


def steps(errors: int) -> Series:
    """``errors`` of 100 steps a minute of one extension fail."""
    return {
        'extension_requests_total{extension_id="guard",status="error"}': f"0+{errors}x40",
        'extension_requests_total{extension_id="guard",status="ok"}': f"0+{100 - errors}x40",
    }


def reconciles(failed: int) -> Series:
    """``failed`` of 100 reconciles a minute don't succeed."""
    name = "beamline_operator_reconcile_seconds_count"
    return {
        f'{name}{{kind="Extension",result="retry"}}': f"0+{failed}x40",
        f'{name}{{kind="Extension",result="ok"}}': f"0+{100 - failed}x40",
    }


ROUTER = '{namespace="n",pod="router-a"}'
OTHER = '{namespace="n",pod="router-b"}'
LEADER = 'beamline_operator_leader{namespace="n",job="operator",pod="operator-a"}'
STANDBY = 'beamline_operator_leader{namespace="n",job="operator",pod="operator-b"}'
HEARD = 'beamline_operator_routers{namespace="n",job="operator",pod="operator-a"}'
BREAKER = 'extension_breaker_state{extension_id="gpt"}'
MIGRATION = 'kube_job_status_failed{namespace="n",job_name="beamline-migration-0123abcd"}'

CASES = (
    Case("BeamlineNoRouter", "5m", {"up": "1x10"}, {"router_requests_in_flight": "0x10"}),
    Case("BeamlineRequestsFail", "15m", requests(60), requests(40)),
    Case(
        "BeamlineRequestsSlow",
        "20m",
        histogram("router_request_duration_seconds", 98, "30.0", "60.0"),
        histogram("router_request_duration_seconds", 100, "30.0", "60.0"),
    ),
    Case(
        "BeamlineRouterOverloaded",
        "10m",
        {f"router_overload_share{ROUTER}": "0.06x20"},
        {f"router_overload_share{ROUTER}": "0.04x20"},
    ),
    Case(
        "BeamlineManyRefusals",
        "30m",
        {'router_refused_total{door="http",reason="no_key"}': "0+90x40"},
        {'router_refused_total{door="http",reason="no_key"}': "0+30x40"},
    ),
    Case(
        "BeamlineTableStale",
        "5m",
        {f"extension_registry_age_seconds{ROUTER}": "190x10"},
        {f"extension_registry_age_seconds{ROUTER}": "170x10"},
    ),
    Case(
        "BeamlineRoutersDisagree",
        "10m",
        {f"extension_registry_revision{ROUTER}": "7x20", f"extension_registry_revision{OTHER}": "8x20"},
        {f"extension_registry_revision{ROUTER}": "8x20", f"extension_registry_revision{OTHER}": "8x20"},
    ),
    Case(
        "BeamlineReloadsFail",
        "12m",
        {f"extension_registry_reload_errors_total{ROUTER}": "0+1x20"},
        {f"extension_registry_reload_errors_total{ROUTER}": "0+0.4x20"},
    ),
    Case("BeamlineBreakerOpen", "10m", {BREAKER: "2x20"}, {BREAKER: "1x20"}),
    Case("BeamlineExtensionIsolated", "70m", {BREAKER: "3x80"}, {BREAKER: "2x80"}),
    Case("BeamlineExtensionFails", "20m", steps(25), steps(15)),
    Case(
        "BeamlineProviderSlow",
        "30m",
        histogram("provider_latency_seconds", 80, "10.0", "30.0", 'provider_id="gpt",'),
        histogram("provider_latency_seconds", 97, "10.0", "30.0", 'provider_id="gpt",'),
    ),
    Case(
        "BeamlineExtensionOverloaded",
        "20m",
        {'beamline_runtime_refused_total{extension_id="gpt",reason="overloaded"}': "0+12x40"},
        {'beamline_runtime_refused_total{extension_id="gpt",reason="expired"}': "0+12x40"},
    ),
    Case("BeamlineNoLeader", "5m", {LEADER: "0x10"}, {LEADER: "1x10", STANDBY: "0x10"}),
    Case("BeamlineTwoLeaders", "5m", {LEADER: "1x10", STANDBY: "1x10"}, {LEADER: "1x10", STANDBY: "0x10"}),
    Case(
        "BeamlineOperatorBehind",
        "15m",
        {'beamline_operator_queue_depth{namespace="n"}': "110x30"},
        {'beamline_operator_queue_depth{namespace="n"}': "100x30"},
    ),
    Case("BeamlineReconcilesFail", "20m", reconciles(60), reconciles(45)),
    Case(
        "BeamlineNoRouterReports",
        "8m",
        {LEADER: "1x20", HEARD: "0x20"},
        {LEADER: "1x20", HEARD: "1x20"},
    ),
    Case(
        "BeamlineOperatorBlocked",
        "12m",
        {f"beamline_operator_loop_blocks_total{ROUTER}": "0+1x20"},
        {f"beamline_operator_loop_blocks_total{ROUTER}": "0+0.4x20"},
    ),
    Case(
        "BeamlineDriftRepaired",
        "18m",
        {'beamline_operator_drift_repairs_total{what="Deployment"}': "0+2x30"},
        {'beamline_operator_drift_repairs_total{what="Deployment"}': "0+1x30"},
    ),
    Case("BeamlineMigrationFailed", "2m", {MIGRATION: "1x5"}, {MIGRATION: "0x5"}),
    Case("BeamlineAvailabilityBurnsFast", "90m", requests(20, 100), requests(5, 100), alerts=2),
    Case("BeamlineAvailabilityBurnsSlow", "4h", requests(4, 250), requests(0.5, 250), alerts=2),
    Case(
        "BeamlineLatencyBurnsFast",
        "90m",
        histogram("router_overhead_seconds", 80, "0.1", "0.25", minutes=100),
        histogram("router_overhead_seconds", 95, "0.1", "0.25", minutes=100),
        alerts=2,
    ),
    Case(
        "BeamlineLatencyBurnsSlow",
        "4h",
        histogram("router_overhead_seconds", 96, "0.1", "0.25", minutes=250),
        histogram("router_overhead_seconds", 100, "0.1", "0.25", minutes=250),
        alerts=2,
    ),
)
OTHERS = (
    Case("BeamlineNoLeader", "5m", {"up": "1x10"}, {LEADER: "1x10"}),
    Case(
        "BeamlineRequestsFail", "15m", requests(60, code="unavailable"), requests(60, code="invalid_argument")
    ),
    Case(
        "BeamlineMigrationFailed",
        "2m",
        {MIGRATION: "1x5"},
        {'kube_job_status_failed{job_name="else"}': "1x5"},
    ),
    Case(
        "BeamlineAvailabilityBurnsFast",
        "100m",
        requests(20, 110),
        # an hour ago it was just as bad: the short window says that it is over
        {
            'router_requests_total{door="http",code="internal"}': "0+20x60 1200+0x50",
            'router_requests_total{door="nats",code="ok"}': "0+980x110",
        },
        alerts=2,
    ),
    Case(
        "BeamlineAvailabilityBurnsFast",
        "90m",
        requests(1000, 100),
        {'router_requests_total{code="ok"}': "0x100"},  # nobody asks: nothing is bad
        alerts=2,
    ),
)
"""More of some of them, each under what could be mistaken for it."""
