"""On a real API server: GitOps tools find nothing to do after the operator ran, and an emptied database gets
the same registry back from the objects alone.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import yaml
from operatorbench import Bench

from beamline_registry.migrate import migrate
from beamline_sdk.deployment.kube_api import APPLY, MERGE

ROOT = Path(__file__).resolve().parents[2]
ARGO = "argocd-controller"
OURS = ("managedFields", "resourceVersion", "generation")
"""What changes with every write, and what Argo CD leaves out of a comparison too."""


def quickstart() -> list[dict[str, Any]]:
    """The manifests that people apply; a later example without the workloads would prove less."""
    files = sorted((ROOT / "examples" / "quickstart").glob("*.yaml"))
    return [found for path in files for found in yaml.safe_load_all(path.read_text())]


def tracked(bench: Bench, manifest: dict[str, Any]) -> dict[str, Any]:
    """As Argo CD applies it: with its annotation."""
    name = manifest["metadata"]["name"]
    tracking = f"beamline-objects:beamline.io/{manifest['kind']}:{bench.namespace}/{name}"
    metadata = {
        "name": name,
        "namespace": bench.namespace,
        "annotations": {"argocd.argoproj.io/tracking-id": tracking},
    }
    return {**manifest, "metadata": metadata}


async def difference(bench: Bench, manifest: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What Argo CD's server-side diff shows: (live, as a dry run of its apply would leave it), by part.

    Without the status, which Argo CD ignores by default, and which goes on changing between the two.
    """
    path = bench.path(manifest["kind"], manifest["metadata"]["name"])
    live, predicted = {"metadata": {"resourceVersion": ""}}, {"metadata": {"resourceVersion": "?"}}
    while live["metadata"]["resourceVersion"] != predicted["metadata"]["resourceVersion"]:
        live = await bench.api.request("GET", path)  # again where status was written between the two
        predicted = await bench.api.request(
            "PATCH",
            path,
            body=manifest,
            content_type=APPLY,
            params={"fieldManager": ARGO, "force": "true", "dryRun": "All"},
        )
    for found in (live, predicted):
        found["metadata"] = {field: value for field, value in found["metadata"].items() if field not in OURS}
    return {
        part: (live.get(part), predicted.get(part))
        for part in (live.keys() | predicted.keys()) - {"status"}
        if live.get(part) != predicted.get(part)
    }


def applied_over(live: Any, stated: Any, *, whole_lists: bool) -> Any:
    """What is stated, laid over what is there. With ``whole_lists`` as Argo CD compares where nobody asks for
    a server-side diff: it takes lists of a custom resource as wholes, without the items' defaults.
    """
    if isinstance(live, dict) and isinstance(stated, dict):
        laid = {
            name: applied_over(live.get(name), value, whole_lists=whole_lists)
            for name, value in stated.items()
        }
        return {**live, **laid}
    if not whole_lists and isinstance(live, list) and isinstance(stated, list) and len(live) == len(stated):
        return [applied_over(one, other, whole_lists=False) for one, other in zip(live, stated, strict=True)]
    return stated


async def settled(bench: Bench, manifests: list[dict[str, Any]]) -> None:
    for manifest in manifests:
        await bench.wait(manifest["kind"], manifest["metadata"]["name"], "Synced", "True")


async def test_after_the_operator_ran_argo_cd_has_nothing_to_do(bench: Bench) -> None:
    manifests = [tracked(bench, manifest) for manifest in quickstart()]
    for manifest in manifests:
        path = bench.path(manifest["kind"], manifest["metadata"]["name"])
        await bench.api.apply(path, manifest, field_manager=ARGO)
    await bench.start()
    await settled(bench, manifests)
    assert [await difference(bench, manifest) for manifest in manifests] == [{}] * len(manifests)
    # Every stated value stands there as it was stated: nothing is spelled in another way on its way in.
    stay = set()
    for manifest in manifests:
        live = await bench.api.request("GET", bench.path(manifest["kind"], manifest["metadata"]["name"]))
        assert applied_over(live, manifest, whole_lists=False) == live
        if applied_over(live, manifest, whole_lists=True) != live:
            stay.add(manifest["kind"])
    # Defaults inside lists would stay different for ever otherwise: why deploy/argocd asks for that diff.
    assert stay == {"RoutingPolicy"}

    # What the operator makes for them bears no tracking of Argo CD's, or Argo CD would prune it.
    for manifest in manifests:
        if "workload" in manifest["spec"]:
            owned = await bench.get("Deployment", manifest["metadata"]["name"])
            assert owned is not None
            assert "argocd.argoproj.io/tracking-id" not in owned["metadata"].get("annotations", {})

    # And the comparison would see a change.
    changed = {"spec": {"timeoutMs": 777}}
    path = bench.path("Extension", "mock-provider")
    await bench.api.request("PATCH", path, body=changed, content_type=MERGE)
    (provider,) = (entry for entry in manifests if entry["metadata"]["name"] == "mock-provider")
    assert set(await difference(bench, provider)) == {"spec"}
    live = await bench.api.request("GET", path)
    assert applied_over(live, provider, whole_lists=False) != live


async def test_an_emptied_database_gets_the_same_registry_back_from_the_objects(
    bench: Bench, database_url: str
) -> None:
    manifests = [tracked(bench, manifest) for manifest in quickstart()]
    for manifest in manifests:
        path = bench.path(manifest["kind"], manifest["metadata"]["name"])
        await bench.api.apply(path, manifest, field_manager="test")
    await bench.start()
    await settled(bench, manifests)

    async def facts() -> dict[str, Any]:
        """The rows, without the revisions and times of their writes."""
        return {
            name: replace(row, revision=0, updated_at=None)
            if hasattr(row, "updated_at")
            else replace(row, revision=0)
            for name, row in (await bench.rows()).items()
        }

    before = await facts()
    assert len(before) == len(manifests)
    await bench.stop()
    connection = await asyncpg.connect(database_url)
    await connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    await connection.close()
    await migrate(database_url)
    assert await bench.rows() == {}

    await bench.start()

    async def restored() -> bool:
        return (await facts()).keys() == before.keys()

    await bench.until(restored, "all rows")
    assert await facts() == before
