"""The admin process's own rights on a real API server: enough for all it does, and none is for nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from adminaccount import forget, kubeconfig_of

from beamline_admin.cluster_identity import ClusterVerifier
from beamline_admin.identity import Client, VerifierError
from beamline_admin.objects.cluster import KubeObjects
from beamline_admin.objects.port import Author, ObjectsError
from beamline_admin.rbac import rules
from beamline_contract.objects import ObjectKey
from beamline_sdk.deployment.kube_api import KubeApi

ADA = Author("ada", "request-1")
SPECS: dict[str, dict[str, Any]] = {
    "Extension": {"type": "pre"},
    "RoutingPolicy": {
        "steps": [{"action": "select_provider", "providers": [{"extensionRef": {"name": "x"}}]}]
    },
}


def token_of(kubeconfig: str) -> str:
    """The token in a kubeconfig."""
    return Path(kubeconfig).read_text().rpartition("token: ")[2].split()[0]


async def everything(kubeconfig: str, namespace: str) -> None:
    """All that the process does with its own account."""
    token = token_of(kubeconfig)
    api = await KubeApi.connect(kubeconfig)

    async def tenants() -> list[str]:
        return []

    try:
        objects = KubeObjects(api, namespaces=(namespace,))
        for kind, spec in SPECS.items():
            key = ObjectKey(kind, namespace, "one")  # type: ignore[arg-type]
            await objects.rehearse(key, spec, None)
            await objects.put(key, spec, None, ADA)
            assert key in await objects.all()
            held = await objects.get(key)
            assert held is not None
            await objects.annotate(held, "beamline.io/promote", "request-1", ADA)
            again = await objects.get(key)
            assert again is not None
            await objects.delete(again, ADA)
        verifier = ClusterVerifier(api, clock=lambda: 0.0, tenants=tenants)
        assert await verifier.verify(token, Client("10.0.0.1", "admin.example")) is None, "it has no role"
    finally:
        await api.close()


async def test_the_declared_rights_are_enough(
    cluster: Any, rest: Any, namespace: str, tmp_path: Path
) -> None:
    try:
        await everything(kubeconfig_of(rest, cluster, namespace, rules(), tmp_path), namespace)
    finally:
        forget(rest, namespace)


RIGHTS = [(index, verb) for index, rule in enumerate(rules()) for verb in rule["verbs"]]


@pytest.mark.parametrize(
    ("index", "verb"), RIGHTS, ids=[f"{verb} {', '.join(rules()[i]['resources'])}" for i, verb in RIGHTS]
)
async def test_without_any_one_of_them_something_can_not_be_done(
    cluster: Any, rest: Any, namespace: str, tmp_path: Path, *, index: int, verb: str
) -> None:
    fewer = [
        {**rule, "verbs": [one for one in rule["verbs"] if (number, one) != (index, verb)]}
        for number, rule in enumerate(rules())
    ]
    granted = [rule for rule in fewer if rule["verbs"]]
    try:
        with pytest.raises((ObjectsError, VerifierError)):
            await everything(kubeconfig_of(rest, cluster, namespace, granted, tmp_path), namespace)
    finally:
        forget(rest, namespace)
