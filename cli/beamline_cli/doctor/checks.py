"""The checks, in their order. To add one, write a function and name it in :data:`CHECKS`.

A check returns what it found. It raises nothing on purpose: :func:`examine` turns an API server or a database
that does not answer into a failed check, so one fault never hides the others.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, TypeAlias

from beamline_contract.crd import crd
from beamline_contract.names import GROUP, VERSION
from beamline_contract.objects import KINDS, PLURAL
from beamline_operator.edges.preflight import APPLY_CRDS, Refusal, check_cluster
from beamline_registry import migrate
from beamline_registry.port import RegistryError
from beamline_sdk.deployment.kube_api import KubeApi, KubeError

from .finalizers import stuck


class Verdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found; ``help`` is the command or the step that helps."""

    verdict: Verdict
    message: str
    help: str = ""


@dataclass(frozen=True, slots=True)
class Patient:
    """What is looked at; None where nobody named it. An empty ``namespaces`` is all of them."""

    api: KubeApi | None = None
    database_url: str | None = None
    nats_url: str | None = None
    namespaces: Sequence[str] = ()


Check: TypeAlias = Callable[[Patient], Awaitable[Finding]]
_NO_CLUSTER: Final = Finding(Verdict.SKIPPED, "no cluster is named", "--kubeconfig FILE")


async def api_server(patient: Patient) -> Finding:
    """The API server answers."""
    if patient.api is None:
        return _NO_CLUSTER
    version = await patient.api.request("GET", "/version")
    return Finding(Verdict.OK, f"Kubernetes {version.get('gitVersion')} answers")


async def crds_present(patient: Patient) -> Finding:
    """The API server knows our kinds."""
    if patient.api is None:
        return _NO_CLUSTER
    found = await patient.api.find(f"/apis/{GROUP}/{VERSION}")
    served = {str(item["name"]) for item in (found or {}).get("resources", ())}
    missing = sorted(
        {plural for kind in KINDS for plural in (PLURAL[kind], f"{PLURAL[kind]}/status")} - served
    )
    if missing:
        return Finding(
            Verdict.FAILED, f"the API server does not serve {', '.join(missing)}", f"`{APPLY_CRDS}`"
        )
    return Finding(Verdict.OK, f"{GROUP}/{VERSION} is served")


async def crds_fresh(patient: Patient) -> Finding:
    """The CRDs have every field that this program knows."""
    if patient.api is None:
        return _NO_CLUSTER
    older = []
    for kind in KINDS:
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{PLURAL[kind]}.{GROUP}"
        found = await patient.api.find(path)
        if found is None:
            return Finding(Verdict.SKIPPED, f"there is no CRD of {kind}")
        lacking = sorted(fields_of(crd(kind)) - fields_of(found))
        if lacking:
            older.append(f"{kind} lacks {', '.join(lacking[:3])}")
    if older:
        return Finding(
            Verdict.FAILED, f"the CRDs are older than this program: {'; '.join(older)}", f"`{APPLY_CRDS}`"
        )
    return Finding(Verdict.OK, "the CRDs have every field of this program")


async def rights(patient: Patient) -> Finding:
    """These credentials may do what an operator does."""
    if patient.api is None:
        return _NO_CLUSTER
    try:
        await check_cluster(patient.api, patient.namespaces)
    except Refusal as error:
        return Finding(Verdict.WARNING, str(error), "run it with the operator's own credentials to be sure")
    return Finding(Verdict.OK, "these credentials may do all that an operator does")


async def finalizers(patient: Patient) -> Finding:
    """No object hangs in its deletion."""
    if patient.api is None:
        return _NO_CLUSTER
    found = await stuck(patient.api, patient.namespaces, datetime.now(UTC))
    if not found:
        return Finding(Verdict.OK, "no object hangs in its deletion")
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return Finding(
        Verdict.FAILED,
        f"{', '.join(found[:5])}{more} can't go: no operator takes the finalizer off",
        "start the operator, or `beamline doctor --release-finalizers`",
    )


async def stalled_objects(patient: Patient) -> Finding:
    """No object needs a person."""
    if patient.api is None:
        return _NO_CLUSTER
    found = []
    for kind in KINDS:
        for namespace in patient.namespaces or ("",):
            where = f"/namespaces/{namespace}" if namespace else ""
            async for item in patient.api.items(f"/apis/{GROUP}/{VERSION}{where}/{PLURAL[kind]}"):
                reason = _stalled(item.get("status") or {})
                if reason:
                    meta = item["metadata"]
                    found.append(f"{kind} {meta['namespace']}/{meta['name']} ({reason})")
    if not found:
        return Finding(Verdict.OK, "no object needs a person")
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return Finding(Verdict.WARNING, f"stalled: {', '.join(found[:5])}{more}", "`kubectl describe` them")


async def database(patient: Patient) -> Finding:
    """The database answers and has this program's schema."""
    if patient.database_url is None:
        return Finding(Verdict.SKIPPED, "no database is named", "--database-url or BEAMLINE_DATABASE_URL")
    wrong = await migrate.check(patient.database_url)
    if wrong is not None:
        return Finding(Verdict.FAILED, wrong)
    return Finding(Verdict.OK, f"the database answers, at {migrate.latest()}")


async def nats(patient: Patient) -> Finding:
    """NATS takes connections."""
    if patient.nats_url is None:
        return Finding(Verdict.SKIPPED, "no NATS is named", "--nats-url or NATS_URL")
    from beamline_sdk.nats_probe import answers

    fault = await answers(patient.nats_url)
    if fault is not None:
        return Finding(Verdict.FAILED, f"NATS does not answer: {fault}", "start it, or correct the address")
    return Finding(Verdict.OK, "NATS takes connections")


CHECKS: Final[tuple[tuple[str, Check], ...]] = (
    ("api-server", api_server),
    ("crds-present", crds_present),
    ("crds-fresh", crds_fresh),
    ("rights", rights),
    ("finalizers", finalizers),
    ("stalled-objects", stalled_objects),
    ("database", database),
    ("nats", nats),
)


async def examine(patient: Patient) -> list[tuple[str, Finding]]:
    """Every check with what it found."""
    found = []
    for name, check in CHECKS:
        try:
            finding = await check(patient)
        except (KubeError, RegistryError) as error:
            finding = Finding(Verdict.FAILED, str(error))
        found.append((name, finding))
    return found


def fields_of(document: Mapping[str, Any]) -> set[str]:
    """Paths of every field of the schemas of our version, without values."""
    versions = [one for one in document["spec"]["versions"] if one["name"] == VERSION]
    found: set[str] = set()
    pending = [("", one["schema"]["openAPIV3Schema"]) for one in versions]
    while pending:
        at, node = pending.pop()
        for name, child in (node.get("properties") or {}).items():
            path = f"{at}.{name}".lstrip(".")
            found.add(path)
            pending.append((path, child))
        inner = (node.get(name) for name in ("items", "additionalProperties"))
        pending.extend((at, child) for child in inner if isinstance(child, Mapping))
    return found


def _stalled(status: Mapping[str, Any]) -> str:
    for condition in status.get("conditions") or ():
        if (condition.get("type"), condition.get("status")) == ("Stalled", "True"):
            return str(condition.get("reason"))
    return ""
