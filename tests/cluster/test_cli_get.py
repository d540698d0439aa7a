"""``beamline get`` against a cluster: what kubectl would tell, without kubectl."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from harness.processes import BEAMLINE

QUICKSTART = Path(__file__).resolve().parents[2] / "examples" / "quickstart"


def get(cluster: Any, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*BEAMLINE, "get", *arguments, "--kubeconfig", str(cluster.kubeconfig)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_the_objects_of_a_namespace_are_shown_as_a_table(cluster: Any, namespace: str) -> None:
    cluster.kubectl("-n", namespace, "apply", "-f", str(QUICKSTART))
    shown = get(cluster, "-n", namespace)
    assert shown.returncode == 0, shown.stderr
    for name in ("mock-provider", "normalize-text", "pii-guard", "mask-sensitive-data", "default"):
        assert name in shown.stdout
    assert "EXTENSION" in shown.stdout
    assert "\x1b[" not in shown.stdout  # no terminal, no colour


def test_one_object_is_shown_as_json_as_the_api_server_has_it(cluster: Any, namespace: str) -> None:
    cluster.kubectl("-n", namespace, "apply", "-f", str(QUICKSTART))
    shown = get(cluster, "ext", "pii-guard", "-n", namespace, "-o", "json")
    assert shown.returncode == 0, shown.stderr
    found = json.loads(shown.stdout)
    item = found["items"][0] if found["kind"] == "List" else found
    assert item["metadata"]["name"] == "pii-guard"
    assert item["spec"]["config"]["patterns"] == ["credit_card", "ssn"]


def test_an_object_that_is_not_there_is_one_sentence_and_exit_code_1(cluster: Any, namespace: str) -> None:
    shown = get(cluster, "rp", "nobody", "-n", namespace)
    assert shown.returncode == 1
    assert "nobody" in shown.stderr
    assert "Traceback" not in shown.stderr
