"""Every alert fires when it should, and only then, by promtool's own evaluation of the file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "scripts"), str(Path(__file__).resolve().parent)]
from alertcases import CASES, OTHERS, Case, Series  # noqa: E402

from observability import ALERTS  # noqa: E402

RULES = ROOT / "deploy" / "observability" / "alerts.yaml"


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        reason = "no promtool on PATH: `make test-tools` installs it (Debian's prometheus)"
        if os.environ.get("CI"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return found


def run(promtool: str, *arguments: str) -> str:
    done = subprocess.run([promtool, *arguments], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def situation(case: Case, series: Series, alerts: int) -> dict[str, Any]:
    """One test of promtool: with ``series``, as many alerts of that name fire."""
    firing = f'count(ALERTS{{alertname="{case.name}",alertstate="firing"}}) or vector(0)'
    asked = {"expr": firing, "eval_time": case.at, "exp_samples": [{"labels": "{}", "value": alerts}]}
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [asked],
    }


def test_the_file_is_what_prometheus_reads(promtool: str) -> None:
    assert "SUCCESS" in run(promtool, "check", "rules", str(RULES))


def test_every_alert_has_a_case_and_every_case_its_alert() -> None:
    assert {case.name for case in CASES} == {alert.name for alert in ALERTS}
    assert {case.name for case in OTHERS} <= {alert.name for alert in ALERTS}


@pytest.mark.parametrize("case", [*CASES, *OTHERS], ids=lambda case: f"{case.name} at {case.at}")
def test_an_alert_fires_when_it_should_and_only_then(case: Case, promtool: str, tmp_path: Path) -> None:
    path = tmp_path / "tests.yaml"
    tests = [situation(case, case.fires, case.alerts), situation(case, case.quiet, 0)]
    path.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
    run(promtool, "test", "rules", str(path))


def test_what_the_person_on_call_reads_names_what_it_is_about(promtool: str, tmp_path: Path) -> None:
    path = tmp_path / "tests.yaml"
    breaker = {
        "interval": "1m",
        "input_series": [{"series": 'extension_breaker_state{extension_id="gpt"}', "values": "2x20"}],
        "alert_rule_test": [
            {
                "eval_time": "10m",
                "alertname": "BeamlineBreakerOpen",
                "exp_alerts": [
                    {
                        "exp_labels": {"severity": "warning", "extension_id": "gpt"},
                        "exp_annotations": {
                            "summary": "The breaker of gpt has been open for 5 minutes.",
                            "runbook_url": "docs/runbook.md#beamlinebreakeropen",
                        },
                    }
                ],
            }
        ],
    }
    path.write_text(
        yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [breaker]})
    )
    run(promtool, "test", "rules", str(path))
