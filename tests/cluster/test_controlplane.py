"""The control plane of the tests is itself real and safe to use."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from controlplane.binaries import Binaries
from controlplane.client import Cluster, Rest
from controlplane.existing import is_allowed


@pytest.mark.parametrize(
    ("context", "also", "allowed"),
    [
        ("kind-beamline", "", True),
        ("k3d-dev", "", True),
        ("minikube", "", True),
        ("beamline-local", "", True),
        ("production", "", False),
        ("", "", False),
        ("not-kind-beamline", "", False),
        ("staging-1", "lab, staging-*", True),
    ],
)
def test_only_throw_away_clusters_are_written_to(context: str, also: str, allowed: bool) -> None:
    assert is_allowed(context, also) is allowed


def test_a_namespace_that_enforces_pod_security_refuses_a_privileged_pod(
    cluster: Cluster, rest: Rest, namespace: str
) -> None:
    cluster.kubectl("wait", "--for=create", "serviceaccount/default", "-n", namespace, "--timeout=60s")
    labels = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    rest.request("PATCH", f"/api/v1/namespaces/{namespace}", labels, "application/merge-patch+json")
    container = {"name": "c", "image": "none", "securityContext": {"privileged": True}}
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [container]}}
    answer = rest.request("POST", f"/api/v1/namespaces/{namespace}/pods", pod, dryRun="All")
    assert answer.status == 403
    assert "violates PodSecurity" in answer.message


def test_a_fresh_service_account_may_read_nothing(cluster: Cluster, namespace: str) -> None:
    who = f"--as=system:serviceaccount:{namespace}:default"
    answer = cluster.kubectl(
        "auth", "can-i", "get", "extensions.beamline.io", who, "-n", namespace, check=False
    )
    assert answer.stdout.strip() == "no"


def test_an_api_server_that_was_killed_comes_back_with_its_objects(own_cluster: Cluster) -> None:
    own_cluster.kubectl("create", "configmap", "kept", "--from-literal=a=b")
    own_cluster.stop_apiserver()
    assert (
        own_cluster.kubectl("get", "configmap", "kept", "--request-timeout=2s", check=False).returncode != 0
    )
    own_cluster.start_apiserver()
    assert own_cluster.kubectl("get", "configmap", "kept", "-o", "jsonpath={.data.a}").stdout == "b"


_A_WORKER = """
import sys, time, pathlib
from controlplane.binaries import find_or_build
from controlplane.shared import shared_cluster
with shared_cluster(pathlib.Path(sys.argv[1]), find_or_build()) as cluster:
    print(cluster.kubeconfig, flush=True)
    time.sleep(600)
"""


def test_a_run_that_is_killed_leaves_no_control_plane_behind(
    control_plane_binaries: Binaries, tmp_path: Path
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", _A_WORKER, str(tmp_path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        kubeconfig = Path(worker.stdout.readline().strip())
        assert kubeconfig.is_file()
        keeper = int((tmp_path / "ready").read_text().split()[0])
        worker.kill()
    give_up = time.monotonic() + 30
    while kubeconfig.parent.exists() or _is_alive(keeper):
        assert time.monotonic() < give_up, "the control plane outlives its last user"
        time.sleep(0.1)


def _is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for a parent that never asks does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
