"""The checks, in their order. To add one, write a function and name it in :data:`CHECKS`.

A check says what it needs: ``cluster`` (an API server), ``objects`` (a cluster or a running ``beamline up``),
``database`` and ``nats``. Where nobody named that, it is skipped. The first check of each need is its *door*:
where a door finds nobody, or is refused, it fails, and the others that need the same are skipped, because
they would only say it again.

A check returns what it found and raises what its look-ups raise. Missing rights make it skipped, with the
right that is missing: not being allowed to look is no fault of what is looked at.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from beamline_cli.faults import CliError
from beamline_registry.port import RegistryDeniedError, RegistryError, RegistryUnavailableError, SchemaError
from beamline_sdk.deployment.kube_api import KubeError
from beamline_sdk.link import LinkError

from . import broker, cluster, objects, operator, registry, rights, routers, secrets
from .patient import Finding, Patient, failed, skipped

Need: TypeAlias = Literal["cluster", "objects", "database", "nats"]


@dataclass(frozen=True, slots=True)
class Check:
    """One check. ``look`` is asked only where ``need`` is there."""

    group: str
    name: str
    need: Need
    look: Callable[[Patient], Awaitable[Finding]]
    door: bool = False


CHECKS: Final[tuple[Check, ...]] = (
    Check("cluster", "api-server", "cluster", cluster.answers, door=True),
    Check("cluster", "kubernetes-version", "cluster", cluster.version),
    Check("cluster", "crds-present", "cluster", cluster.crds_present),
    Check("cluster", "crds-fresh", "cluster", cluster.crds_fresh),
    Check("cluster", "crds-stored", "cluster", cluster.crds_stored),
    Check("cluster", "namespaces", "cluster", cluster.namespaces),
    Check("cluster", "pod-security", "cluster", cluster.pod_security),
    Check("cluster", "cluster-clock", "cluster", cluster.clock),
    Check("rights", "operator-rights", "cluster", rights.of_the_operator),
    Check("rights", "your-rights", "cluster", rights.of_the_caller),
    Check("components", "operator", "cluster", operator.present),
    Check("components", "operator-lease", "cluster", operator.lease),
    Check("components", "components-ready", "cluster", operator.ready),
    Check("components", "versions", "cluster", operator.versions),
    Check("components", "images", "cluster", operator.images),
    Check("components", "disruption-budgets", "cluster", operator.budgets),
    Check("registry", "database", "database", registry.answers, door=True),
    Check("registry", "database-version", "database", registry.version),
    Check("registry", "schema", "database", registry.schema),
    Check("registry", "database-role", "database", registry.role),
    Check("registry", "audit-guards", "database", registry.guards),
    Check("registry", "audit-chain", "database", registry.chain),
    Check("registry", "database-clock", "database", registry.clock),
    Check("nats", "nats", "nats", broker.answers, door=True),
    Check("nats", "nats-version", "nats", broker.version),
    Check("nats", "nats-auth", "nats", broker.credentials),
    Check("nats", "nats-tls", "nats", broker.encryption),
    Check("nats", "nats-max-payload", "nats", broker.max_payload),
    Check("routers", "routers", "nats", routers.present),
    Check("routers", "router-reports", "nats", routers.reports),
    Check("routers", "router-revisions", "nats", routers.revisions),
    Check("routers", "router-tables", "nats", routers.fresh),
    Check("routers", "router-refusals", "nats", routers.refusals),
    Check("routers", "router-versions", "nats", routers.versions),
    Check("routers", "router-clocks", "nats", routers.clocks),
    Check("routers", "api-keys", "nats", routers.keys),
    Check("routers", "breakers", "nats", routers.breakers),
    Check("objects", "finalizers", "objects", objects.finalizers),
    Check("objects", "stalled-objects", "objects", objects.stalled),
    Check("objects", "extensions-ready", "objects", objects.extensions_ready),
    Check("objects", "policies-programmed", "objects", objects.policies_programmed),
    Check("objects", "suspended", "objects", objects.suspended),
    Check("objects", "provider-keys", "objects", secrets.provider_keys),
)

_NAMED_BY: Final[dict[Need, tuple[str, str]]] = {
    "cluster": ("no cluster is named", "--kubeconfig FILE, or --in-cluster"),
    "objects": ("no cluster is named", "--kubeconfig FILE, or --in-cluster"),
    "database": ("no database is named", "--database-url or BEAMLINE_DATABASE_URL"),
    "nats": ("no NATS is named", "--nats-url or NATS_URL"),
}
_DOOR_OF: Final[dict[Need, Need]] = {"objects": "cluster"}
_DENIED: Final = frozenset({401, 403})


async def examine(patient: Patient) -> list[tuple[Check, Finding]]:
    """Every check with what it found."""
    found: list[tuple[Check, Finding]] = []
    closed: dict[Need, str] = {}
    """Doors that failed, by what they lead to."""
    for check in CHECKS:
        need = _DOOR_OF.get(check.need, check.need)
        if not _named(patient, check.need):
            finding = skipped(*_NAMED_BY[check.need])
        elif need in closed and not check.door and _named(patient, need):
            finding = skipped(f"not looked at, because the check `{closed[need]}` failed")
        else:
            finding = await _looked(check, patient)
            if check.door and finding.verdict == "failed":
                closed[need] = check.name
        found.append((check, finding))
    return found


def _named(patient: Patient, need: Need) -> bool:
    return {
        "cluster": patient.api is not None,
        "objects": patient.api is not None or patient.running is not None,
        "database": patient.database_url is not None,
        "nats": patient.nats is not None,
    }[need]


async def _looked(check: Check, patient: Patient) -> Finding:
    try:
        return await check.look(patient)
    except KubeError as error:
        if check.door:
            return failed(str(error), "look at the kubeconfig's server, user and context")
        if error.status in _DENIED:
            return skipped(f"these credentials may not look: {error}")
        return skipped(str(error)) if error.status == 0 else failed(str(error))
    except RegistryDeniedError as error:
        if check.door:
            return failed(str(error), "correct user, password and database of the URL")
        return skipped(f"this login may not look: {error}")
    except RegistryUnavailableError as error:
        return failed(str(error), "start it, or correct the address") if check.door else skipped(str(error))
    except SchemaError as error:
        return failed(str(error)) if check.door else skipped(str(error))
    except (LinkError, CliError, OSError) as error:
        if check.door:
            return failed(str(error), "start it, or correct address, credentials and TLS files")
        return skipped(str(error))
    except RegistryError as error:
        return failed(str(error))
