"""Whatever wakes it, and whatever was missed: every object ends where it should."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from controlplane.client import Cluster
from operatorbench import ALWAYS, WORKLOAD, Bench

from beamline_operator.edges.kube_store import KubeStore
from beamline_registry import postgres
from beamline_registry.port import Remove
from beamline_sdk.deployment import kube_api
from beamline_sdk.deployment.kube_api import MERGE

LABELS = "app.kubernetes.io/managed-by"


async def patch(bench: Bench, kind: str, name: str, metadata: dict[str, Any]) -> dict[str, Any]:
    path = bench.path(kind, name)
    return await bench.api.request(
        "PATCH", path, body={"metadata": metadata}, content_type=MERGE, params={"fieldManager": "hand"}
    )


async def settled(bench: Bench, *names: str) -> None:
    for name in names:
        await bench.wait("Extension", name, "Synced", "True")
        await bench.until(lambda name=name: bench.get("Deployment", name), f"Deployment {name}")


@pytest.mark.parametrize("kind", ALWAYS)
async def test_an_owned_object_that_lost_its_labels_or_its_owner_gets_them_back(
    bench: Bench, kind: str
) -> None:
    """Without the label the watch tells of a deletion."""
    await bench.start()
    await bench.extension("guard")
    await settled(bench, "guard")
    before = await bench.until(lambda: bench.get(kind, "guard"), kind)
    for edit in ({"labels": {LABELS: None, "app.kubernetes.io/part-of": None}}, {"ownerReferences": None}):
        await patch(bench, kind, "guard", edit)

        async def put_back() -> bool:
            found = await bench.get(kind, "guard")
            return found is not None and all(
                found["metadata"].get(field) == before["metadata"][field]
                for field in ("labels", "ownerReferences", "uid")
            )

        await bench.until(put_back, f"the {kind} as it was, after {edit}")


async def test_a_label_of_the_object_itself_wakes_it_and_changes_nothing(bench: Bench) -> None:
    await bench.start()
    await bench.extension("guard")
    await bench.extension("other", workload=None)
    await settled(bench, "guard")
    await bench.wait("Extension", "other", "Synced", "True")

    async def counted() -> bool:
        found = await bench.get("Extension", "guard")
        return found is not None and found["status"].get("replicas") == 1

    await bench.until(counted, "the pod that the Deployment's controller asks for, in the status")
    await asyncio.sleep(0.5)
    before, audit = await bench.versions(), await bench.audit()
    labelled = await patch(bench, "Extension", "guard", {"labels": {"team": "red"}})
    await asyncio.sleep(1)
    now = await bench.versions()
    expected = {**before, "extensions/guard": labelled["metadata"]["resourceVersion"]}
    assert now == expected
    assert await bench.audit() == audit


@pytest.mark.parametrize("how", ["envFrom", "volumes"])
async def test_a_config_map_with_the_label_rolls_the_pods_that_read_it(bench: Bench, how: str) -> None:
    read = {
        "envFrom": [{"configMapRef": {"name": "settings"}}],
        "volumes": [{"name": "v", "mountPath": "/v", "configMap": {"name": "settings"}}],
    }[how]
    path = f"/api/v1/namespaces/{bench.namespace}/configmaps/settings"

    async def put(value: str) -> None:
        metadata = {"name": "settings", "labels": {"beamline.io/roll": "true"}}
        document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": value}}
        await bench.api.apply(path, document, field_manager="test")

    async def digest() -> str:
        found = await bench.until(lambda: bench.get("Deployment", "reader"), "the Deployment")
        return str(found["spec"]["template"]["metadata"]["annotations"].get("beamline.io/inputs", ""))

    await bench.start()
    await bench.extension("reader", workload={**WORKLOAD, how: read})
    await settled(bench, "reader")
    seen = {await digest()}
    assert seen == {""}, "there is no such ConfigMap yet"
    for change in (lambda: put("1"), lambda: put("2"), lambda: bench.api.delete(path)):
        before = await digest()
        await change()

        async def rolled(before: str = before) -> bool:
            return await digest() != before

        await bench.until(rolled, "new pods")
        seen.add(await digest())
    assert len(seen) == 3
    assert await digest() == "", "gone again"


async def test_a_policy_follows_its_extension_through_every_change(bench: Bench) -> None:
    await bench.start()
    providers = [{"extensionRef": {"name": "gpt"}}]
    steps = [{"action": "select_provider", "providers": providers}]
    await bench.apply("RoutingPolicy", "default", {"steps": steps})
    await bench.wait("RoutingPolicy", "default", "ResolvedRefs", "False", "RefNotFound")
    await bench.extension("gpt", workload=None)
    await bench.wait("RoutingPolicy", "default", "ResolvedRefs", "True", "Resolved")
    await bench.extension("gpt", workload=None, enabled=False)
    disabled = await bench.wait("RoutingPolicy", "default", "ResolvedRefs", "False", "RefDisabled")
    assert "spec.steps[0].providers[0].extensionRef" in disabled["message"]
    assert "gpt" in disabled["message"]
    await bench.delete("Extension", "gpt")
    await bench.wait("RoutingPolicy", "default", "ResolvedRefs", "False", "RefNotFound")


async def test_a_full_compare_repairs_rows_objects_and_workloads_page_by_page(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, cluster: Cluster
) -> None:
    """Two to a page, so that every list has several."""
    monkeypatch.setattr(kube_api, "PAGE", 2)
    monkeypatch.setattr(postgres, "_PAGE", 2)
    names = [f"guard-{number}" for number in range(5)]
    await bench.start()
    for name in [*names, "torn", "torn-too", "retained"]:
        policy = "Retain" if name == "retained" else "Delete"
        await bench.extension(name, deletionPolicy=policy)
    await settled(bench, *names, "torn", "torn-too", "retained")
    await bench.delete("Extension", "retained")
    await bench.gone("Extension", "retained")
    await bench.stop()

    # Missed in each direction: objects without rows, rows and workloads without objects, and the rest.
    epoch = await bench.registry.acquire_epoch("a hand")
    rows = await bench.rows()
    for name in names[:3]:
        row = rows[name.replace("-", "_")]
        await bench.registry.write([Remove("Extension", row.id, row.uid, 99, "a hand")], epoch=epoch)
    for name in ("torn", "torn-too"):
        await patch(bench, "Extension", name, {"finalizers": []})
        cluster.kubectl("delete", "-n", bench.namespace, "ext", name, "--cascade=orphan", "--wait=true")
        for kind in ALWAYS:
            orphan = await bench.until(lambda kind=kind, name=name: bench.get(kind, name), kind)
            assert not orphan["metadata"].get("ownerReferences"), "the garbage collector leaves it"
    for name in names[2:]:
        await bench.delete("Service", name)
    foreign = {"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": 80}]}}
    copied = {"name": "theirs", "labels": {LABELS: "beamline", "app.kubernetes.io/part-of": "beamline"}}
    await bench.api.apply(
        bench.path("Service", "theirs"), {**foreign, "metadata": copied}, field_manager="somebody"
    )

    await bench.start(resync_s=0.5)
    for name in names:
        await bench.until(lambda name=name: bench.get("Service", name), f"the Service of {name}")

    async def same_rows() -> bool:
        return set(await bench.rows()) == {name.replace("-", "_") for name in [*names, "retained"]}

    await bench.until(same_rows, "the rows of all that is there, and no other")
    for name in ("torn", "torn-too"):
        for kind in ALWAYS:
            await bench.gone(kind, name)
    assert await bench.get("Deployment", "retained") is not None
    assert await bench.get("Service", "theirs") is not None, "a label makes it nobody's orphan"


async def test_a_list_is_read_page_by_page_to_its_end(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kube_api, "PAGE", 2)
    names = {f"guard-{number}" for number in range(5)}
    for name in names:
        await bench.extension(name, workload=None)
    store = KubeStore(bench.api, namespaces=(bench.namespace,))
    asked = bench.api.calls.get(("GET", 200), 0)
    await store.relist()
    assert {stored.metadata.name for stored in store.list("Extension")} == names
    assert bench.api.calls["GET", 200] - asked == 3 + 1, "three pages, and one of no policies"
