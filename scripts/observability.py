"""Writes rules and Grafana dashboards, or with ``--check`` says if a copy is stale (exit code 1).

The lists are in ``observing/``: alerts, service levels, dashboards. docs/runbook.md has a section per alert,
and tests compare the two, ask promtool whether each alert fires when it should, and a real Prometheus for
every expression. Each file is written twice: below deploy/observability for those who bring their own
Prometheus, and into the chart, which can read nothing outside of itself.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

from observing import alerts, slo
from observing.alerts import Alert
from observing.dashboards import DASHBOARDS, as_json

ROOT = Path(__file__).resolve().parent.parent
FOLDERS: Final = (ROOT / "deploy" / "observability", ROOT / "charts" / "beamline" / "files")
RUNBOOK: Final = "docs/runbook.md"
ALERTS: Final[tuple[Alert, ...]] = (*alerts.ALERTS, *slo.ALERTS)


def rules() -> str:
    """The groups of a PrometheusRule, or of a rule file of Prometheus."""
    lines = ["groups:", "  - name: beamline-slo", "    rules:"]
    for name, expr in slo.recordings():
        lines += [f"      - record: {name}", f"        expr: {json.dumps(expr)}"]
    lines += ["  - name: beamline", "    rules:"]
    for alert in ALERTS:
        labels = ", ".join(
            f"{name}: {value}" for name, value in (("severity", alert.severity), *alert.labels)
        )
        lines += [
            f"      - alert: {alert.name}",
            f"        expr: {json.dumps(alert.expr)}",
            f"        for: {alert.wait}",
            f"        labels: {{{labels}}}",
            "        annotations:",
            f"          summary: {json.dumps(alert.summary)}",
            f"          runbook_url: {json.dumps(f'{RUNBOOK}#{alert.name.lower()}')}",
        ]
    return "\n".join(lines) + "\n"


def files() -> dict[str, str]:
    """Name to text of everything that is written."""
    return {
        "alerts.yaml": rules(),
        **{f"{dashboard.uid}.json": as_json(dashboard) for dashboard in DASHBOARDS},
    }


def main(arguments: list[str]) -> int:
    """Writes or checks all copies; returns the exit code."""
    wanted = files()
    stale = []
    for folder in FOLDERS:
        known = {path.name for path in folder.glob("*") if path.suffix in {".json", ".yaml"}}
        stale += [str((folder / name).relative_to(ROOT)) for name in sorted(known - wanted.keys())]
        for name, text in wanted.items():
            path = folder / name
            if "--check" in arguments:
                if not path.exists() or path.read_text() != text:
                    stale.append(str(path.relative_to(ROOT)))
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
    if stale:
        print(f"stale: {', '.join(stale)}: run `make crds`, delete what it no longer makes")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
