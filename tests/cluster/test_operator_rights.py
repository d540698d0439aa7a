"""The operator under an account that has exactly the declared rights, on the real API server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml
from operatorbench import ALWAYS, WORKLOAD, Bench

from beamline_operator.edges.preflight import Refusal
from beamline_operator.rbac import INPUTS, lease_rules, rules
from beamline_sdk.deployment.kube_api import MERGE


async def account(bench: Bench, cluster: Any, folder: Path, granted: list[dict[str, Any]]) -> str:
    """A kubeconfig of an account that may do ``granted``, in the bench's namespace only."""
    home = f"/namespaces/{bench.namespace}"
    rbac = f"/apis/rbac.authorization.k8s.io/v1{home}"
    metadata = {"name": "operator", "namespace": bench.namespace}
    await bench.api.request("POST", f"/api/v1{home}/serviceaccounts", body={"metadata": metadata})
    await bench.api.request("POST", f"{rbac}/roles", body={"metadata": metadata, "rules": granted})
    binding = {
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "operator"},
        "subjects": [{"kind": "ServiceAccount", "name": "operator", "namespace": bench.namespace}],
    }
    await bench.api.request("POST", f"{rbac}/rolebindings", body=binding)
    token = await bench.api.request(
        "POST", f"/api/v1{home}/serviceaccounts/operator/token", body={"spec": {"expirationSeconds": 3600}}
    )
    return _kubeconfig(Path(cluster.kubeconfig), token["status"]["token"], folder / "kubeconfig")


def _kubeconfig(admin: Path, token: str, path: Path) -> str:
    config = yaml.safe_load(admin.read_text())
    config["users"] = [{"name": "operator", "user": {"token": token}}]
    config["contexts"][0]["context"]["user"] = "operator"
    path.write_text(yaml.safe_dump(config))
    return str(path)


async def test_the_declared_rights_are_enough_for_a_whole_life(
    bench: Bench, cluster: Any, tmp_path: Path
) -> None:
    granted = rules() + lease_rules("beamline-operator")
    kubeconfig = await account(bench, cluster, tmp_path, granted)
    await bench.start(kubeconfig=kubeconfig)
    whole = {**WORKLOAD, "autoscaling": {"maxReplicas": 3}, "disruption": {}}
    await bench.extension("guard", workload=whole)
    steps = [{"action": "select_provider", "providers": [{"extensionRef": {"name": "guard"}}]}]
    await bench.apply("RoutingPolicy", "default", {"steps": steps})
    await bench.wait("RoutingPolicy", "default", "Synced", "True")
    for kind in (*ALWAYS, "PodDisruptionBudget", "HorizontalPodAutoscaler"):
        before = await bench.until(lambda kind=kind: bench.get(kind, "guard"), kind)
        await bench.delete(kind, "guard")

        async def another(kind: str = kind, uid: str = before["metadata"]["uid"]) -> bool:
            found = await bench.get(kind, "guard")
            return found is not None and found["metadata"]["uid"] != uid

        await bench.until(another, f"a new {kind}")
    await bench.extension("guard", workload=WORKLOAD)
    await bench.gone("PodDisruptionBudget", "guard")

    async def events() -> list[Any]:
        path = f"/apis/events.k8s.io/v1/namespaces/{bench.namespace}/events"
        return [e async for e in bench.api.items(path) if e["reportingController"] == "beamline.io/operator"]

    await bench.until(events, "events of the operator")
    await bench.delete("Extension", "guard")
    await bench.gone("Extension", "guard")
    for kind in ALWAYS:
        await bench.gone(kind, "guard")


async def test_with_the_optional_right_a_rotation_rolls_and_the_data_is_never_asked_for(
    bench: Bench, cluster: Any, tmp_path: Path
) -> None:
    granted = rules() + lease_rules("beamline-operator") + [right.to_rule() for right in INPUTS]
    kubeconfig = await account(bench, cluster, tmp_path, granted)
    path = f"/api/v1/namespaces/{bench.namespace}/configmaps/settings"
    labelled = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "settings", "labels": {"beamline.io/roll": "true"}},
        "data": {"a": "1"},
    }
    await bench.api.apply(path, labelled, field_manager="test")
    await bench.start(kubeconfig=kubeconfig)
    await bench.extension(
        "reader", workload={**WORKLOAD, "envFrom": [{"configMapRef": {"name": "settings"}}]}
    )
    before = await bench.until(lambda: bench.get("Deployment", "reader"), "deployment")
    await bench.api.request("PATCH", path, body={"data": {"a": "2"}}, content_type=MERGE)

    async def rolled() -> bool:
        found = await bench.get("Deployment", "reader")
        return found is not None and found["spec"]["template"] != before["spec"]["template"]

    await bench.until(rolled, "new pods")


@pytest.mark.parametrize("missing", ["poddisruptionbudgets", "services", "extensions/status"])
async def test_without_one_of_them_it_refuses_in_one_sentence(
    bench: Bench, cluster: Any, tmp_path: Path, missing: str
) -> None:
    granted = [
        {**rule, "resources": [name for name in rule["resources"] if name != missing] or ["nothing"]}
        for rule in rules()
    ]
    kubeconfig = await account(bench, cluster, tmp_path, granted)
    with pytest.raises(Refusal, match=missing):
        await bench.start(kubeconfig=kubeconfig)
    bench._running.clear()
    await asyncio.sleep(0)


async def test_without_the_right_to_its_lease_it_refuses_instead_of_standing_by_for_ever(
    bench: Bench, cluster: Any, tmp_path: Path
) -> None:
    kubeconfig = await account(bench, cluster, tmp_path, rules() + lease_rules("another"))
    with pytest.raises(Refusal, match=r"may not get, update the Lease beamline-operator in namespace"):
        await bench.start(kubeconfig=kubeconfig)
    bench._running.clear()
