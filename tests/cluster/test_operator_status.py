"""What status says on a real API server, and that it is quiet when there is nothing to say."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from controlplane.client import Cluster
from nats import connect
from operatorbench import Bench

from beamline_contract.conditions import EventReason
from beamline_contract.names import SUBJECT_ROUTER_HEALTH, SUBJECT_ROUTER_STATUS
from beamline_contract.objects import ObjectKey
from beamline_contract.reports import HealthDelta, Notice, RouterHealth, RouterStatus
from beamline_operator.core.ports import Event
from beamline_operator.edges.kube_store import KubeStore
from beamline_sdk.deployment.kube_api import MERGE, KubeApi


class Router:
    """A router that reports."""

    def __init__(self, nc: Any) -> None:
        self._nc = nc
        self._sequence = 0

    async def serve(self, *notices: Notice) -> None:
        status = RouterStatus(
            instance="r1", revision=1_000_000, started_at="2030-01-01T00:00:00Z", notices=list(notices)
        )
        await self._nc.publish(SUBJECT_ROUTER_STATUS, status.model_dump_json().encode())
        await self._nc.flush()

    async def health(self, **fields: Any) -> None:
        self._sequence += 1
        delta = HealthDelta(extension_id="guard", **fields)
        report = RouterHealth(instance="r1", sequence=self._sequence, deltas=[delta])
        await self._nc.publish(SUBJECT_ROUTER_HEALTH, report.model_dump_json().encode())
        await self._nc.flush()


@pytest.fixture
async def router(nats_server: Any) -> Any:
    async with await connect(nats_server.url) as nc:
        yield Router(nc)


async def policy(bench: Bench, name: str, *providers: dict[str, Any]) -> None:
    choices = [{"extensionRef": provider} for provider in providers]
    await bench.apply("RoutingPolicy", name, {"steps": [{"action": "select_provider", "providers": choices}]})


async def status(bench: Bench, kind: str, name: str) -> dict[str, Any]:
    found = await bench.get(kind, name)
    return dict(found.get("status", {})) if found is not None else {}


async def test_a_breaker_is_shown_where_it_matters_and_reports_alone_write_nothing(
    bench: Bench, router: Router, cluster: Cluster
) -> None:
    await bench.start()
    await bench.extension("guard", workload=None)
    await policy(bench, "default", {"name": "guard"})
    await bench.wait("RoutingPolicy", "default", "Synced", "True")
    await router.serve()
    await bench.wait("RoutingPolicy", "default", "Ready", "True")
    await bench.wait("Extension", "guard", "Ready", "True")
    await router.health(breaker="open", failure=9, success=1, last_error="UNAVAILABLE")

    async def opened() -> bool:
        return (await status(bench, "Extension", "guard")).get("breaker") == "open"

    await bench.until(opened, "the open breaker")
    extension = await status(bench, "Extension", "guard")
    assert (extension["lastError"], extension["health"]) == (
        "UNAVAILABLE",
        {"status": "failing", "score": 10},
    )

    async def repeated() -> bool:
        (reference,) = (await status(bench, "RoutingPolicy", "default")).get("references", [{}])
        return reference.get("reason") == "BreakerOpen"

    await bench.until(repeated, "the policy's word on it")
    before = await bench.versions()
    for _ in range(20):
        await router.health(breaker="open", failure=9, success=1, last_error="UNAVAILABLE")
        await router.serve()
    await asyncio.sleep(1)
    assert await bench.versions() == before
    table = cluster.kubectl("get", "-n", bench.namespace, "ext,rp").stdout
    lines = [line.split() for line in table.splitlines() if line.strip()]
    assert lines[0] == ["NAME", "TYPE", "READY", "REASON", "PROGRAMMED", "BREAKER", "REPLICAS", "AGE"]
    assert lines[1][:6] == ["extension.beamline.io/guard", "provider", "True", "Ready", "1/1", "open"]
    assert lines[2] == ["NAME", "PRIORITY", "READY", "REASON", "PROGRAMMED", "PROVIDERS", "AGE"]
    assert lines[3][:6] == ["routingpolicy.beamline.io/default", "0", "True", "Ready", "1/1", "guard"]
    wide = cluster.kubectl("get", "-n", bench.namespace, "ext", "-o", "wide").stdout.splitlines()[0].split()
    assert {"SUBJECT", "TIMEOUT", "RETRY", "ENABLED", "REVISION", "MESSAGE"} <= set(wide)


async def test_taking_back_a_permission_reaches_the_registry_and_the_policy(
    bench: Bench, cluster: Any
) -> None:
    other = f"{bench.namespace}-other"
    await bench.api.request("POST", "/api/v1/namespaces", body={"metadata": {"name": other}})
    shared = Bench(bench.api, bench.registry, bench.settings, other)
    login = cluster.operator_kubeconfig(bench.namespace, other)
    await bench.start(namespaces=f"{bench.namespace},{other}", kubeconfig=str(login))
    try:
        await shared.extension("guard", workload=None, allowedNamespaces=[bench.namespace])
        await policy(bench, "default", {"name": "guard", "namespace": other})
        await bench.wait("RoutingPolicy", "default", "ResolvedRefs", "True")
        await bench.wait("RoutingPolicy", "default", "Synced", "True")
        assert "denied" not in (await bench.rows())["default"].policy
        await shared.extension("guard", workload=None, allowedNamespaces=[])
        await bench.wait("RoutingPolicy", "default", "ResolvedRefs", "False", "RefNotPermitted")
        assert (await bench.rows())["default"].policy["denied"] == ["guard"]
        (reference,) = (await status(bench, "RoutingPolicy", "default"))["references"]
        assert (reference["namespace"], reference["reason"]) == (other, "RefNotPermitted")
        await bench.wait("RoutingPolicy", "default", "Stalled", "True")
        await shared.delete("Extension", "guard")
        await shared.gone("Extension", "guard")
    finally:
        await bench.api.delete(f"/api/v1/namespaces/{other}")


async def test_reconcile_at_forces_a_pass(bench: Bench) -> None:
    await bench.start()
    await bench.extension("guard")
    await bench.wait("Extension", "guard", "Synced", "True")
    await bench.until(lambda: bench.get("Deployment", "guard"), "deployment")
    audit = await bench.audit()
    annotation = {"metadata": {"annotations": {"beamline.io/reconcile-at": "now"}}}
    await bench.api.request("PATCH", bench.path("Extension", "guard"), body=annotation, content_type=MERGE)

    async def handled() -> bool:
        return (await status(bench, "Extension", "guard")).get("lastReconcileAt") == "now"

    await bench.until(handled, "the forced pass")
    assert await bench.audit() == audit


async def test_a_policy_names_what_stands_in_its_way(bench: Bench, router: Router) -> None:
    await bench.start()
    await bench.extension("gpt", workload=None, subject="acme.provider.gpt.v1")
    await bench.extension("off", workload=None, enabled=False)
    await bench.wait("Extension", "gpt", "Synced", "True")
    await asyncio.sleep(1.1)  # creation times are whole seconds, and the older object wins
    await bench.extension("late", workload=None, subject="acme.provider.gpt.v1")
    await policy(bench, "wide", {"name": "gpt"})
    await policy(bench, "small", {"name": "gpt"}, {"name": "off"}, {"name": "nobody"})
    lost = await bench.wait("Extension", "late", "Accepted", "False", "Conflicted")
    assert f"{bench.namespace}/gpt" in lost["message"]
    await bench.wait("RoutingPolicy", "wide", "Synced", "True")
    told = [
        Notice(kind="RoutingPolicy", id="wide", reason="Overridden", message="it has all", other_id="small"),
    ]
    await router.serve(*told)
    over = await bench.wait("RoutingPolicy", "wide", "Ready", "True", "Overridden")
    assert f"{bench.namespace}/small" in over["message"]
    await bench.wait("RoutingPolicy", "small", "ResolvedRefs", "False")
    listed = {one["name"]: one for one in (await status(bench, "RoutingPolicy", "small"))["references"]}
    assert (listed["off"]["reason"], listed["nobody"]["reason"]) == ("RefDisabled", "RefNotFound")
    assert listed["off"]["path"] == "spec.steps[0].providers[1].extensionRef"
    nothing = Notice(kind="RoutingPolicy", id="wide", reason="MatchesNothing", message="percent is 0")
    await router.serve(nothing)
    await bench.wait("RoutingPolicy", "wide", "Ready", "True", "MatchesNothing")


async def test_the_api_server_takes_a_repeated_event_as_one_that_counts(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beamline_operator.edges.kube_store.EVENT_AGGREGATION_S", 10**12)  # one window
    await bench.extension("guard", workload=None)
    api = await KubeApi.connect(bench.settings["kubeconfig"])
    store = KubeStore(api, namespaces=(bench.namespace,))
    await store.relist()
    key = ObjectKey("Extension", bench.namespace, "guard")
    for _ in range(3):
        await store.record_event(key, Event(EventReason.REFUSED, "r1 refused it.", "Warning"))
    await api.close()
    path = f"/apis/events.k8s.io/v1/namespaces/{bench.namespace}/events"
    (told,) = [event async for event in bench.api.items(path)]
    assert (told["reason"], told["note"], told["type"]) == ("Refused", "r1 refused it.", "Warning")
    assert (told["series"]["count"], told["regarding"]["name"]) == (3, "guard")
