"""What the operator makes of ``spec.workload`` on a real API server, and how it keeps it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from controlplane.client import Cluster
from operatorbench import ALWAYS, WORKLOAD, Bench

from beamline_sdk.deployment.kube_api import MERGE

EVERYTHING: dict[str, Any] = {
    **WORKLOAD,
    "args": ["--fast"],
    "replicas": 2,
    "disruption": {"maxUnavailable": "50%"},
    "volumes": [
        {"name": "prompts", "mountPath": "/etc/prompts", "configMap": {"name": "prompts", "optional": True}},
        {"name": "keys", "mountPath": "/etc/keys", "secret": {"name": "keys", "optional": True}},
        {"name": "scratch", "mountPath": "/var/scratch", "emptyDir": {"sizeLimit": "1Gi"}},
    ],
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {
        "nodes": [{"key": "zone", "operator": "In", "values": ["a", "b"]}],
        "apart": {"required": True},
    },
    "topologySpread": [{"topologyKey": "topology.kubernetes.io/zone"}],
    "updateStrategy": {"maxUnavailable": 1, "maxSurge": "25%"},
    "revisionHistoryLimit": 3,
    "progressDeadlineSeconds": 120,
    "podLabels": {"team": "red"},
    "podAnnotations": {"example.com/note": "anything at all"},
}
STRANGE: dict[str, dict[str, Any]] = {
    "ServiceAccount": {"automountServiceAccountToken": True},
    "Service": {"spec": {"selector": {"app.kubernetes.io/instance": "elsewhere"}}},
    "NetworkPolicy": {"spec": {"ingress": [{}], "egress": [{}]}},
    "PodDisruptionBudget": {"spec": {"maxUnavailable": 0}},
    "HorizontalPodAutoscaler": {"spec": {"maxReplicas": 50}},
}


async def patch(bench: Bench, kind: str, name: str, body: dict[str, Any], suffix: str = "") -> None:
    path = bench.path(kind, name) + suffix
    await bench.api.request("PATCH", path, body=body, content_type=MERGE, params={"fieldManager": "hand"})


async def ready_bench(bench: Bench, **workload: Any) -> None:
    await bench.start()
    await bench.extension("guard", workload={**WORKLOAD, **workload})
    await bench.wait("Extension", "guard", "Synced", "True")


def same(found: dict[str, Any] | None, change: dict[str, Any]) -> bool:
    """Whether the change is still there."""
    if found is None:
        return False
    return all(
        same(found[name], value) if isinstance(value, dict) else found.get(name) == value
        for name, value in change.items()
    )


@pytest.mark.parametrize("kind", STRANGE)
async def test_an_owned_object_that_was_deleted_or_edited_comes_back(bench: Bench, kind: str) -> None:
    await ready_bench(bench, autoscaling={"maxReplicas": 3}, disruption={})
    before = await bench.until(lambda: bench.get(kind, "guard"), kind)
    await bench.delete(kind, "guard")

    async def another() -> bool:
        found = await bench.get(kind, "guard")
        return found is not None and found["metadata"]["uid"] != before["metadata"]["uid"]

    await bench.until(another, f"a new {kind}")
    await patch(bench, kind, "guard", STRANGE[kind])

    async def put_back() -> bool:
        return not same(await bench.get(kind, "guard"), STRANGE[kind])

    await bench.until(put_back, f"the {kind} as it was")


async def test_what_was_edited_while_the_operator_was_away_is_repaired_at_its_start(bench: Bench) -> None:
    await ready_bench(bench, disruption={})
    await bench.until(lambda: bench.get("PodDisruptionBudget", "guard"), "budget")
    await bench.stop()
    edits = {name: edit for name, edit in STRANGE.items() if name != "HorizontalPodAutoscaler"}
    edits["Deployment"] = {"spec": {"minReadySeconds": 5, "progressDeadlineSeconds": 7}}
    for kind, edit in edits.items():
        await patch(bench, kind, "guard", edit)
    await bench.delete("ServiceAccount", "guard")
    await bench.start()
    for kind, edit in edits.items():

        async def put_back(kind: str = kind, edit: dict[str, Any] = edit) -> bool:
            found = await bench.get(kind, "guard")
            return found is not None and not same(found, edit)

        await bench.until(put_back, f"the {kind} as it was")
    deployment = await bench.get("Deployment", "guard")
    assert deployment is not None
    assert deployment["spec"]["progressDeadlineSeconds"] == 300
    assert deployment["spec"]["minReadySeconds"] == 5, "what others add is theirs"


async def test_everything_that_a_workload_offers_passes_restricted_pod_security(
    bench: Bench, cluster: Cluster
) -> None:
    labels = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    await bench.api.request("PATCH", f"/api/v1/namespaces/{bench.namespace}", body=labels, content_type=MERGE)
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "own"}}
    path = f"/api/v1/namespaces/{bench.namespace}/serviceaccounts"
    await bench.api.request("POST", path, body=account)
    await bench.start()
    built_in = {"serviceAccountName": "own", "priorityClassName": "system-node-critical"}
    await bench.extension("guard", workload={**EVERYTHING, "serviceAccountName": "own"})

    async def pods() -> list[Any]:
        return [pod async for pod in bench.api.items(f"/api/v1/namespaces/{bench.namespace}/pods")]

    pod = (await bench.until(pods, "a pod that the API server let in"))[0]
    spec = pod["spec"]
    assert spec["serviceAccountName"] == "own"
    assert spec["containers"][0]["args"] == ["--fast"]
    mounted = spec["containers"][0]["volumeMounts"]
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in mounted}
    assert mounts == {"/tmp": False, "/etc/prompts": True, "/etc/keys": True, "/var/scratch": False}
    assert pod["metadata"]["labels"]["team"] == "red"
    assert pod["metadata"]["annotations"]["example.com/note"] == "anything at all"
    deployment = await bench.get("Deployment", "guard")
    assert deployment is not None
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 1, "maxSurge": "25%"}
    assert (deployment["spec"]["revisionHistoryLimit"], deployment["spec"]["progressDeadlineSeconds"]) == (
        3,
        120,
    )
    template = deployment["spec"]["template"]["spec"]
    term = template["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0]
    assert term["topologyKey"] == "kubernetes.io/hostname"
    assert template["nodeSelector"] == {"kubernetes.io/arch": "amd64"}
    assert template["topologySpreadConstraints"][0]["maxSkew"] == 1
    assert await bench.get("ServiceAccount", "guard") is None, "it has an account already"
    await bench.extension("guard", workload={**EVERYTHING, **built_in})
    await bench.until(lambda: _has_priority(bench), "the priority class in the pod template")


async def _has_priority(bench: Bench) -> bool:
    found = await bench.get("Deployment", "guard")
    spec = found["spec"]["template"]["spec"] if found is not None else {}
    return spec.get("priorityClassName") == "system-node-critical"


@pytest.mark.parametrize(
    ("repeated", "says"),
    [
        pytest.param(
            {"env": [{"name": "A", "value": "1"}, {"name": "A", "value": ""}]}, 'name="A"', id="a variable"
        ),
        pytest.param({"imagePullSecrets": [{"name": "a"}, {"name": "a"}]}, 'name="a"', id="a pull secret"),
        pytest.param({"topologySpread": [{"topologyKey": "z"}] * 2}, 'topologyKey="z"', id="a spread"),
    ],
)
async def test_what_the_api_server_can_never_apply_is_said_and_not_tried_for_ever(
    bench: Bench, repeated: dict[str, Any], says: str
) -> None:
    await bench.start()
    await bench.extension("guard", workload={**WORKLOAD, **repeated})
    said = await bench.wait("Extension", "guard", "WorkloadReady", "False", "WorkloadFailed")
    assert f"duplicate entries for key [{says}" in said["message"]
    assert "Correct spec.workload" in said["message"]
    await bench.wait("Extension", "guard", "Stalled", "True", "WorkloadFailed")


async def test_children_that_are_no_longer_wanted_go(bench: Bench) -> None:
    await ready_bench(bench, autoscaling={"maxReplicas": 3}, disruption={"maxUnavailable": 1})
    for kind in ("HorizontalPodAutoscaler", "PodDisruptionBudget"):
        await bench.until(lambda kind=kind: bench.get(kind, "guard"), kind)
    await bench.extension("guard", workload={**WORKLOAD, "serviceAccountName": "default"})
    for kind in ("HorizontalPodAutoscaler", "PodDisruptionBudget", "ServiceAccount"):
        await bench.gone(kind, "guard")
    await bench.extension("guard", workload=None)
    for kind in ALWAYS:
        await bench.gone(kind, "guard")


async def test_with_an_autoscaler_the_replicas_are_left_alone_also_when_it_comes_later(
    bench: Bench, cluster: Cluster
) -> None:
    await ready_bench(bench, replicas=3)
    await bench.until(lambda: bench.get("Deployment", "guard"), "deployment")
    await bench.extension("guard", workload={**WORKLOAD, "replicas": 3, "autoscaling": {"maxReplicas": 9}})
    await bench.until(lambda: bench.get("HorizontalPodAutoscaler", "guard"), "autoscaler")

    async def replicas() -> int:
        found = await bench.get("Deployment", "guard")
        assert found is not None
        return int(found["spec"]["replicas"])

    assert await replicas() == 3, "handed over, not reset"
    await patch(bench, "Deployment", "guard", {"spec": {"replicas": 7}}, "/scale")
    await bench.extension("guard", timeoutMs=77, workload={**WORKLOAD, "autoscaling": {"maxReplicas": 8}})
    await bench.wait("Extension", "guard", "Synced", "True")

    async def changed() -> bool:
        found = await bench.get("HorizontalPodAutoscaler", "guard")
        return found is not None and found["spec"]["maxReplicas"] == 8

    await bench.until(changed, "the new bound")
    assert await replicas() == 7
    cluster.kubectl("scale", "-n", bench.namespace, "ext/guard", "--replicas=2")
    await bench.wait("Extension", "guard", "Synced", "True")
    assert await replicas() == 7, "what the object says counts again once the autoscaler is gone"
    await bench.extension("guard", timeoutMs=77, workload={**WORKLOAD, "replicas": 2})
    await bench.gone("HorizontalPodAutoscaler", "guard")

    async def back() -> bool:
        return await replicas() == 2

    await bench.until(back, "the object's own count")


async def test_kubectl_scale_works_on_an_extension(bench: Bench, cluster: Cluster) -> None:
    await ready_bench(bench)
    await bench.until(lambda: bench.get("Deployment", "guard"), "deployment")
    for count in (4, 0, 1):
        cluster.kubectl("scale", "-n", bench.namespace, "ext/guard", f"--replicas={count}")

        async def scaled(count: int = count) -> bool:
            found = await bench.get("Deployment", "guard")
            scale = await bench.api.request("GET", bench.path("Extension", "guard") + "/scale")
            told = scale["status"]
            assert not told.get("selector") or "app.kubernetes.io/instance=guard" in told["selector"]
            return (
                found is not None
                and found["spec"]["replicas"] == count
                and (scale["spec"].get("replicas", 0), told.get("replicas", 0)) == (count, count)
                and bool(told.get("selector"))
            )

        await bench.until(scaled, f"{count} replicas, and the scale subresource says so")
        if not count:
            await bench.wait("Extension", "guard", "WorkloadReady", "True", "WorkloadScaledToZero")


@pytest.mark.parametrize("kind", ["ServiceAccount", "Service", "NetworkPolicy"])
async def test_an_object_that_somebody_else_made_is_left_alone_and_named(bench: Bench, kind: str) -> None:
    spec = {
        "Service": {"spec": {"ports": [{"port": 80}]}},
        "NetworkPolicy": {"spec": {"podSelector": {}}},
    }
    foreign = {
        "apiVersion": "networking.k8s.io/v1" if kind == "NetworkPolicy" else "v1",
        "kind": kind,
        "metadata": {"name": "guard", "namespace": bench.namespace},
        **spec.get(kind, {}),
    }
    made = await bench.api.apply(bench.path(kind, "guard"), foreign, field_manager="somebody")
    await bench.start()
    await bench.extension("guard")
    failed = await bench.wait("Extension", "guard", "WorkloadReady", "False", "Conflicted")
    assert f"{kind} {bench.namespace}/guard exists" in failed["message"]
    await bench.wait("Extension", "guard", "Stalled", "True", "Conflicted")
    found = await bench.get(kind, "guard")
    assert found is not None
    assert found["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    assert await bench.get("Deployment", "guard") is None


async def test_a_rotated_secret_rolls_the_pods_that_read_it_and_no_others(bench: Bench) -> None:
    def secret(value: str, labels: dict[str, str]) -> dict[str, Any]:
        metadata = {"name": "keys", "namespace": bench.namespace, "labels": labels}
        return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"key": value}}

    path = f"/api/v1/namespaces/{bench.namespace}/secrets/keys"
    roll = {"beamline.io/roll": "true"}
    await bench.api.apply(path, secret("one", roll), field_manager="test")
    env = [{"name": "API_KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "key"}}}]
    await bench.start()
    await bench.extension("reader", workload={**WORKLOAD, "env": env})
    await bench.extension("other")

    async def template(name: str) -> dict[str, Any]:
        found = await bench.until(lambda: bench.get("Deployment", name), f"deployment {name}")
        return dict(found["spec"]["template"])

    before, other = await template("reader"), await template("other")
    assert "beamline.io/inputs" in before["metadata"]["annotations"]
    await bench.api.apply(path, secret("two", roll), field_manager="test")

    async def rolled() -> bool:
        return (await template("reader")) != before

    await bench.until(rolled, "new pods")
    after = await template("reader")
    assert (await template("other")) == other
    await bench.stop()
    await bench.start()
    await bench.extension("later", workload=None)
    await bench.wait("Extension", "later", "Synced", "True")
    assert (await template("reader")) == after, "a restart rolls nothing"
    await bench.api.apply(path, secret("three", roll), field_manager="test")

    async def rolled_again() -> bool:
        return (await template("reader")) != after

    await bench.until(rolled_again, "new pods after a restart")


async def test_a_secret_without_the_label_is_never_asked_for(bench: Bench) -> None:
    await bench.start()
    path = f"/api/v1/namespaces/{bench.namespace}/configmaps/plain"
    plain = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "plain"}, "data": {"a": "1"}}
    await bench.api.apply(path, plain, field_manager="test")
    await bench.extension("reader", workload={**WORKLOAD, "envFrom": [{"configMapRef": {"name": "plain"}}]})
    before = await bench.until(lambda: bench.get("Deployment", "reader"), "deployment")
    assert "beamline.io/inputs" not in before["spec"]["template"]["metadata"]["annotations"]
    await bench.api.apply(path, {**plain, "data": {"a": "2"}}, field_manager="test")
    await asyncio.sleep(0.5)
    after = await bench.get("Deployment", "reader")
    assert after is not None
    assert after["spec"]["template"] == before["spec"]["template"]
