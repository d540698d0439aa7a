"""What must be so before an operator starts, each refusal one sentence with what helps.

The rights are asked for, not tried out: a SelfSubjectAccessReview per verb tells at the start what would
otherwise be a 403 in the middle of the night.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, NoReturn

import structlog

from beamline_contract.crd import crd
from beamline_contract.crd_fields import fields_of, schema_of
from beamline_contract.names import GROUP, VERSION
from beamline_contract.objects import PLURAL
from beamline_registry import migrate
from beamline_registry.port import RegistryDeniedError, RegistryUnavailableError
from beamline_sdk.deployment.kube_api import KubeApi, KubeError

from ..rbac import RIGHTS
from .rivals import rival

_log = structlog.get_logger()
APPLY_CRDS: Final = "kubectl apply -f crds/"
GRANT: Final = (
    "run `helm upgrade` with the chart of this version, or grant what "
    "`python -m beamline_operator.rbac` prints"
)


def _parts(resource: str) -> tuple[str, str]:
    name, _, subresource = resource.partition("/")
    return name, subresource


NEEDED: Final[tuple[tuple[str, str, str, tuple[str, ...]], ...]] = tuple(
    (right.group, *_parts(resource), right.verbs) for right in RIGHTS for resource in right.resources
)
"""(group, resource, subresource, verbs): what the operator does in the namespaces that it serves."""


LEASES: Final = ("coordination.k8s.io", "leases", "")


class Refusal(Exception):  # noqa: N818 -- not a fault of the program: somebody has to do something first
    """The operator can't run; the message is one sentence with the command that helps."""


async def check_cluster(api: KubeApi, namespaces: Sequence[str]) -> None:
    """CRDs and rights. Raises :class:`Refusal`, or ``KubeError`` where the API server does not answer."""
    try:
        found = await api.request("GET", f"/apis/{GROUP}/{VERSION}")
    except KubeError as error:
        if error.status == 404:
            raise Refusal(f"the API server does not know {GROUP}/{VERSION}: run `{APPLY_CRDS}`") from error
        if error.status in {401, 403}:
            raise Refusal(f"the API server refuses these credentials: {error}") from error
        raise
    served = {str(resource["name"]) for resource in found.get("resources", ())}
    for plural in PLURAL.values():
        if missing := {plural, f"{plural}/status"} - served:
            raise Refusal(f"the API server does not serve {', '.join(sorted(missing))}: run `{APPLY_CRDS}`")
    await _check_fields(api)
    await _check_rights(api, namespaces)


async def _check_fields(api: KubeApi) -> None:
    """A CRD that lacks a field drops it silently. What is served is in the OpenAPI document, which everybody
    may read; the CRDs themselves are not the operator's to read.
    """
    try:
        served = await api.request("GET", f"/openapi/v3/apis/{GROUP}/{VERSION}")
    except KubeError as error:
        if error.retryable:
            raise
        return  # a server without that document: what is wrong will be seen in the objects
    schemas = {
        name.rpartition(".")[2]: one for name, one in served.get("components", {}).get("schemas", {}).items()
    }
    for kind in PLURAL:
        if kind not in schemas:
            continue
        if lacking := sorted(fields_of(schema_of(crd(kind))) - fields_of(schemas[kind])):
            raise Refusal(
                f"the CRDs are older than this operator, {kind} lacks {', '.join(lacking[:3])}: "
                f"run `{APPLY_CRDS}`"
            )


async def _check_rights(api: KubeApi, namespaces: Sequence[str]) -> None:
    for namespace in namespaces or ("",):
        denied = [
            f"{verb} {resource}{f'/{sub}' if sub else ''}{f'.{group}' if group else ''}"
            for group, resource, sub, verbs in NEEDED
            for verb in verbs
            if not await _allowed(api, namespace, (group, resource, sub), verb)
        ]
        if denied:
            where = f"namespace {namespace}" if namespace else "all namespaces"
            raise Refusal(
                f"the operator's account may not {', '.join(denied[:5])} in {where}"
                f"{f' (and {len(denied) - 5} more)' if len(denied) > 5 else ''}: {GRANT}"
            )


async def check_lease(api: KubeApi, namespace: str, name: str) -> None:
    """The right to lead. Without it an operator would stand by for ever. Raises :class:`Refusal`, or
    ``KubeError`` where the API server does not answer.
    """
    denied = [
        verb
        for verb, named in (("get", name), ("update", name), ("create", ""))
        if not await _allowed(api, namespace, LEASES, verb, named)
    ]
    if denied:
        raise Refusal(
            f"the operator's account may not {', '.join(denied)} the Lease {name} in namespace {namespace}: "
            f"{GRANT}, or set BEAMLINE_LEASE_NAMESPACE and BEAMLINE_LEASE_NAME"
        )


async def check_alone(
    api: KubeApi, namespaces: Sequence[str], own: tuple[str, str], since: str | None = None
) -> None:
    """That nobody else is at this work, or none since before ``since``; ``own`` is namespace and name of the
    Lease to compete for. Raises :class:`Refusal`, or ``KubeError`` where the API server does not answer.
    """
    other = await rival(api, namespaces, own, since=since)
    if other is not None:
        where = f"namespace {', '.join(namespaces)}" if namespaces else "every namespace"
        raise Refusal(
            f"another operator, {other}, serves what this one shall, {where}: stop one, give both the same "
            "BEAMLINE_LEASE_NAMESPACE and BEAMLINE_LEASE_NAME, or set BEAMLINE_NAMESPACES "
            "(operator.namespaces of the chart) to others; `kubectl get lease -A` shows who leads"
        )


async def stay_alone(
    api: KubeApi, namespaces: Sequence[str], own: tuple[str, str], since: str, every_s: float = 30.0
) -> NoReturn:
    """:func:`check_alone` for as long as one leads, which began at ``since``. Raises :class:`Refusal`."""
    while True:
        try:
            await check_alone(api, namespaces, own, since)
        except KubeError as error:
            _log.info("operator.rivals_not_listed", error=str(error))
        await asyncio.sleep(every_s)


async def _allowed(
    api: KubeApi, namespace: str, what: tuple[str, str, str], verb: str, name: str = ""
) -> bool:
    group, resource, subresource = what
    attributes = {
        "name": name,
        "verb": verb,
        "group": group,
        "resource": resource,
        "subresource": subresource,
        "namespace": namespace,
    }
    review = await api.request(
        "POST",
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        body={
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        },
    )
    return bool(review.get("status", {}).get("allowed"))


async def check_schema(database_url: str) -> str | None:
    """None where the schema fits, else the sentence. A database that does not answer is no refusal: it may
    come.
    """
    try:
        return await migrate.check(database_url)
    except RegistryDeniedError as error:
        return f"{error}: check BEAMLINE_DATABASE_URL"
    except RegistryUnavailableError:
        return None
