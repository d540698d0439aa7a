"""``beamline check`` on a real API server, with an operator, a database and NATS: the chart's own Deployments
and Lease are found, Secrets are looked into without a value, and missing rights are no failures.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import yaml
from controlplane.binaries import CHART_TOOLS, HELM, HOW_TO_GET_CHART_TOOLS, find_or_build
from controlplane.chartaccount import CHART, chosen_mode, make_account, write_kubeconfig
from operatorbench import WORKLOAD, Bench

from harness.processes import BEAMLINE

KEY = {"name": "OPENAI_API_KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "OPENAI_API_KEY"}}}


def check(kubeconfig: Path, *arguments: str, env: dict[str, str] | None = None) -> dict[str, Any]:
    """Verdicts by check; ``code`` is the exit code, ``said`` all that was printed."""
    command = [*BEAMLINE, "check", "--kubeconfig", str(kubeconfig), "-o", "json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=90, env=env)
    assert done.stdout, done.stderr
    found = {one["check"]: one for one in json.loads(done.stdout)}
    return {**found, "code": done.returncode, "said": done.stdout + done.stderr}


def chart_deployments(namespace: str) -> list[dict[str, Any]]:
    """The Deployments of the operator and the routers as Helm renders them."""
    helm = find_or_build(CHART_TOOLS, HOW_TO_GET_CHART_TOOLS).path(HELM)
    only = [f"--show-only=templates/{name}.yaml" for name in ("operator", "router")]
    values = ["--set", "database.existingSecret=registry,nats.url=nats://nats:4222"]
    command = [helm, "template", "beamline", str(CHART), "--namespace", namespace, *values, *only]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [found for found in yaml.safe_load_all(done.stdout) if found]


async def test_an_installation_is_looked_at_from_end_to_end(bench: Bench, cluster: Any, rest: Any) -> None:
    namespace = bench.namespace
    secrets = f"/api/v1/namespaces/{namespace}/secrets"
    for document in chart_deployments(namespace):
        if document["kind"] == "Deployment":
            made = rest.request("POST", f"/apis/apps/v1/namespaces/{namespace}/deployments", document)
            assert made.accepted, made.message
    await bench.start(lease_namespace=namespace)
    await bench.extension("openai", workload={**WORKLOAD, "env": [KEY]})
    await bench.wait("Extension", "openai", "Synced", "True")
    outside = ("--database-url", bench.settings["database_url"], "--nats-url", bench.settings["nats_url"])

    found = await asyncio.to_thread(
        check, cluster.kubeconfig, "-n", namespace, "--install-namespace", namespace, *outside
    )
    verdicts = {name: one["verdict"] for name, one in found.items() if isinstance(one, dict)}
    well = ("api-server", "kubernetes-version", "crds-present", "crds-fresh", "crds-stored", "namespaces",
            "cluster-clock", "your-rights", "operator-lease", "versions", "images", "database", "schema",
            "audit-guards", "audit-chain", "nats", "finalizers", "stalled-objects", "suspended")  # fmt: skip
    assert {name: found[name] for name in well if verdicts[name] != "ok"} == {}
    # No kubelet: the Deployments are found, and none of their pods runs. No role is bound to their account,
    # but where the suite gives the chart's own to its operators.
    assert "no pod that is available" in found["operator"]["message"]
    may = "may not" if chosen_mode() is None else "may do all that an operator does"
    account = f"system:serviceaccount:{namespace}:beamline-operator"
    assert f"{account} {may}" in found["operator-rights"]["message"]
    assert "the Secret keys, which is not there" in found["provider-keys"]["message"]
    failures = {name for name, verdict in verdicts.items() if verdict == "failed"}
    assert {"operator", "components-ready", "provider-keys", "routers"} <= failures
    assert ("operator-rights" in failures) == (chosen_mode() is None)
    assert found["code"] == 1

    rest.request("POST", secrets, {"metadata": {"name": "keys"}, "stringData": {"WRONG": "sk-never-shown"}})
    found = await asyncio.to_thread(
        check, cluster.kubeconfig, "-n", namespace, "--install-namespace", namespace
    )
    assert "the key OPENAI_API_KEY of the Secret keys" in found["provider-keys"]["message"]
    assert "sk-never-shown" not in found["said"]
    body = {"stringData": {"OPENAI_API_KEY": "sk-never-shown"}}
    rest.request("PATCH", f"{secrets}/keys", body, "application/merge-patch+json")
    token = make_account(rest, "roles", [namespace])
    found = await asyncio.to_thread(
        check, cluster.kubeconfig, "-n", namespace, "--install-namespace", namespace
    )
    assert found["provider-keys"]["verdict"] == "ok"
    assert found["operator-rights"]["verdict"] == "ok", found["operator-rights"]
    assert "sk-never-shown" not in found["said"]

    # With the operator's own account, as in its pod: what it may not see is skipped, and nothing of it fails.
    login = write_kubeconfig(cluster.kubeconfig, token, cluster.kubeconfig.with_name(f"{namespace}.yaml"))
    found = await asyncio.to_thread(check, login, "-n", namespace, "--install-namespace", namespace)
    login.unlink()
    assert found["crds-stored"]["verdict"] == "skipped"
    assert "may not look" in found["crds-stored"]["message"]
    assert found["provider-keys"]["verdict"] == "ok" or "not known" in found["provider-keys"]["message"]
    assert found["operator-rights"]["verdict"] == "ok"
    assert found["your-rights"]["verdict"] == "warning"
    assert found["operator-lease"]["verdict"] == "ok"


def test_credentials_that_the_api_server_does_not_know_are_one_failure(cluster: Any, tmp_path: Path) -> None:
    stranger = write_kubeconfig(cluster.kubeconfig, "no-such-token", tmp_path / "stranger.yaml")
    found = check(stranger)
    verdicts = {name: one["verdict"] for name, one in found.items() if isinstance(one, dict)}
    assert [name for name, verdict in verdicts.items() if verdict == "failed"] == ["api-server"]
    assert found["code"] == 1


def test_what_is_found_is_grouped_with_ticks_and_crosses_and_what_to_do(cluster: Any, namespace: str) -> None:
    command = [*BEAMLINE, "check", "--kubeconfig", str(cluster.kubeconfig), "-n", namespace]
    command += ["-n", "no-such-namespace", "--install-namespace", namespace]  # others install, beside this
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert [line for line in lines if line and not line.startswith(" ")][:3] == [
        "cluster",
        "rights",
        "components",
    ]
    assert any(line.startswith("  \N{CHECK MARK} api-server") for line in lines)
    crosses = [line for line in lines if line.startswith("  \N{BALLOT X}")]
    assert len(crosses) == 1, crosses
    (cross,) = crosses
    assert "namespaces" in cross
    assert "`kubectl create namespace no-such-namespace`" in cross
    assert "\x1b[" not in done.stdout
