"""Reconciling: idempotent whatever woke it, in the right order, repaired by the full compare. On fakes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from beamline_contract.names import FINALIZER
from beamline_contract.objects import ObjectKey
from beamline_operator.core.controller import RESYNC_S, Controller
from beamline_operator.core.ports import StoreError
from beamline_operator.core.workload import desired_workload
from beamline_registry.port import RegistryUnavailableError, Remove
from beamline_sdk.deployment.port import DeploymentError

WORKLOAD = {"image": "ghcr.io/beamline/beamline:0.1.0"}


async def test_nothing_is_written_when_nothing_changed(world: Any) -> None:
    key = world.extension(workload=WORKLOAD)
    policy = world.policy("guard")
    await world.settle()
    world.report()
    await world.settle()
    writes, hints, events = world.store.writes, list(world.hints.announced), len(world.store.events)
    for _ in range(3):
        for again in (key, policy):
            world.controller.enqueue(again)
        world.report()
        await world.settle()
        await world.advance(120)
    assert (world.store.writes, world.hints.announced, len(world.store.events)) == (writes, hints, events)
    assert len(world.deployments.deployed) == 1


async def test_a_restart_writes_nothing_and_leaves_one_audit_row(world: Any) -> None:
    world.extension(workload=WORKLOAD)
    world.policy("guard")
    await world.settle()
    writes, audit = world.store.writes, await world.audit()
    world.restart()
    await world.settle()
    assert world.store.writes == writes
    assert await world.audit() == audit
    assert len(world.deployments.deployed) == 1


async def test_the_finalizer_is_there_before_the_row(world: Any) -> None:
    key = world.extension()
    world.store.fail = StoreError("the API server is away")
    await world.settle()
    assert await world.rows() == {}
    world.store.fail = None
    await world.advance(5)
    assert FINALIZER in world.store.get(key).metadata.finalizers
    assert "guard" in await world.rows()


async def test_an_edit_of_the_config_reaches_the_registry_but_restarts_nothing(world: Any) -> None:
    world.extension(workload=WORKLOAD, config={"level": 1})
    await world.settle()
    world.extension(workload=WORKLOAD, config={"level": 2})
    await world.settle()
    assert (await world.rows())["guard"].config == {"level": 2}
    assert len(world.deployments.deployed) == 1


async def test_an_edit_of_the_workload_is_applied_and_told(world: Any) -> None:
    key = world.extension(workload=WORKLOAD)
    await world.settle()
    world.extension(workload={"image": "ghcr.io/beamline/beamline:0.2.0", "replicas": 3})
    await world.settle()
    assert world.deployments.running["default", "guard"].replicas == 3
    told = [event.reason.value for at, event in world.store.events if at == key]
    assert told.count("WorkloadApplied") == 2


async def test_a_workload_that_is_no_longer_asked_for_goes(world: Any) -> None:
    key = world.extension(workload=WORKLOAD)
    await world.settle()
    world.extension()
    await world.settle()
    assert world.deployments.deleted == [("default", "guard")]
    assert world.verdict(key, "WorkloadReady") == ("True", "NoWorkload")
    assert "workloadHash" not in world.store.get(key).status


async def test_a_workload_that_vanished_comes_back(world: Any) -> None:
    key = world.extension(workload=WORKLOAD)
    await world.settle()
    world.deployments.running.clear()
    world.controller.enqueue_workload("default", "guard")
    await world.settle()
    assert ("default", "guard") in world.deployments.running
    assert world.verdict(key, "WorkloadReady") == ("True", "WorkloadReady")


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"timeoutMs": 0}, id="it breaks its rules"),
        pytest.param({"subject": "acme.pre.guard.v1"}, id="an older one has its subject"),
        pytest.param({"suspend": True}, id="it is suspended"),
    ],
)
async def test_what_has_nothing_to_clean_up_gets_no_finalizer(world: Any, spec: dict[str, Any]) -> None:
    world.extension("older", subject="acme.pre.guard.v1")
    world.clock.advance(60)
    key = world.extension("guard", **spec)
    await world.settle()
    assert set(await world.rows()) == {"older"}
    assert FINALIZER not in world.store.get(key).metadata.finalizers
    world.store.delete(key)
    assert world.store.get(key) is None, "nobody is waited for"


async def test_deleting_takes_row_then_workload_then_finalizer_and_leaves_the_audit(world: Any) -> None:
    key = world.extension(workload=WORKLOAD)
    await world.settle()
    world.registry.outage = RegistryUnavailableError("down")
    world.store.delete(key)
    await world.settle()
    assert world.store.get(key) is not None, "the finalizer holds it while the registry is not clean"
    assert world.deployments.running, "the workload serves until the row is gone"
    world.registry.outage = None
    world.deployments.fail = DeploymentError("away")
    await world.advance(10)
    assert await world.rows() == {}
    assert world.store.get(key) is not None
    world.deployments.fail = None
    await world.advance(10)
    assert world.store.get(key) is None
    assert world.deployments.running == {}
    assert await world.audit() == [("guard", "created"), ("guard", "deleted")]


async def test_retain_keeps_row_and_workload_and_lets_the_object_go(world: Any) -> None:
    key = world.extension(workload=WORKLOAD, deletionPolicy="Retain")
    await world.settle()
    world.store.delete(key)
    await world.settle()
    assert world.store.get(key) is None
    assert "guard" in await world.rows()
    assert world.deployments.running["default", "guard"].owner_uid == "", "no owner, so no garbage collection"
    assert await world.controller.compare() == 0, "a retained row is no orphan"
    assert "guard" in await world.rows()


async def test_an_object_created_again_takes_over_its_retained_row(world: Any) -> None:
    key = world.extension(deletionPolicy="Retain", timeoutMs=100)
    await world.settle()
    world.store.delete(key)
    await world.settle()
    world.extension(timeoutMs=200)
    await world.settle()
    assert world.verdict(key, "Synced") == ("True", "Synced")
    row = (await world.rows())["guard"]
    assert (row.timeout_ms, row.uid) == (200, world.store.get(key).metadata.uid)


async def test_a_retained_workload_that_is_taken_over_is_said_so(world: Any) -> None:
    key = world.extension(workload=WORKLOAD, deletionPolicy="Retain")
    await world.settle()
    world.store.delete(key)
    await world.settle()
    again = world.extension(workload=WORKLOAD)
    await world.settle()
    owner = world.store.get(again).metadata.uid
    assert world.deployments.running["default", "guard"].owner_uid == owner
    told = [event.reason.value for _, event in world.store.events]
    assert told.count("Adopted") == 1


async def test_the_full_compare_removes_a_workload_that_nothing_asks_for(world: Any) -> None:
    gone = world.extension("gone", workload=WORKLOAD)
    kept = world.extension("kept", workload=WORKLOAD, deletionPolicy="Retain")
    world.extension("served", workload=WORKLOAD)
    bare = world.extension("bare", workload=WORKLOAD)
    await world.settle()
    world.store.delete(kept)
    await world.settle()
    for key in (gone, bare):  # removed in a way that left no trace but the workload
        del world.store._objects[key]
    world.deployments.torn |= {("default", "gone"), ("default", "kept"), ("default", "served")}
    world.extension("bare")
    world.restart()
    await world.settle()
    await world.controller.compare()
    assert {name for _, name in world.deployments.running} == {"kept", "served"}
    before = world.controller.drift_repairs
    await world.controller.compare()
    assert world.controller.drift_repairs == before


async def test_an_object_of_another_namespace_never_takes_a_retained_row(world: Any) -> None:
    key = world.extension(deletionPolicy="Retain")
    await world.settle()
    world.store.delete(key)
    other = world.extension(namespace="other")
    await world.settle()
    assert world.verdict(other, "Accepted") == ("False", "Conflicted")
    assert "default/guard" in world.message(other, "Accepted")


async def test_an_object_that_vanished_without_its_finalizer_is_cleaned_up(world: Any) -> None:
    key = world.extension(workload=WORKLOAD)
    await world.settle()
    del world.store._objects[key]  # somebody tore the finalizer off
    world.controller.enqueue(key)
    await world.settle()
    assert await world.rows() == {}
    assert world.deployments.running == {}


async def test_the_full_compare_repairs_in_all_directions(world: Any) -> None:
    gone, kept = world.extension("gone"), world.extension("kept")
    await world.settle()
    del world.store._objects[gone]  # its end was missed
    world.restart()
    kept_row = (await world.rows())["kept"]
    await world.registry.write([Remove("Extension", "kept", kept_row.uid, 1, "somebody")], epoch=world.epoch)
    await world.settle()
    assert set(await world.rows()) == {"gone", "kept"}, "a restart writes what it has"
    assert await world.controller.compare() == 1
    assert set(await world.rows()) == {"kept"}
    row = (await world.rows())["kept"]
    await world.registry.write([Remove("Extension", "kept", row.uid, 1, "somebody")], epoch=world.epoch)
    assert await world.controller.compare() == 1
    await world.advance(1)
    assert set(await world.rows()) == {"kept"}
    assert world.controller.drift_repairs == 2
    assert world.verdict(kept, "Synced") == ("True", "Synced")


async def test_a_newer_leader_fences_this_one_off(world: Any) -> None:
    world.extension("first")
    await world.settle()
    await world.registry.acquire_epoch("the other")
    world.extension("second")
    await world.settle()
    assert world.fenced == 1
    assert set(await world.rows()) == {"first"}


async def test_events_are_told_on_transitions_only(world: Any) -> None:
    key = world.extension()
    await world.settle()
    world.report()
    await world.settle()
    world.extension(timeoutMs=7)
    await world.settle()
    world.report()
    await world.settle()
    told = [event.reason.value for at, event in world.store.events if at == key]
    assert told == ["Synced", "Programmed", "Synced", "Programmed"]


async def test_a_router_report_wakes_only_what_it_changes(world: Any) -> None:
    world.extension("a")
    await world.settle()
    world.report("r1")
    await world.advance(1)
    key = world.extension("b")
    await world.settle()
    world.report("r1")
    assert [await world.controller.queue.get()] == [key]
    assert len(world.controller.queue) == 0


async def test_a_router_that_goes_back_no_longer_serves_what_came_since(world: Any) -> None:
    key = world.extension("a")
    await world.settle()
    world.report("r1")
    await world.settle()
    assert world.verdict(key, "Programmed") == ("True", "Programmed")
    world.report("r1", revision=0)
    await world.settle()
    assert world.verdict(key, "Programmed") == ("False", "Programming")


async def test_routers_of_a_restored_database_are_not_said_to_lag_behind_for_ever(world: Any) -> None:
    world.extension("a")
    await world.settle()
    key = world.extension("b")
    await world.settle()
    world.report("r1")
    await world.settle()
    registry = world.registry  # the same rows under an older counter
    registry._revision = 1
    registry._rows = {name: replace(row, revision=1) for name, row in registry._rows.items()}
    world.report("r1", revision=1)
    await world.settle()
    assert world.verdict(key, "Programmed") == ("True", "Programmed")
    assert world.store.get(key).status["revision"] == 1


@pytest.mark.parametrize("failures", [1, 5])
async def test_a_failing_object_is_tried_at_most_once_a_second(world: Any, failures: int) -> None:
    world.extension()
    world.store.fail = StoreError("429")
    await world.settle()
    writes = 0
    for _ in range(failures):
        before = world.controller.queue.failures(ObjectKey("Extension", "default", "guard"))
        await world.advance(0.99)
        after = world.controller.queue.failures(ObjectKey("Extension", "default", "guard"))
        writes += after - before
    assert writes <= failures


def test_a_workload_gets_what_the_contract_says(world: Any) -> None:
    key = world.extension("mock-provider", config={"mode": "echo"}, workload=WORKLOAD)
    settings = type(world.settings)(
        nats_url="nats://nats:4222",
        nats_credentials_file="/etc/nats/user.creds",
        log_silent=True,
        passed_env={"OTEL_SERVICE_NAME": "x", "HOME": "/root"},
    )
    request = desired_workload(world.store.get(key), settings)
    assert dict(request.env) == {
        "OTEL_SERVICE_NAME": "x",
        "NATS_URL": "nats://nats:4222",
        "NATS_CREDENTIALS_FILE": "/etc/nats/user.creds",
        "NATS_SUBJECT": "beamline.provider.mock_provider.v1",
        "NATS_QUEUE_GROUP": "mock_provider",
        "BEAMLINE_EXTENSION_ID": "mock_provider",
        "BEAMLINE_EXTENSION_TYPE": "provider",
        "BEAMLINE_CONFIG": '{"mode":"echo"}',
        "METRICS_PORT": "9090",
        "LOG_LEVEL": "info",
        "LOG_SILENT": "1",
    }


@pytest.mark.parametrize(("drawn", "share"), [(0.0, 0.8), (0.5, 1.0), (1.0, 1.2)])
def test_full_compares_are_a_few_minutes_apart_and_never_in_step(
    world: Any, drawn: float, share: float
) -> None:
    jittered = Controller(
        world.reconciler, world.store, world.hints, world.registry, jitter=lambda: drawn, clock=world.clock
    )
    assert jittered.pause_s() == pytest.approx(RESYNC_S * share)
    assert 120 <= RESYNC_S <= 600
