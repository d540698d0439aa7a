"""What the operator tells people: events that count up instead of piling up, log lines that name a pass."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from beamline_contract.conditions import EventReason
from beamline_contract.objects import ObjectKey
from beamline_operator.core.ports import Event
from beamline_operator.edges.kube_store import KubeStore
from beamline_registry.port import RegistryUnavailableError
from beamline_sdk.deployment.kube_api import KubeError

GUARD = ObjectKey("Extension", "default", "guard")


class EventsApi:
    """Keeps events by name, as an API server does."""

    def __init__(self) -> None:
        self.events: dict[str, dict[str, Any]] = {}

    async def request(self, method: str, path: str, *, body: Any = None, **_: Any) -> dict[str, Any]:
        if method == "POST":
            name = body["metadata"]["name"]
            if name in self.events:
                raise KubeError(409, "AlreadyExists", name)
            self.events[name] = dict(body)
            return self.events[name]
        name = path.rpartition("/")[2]
        if method == "PATCH":
            self.events[name] |= body
        return self.events[name]


@pytest.fixture
def api() -> EventsApi:
    return EventsApi()


@pytest.fixture
def store(api: EventsApi, monkeypatch: pytest.MonkeyPatch) -> KubeStore:
    monkeypatch.setattr("beamline_operator.edges.kube_store.EVENT_AGGREGATION_S", 10**12)  # one window
    made = KubeStore(api)  # type: ignore[arg-type]
    metadata = {"name": "guard", "namespace": "default", "uid": "u", "resourceVersion": "1", "generation": 1}
    made.observe(
        {
            "apiVersion": "beamline.io/v1alpha1",
            "kind": "Extension",
            "metadata": metadata,
            "spec": {"type": "provider"},
        }
    )
    return made


async def test_a_repeated_event_counts_up_the_one_that_is_there(store: KubeStore, api: EventsApi) -> None:
    for _ in range(3):
        await store.record_event(GUARD, Event(EventReason.SYNCED, "The registry holds generation 1."))
    await store.record_event(GUARD, Event(EventReason.REFUSED, "router r1 refused", "Warning"))
    synced, refused = api.events.values()
    assert synced["series"]["count"] == 3
    assert (refused["reason"], "series" in refused) == ("Refused", False)
    assert {event["reason"] for event in api.events.values()} <= {reason.value for reason in EventReason}


async def test_every_line_of_a_pass_names_the_pass_and_the_generation(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any, **__: Any) -> Any:
        raise RegistryUnavailableError("away")

    monkeypatch.setattr(world.registry, "write", away)
    world.extension()
    with capture_logs(processors=[merge_contextvars]) as lines:
        await world.settle()
    assert {"reconcile.registry_fault", "reconcile.later"} <= {line["event"] for line in lines}
    assert {(line["object"], line["generation"]) for line in lines} == {("Extension default/guard", 1)}
    (number,) = {line["reconcile_id"] for line in lines}
    assert len(number) == 12
