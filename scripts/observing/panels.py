"""What a Grafana dashboard is made of, and the JSON that Grafana imports.

Selections are variables: ``datasource`` everywhere, others where they help.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal


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


def as_json(dashboard: Dashboard, linked: Sequence[Dashboard]) -> str:
    """What Grafana imports, with links to the others; its data source is chosen in the dashboard."""
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
        for other in linked
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
