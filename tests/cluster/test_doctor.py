"""``beamline doctor`` on a real API server: what it finds, and objects let go with the operator gone."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from operatorbench import Bench

from harness.processes import BEAMLINE


def doctor(cluster: Any, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*BEAMLINE, "doctor", "--kubeconfig", str(cluster.kubeconfig), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)


def test_a_cluster_with_our_crds_is_well(cluster: Any, namespace: str) -> None:
    found = doctor(cluster, "-n", namespace, "-o", "json")
    assert found.returncode == 0, found.stderr
    verdicts = {one["check"]: one["verdict"] for one in json.loads(found.stdout)}
    assert verdicts["api-server"] == verdicts["crds-fresh"] == verdicts["finalizers"] == "ok"


async def test_objects_are_let_go_with_the_operator_gone(bench: Bench, cluster: Any) -> None:
    await bench.start()
    for name in ("kept", "stuck"):
        await bench.extension(name, workload=None)
        await bench.wait("Extension", name, "Synced", "True")
    await bench.stop()
    await bench.delete("Extension", "stuck")
    held = await bench.get("Extension", "stuck")
    assert held is not None
    assert held["metadata"]["deletionTimestamp"]
    done = doctor(cluster, "-n", bench.namespace, "--release-finalizers")
    assert done.returncode == 0, done.stderr
    assert f"released Extension {bench.namespace}/stuck" in done.stdout
    await bench.gone("Extension", "stuck")
    kept = await bench.get("Extension", "kept")
    assert kept is not None
    assert kept["metadata"]["finalizers"]
    leases = f"/apis/coordination.k8s.io/v1/namespaces/{bench.namespace}/leases"
    for lease in ("some-operator", "another"):
        await bench.api.request("POST", leases, body={"metadata": {"name": lease}})
    gone = f"--stop-operator={bench.namespace}/some-operator"  # the Deployment is gone, its Lease is not
    done = doctor(cluster, "-n", bench.namespace, "--release-finalizers", "--every-object", gone)
    assert done.returncode == 0, done.stderr
    left = {found["metadata"]["name"] for found in (await bench.api.request("GET", leases))["items"]}
    assert "another" in left
    assert "some-operator" not in left
    await bench.delete("Extension", "kept")
    await bench.gone("Extension", "kept")
