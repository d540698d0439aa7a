"""Checks of rights: asked for by access reviews, one per verb, never tried out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeAlias

from beamline_contract.names import GROUP
from beamline_operator.edges.preflight import NEEDED
from beamline_sdk.deployment.kube_api import KubeApi, KubeError

from .patient import Finding, Patient, failed, first, ok, warning

Wish: TypeAlias = tuple[str, str, str, str]
"""(group, resource, subresource, verb)"""

_REVIEWS: Final = "/apis/authorization.k8s.io/v1"
_AT_ONCE: Final = 8
_OPERATOR: Final[tuple[Wish, ...]] = tuple(
    (group, resource, sub, verb) for group, resource, sub, verbs in NEEDED for verb in verbs
)
_CALLER: Final[tuple[tuple[str, Wish], ...]] = (
    ("get", (GROUP, "extensions", "", "list")),
    ("get", (GROUP, "routingpolicies", "", "list")),
    ("diff", (GROUP, "extensions", "", "get")),
    ("diff", (GROUP, "routingpolicies", "", "get")),
    ("suspend", (GROUP, "extensions", "", "patch")),
    ("suspend", (GROUP, "routingpolicies", "", "patch")),
    ("logs", ("", "pods", "", "list")),
    ("logs", ("", "pods", "log", "get")),
    ("check", ("apps", "deployments", "", "list")),
    ("check", ("coordination.k8s.io", "leases", "", "get")),
)


async def of_the_operator(patient: Patient) -> Finding:
    """The operator's account may do what an operator does, in each namespace that it serves.

    Asked about its ServiceAccount, where there is one and these credentials may ask about others; else about
    these credentials, by SelfSubjectAccessReview.
    """
    accounts = [_account(item) for item in await patient.deployments("operator")]
    for account in accounts:
        try:
            denied = await _denied(patient.cluster, patient.namespaces, _OPERATOR, account)
        except KubeError as error:
            if error.status == 403:
                break
            raise
        if denied:
            return failed(
                f"{account[0]} may not {first(denied)}",
                "`helm upgrade` binds the chart's role, or bind it yourself",
            )
    else:
        if accounts:
            return ok(f"{first([account[0] for account in accounts])} may do all that an operator does")
    denied = await _denied(patient.cluster, patient.namespaces, _OPERATOR, None)
    if denied:
        return warning(
            f"these credentials may not {first(denied)}, which an operator has to",
            "run it with the operator's own account to be sure: `kubectl exec deploy/beamline-operator -- "
            "beamline check --in-cluster`",
        )
    return ok("these credentials may do all that an operator does")


async def of_the_caller(patient: Patient) -> Finding:
    """These credentials may do what this program's own commands do."""
    denied = await _denied(patient.cluster, patient.namespaces, [wish for _, wish in _CALLER], None)
    if not denied:
        return ok("you may use every command of this program here")
    told = {_words(wish): command for command, wish in reversed(_CALLER)}
    commands = sorted({told[entry.partition(" in ")[0]] for entry in denied})
    return warning(
        f"you may not {first(denied)}: `beamline {'`, `beamline '.join(commands)}` will not do all of it",
        "ask for these verbs in a Role",
    )


async def _denied(
    api: KubeApi, namespaces: Sequence[str], wishes: Iterable[Wish], account: tuple[str, list[str]] | None
) -> list[str]:
    """What is not allowed, in words. Raises ``KubeError``."""
    limit = asyncio.Semaphore(_AT_ONCE)

    async def one(namespace: str, wish: Wish) -> str | None:
        async with limit:
            if await _allowed(api, namespace, wish, account):
                return None
        return _words(wish) + (f" in {namespace}" if namespace else "")

    asked = [one(namespace, wish) for namespace in namespaces or ("",) for wish in wishes]
    return [words for words in await asyncio.gather(*asked) if words is not None]


async def _allowed(api: KubeApi, namespace: str, wish: Wish, account: tuple[str, list[str]] | None) -> bool:
    group, resource, subresource, verb = wish
    attributes = {
        "verb": verb,
        "group": group,
        "resource": resource,
        "subresource": subresource,
        "namespace": namespace,
    }
    spec: dict[str, Any] = {"resourceAttributes": attributes}
    kind = "SelfSubjectAccessReview"
    if account is not None:
        kind, spec["user"], spec["groups"] = "SubjectAccessReview", account[0], account[1]
    review = await api.request(
        "POST",
        f"{_REVIEWS}/{kind.lower()}s",
        body={"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec},
    )
    return bool(review.get("status", {}).get("allowed"))


def _account(deployment: dict[str, Any]) -> tuple[str, list[str]]:
    """User and groups of a Deployment's ServiceAccount, as the API server knows them."""
    namespace = deployment["metadata"]["namespace"]
    name = deployment["spec"]["template"]["spec"].get("serviceAccountName", "default")
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]
    return f"system:serviceaccount:{namespace}:{name}", groups


def _words(wish: Wish) -> str:
    group, resource, subresource, verb = wish
    return f"{verb} {resource}{f'/{subresource}' if subresource else ''}{f'.{group}' if group else ''}"
