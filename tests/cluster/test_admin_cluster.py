"""The admin API on a real API server: whose a token is, what it may, and writes of objects."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import pytest

from beamline_admin.cluster_identity import CACHE_S, ClusterVerifier
from beamline_admin.identity import Client, Identity, Role
from beamline_admin.objects.cluster import KubeObjects
from beamline_admin.objects.port import Author, ChangedError, RefusedError
from beamline_contract.conditions import EventReason
from beamline_contract.names import ADMIN_FIELD_MANAGER
from beamline_contract.objects import ObjectKey, parse_metadata
from beamline_operator.core.ports import Event
from beamline_operator.edges.kube_store import KubeStore
from beamline_sdk.deployment.kube_api import KubeApi

CLIENT = Client("10.0.0.1", "admin.example")
ADA = Author("ada", "request-1")
SPEC: dict[str, Any] = {"type": "pre", "config": {"a": 1, "b": 2}, "timeoutMs": 100}


@pytest.fixture
async def api(cluster: Any) -> AsyncIterator[KubeApi]:
    made = await KubeApi.connect(str(cluster.kubeconfig))
    yield made
    await made.close()


async def account(api: KubeApi, namespace: str, name: str, rules: list[dict[str, Any]]) -> str:
    """A service account with ``rules``; its token."""
    await api.request(
        "POST", f"/api/v1/namespaces/{namespace}/serviceaccounts", body={"metadata": {"name": name}}
    )
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    role = f"{namespace}-{name}"
    await api.request("POST", f"{rbac}/clusterroles", body={"metadata": {"name": role}, "rules": rules})
    binding = {
        "metadata": {"name": role},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
    }
    await api.request("POST", f"{rbac}/clusterrolebindings", body=binding)
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
    made = await api.request("POST", path, body={"spec": {"expirationSeconds": 600}})
    return str(made["status"]["token"])


def rule(resource: str, *names: str) -> dict[str, Any]:
    found = {"apiGroups": ["beamline.io"], "resources": [resource], "verbs": ["use"]}
    return found | ({"resourceNames": list(names)} if names else {})


async def test_a_token_has_the_role_and_the_tenants_that_rbac_gives_it(api: KubeApi, namespace: str) -> None:
    now = 0.0

    async def tenants() -> list[str]:
        return ["acme", "shop"]

    verifier = ClusterVerifier(api, clock=lambda: now, tenants=tenants)
    operator = await account(
        api, namespace, "op", [rule("adminroles", "operator", "viewer"), rule("tenants", "acme")]
    )
    admin = await account(api, namespace, "root", [rule("adminroles"), rule("tenants")])
    nobody = await account(api, namespace, "nobody", [rule("tenants")])
    prefix = f"system:serviceaccount:{namespace}"
    assert await verifier.verify(operator, CLIENT) == Identity(
        f"{prefix}:op", Role.OPERATOR, tenants=frozenset({"acme"})
    )
    assert await verifier.verify(admin, CLIENT) == Identity(f"{prefix}:root", Role.ADMIN)
    assert await verifier.verify(nobody, CLIENT) is None
    assert await verifier.verify(f"{admin}x", CLIENT) is None
    calls = sum(api.calls.values())
    assert await verifier.verify(admin, CLIENT) is not None
    assert sum(api.calls.values()) == calls, "asked once a minute at most"
    await api.delete(f"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/{namespace}-root")
    await api.delete(f"/api/v1/namespaces/{namespace}/serviceaccounts/root")
    now += CACHE_S
    assert await verifier.verify(admin, CLIENT) is None


async def test_a_token_for_another_audience_proves_nothing(api: KubeApi, namespace: str) -> None:
    async def tenants() -> list[str]:
        return []

    token = await account(api, namespace, "root", [rule("adminroles"), rule("tenants")])
    verifier = ClusterVerifier(api, audience="beamline-admin", clock=lambda: 0.0, tenants=tenants)
    assert await verifier.verify(token, CLIENT) is None


async def test_events_that_the_operator_wrote_are_read_newest_first_and_of_one_object_alone(
    api: KubeApi, namespace: str
) -> None:
    path = f"/apis/beamline.io/v1alpha1/namespaces/{namespace}/extensions"
    head = {"apiVersion": "beamline.io/v1alpha1", "kind": "Extension"}
    store = KubeStore(api, namespaces=(namespace,))
    one, other = (ObjectKey("Extension", namespace, name) for name in ("one", "other"))
    for key in (one, other):
        body = {**head, "metadata": {"name": key.name}, "spec": SPEC}
        store.observe(await api.request("POST", path, body=body))
    synced = Event(EventReason.SYNCED, "The registry holds generation 1.")
    refused = Event(EventReason.REFUSED, "router r1 refused spec.timeoutMs", "Warning")
    for key, event in ((one, synced), (one, refused), (other, synced), (one, refused)):
        await store.record_event(key, event)
    objects = KubeObjects(api, namespaces=(namespace,))
    held = await objects.get(one)
    assert held is not None
    found = await objects.events(held)
    assert [(event.reason, event.type, event.message, event.count) for event in found] == [
        ("Refused", "Warning", "router r1 refused spec.timeoutMs", 2),
        ("Synced", "Normal", "The registry holds generation 1.", 1),
    ]
    assert found[0].at > found[1].at
    assert all(datetime.fromisoformat(event.at).tzinfo is not None for event in found)


async def test_objects_are_applied_with_who_asked_and_lose_what_is_not_wanted_any_more(
    api: KubeApi, namespace: str
) -> None:
    objects = KubeObjects(api, namespaces=(namespace,))
    key = ObjectKey("Extension", namespace, "one")
    path = f"/apis/beamline.io/v1alpha1/namespaces/{namespace}/extensions"
    by_hand = {
        "apiVersion": "beamline.io/v1alpha1", "kind": "Extension", "metadata": {"name": "one"}, "spec": SPEC,
    }  # fmt: skip
    await api.request("POST", path, body=by_hand)
    held = await objects.get(key)
    assert held is not None
    await objects.put(key, {**SPEC, "config": {"a": 2}}, held, ADA)
    after = (await objects.all())[key]
    assert after.spec["config"] == {"a": 2}
    meta = parse_metadata(after.metadata)
    assert (meta.changed_by, meta.request_id) == (f"ada ({ADMIN_FIELD_MANAGER})", "request-1")
    with pytest.raises(ChangedError):
        await objects.put(key, SPEC, held, ADA)
    with pytest.raises(RefusedError, match="timeoutMs"):
        await objects.rehearse(key, {**SPEC, "timeoutMs": 0}, after)
    await objects.delete(after, ADA)
    assert await objects.get(key) is None


async def test_a_rehearsal_writes_nothing_and_a_new_object_is_made(api: KubeApi, namespace: str) -> None:
    objects = KubeObjects(api, namespaces=(namespace,))
    key = ObjectKey("Extension", namespace, "two")
    await objects.rehearse(key, SPEC, None)
    assert await objects.get(key) is None
    await objects.put(key, SPEC, None, ADA)
    made = await objects.get(key)
    assert made is not None
    assert (made.generation, made.owner) == (1, None)
    await objects.annotate(made, "argocd.argoproj.io/tracking-id", "shop:beamline.io/Extension:x", ADA)
    owned = await objects.get(key)
    assert owned is not None
    assert owned.owner == "Argo CD application shop"
