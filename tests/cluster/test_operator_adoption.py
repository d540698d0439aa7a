"""What is there already, what is left behind, and what is put to rest: on a real API server."""

from __future__ import annotations

from typing import Any

import pytest
from operatorbench import ALWAYS, WORKLOAD, Bench

from beamline_sdk.deployment.kube_api import MERGE

OURS = {
    "app.kubernetes.io/managed-by": "beamline",
    "app.kubernetes.io/part-of": "beamline",
    "beamline.io/extension-id": "guard",
}


def theirs(**metadata: Any) -> dict[str, Any]:
    labels = {"app": "theirs"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "x", "image": "x:1"}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "guard", **metadata},
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }


async def owner(bench: Bench) -> dict[str, Any]:
    """Somebody else's object, which could own one."""
    path = f"/api/v1/namespaces/{bench.namespace}/configmaps"
    made = await bench.api.request("POST", path, body={"metadata": {"name": "their-rollout"}})
    return {
        "apiVersion": "v1", "kind": "ConfigMap", "name": "their-rollout", "uid": made["metadata"]["uid"],
    }  # fmt: skip


CLAIMS: list[Any] = [
    pytest.param({}, False, "Beamline did not make it", id="made by somebody"),
    pytest.param({"labels": OURS}, False, "Beamline did not make it", id="a copy with our labels"),
    pytest.param({"labels": OURS}, True, "ConfigMap their-rollout owns it", id="owned by somebody else"),
]


@pytest.mark.parametrize(("metadata", "owned", "says"), CLAIMS)
async def test_a_deployment_that_exists_is_never_taken_over_nor_removed(
    bench: Bench, metadata: dict[str, Any], owned: bool, says: str
) -> None:
    if owned:
        metadata = {**metadata, "ownerReferences": [await owner(bench)]}
    path = bench.path("Deployment", "guard")
    before = await bench.api.apply(path, theirs(**metadata), field_manager="somebody")
    await bench.start(resync_s=0.5)
    await bench.extension("guard")
    for _ in range(2):
        told = await bench.wait("Extension", "guard", "WorkloadReady", "False", "Conflicted")
        assert f"Deployment {bench.namespace}/guard exists and {says}" in told["message"]
        await bench.wait("Extension", "guard", "Stalled", "True", "Conflicted")
        await bench.wait("Extension", "guard", "Synced", "True")
        force = {"metadata": {"annotations": {"beamline.io/reconcile-at": "again"}}}
        await bench.api.request("PATCH", bench.path("Extension", "guard"), body=force, content_type=MERGE)

        async def forced() -> bool:
            found = await bench.get("Extension", "guard")
            return found is not None and found["status"].get("lastReconcileAt") == "again"

        await bench.until(forced, "the forced pass")
    await bench.delete("Extension", "guard")
    await bench.gone("Extension", "guard")
    after = await bench.get("Deployment", "guard")
    assert after is not None
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["metadata"]["generation"] == before["metadata"]["generation"]


async def test_what_was_retained_is_taken_over_by_the_next_of_the_name_and_said_so(bench: Bench) -> None:
    await bench.start(resync_s=0.5)
    await bench.extension("guard", deletionPolicy="Retain", workload={**WORKLOAD, "disruption": {}})
    await bench.wait("Extension", "guard", "Synced", "True")
    for kind in (*ALWAYS, "PodDisruptionBudget"):
        await bench.until(lambda kind=kind: bench.get(kind, "guard"), kind)
    first = await bench.get("Deployment", "guard")
    await bench.delete("Extension", "guard")
    await bench.gone("Extension", "guard")
    await bench.extension("other", workload=None)
    await bench.wait("Extension", "other", "Synced", "True")
    for kind in (*ALWAYS, "PodDisruptionBudget"):
        kept = await bench.get(kind, "guard")
        assert kept is not None
        assert kept["metadata"]["annotations"]["beamline.io/retained"] == "true"

    made = await bench.extension("guard", workload=WORKLOAD)
    await bench.wait("Extension", "guard", "Synced", "True")

    async def taken_over() -> bool:
        found = await bench.get("Deployment", "guard")
        owners = (found or {"metadata": {}})["metadata"].get("ownerReferences") or [{}]
        return bool(owners[0].get("uid") == made["metadata"]["uid"])

    await bench.until(taken_over, "the Deployment with its new owner")
    second = await bench.get("Deployment", "guard")
    assert first is not None
    assert second is not None
    assert second["metadata"]["uid"] == first["metadata"]["uid"]
    assert second["spec"]["template"] == first["spec"]["template"], "its pods run on"
    assert "beamline.io/retained" not in second["metadata"]["annotations"]
    await bench.gone("PodDisruptionBudget", "guard")
    assert "Adopted" in await told(bench, "guard")


