"""Every field of ``spec.workload``: applied, edited, put back when somebody changes it, gone when unset."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from operatorbench import WORKLOAD, Bench

from beamline_contract.workload import Workload
from beamline_sdk.deployment.kube_api import MERGE, KubeError

Path = tuple[str | int, ...]
DEPLOYMENT: Path = ("spec",)
TEMPLATE: Path = ("spec", "template", "metadata")
POD: Path = ("spec", "template", "spec")
BOX: Path = (*POD, "containers", 0)


@dataclass(frozen=True)
class Case:
    """A field with two values, where it ends up, what stands there, and what a hand writes there instead."""

    field: str
    first: Any
    second: Any
    at: Path
    stands: tuple[Any, Any]
    by_hand: Any
    kind: str = "Deployment"

    def __str__(self) -> str:
        return f"{self.field} at {self.kind} {'.'.join(map(str, self.at))}"


def plain(field: str, first: Any, second: Any, at: Path, by_hand: Any, **more: Any) -> Case:
    """What stands there is the value itself."""
    return Case(field, first, second, at, (first, second), by_hand, **more)


def key(name: str) -> dict[str, str]:
    return {"name": name, "key": "k"}


def volume(**source: Any) -> list[dict[str, Any]]:
    return [{"name": "v", "mountPath": "/v", **source}]


def label(name: str) -> list[dict[str, Any]]:
    return [{"key": "zone", "operator": "In", "values": [name]}]


HPA, PDB = "HorizontalPodAutoscaler", "PodDisruptionBudget"
ZONE = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}
CASES = [
    plain("image", "a/b:1", "a/b:2", (*BOX, "image"), "c/d:9"),
    plain("imagePullPolicy", "Always", "Never", (*BOX, "imagePullPolicy"), "IfNotPresent"),
    plain("imagePullSecrets", [{"name": "a"}], [{"name": "b"}], (*POD, "imagePullSecrets"), None),
    plain("command", ["one"], ["two", "x"], (*BOX, "command"), ["evil"]),
    plain("args", ["--one"], ["--two"], (*BOX, "args"), ["--evil"]),
    plain("replicas", 2, 3, (*DEPLOYMENT, "replicas"), 9),
    Case("env", [{"name": "A_WORD", "value": "1"}], [{"name": "A_WORD", "value": "2"}],
         (*BOX, "env", "A_WORD", "value"), ("1", "2"), "9"),
    Case("env", [{"name": "A_WORD", "valueFrom": {"secretKeyRef": key("a")}}],
         [{"name": "A_WORD", "valueFrom": {"configMapKeyRef": key("b")}}],
         (*BOX, "env", "A_WORD", "valueFrom"),
         ({"secretKeyRef": key("a")}, {"configMapKeyRef": key("b")}), {"secretKeyRef": key("c")}),
    Case("env", [{"name": "A_WORD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
         [{"name": "A_WORD", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
         (*BOX, "env", "A_WORD", "valueFrom", "fieldRef", "fieldPath"), ("metadata.name", "spec.nodeName"),
         "status.podIP"),
    Case("updateStrategy", {"maxSurge": 1}, {"type": "Recreate"}, ("spec", "strategy"),
         ({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
          {"type": "Recreate"}),
         {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 5}}),
    plain("envFrom", [{"configMapRef": {"name": "a"}}], [{"secretRef": {"name": "b"}, "prefix": "P_"}],
          (*BOX, "envFrom"), [{"configMapRef": {"name": "x"}}]),
    Case("resources", {"limits": {"cpu": "2", "memory": "1Gi"}}, {"limits": {"cpu": "3", "memory": "2Gi"}},
         (*BOX, "resources", "limits"),
         ({"cpu": "2", "memory": "1Gi"}, {"cpu": "3", "memory": "2Gi"}), {"cpu": "7"}),
    Case("resources", {"requests": {"cpu": "300m", "memory": "64Mi"}},
         {"requests": {"cpu": "301m", "memory": "65Mi"}}, (*BOX, "resources", "requests"),
         ({"cpu": "300m", "memory": "64Mi"}, {"cpu": "301m", "memory": "65Mi"}), {"cpu": "1m"}),
    Case("autoscaling", {"maxReplicas": 3}, {"maxReplicas": 5}, ("spec", "maxReplicas"), (3, 5), 50, HPA),
    Case("autoscaling", {"minReplicas": 2, "maxReplicas": 9}, {"minReplicas": 3, "maxReplicas": 9},
         ("spec", "minReplicas"), (2, 3), 7, HPA),
    Case("autoscaling", {"maxReplicas": 3, "cpuPercent": 60}, {"maxReplicas": 3, "cpuPercent": 70},
         ("spec", "metrics", 0, "resource", "target", "averageUtilization"), (60, 70), 99, HPA),
    Case("autoscaling", {"maxReplicas": 3, "memoryPercent": 60}, {"maxReplicas": 3, "memoryPercent": 70},
         ("spec", "metrics", 1, "resource", "target", "averageUtilization"), (60, 70), 99, HPA),
    Case("autoscaling", {"maxReplicas": 3, "scaleDownStabilizationSeconds": 5},
         {"maxReplicas": 3, "scaleDownStabilizationSeconds": 6},
         ("spec", "behavior", "scaleDown", "stabilizationWindowSeconds"), (5, 6), 3000, HPA),
    Case("disruption", {"maxUnavailable": 2}, {"maxUnavailable": "50%"}, ("spec", "maxUnavailable"),
         (2, "50%"), 0, PDB),
    Case("disruption", {"minAvailable": 1}, {"minAvailable": 2}, ("spec", "minAvailable"), (1, 2), 9, PDB),
    Case("volumes", volume(emptyDir={}), volume(emptyDir={"sizeLimit": "1Gi"}),
         (*POD, "volumes", "v", "emptyDir", "sizeLimit"), ("64Mi", "1Gi"), "9Gi"),
    Case("volumes", volume(configMap={"name": "a"}), volume(secret={"name": "b"}),
         (*BOX, "volumeMounts", "mountPath=/v", "readOnly"), (True, True), False),
    Case("volumes", volume(secret={"name": "a"}), volume(secret={"name": "b"}),
         (*POD, "volumes", "v", "secret", "secretName"), ("a", "b"), "stolen"),
    plain("nodeSelector", {"disk": "ssd"}, {"disk": "hdd"}, (*POD, "nodeSelector"), {"disk": "tape"}),
    plain("tolerations", [{"key": "gpu", "operator": "Exists"}],
          [{"key": "gpu", "operator": "Equal", "value": "a", "effect": "NoExecute", "tolerationSeconds": 5}],
          (*POD, "tolerations"), []),
    Case("affinity", {"nodes": label("a")}, {"nodes": label("b")},
         (*POD, "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution",
          "nodeSelectorTerms", 0, "matchExpressions"), (label("a"), label("b")), label("c")),
    Case("affinity", {"apart": {"required": True}}, {"apart": {"required": True, "topologyKey": "zone"}},
         (*POD, "affinity", "podAntiAffinity", "requiredDuringSchedulingIgnoredDuringExecution", 0,
          "topologyKey"), ("kubernetes.io/hostname", "zone"), "rack"),
    Case("affinity", {"apart": {}}, {"apart": {"topologyKey": "zone"}},
         (*POD, "affinity", "podAntiAffinity", "preferredDuringSchedulingIgnoredDuringExecution", 0,
          "podAffinityTerm", "topologyKey"), ("kubernetes.io/hostname", "zone"), "rack"),
    Case("topologySpread", [{"topologyKey": "zone"}], [{"topologyKey": "zone", "maxSkew": 2}],
         (*POD, "topologySpreadConstraints", 0, "maxSkew"), (1, 2), 9),
    plain("priorityClassName", "system-node-critical", "system-cluster-critical",
          (*POD, "priorityClassName"), None),
    plain("serviceAccountName", "mine", "yours", (*POD, "serviceAccountName"), "theirs"),
    Case("probes", {"livenessPath": "/a"}, {"livenessPath": "/b"},
         (*BOX, "livenessProbe", "httpGet", "path"), ("/a", "/b"), "/evil"),
    Case("probes", {"readinessPath": "/a"}, {"readinessPath": "/b"},
         (*BOX, "readinessProbe", "httpGet", "path"), ("/a", "/b"), "/evil"),
    Case("probes", {"port": 8081}, {"port": 8082},
         (*BOX, "startupProbe", "httpGet", "port"), (8081, 8082), 1),
    Case("updateStrategy", {"maxSurge": 2}, {"maxSurge": "25%", "maxUnavailable": 1},
         ("spec", "strategy", "rollingUpdate", "maxSurge"), (2, "25%"), 9),
    plain("revisionHistoryLimit", 7, 3, ("spec", "revisionHistoryLimit"), 1),
    plain("progressDeadlineSeconds", 77, 78, ("spec", "progressDeadlineSeconds"), 9),
    Case("podLabels", {"team": "red"}, {"team": "blue"}, (*TEMPLATE, "labels", "team"),
         ("red", "blue"), "evil"),
    Case("podAnnotations", {"x.io/y": "1"}, {"x.io/y": "2"}, (*TEMPLATE, "annotations", "x.io/y"),
         ("1", "2"), "evil"),
]  # fmt: skip
ELSEWHERE = {"rollback"}
"""Fields that no object shows."""


def at(document: Any, path: Path) -> Any:
    """What stands at ``path``; a name picks an item of a list by its name, ``field=value`` by that field."""
    for part in path:
        if isinstance(document, list) and isinstance(part, str):
            field, _, value = part.rpartition("=")
            document = next((item for item in document if item.get(field or "name") == value), None)
        else:
            try:
                document = document[part]
            except (KeyError, IndexError, TypeError):
                return None
    return document


def changed(document: Any, path: Path, value: Any) -> None:
    """Puts ``value`` at ``path``; None takes away what is there."""
    *way, last = path
    place = at(document, tuple(way))
    if value is None:
        place.pop(last)
    else:
        place[last] = value


def test_every_field_of_the_schema_is_in_the_table() -> None:
    fields = {info.alias or name for name, info in Workload.model_fields.items()}
    assert fields - {case.field for case in CASES} == ELSEWHERE


STRICT = {"pod-security.kubernetes.io/enforce": "restricted"}


async def test_every_field_is_applied_edited_put_back_and_taken_back(bench: Bench) -> None:
    """In a namespace that enforces Pod Security "restricted": whatever is asked for, the pods get in."""
    path = f"/api/v1/namespaces/{bench.namespace}"
    await bench.api.request("PATCH", path, body={"metadata": {"labels": STRICT}}, content_type=MERGE)
    naked = {"metadata": {"name": "naked"}, "spec": {"containers": [{"name": "x", "image": "x"}]}}
    with pytest.raises(KubeError, match="violates PodSecurity"):
        await bench.api.request("POST", f"{path}/pods", body=naked)
    for name in ("mine", "yours"):
        await bench.api.request("POST", f"{path}/serviceaccounts", body={"metadata": {"name": name}})
    await bench.start()
    lives = [Life(bench, case, f"case-{number}") for number, case in enumerate(CASES)]
    for some in batches(lives, 12):
        await asyncio.gather(*(life.live() for life in some))


def batches(lives: list[Life], size: int) -> list[list[Life]]:
    return [lives[start : start + size] for start in range(0, len(lives), size)]


class Life:
    """One field of one Extension, from nothing to nothing."""

    def __init__(self, bench: Bench, case: Case, name: str) -> None:
        self.bench = bench
        self.case = case
        self.name = name

    async def live(self) -> None:
        case = self.case
        await self.ask()
        before = await self.bench.until(lambda: self.bench.get("Deployment", self.name), "the Deployment")
        for value, wanted in zip((case.first, case.second), case.stands, strict=True):
            await self.ask(**{case.field: value})
            await self.stands(wanted)
        if case.kind == "Deployment" and case.field != "replicas":
            await self.bench.until(self.let_in, f"a pod that the API server let in, with {case}")
        await self.edit_by_hand()
        await self.stands(case.stands[1])
        await self.ask()
        if case.kind != "Deployment":
            await self.bench.gone(case.kind, self.name)
        else:
            await self.stands(at(before, case.at))

    async def ask(self, **fields: Any) -> None:
        await self.bench.extension(self.name, workload={**WORKLOAD, **fields})

    async def stands(self, wanted: Any) -> None:
        async def there() -> bool:
            return bool(at(await self.bench.get(self.case.kind, self.name), self.case.at) == wanted)

        try:
            await self.bench.until(there, f"{self.case}: {wanted}")
        except AssertionError as error:
            shown = at(await self.bench.get(self.case.kind, self.name), self.case.at)
            raise AssertionError(f"{error}; it is {shown}") from error

    async def let_in(self) -> bool:
        chosen = {"labelSelector": f"app.kubernetes.io/instance={self.name}"}
        path = f"/api/v1/namespaces/{self.bench.namespace}/pods"
        return bool([pod async for pod in self.bench.api.items(path, chosen)])

    async def edit_by_hand(self) -> None:
        """As ``kubectl edit`` does it: read, change, write back."""
        case = self.case

        async def written() -> bool:
            found = await self.bench.get(case.kind, self.name)
            assert found is not None
            changed(found, case.at, case.by_hand)
            if case.field == "priorityClassName":
                found["spec"]["template"]["spec"].pop("priority", None)
            path = self.bench.path(case.kind, self.name)
            try:
                done = await self.bench.api.request("PUT", path, body=found, params={"fieldManager": "hand"})
            except KubeError as error:
                if error.status == 409:
                    return False
                raise AssertionError(f"{case}: {error}") from error
            assert at(done, case.at) != case.stands[1], f"{case}: the edit itself"
            return True

        await self.bench.until(written, f"{case}: the edit")
