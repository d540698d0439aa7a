"""The Grafana dashboards: overview, one extension, routers, operator. A panel is a title, a unit and
expressions.

Selections are variables: ``datasource`` everywhere, ``extension`` where it helps. ``empty`` says why a panel
has no line in a healthy system; a test asks a real Prometheus about every other one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final, Literal

from .slo import DAYS, LEVELS, record


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph; ``targets`` are (expression, legend). ``about`` is its help text."""

    title: str
    unit: str
    targets: tuple[tuple[str, str], ...]
    about: str = ""
    kind: Literal["timeseries", "stat"] = "timeseries"
    empty: str = ""


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One page. ``variables`` are (name, label, what it is queried by)."""

    uid: str
    title: str
    panels: tuple[Panel, ...]
    variables: tuple[tuple[str, str, str], ...] = ()


def _quantiles(metric: str, by: str = "", where: str = "", legend: str = "") -> tuple[tuple[str, str], ...]:
    labels = f"{by}, le" if by else "le"
    chosen = f"{{{where}}}" if where else ""
    return tuple(
        (
            f"histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket{chosen}[5m])))",
            f"{legend}p{share * 100:g}",
        )
        for share in (0.5, 0.95, 0.99)
    )


_FAILS: Final = "no step fails in a healthy system"
_ONE: Final = 'extension_id=~"$extension"'
_PROVIDER: Final = 'provider_id=~"$extension"'

OVERVIEW: Final = Dashboard(
    "beamline",
    "Beamline / Overview",
    (
        Panel(
            "Requests per second",
            "reqps",
            (("sum(rate(router_requests_total[5m]))", "requests"),),
            kind="stat",
        ),
        Panel(
            "Answered",
            "percentunit",
            (
                (
                    'sum(rate(router_requests_total{code="ok"}[5m])) / sum(rate(router_requests_total[5m]))',
                    "answered",
                ),
            ),
            kind="stat",
        ),
        Panel(
            "Time of a request, p99",
            "s",
            (_quantiles("router_request_duration_seconds")[2],),
            kind="stat",
        ),
        Panel(
            "Routers, leaders",
            "short",
            (("count(router_requests_in_flight)", "routers"), ("sum(beamline_operator_leader)", "leaders")),
            kind="stat",
        ),
        Panel(
            "Requests per second, by end",
            "reqps",
            (("sum by (code) (rate(router_requests_total[5m]))", "{{code}}"),),
        ),
        Panel("Time of a request", "s", _quantiles("router_request_duration_seconds")),
        Panel(
            "Steps per second, by extension",
            "reqps",
            (("sum by (extension_id) (rate(extension_requests_total[5m]))", "{{extension_id}}"),),
        ),
        Panel(
            "Steps that fail",
            "reqps",
            (
                (
                    "sum by (extension_id, reason) (rate(extension_failures_total[5m]))",
                    "{{extension_id}} {{reason}}",
                ),
            ),
            empty=_FAILS,
        ),
        Panel(
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
        Panel(
            "Tokens per second",
            "short",
            (
                (
                    "sum by (gen_ai_provider_name, gen_ai_token_type)"
                    " (rate(gen_ai_client_token_usage_sum"
                    '{gen_ai_request_model=""}[5m]))',
                    "{{gen_ai_provider_name}} {{gen_ai_token_type}}",
                ),
            ),
            "As routers count them, so that a provider in any language is in it.",
        ),
        Panel(
            "US dollars per hour",
            "currencyUSD",
            (("sum by (provider_id) (rate(provider_cost_usd_total[1h])) * 3600", "{{provider_id}}"),),
            "At the prices in the providers' configuration.",
            empty="only providers of model APIs export it",
        ),
        Panel(
            f"Error budget left, {DAYS} days",
            "percentunit",
            tuple(
                (f"1 - avg_over_time({record(level, '1h')}[{DAYS}d]) / {level.budget}", level.name)
                for level in LEVELS
            ),
            "1 is all, 0 is none; the mean of hourly shares, so quiet hours weigh as much as busy ones.",
        ),
    ),
)

EXTENSION: Final = Dashboard(
    "beamline-extension",
    "Beamline / Extension",
    (
        Panel(
            "Steps per second, by end",
            "reqps",
            ((f"sum by (status) (rate(extension_requests_total{{{_ONE}}}[5m]))", "{{status}}"),),
        ),
        Panel("Time of a step", "s", _quantiles("extension_request_duration_seconds", where=_ONE)),
        Panel(
            "Failures, by reason",
            "reqps",
            ((f"sum by (reason) (rate(extension_failures_total{{{_ONE}}}[5m]))", "{{reason}}"),),
            empty=_FAILS,
        ),
        Panel(
            "Breaker, worst router (0 closed, 1 half-open, 2 open, 3 isolated)",
            "short",
            ((f"max by (extension_id) (extension_breaker_state{{{_ONE}}})", "{{extension_id}}"),),
            empty="a breaker that has never opened has no series",
        ),
        Panel(
            "In the workload: executed per second",
            "reqps",
            (
                (
                    f"sum by (extension_id, status) (rate(beamline_runtime_requests_total{{{_ONE}}}[5m]))",
                    "{{extension_id}} {{status}}",
                ),
            ),
            "The same traffic from the other end: what is missing here was refused, or never arrived.",
        ),
        Panel(
            "In the workload: time of its own code",
            "s",
            _quantiles("beamline_runtime_request_duration_seconds", where=_ONE),
        ),
        Panel(
            "In the workload: at work, waiting",
            "short",
            (
                (f"sum by (extension_id) (beamline_runtime_in_flight{{{_ONE}}})", "{{extension_id}} at work"),
                (f"sum by (extension_id) (beamline_runtime_waiting{{{_ONE}}})", "{{extension_id}} waiting"),
            ),
        ),
        Panel(
            "In the workload: refused unexecuted",
            "reqps",
            (
                (
                    f"sum by (reason) (rate(beamline_runtime_refused_total{{{_ONE}}}[5m]))",
                    "{{reason}}",
                ),
            ),
        ),
        Panel(
            "Provider: tokens per second, as routers count them",
            "short",
            (
                (
                    'sum by (gen_ai_token_type) (rate(gen_ai_client_token_usage_sum{gen_ai_request_model="",'
                    'gen_ai_provider_name=~"$extension"}[5m]))',
                    "{{gen_ai_token_type}}",
                ),
            ),
        ),
        Panel("Provider: time of a step", "s", _quantiles("provider_latency_seconds", where=_PROVIDER)),
        Panel(
            "Dropped: what it may not say",
            "reqps",
            ((f"sum by (what) (rate(extension_dropped_total{{{_ONE}}}[5m]))", "{{what}}"),),
            empty="an extension that keeps the contract sends nothing that is dropped",
        ),
        Panel(
            "Versions that run",
            "short",
            (
                (
                    f"count by (extension_id, version) (beamline_runtime_info{{{_ONE}}})",
                    "{{extension_id}} {{version}}",
                ),
            ),
        ),
    ),
    (("extension", "Extension", "label_values(extension_requests_total, extension_id)"),),
)

ROUTER: Final = Dashboard(
    "beamline-router",
    "Beamline / Routers",
    (
        Panel(
            "Requests per second, by router",
            "reqps",
            (("sum by (instance) (rate(router_requests_total[5m]))", "{{instance}}"),),
        ),
        Panel(
            "Requests per second, by door",
            "reqps",
            (("sum by (door) (rate(router_requests_total[5m]))", "{{door}}"),),
        ),
        Panel(
            "Requests in flight",
            "short",
            (("sum by (instance) (router_requests_in_flight)", "{{instance}}"),),
        ),
        Panel("Time outside of the provider", "s", _quantiles("router_overhead_seconds")),
        Panel(
            "Refused at the door",
            "reqps",
            (("sum by (door, reason) (rate(router_refused_total[5m]))", "{{door}} {{reason}}"),),
            empty="nobody is refused in a healthy system",
        ),
        Panel(
            "Overload: share refused",
            "percentunit",
            (("max by (instance) (router_overload_share)", "{{instance}}"),),
        ),
        Panel(
            "Overload: standing delay",
            "s",
            (("max by (instance) (router_overload_delay_seconds)", "{{instance}}"),),
        ),
        Panel(
            "Revision that is served",
            "short",
            (("max by (instance) (extension_registry_revision)", "{{instance}}"),),
        ),
        Panel(
            "Age of the table",
            "s",
            (("max by (instance) (extension_registry_age_seconds)", "{{instance}}"),),
        ),
        Panel(
            "Extensions in the table",
            "short",
            (('max by (type, enabled) (extension_registry_size{type!=""})', "{{type}} enabled={{enabled}}"),),
        ),
        Panel(
            "Reloads per second, and those that fail",
            "ops",
            (
                ("sum(rate(extension_registry_reload_duration_seconds_count[5m]))", "reloads"),
                ("sum(rate(extension_registry_reload_errors_total[5m]))", "failed"),
            ),
        ),
        Panel(
            "Replies too late",
            "ops",
            (("sum by (instance) (rate(router_late_replies_total[5m]))", "{{instance}}"),),
        ),
    ),
)

OPERATOR: Final = Dashboard(
    "beamline-operator",
    "Beamline / Operator",
    (
        Panel(
            "Reconciles per second, by result",
            "ops",
            (
                (
                    "sum by (kind, result) (rate(beamline_operator_reconcile_seconds_count[5m]))",
                    "{{kind}} {{result}}",
                ),
            ),
        ),
        Panel(
            "Time of a reconcile, p95",
            "s",
            (
                (
                    "histogram_quantile(0.95,"
                    " sum by (kind, le) (rate(beamline_operator_reconcile_seconds_bucket[5m])))",
                    "{{kind}}",
                ),
            ),
        ),
        Panel("Leaders", "short", (("sum by (instance) (beamline_operator_leader)", "{{instance}}"),)),
        Panel(
            "Objects that wait",
            "short",
            (("max by (instance) (beamline_operator_queue_depth)", "{{instance}}"),),
        ),
        Panel(
            "Routers that reported",
            "short",
            (("max by (instance) (beamline_operator_routers)", "{{instance}}"),),
        ),
        Panel(
            "Objects, by kind",
            "short",
            (('max by (kind) (extension_registry_size{kind!=""})', "{{kind}}"),),
        ),
        Panel(
            "Kubernetes API requests per second",
            "reqps",
            (("sum by (verb, code) (rate(beamline_operator_api_calls_total[5m]))", "{{verb}} {{code}}"),),
        ),
        Panel(
            "Watch events per second",
            "ops",
            (("sum by (instance) (rate(beamline_operator_watch_events_total[5m]))", "{{instance}}"),),
        ),
        Panel(
            "Seconds since the last watch event",
            "s",
            (("min by (instance) (beamline_operator_watch_age_seconds)", "{{instance}}"),),
        ),
        Panel(
            "Drift that was repaired",
            "ops",
            (("sum by (what) (rate(beamline_operator_drift_repairs_total[5m]))", "{{what}}"),),
            empty="nobody else changes what the operator owns in a healthy system",
        ),
        Panel(
            "Event loop blocked",
            "ops",
            (("sum by (instance) (rate(beamline_operator_loop_blocks_total[5m]))", "{{instance}}"),),
        ),
        Panel(
            "Admin API: requests per second",
            "reqps",
            (("sum by (route, status) (rate(beamline_admin_requests_total[5m]))", "{{route}} {{status}}"),),
        ),
    ),
)

DASHBOARDS: Final = (OVERVIEW, EXTENSION, ROUTER, OPERATOR)


def as_json(dashboard: Dashboard) -> str:
    """What Grafana imports; its data source is chosen in the dashboard."""
    variables: list[dict[str, Any]] = [
        {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}
    ]
    for name, label, query in dashboard.variables:
        variables.append(
            {
                "name": name,
                "type": "query",
                "label": label,
                "datasource": {"type": "prometheus", "uid": "${datasource}"},
                "query": {"query": query, "refId": name},
                "refresh": 2,
                "includeAll": True,
                "allValue": ".+",
                "multi": True,
                "current": {"text": "All", "value": "$__all"},
                "sort": 1,
            }
        )
    links = [
        {"type": "link", "title": other.title, "url": f"/d/{other.uid}", "keepTime": True}
        for other in DASHBOARDS
        if other is not dashboard
    ]
    page = {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": ["beamline"],
        "schemaVersion": 39,
        "time": {"from": "now-3h", "to": "now"},
        "refresh": "30s",
        "templating": {"list": variables},
        "links": links,
        "panels": list(_placed(dashboard.panels)),
    }
    return json.dumps(page, indent=1) + "\n"


def _placed(panels: tuple[Panel, ...]) -> list[dict[str, Any]]:
    """Small figures four in a row, graphs two in a row."""
    placed: list[dict[str, Any]] = []
    x = y = 0
    for number, panel in enumerate(panels):
        width, height = (6, 4) if panel.kind == "stat" else (12, 8)
        if x + width > 24:
            x, y = 0, y + int(placed[-1]["gridPos"]["h"])
        exemplars = panel.kind == "timeseries" and panel.unit == "s" and "_bucket" in panel.targets[0][0]
        placed.append(
            {
                "id": number + 1,
                "type": panel.kind,
                "title": panel.title,
                "description": " ".join(
                    filter(None, (panel.about, panel.empty and f"Empty: {panel.empty}."))
                ),
                "datasource": {"type": "prometheus", "uid": "${datasource}"},
                "gridPos": {"h": height, "w": width, "x": x, "y": y},
                "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
                "targets": [
                    {
                        "refId": chr(ord("A") + index),
                        "expr": expr,
                        "legendFormat": legend,
                        **({"exemplar": True} if exemplars else {}),
                    }
                    for index, (expr, legend) in enumerate(panel.targets)
                ],
            }
        )
        x += width
    return placed
