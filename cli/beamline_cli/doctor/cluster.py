"""Checks of the cluster: the API server, our definitions, the namespaces that are served."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from beamline_contract.crd import crd
from beamline_contract.crd_fields import fields_of, schema_of
from beamline_contract.names import GROUP, VERSION
from beamline_contract.objects import KINDS, PLURAL
from beamline_operator.edges.preflight import APPLY_CRDS
from beamline_sdk.deployment.kube_api import KubeError

from .clocks import skew
from .patient import Finding, Patient, failed, first, ok, skipped, warning

OLDEST: Final = (1, 30)
"""Kubernetes from which on pods may end with ``preStop.sleep``, as the chart's do."""
_ENFORCE: Final = "pod-security.kubernetes.io/enforce"
_ROOT: Final = "/api/v1/namespaces"


async def answers(patient: Patient) -> Finding:
    """The API server answers, and to these credentials."""
    found = await patient.cluster.request("GET", "/version")
    return ok(f"Kubernetes {found.get('gitVersion')} answers")


async def version(patient: Patient) -> Finding:
    """Its version is one that the chart is made for."""
    found = await patient.cluster.request("GET", "/version")
    said = str(found.get("gitVersion", "?"))
    try:
        numbers = (int(found["major"]), int(str(found["minor"]).rstrip("+")))
    except (KeyError, ValueError):
        return warning(f"{said} is no version that can be compared")
    oldest = ".".join(map(str, OLDEST))
    if numbers < OLDEST:
        return failed(
            f"Kubernetes {said} is older than {oldest}", f"upgrade the cluster to {oldest} or newer"
        )
    return ok(f"{said} is {oldest} or newer")


async def crds_present(patient: Patient) -> Finding:
    """The API server knows our kinds."""
    found = await patient.cluster.find(f"/apis/{GROUP}/{VERSION}")
    served = {str(item["name"]) for item in (found or {}).get("resources", ())}
    missing = sorted(
        {plural for kind in KINDS for plural in (PLURAL[kind], f"{PLURAL[kind]}/status")} - served
    )
    if missing:
        return failed(f"the API server does not serve {', '.join(missing)}", f"`{APPLY_CRDS}`")
    return ok(f"{GROUP}/{VERSION} is served")


async def crds_fresh(patient: Patient) -> Finding:
    """The CRDs have every field that this program knows."""
    older = []
    for kind, found in (await patient.crds()).items():
        if found is None:
            return skipped(f"there is no CRD of {kind}")
        ours = schema_of(crd(kind))  # type: ignore[arg-type]  # keys are KINDS
        lacking = sorted(fields_of(ours) - fields_of(schema_of(found)))
        if lacking:
            older.append(f"{kind} lacks {first(lacking, 3)}")
    if older:
        return failed(f"the CRDs are older than this program: {'; '.join(older)}", f"`{APPLY_CRDS}`")
    return ok("the CRDs have every field of this program")


async def crds_stored(patient: Patient) -> Finding:
    """What is stored can be read: each stored version is served, the definition is established, and no
    conversion webhook stands between.
    """
    wrong = []
    for kind, found in (await patient.crds()).items():
        if found is None:
            return skipped(f"there is no CRD of {kind}")
        spec, status = found["spec"], found.get("status") or {}
        served = {one["name"] for one in spec["versions"] if one.get("served")}
        left = sorted(set(status.get("storedVersions") or ()) - served)
        if left:
            wrong.append(f"objects of {kind} may still be stored as {', '.join(left)}, which is not served")
        states = {one["type"]: one for one in status.get("conditions") or ()}
        wrong += [
            f"{kind} is not {name}: {states.get(name, {}).get('message', 'no condition')}"
            for name in ("NamesAccepted", "Established")
            if states.get(name, {}).get("status") != "True"
        ]
        if (spec.get("conversion") or {}).get("strategy", "None") != "None":
            wrong.append(f"{kind} is converted by a webhook that Beamline does not have")
    if wrong:
        return failed("; ".join(wrong), f"`{APPLY_CRDS}`, and write each object once before a version goes")
    return ok(f"both are established, everything is stored as {VERSION} and needs no conversion")


async def namespaces(patient: Patient) -> Finding:
    """The namespaces in scope are there, and stay."""
    if not patient.namespaces:
        return ok("all namespaces are in scope")
    missing, ending = [], []
    for name in patient.namespaces:
        found = await patient.cluster.find(f"{_ROOT}/{name}")
        if found is None:
            missing.append(name)
        elif found["metadata"].get("deletionTimestamp"):
            ending.append(name)
    if missing:
        return failed(f"there is no namespace {first(missing)}", f"`kubectl create namespace {missing[0]}`")
    if ending:
        return warning(f"{first(ending)} is being deleted", "see the check `finalizers` where it hangs")
    return ok(f"{len(patient.namespaces)} in scope, all there")


async def pod_security(patient: Patient) -> Finding:
    """Namespaces that hold Extensions with workloads enforce a level of Pod Security."""
    used = sorted(
        {
            item["metadata"]["namespace"]
            for item in await patient.objects()
            if item["kind"] == "Extension" and item["spec"].get("workload")
        }
    )
    if not used:
        return ok("no Extension has a workload")
    lax: list[str] = []
    unseen: list[str] = []
    for name in used:
        try:
            found = await patient.cluster.request("GET", f"{_ROOT}/{name}")
        except KubeError as error:
            if error.status not in {403, 404}:
                raise
            unseen.append(name)
            continue
        if (found["metadata"].get("labels") or {}).get(_ENFORCE) != "restricted":
            lax.append(name)
    if lax:
        return warning(
            f"{first(lax)} does not enforce `restricted`, which every workload of Beamline passes",
            f"`kubectl label namespace {lax[0]} {_ENFORCE}=restricted`",
        )
    if unseen:
        return skipped(f"these credentials may not see the namespaces {first(unseen)}")
    return ok(f"{first(used)} enforce `restricted`")


async def clock(patient: Patient) -> Finding:
    """The API server's clock and ours agree; its answers are stamped to the second."""
    ours = patient.now
    return skew("the API server's clock", await patient.server_clock() - ours, grain=timedelta(seconds=1))
