"""Every field of ``spec.workload``: taken, applied, put back when edited, gone when unset."""

from __future__ import annotations

from typing import Any

import pytest
from operatorbench import WORKLOAD, Bench

from beamline_sdk.deployment.kube_api import MERGE

POD = ("spec", "template", "spec")
BOX = (*POD, "containers", 0)
SOME = {"name": "some"}

FIELDS: list[Any] = [
    ("image", "ghcr.io/beamline/other:1", (*BOX, "image"), "ghcr.io/beamline/other:1"),
    ("imagePullPolicy", "Always", (*BOX, "imagePullPolicy"), "Always"),
    ("imagePullSecrets", [SOME], (*POD, "imagePullSecrets", 0), SOME),
    ("command", ["run"], (*BOX, "command"), ["run"]),
    ("args", ["--fast"], (*BOX, "args"), ["--fast"]),
    ("replicas", 3, ("spec", "replicas"), 3),
    ("envFrom", [{"configMapRef": SOME}], (*BOX, "envFrom", 0, "configMapRef", "name"), "some"),
    ("resources", {"limits": {"cpu": "2"}}, (*BOX, "resources", "limits", "cpu"), "2"),
    ("probes", {"livenessPath": "/alive"}, (*BOX, "livenessProbe", "httpGet", "path"), "/alive"),
    ("volumes",
     [{"name": "v", "mountPath": "/v", "emptyDir": {}}],
     (*BOX, "volumeMounts", -1, "mountPath"), "/v"),
    ("nodeSelector", {"disk": "ssd"}, (*POD, "nodeSelector"), {"disk": "ssd"}),
    ("tolerations", [{"key": "gpu", "operator": "Exists"}], (*POD, "tolerations", 0, "key"), "gpu"),
    ("topologySpread", [{"topologyKey": "zone"}],
     (*POD, "topologySpreadConstraints", 0, "topologyKey"), "zone"),
    ("priorityClassName", "system-node-critical", (*POD, "priorityClassName"), "system-node-critical"),
    ("serviceAccountName", "mine", (*POD, "serviceAccountName"), "mine"),
    ("updateStrategy", {"maxSurge": 2}, ("spec", "strategy", "rollingUpdate", "maxSurge"), 2),
    ("revisionHistoryLimit", 7, ("spec", "revisionHistoryLimit"), 7),
    ("progressDeadlineSeconds", 77, ("spec", "progressDeadlineSeconds"), 77),
    ("podLabels", {"team": "red"}, ("spec", "template", "metadata", "labels", "team"), "red"),
    ("podAnnotations", {"x.io/y": "z"}, ("spec", "template", "metadata", "annotations", "x.io/y"), "z"),
]  # fmt: skip


def at(document: Any, path: tuple[str | int, ...]) -> Any:
    """What stands at ``path``; None where the way ends before."""
    for part in path:
        try:
            document = document[part]
        except (KeyError, IndexError, TypeError):
            return None
    return document


async def test_every_field_is_applied_and_taken_back(bench: Bench) -> None:
    await bench.start()
    await bench.extension("guard")
    await bench.until(lambda: bench.get("Deployment", "guard"), "the Deployment")
    before = await bench.get("Deployment", "guard")
    for field, value, path, wanted in FIELDS:
        await bench.extension("guard", workload={**WORKLOAD, field: value})

        async def stands(path: Any = path, wanted: Any = wanted) -> bool:
            return bool(at(await bench.get("Deployment", "guard"), path) == wanted)

        await bench.until(stands, f"{field} in the Deployment")
    await bench.extension("guard")

    async def taken_back() -> bool:
        now = await bench.get("Deployment", "guard")
        return all(at(now, path) == at(before, path) for _, _, path, _ in FIELDS)

    await bench.until(taken_back, "the Deployment as it was")


REPAIRED = [
    ("replicas", 3, {"spec": {"replicas": 9}}, ("spec", "replicas")),
    ("nodeSelector", {"disk": "ssd"}, {"spec": {"template": {"spec": {"nodeSelector": {"disk": "x"}}}}},
     (*POD, "nodeSelector", "disk")),
    ("priorityClassName", "system-node-critical",
     {"spec": {"template": {"spec": {"priorityClassName": None, "priority": None}}}},
     (*POD, "priorityClassName")),
    ("revisionHistoryLimit", 7, {"spec": {"revisionHistoryLimit": 1}}, ("spec", "revisionHistoryLimit")),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value", "edit", "path"), REPAIRED, ids=[row[0] for row in REPAIRED])
async def test_a_field_that_somebody_edits_comes_back(
    bench: Bench, field: str, value: Any, edit: Any, path: Any
) -> None:
    await bench.start()
    await bench.extension("guard", workload={**WORKLOAD, field: value})
    deployment = await bench.until(lambda: bench.get("Deployment", "guard"), "the Deployment")
    wanted = at(deployment, path)
    await bench.wait("Extension", "guard", "Synced", "True")
    where = bench.path("Deployment", "guard")
    edited = await bench.api.request(
        "PATCH", where, body=edit, content_type=MERGE, params={"fieldManager": "x"}
    )
    assert at(edited, path) != wanted

    async def repaired() -> bool:
        return bool(at(await bench.get("Deployment", "guard"), path) == wanted)

    await bench.until(repaired, f"{field} as it was")


@pytest.mark.parametrize("field", ["minAvailable", "maxUnavailable"])
async def test_a_disruption_budget_says_what_was_asked_for(bench: Bench, field: str) -> None:
    await bench.start()
    await bench.extension("guard", workload={**WORKLOAD, "replicas": 3, "disruption": {field: 2}})
    budget = await bench.until(lambda: bench.get("PodDisruptionBudget", "guard"), "the budget")
    assert budget["spec"][field] == 2
    await bench.extension("guard")
    await bench.gone("PodDisruptionBudget", "guard")


async def test_a_namespace_that_enforces_restricted_takes_the_pods(bench: Bench) -> None:
    label = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    path = f"/api/v1/namespaces/{bench.namespace}"
    await bench.api.request("PATCH", path, body=label, content_type=MERGE)
    naked = {"metadata": {"name": "naked"}, "spec": {"containers": [{"name": "x", "image": "x"}]}}
    with pytest.raises(Exception, match="violates PodSecurity"):
        await bench.api.request("POST", f"{path}/pods", body=naked)
    await bench.start()
    await bench.extension("guard")

    async def pods() -> bool:
        return bool([item async for item in bench.api.items(f"{path}/pods")])

    await bench.until(pods, "a pod that the API server took")
