"""Checks of what the chart runs: operators, routers, the admin process."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from beamline_contract import __version__

from .patient import COMPONENTS, Finding, Patient, failed, first, name_of, ok, skipped, warning

_VERSION: Final = "app.kubernetes.io/version"
_PULLING: Final = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
_INSTALL: Final = "`helm install`, or --install-namespace NS where it is elsewhere"


async def present(patient: Patient) -> Finding:
    """There is an operator, and a standby."""
    found = await patient.deployments("operator")
    if not found:
        return warning(
            "no operator's Deployment was found: nothing reconciles objects, unless one runs outside",
            _INSTALL,
        )
    away = [name_of(item) for item in found if not (item.get("status") or {}).get("availableReplicas")]
    if away:
        return failed(
            f"{first(away)} has no pod that is available",
            f"`beamline logs operator -n {away[0].split('/')[0]}`",
        )
    alone = [name_of(item) for item in found if item["spec"].get("replicas", 1) < 2]
    if alone:
        return warning(f"{first(alone)} has one replica: nobody stands by", "`operator.replicas=2`")
    return ok(f"{first([name_of(item) for item in found])}, with a standby")


async def lease(patient: Patient) -> Finding:
    """Somebody leads, and has renewed the Lease lately by the API server's clock."""
    found = await patient.deployments("operator")
    if not found:
        return skipped("no operator's Deployment was found", _INSTALL)
    led = []
    for item in found:
        namespace, name = _lease_of(item)
        path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}"
        held = await patient.cluster.find(path)
        spec = (held or {}).get("spec") or {}
        if not spec.get("holderIdentity"):
            return failed(
                f"nobody holds the Lease {namespace}/{name}", f"`beamline logs operator -n {namespace}`"
            )
        age = await patient.server_clock() - datetime.fromisoformat(spec["renewTime"])
        limit = timedelta(seconds=spec.get("leaseDurationSeconds", 15))
        if age > limit:
            return failed(
                f"{spec['holderIdentity']} renewed the Lease {namespace}/{name} "
                f"{age.total_seconds():.0f} s ago, and it lasts {limit.total_seconds():.0f} s",
                f"`beamline logs operator -n {namespace}`",
            )
        led.append(f"{spec['holderIdentity']} leads")
    return ok(first(led))


async def ready(patient: Patient) -> Finding:
    """Every component has as many available pods as it shall, of its newest revision."""
    behind = []
    total = 0
    for component in COMPONENTS:
        for item in await patient.deployments(component):
            total += 1
            status, wanted = item.get("status") or {}, item["spec"].get("replicas", 1)
            if status.get("availableReplicas", 0) < wanted or status.get("updatedReplicas", 0) < wanted:
                behind.append(
                    f"{name_of(item)} ({status.get('availableReplicas', 0)} of {wanted} available, "
                    f"{status.get('updatedReplicas', 0)} of the newest revision)"
                )
    if not total:
        return skipped("no component's Deployment was found", _INSTALL)
    if behind:
        return failed(f"not all there: {first(behind)}", "`kubectl describe` the Deployment and its pods")
    return ok(f"{total} Deployments with all their pods")


async def versions(patient: Patient) -> Finding:
    """Operator, routers and the admin process are of one release."""
    found: dict[str, list[str]] = {}
    for component in COMPONENTS:
        for item in await patient.deployments(component):
            version = str((item["metadata"].get("labels") or {}).get(_VERSION, "?"))
            found.setdefault(version, []).append(name_of(item))
    if not found:
        return skipped("no component's Deployment was found", _INSTALL)
    if len(found) > 1:
        told = [f"{version}: {', '.join(names)}" for version, names in sorted(found.items())]
        return failed(
            f"components of different releases run: {'; '.join(told)}", "`helm upgrade` the older ones"
        )
    (version,) = found
    if version != __version__:
        return warning(
            f"{version} runs in the cluster, this program is {__version__}", "use the program of the release"
        )
    return ok(f"all are {version}, as this program")


async def images(patient: Patient) -> Finding:
    """No pod of ours waits for its image."""
    stuck = [
        f"{name_of(pod)} ({state['reason']} of {container.get('image', '?')})"
        for pod in await patient.pods()
        for container, state in _waiting(pod)
        if state.get("reason") in _PULLING
    ]
    if stuck:
        return failed(
            f"images can't be pulled: {first(stuck, 3)}",
            "`kubectl describe pod` says why: name, pull secret, network",
        )
    return ok(f"{len(await patient.pods())} pods, no image is waited for")


async def budgets(patient: Patient) -> Finding:
    """A drain of a node neither takes all routers nor hangs for ever."""
    routers = await patient.deployments("router")
    if not routers:
        return skipped("no router's Deployment was found", _INSTALL)
    for item in routers:
        namespace = item["metadata"]["namespace"]
        labels = item["spec"]["selector"]["matchLabels"]
        path = f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets"
        found = [
            budget
            async for budget in patient.cluster.items(path)
            if (chosen := (budget["spec"].get("selector") or {}).get("matchLabels"))
            and chosen.items() <= labels.items()
        ]
        if not found:
            return warning(
                f"{name_of(item)} has no PodDisruptionBudget: a drain may take all routers at once",
                "`router.podDisruptionBudget.enabled=true`",
            )
        status = found[0].get("status") or {}
        if status.get("expectedPods") and not status.get("disruptionsAllowed", 0):
            return warning(
                f"the budget of {name_of(item)} allows no disruption now: a drain would wait",
                "more routers, or mend those not ready",
            )
    return ok("routers have a budget that leaves some of them")


def _lease_of(deployment: dict[str, Any]) -> tuple[str, str]:
    """(namespace, name) of the Lease, as the operator's variables say."""
    variables = {
        entry["name"]: entry.get("value")
        for container in deployment["spec"]["template"]["spec"]["containers"]
        for entry in container.get("env") or ()
    }
    namespace = variables.get("BEAMLINE_LEASE_NAMESPACE") or deployment["metadata"]["namespace"]
    return namespace, variables.get("BEAMLINE_LEASE_NAME") or "beamline-operator"


def _waiting(pod: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Containers that wait, with why."""
    status = pod.get("status") or {}
    states = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    return [(one, one["state"]["waiting"]) for one in states if (one.get("state") or {}).get("waiting")]
