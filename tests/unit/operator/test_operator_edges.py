"""What the edges do with what they are told, without a network: cache order, routers' reports, health."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from beamline_contract.names import API_VERSION
from beamline_contract.objects import BrokenObject, ObjectKey
from beamline_contract.reports import HealthDelta, RouterHealth, RouterStatus
from beamline_operator.edges.health_fold import HealthFold
from beamline_operator.edges.kube_store import KubeStore
from beamline_operator.edges.nats_hints import NatsHints
from beamline_registry.memory import MemoryRegistry
from beamline_registry.port import RegistryUnavailableError
from beamline_sdk.link import LinkSettings

KEY = ObjectKey("Extension", "ns", "guard")


def document(version: int, timeout: int = 100) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": "Extension",
        "metadata": {"name": "guard", "namespace": "ns", "uid": "u", "resourceVersion": str(version)},
        "spec": {"type": "pre", "timeoutMs": timeout},
    }


@pytest.fixture
def store() -> KubeStore:
    return KubeStore(None)  # type: ignore[arg-type]  # nothing here asks the API server


def test_of_two_versions_the_newer_stays_in_whatever_order_they_come(store: KubeStore) -> None:
    told: list[ObjectKey] = []
    store.on_change = told.append
    store.observe(document(7, timeout=700))
    store.observe(document(5, timeout=500))
    found = store.get(KEY)
    assert found is not None
    assert found.metadata.resource_version == "7"
    assert told == [KEY], "an old version is no news"


def test_a_late_version_does_not_bring_a_deleted_object_back(store: KubeStore) -> None:
    store.observe(document(5))
    store.observe(document(8), deleted=True)
    store.observe(document(6))
    assert store.get(KEY) is None
    store.observe(document(9))
    assert store.get(KEY) is not None, "but a new object of that name is one"


def test_an_object_that_breaks_its_rules_is_kept_as_broken(store: KubeStore) -> None:
    store.observe(document(1, timeout=0))
    broken = store.get(KEY)
    assert isinstance(broken, BrokenObject)
    assert broken.faults[0].path == "spec.timeoutMs"


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def status(instance: str = "r1", **fields: Any) -> bytes:
    return RouterStatus(instance=instance, revision=1, started_at="now", **fields).model_dump_json().encode()


def test_a_silent_router_is_forgotten_after_its_time_and_said_to_leave() -> None:
    time, told = Time(), list[RouterStatus]()
    hints = NatsHints(LinkSettings("nats://nowhere:4222", "test"), on_report=told.append, clock=time)
    hints.take_status(status("r1"))
    time.now = 10
    hints.take_status(status("r2"))
    time.now = 16.5
    hints.forget_silent()
    assert [router.instance for router in hints.routers()] == ["r2"]
    assert [(report.instance, report.leaving) for report in told] == [
        ("r1", False),
        ("r2", False),
        ("r1", True),
    ]


def test_a_router_that_says_good_bye_is_forgotten_at_once() -> None:
    hints = NatsHints(LinkSettings("nats://nowhere:4222", "test"))
    hints.take_status(status())
    hints.take_status(status(leaving=True))
    assert hints.routers() == []


def test_what_is_no_report_is_dropped() -> None:
    hints = NatsHints(LinkSettings("nats://nowhere:4222", "test"))
    hints.take_status(b"\xff not json")
    hints.take_health(b"{}")
    assert hints.routers() == []


def test_a_repeated_health_report_counts_once() -> None:
    told: list[RouterHealth] = []
    hints = NatsHints(LinkSettings("nats://nowhere:4222", "test"), on_health=told.append)
    report = RouterHealth(instance="r1", sequence=4, deltas=[HealthDelta(extension_id="a", success=1)])
    for _ in range(2):
        hints.take_health(report.model_dump_json().encode())
    assert len(told) == 1


async def test_a_hint_without_a_connection_is_no_fault() -> None:
    await NatsHints(LinkSettings("nats://nowhere:4222", "test")).changed(7)


async def test_health_is_kept_while_the_registry_is_away() -> None:
    registry = MemoryRegistry()
    epoch = await registry.acquire_epoch("test")
    fold = HealthFold(registry, lambda: epoch)
    fold.add(RouterHealth(instance="r", sequence=1, deltas=[HealthDelta(extension_id="a", success=3)]))
    registry.outage = RegistryUnavailableError("down")
    await fold.flush()
    assert len(fold._kept) == 1
    registry.outage = None
    await fold.flush()
    assert fold._kept == []


async def test_a_router_that_is_new_or_back_again_is_asked_for_its_breakers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str | None] = []
    time = Time()
    hints = NatsHints(LinkSettings("nats://nowhere:4222", "test"), clock=time)

    async def probe(instance: str | None = None) -> None:
        asked.append(instance)

    monkeypatch.setattr(hints, "probe", probe)
    message = SimpleNamespace(data=status("r1"))
    for _ in range(2):
        await hints._on_status(message)  # type: ignore[arg-type]  # only its data is read
    assert asked == ["r1"]
    time.now = 20
    hints.forget_silent()
    await hints._on_status(message)  # type: ignore[arg-type]
    assert asked == ["r1", "r1"]