async def test_what_is_retained_is_what_runs_and_not_what_was_asked_for_meanwhile(bench: Bench) -> None:
    await bench.start(resync_s=0.5)
    await bench.extension("guard", workload=WORKLOAD)
    await bench.wait("Extension", "guard", "Synced", "True")
    before = await bench.until(lambda: bench.get("Deployment", "guard"), "the Deployment")
    changed = {**WORKLOAD, "args": ["--new"]}
    await bench.extension("guard", workload=changed, deletionPolicy="Retain", suspend=True)
    await bench.wait("Extension", "guard", "Ready", "False", "Suspended")
    await bench.delete("Extension", "guard")
    await bench.gone("Extension", "guard")
    await bench.extension("other", workload=None)
    await bench.wait("Extension", "other", "Synced", "True")
    for kind in ALWAYS:
        kept = await bench.get(kind, "guard")
        assert kept is not None
        assert "ownerReferences" not in kept["metadata"]
        assert kept["metadata"]["annotations"]["beamline.io/retained"] == "true"
    after = await bench.get("Deployment", "guard")
    assert (before["metadata"]["uid"], before["spec"]) == (after["metadata"]["uid"], after["spec"])
    assert set(await bench.rows()) == {"guard", "other"}, "no sweep takes the row for an orphan"


async def told(bench: Bench, name: str) -> list[str]:
    path = f"/apis/events.k8s.io/v1/namespaces/{bench.namespace}/events"
    return [item["reason"] async for item in bench.api.items(path) if item["regarding"]["name"] == name]


async def test_suspended_nothing_is_changed_until_it_is_over_or_the_object_goes(bench: Bench) -> None:
    await bench.start(resync_s=0.5)
    for name in ("back", "gone"):
        await bench.extension(name, timeoutMs=100)
        await bench.wait("Extension", name, "Synced", "True")
        await bench.until(lambda name=name: bench.get("Service", name), name)
        await bench.extension(name, timeoutMs=200, suspend=True, workload={**WORKLOAD, "args": ["--new"]})
        said = await bench.wait("Extension", name, "Ready", "False", "Suspended")
        assert "spec.suspend" in said["message"]
        assert "WorkloadProgressing" in said["message"], "nobody runs its pods here"
        await bench.wait("Extension", name, "Stalled", "True", "Suspended")
        await bench.delete("Service", name)
    await bench.extension("other")
    await bench.wait("Extension", "other", "Synced", "True")
    await bench.until(lambda: bench.get("Service", "other"), "the work on others")
    for name in ("back", "gone"):
        assert (await bench.rows())[name].timeout_ms == 100
        assert await bench.get("Service", name) is None
        deployment = await bench.get("Deployment", name)
        assert deployment is not None
        assert "args" not in deployment["spec"]["template"]["spec"]["containers"][0]

    await bench.extension("back", timeoutMs=200, workload={**WORKLOAD, "args": ["--new"]})
    await bench.wait("Extension", "back", "Synced", "True")
    await bench.until(lambda: bench.get("Service", "back"), "the Service again")
    assert (await bench.rows())["back"].timeout_ms == 200

    await bench.delete("Extension", "gone")
    await bench.gone("Extension", "gone")
    assert "gone" not in await bench.rows()
    await bench.gone("Deployment", "gone")


async def test_an_image_that_is_not_allowed_runs_nowhere_and_what_ran_runs_on(bench: Bench) -> None:
    await bench.start(allowed_images="ghcr.io/beamline/, registry.example:5000/team")
    await bench.extension("guard")
    await bench.extension("side", workload={"image": "registry.example:5000/team/x@sha256:" + "0" * 64})
    for name in ("guard", "side"):
        await bench.wait("Extension", name, "Accepted", "True")
        await bench.until(lambda name=name: bench.get("Deployment", name), name)
    await bench.extension("guard", workload={"image": "ghcr.io/beamline-evil/x:1"})
    told = await bench.wait("Extension", "guard", "Accepted", "False", "Invalid")
    assert "spec.workload.image: 'ghcr.io/beamline-evil/x:1' is not allowed here" in told["message"]
    assert "ghcr.io/beamline/, registry.example:5000/team" in told["message"]
    await bench.wait("Extension", "guard", "Stalled", "True", "Invalid")
    deployment = await bench.get("Deployment", "guard")
    assert deployment is not None
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == WORKLOAD["image"]
    await bench.extension("new", workload={"image": "evil.example/ghcr.io/beamline/x"})
    await bench.wait("Extension", "new", "Accepted", "False", "Invalid")
    assert await bench.get("Deployment", "new") is None
