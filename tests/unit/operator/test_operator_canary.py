"""A canary as the reconcile core runs it: rows, conditions and events of a base and its versions."""

from __future__ import annotations

from typing import Any

import pytest

from beamline_contract.objects import ObjectKey
from beamline_contract.reports import HealthDelta, RouterHealth
from beamline_operator.core.canary import PROMOTE
from beamline_registry.port import RegistryUnavailableError
from beamline_sdk.deployment.port import Phase

CANARY = {
    "steps": [{"weight": 10, "pauseSeconds": 30}, {"weight": 50, "pauseSeconds": 30}],
    "gates": {"minSamples": 10},
}


@pytest.fixture
async def canary(world: Any) -> ObjectKey:
    """A canary in its first step."""
    world.extension()
    await world.settle()
    world.clock.advance(1)
    key: ObjectKey = world.extension("guard-v2", version="v2", versionOf="guard", canary=CANARY)
    await world.settle()
    return key


def call(world: Any, success: int = 0, failure: int = 0, name: str = "guard_v2") -> None:
    """Routers report calls."""
    delta = HealthDelta(extension_id=name, success=success, failure=failure)
    world.controller.on_health(RouterHealth(instance="r1", sequence=1, deltas=[delta]))


async def weights(world: Any) -> dict[str, int]:
    rows = await world.rows()
    assert all(row.spec["weight"] == row.weight for row in rows.values())
    return {name: row.weight for name, row in rows.items()}


def told(world: Any) -> list[str]:
    return [event.reason.value for _, event in world.store.events if event.reason.value.startswith("Canary")]


async def test_the_rows_follow_each_step_up_to_promotion(world: Any, canary: ObjectKey) -> None:
    assert await weights(world) == {"guard": 9, "guard_v2": 1}
    assert world.verdict(canary, "Canary") == ("Unknown", "CanaryProgressing")
    assert world.message(canary, "Canary") == "Step 1 of 2 (10 %), for 30 s or longer."
    call(world, success=20)
    await world.advance(40)
    assert await weights(world) == {"guard": 1, "guard_v2": 1}
    call(world, success=20)
    await world.advance(40)
    assert await weights(world) == {"guard": 0, "guard_v2": 100}
    assert world.verdict(canary, "Canary") == ("True", "CanaryPromoted")
    assert told(world) == ["CanaryStep", "CanaryStep", "CanaryPromoted"]


async def test_a_bad_version_loses_all_its_requests_and_stays_out(world: Any, canary: ObjectKey) -> None:
    call(world, success=5, failure=5)
    await world.advance(10)
    assert await weights(world) == {"guard": 100, "guard_v2": 0}
    assert world.verdict(canary, "Canary") == ("False", "CanaryRolledBack")
    assert "5 of 10 calls failed" in world.message(canary, "Ready")
    call(world, success=500)
    await world.advance(600)
    assert await weights(world) == {"guard": 100, "guard_v2": 0}
    assert told(world) == ["CanaryStep", "CanaryRolledBack"]


async def test_another_spec_is_another_try(world: Any, canary: ObjectKey) -> None:
    call(world, failure=10)
    await world.advance(10)
    world.extension("guard-v2", version="v2", versionOf="guard", canary=CANARY, timeoutMs=900)
    await world.settle()
    assert await weights(world) == {"guard": 9, "guard_v2": 1}


async def test_without_calls_it_pauses_and_writes_nothing_more(world: Any, canary: ObjectKey) -> None:
    await world.advance(60)
    assert world.verdict(canary, "Canary") == ("Unknown", "CanaryPaused")
    writes = len(world.store.status_writes)
    await world.advance(600)
    assert len(world.store.status_writes) == writes
    call(world, success=10)
    await world.advance(10)
    assert world.store.get(canary).status["canary"]["step"] == 2


async def test_a_new_leader_goes_on_at_the_same_step_and_counts_anew(world: Any, canary: ObjectKey) -> None:
    call(world, success=20)
    await world.advance(35)
    call(world, success=9)
    before = dict(world.store.get(canary).status["canary"])
    world.restart()
    await world.settle()
    assert world.store.get(canary).status["canary"] == before
    assert await weights(world) == {"guard": 1, "guard_v2": 1}
    call(world, success=9)
    await world.advance(60)
    assert world.verdict(canary, "Canary") == ("Unknown", "CanaryPaused")
    call(world, success=1)
    await world.advance(10)
    assert world.verdict(canary, "Canary") == ("True", "CanaryPromoted")


@pytest.mark.parametrize(
    ("annotation", "reason", "rows"),
    [
        ("promote", "CanaryPromoted", {"guard": 0, "guard_v2": 100}),
        ("abort", "CanaryAborted", {"guard": 100, "guard_v2": 0}),
    ],
)
async def test_an_annotation_ends_it_at_once(
    world: Any, canary: ObjectKey, annotation: str, reason: str, rows: dict[str, int]
) -> None:
    world.store.annotate(canary, {f"beamline.io/{annotation}": "true"})
    await world.settle()
    assert world.verdict(canary, "Canary")[1] == reason
    assert await weights(world) == rows
    world.extension("guard-v2", version="v2", versionOf="guard", canary=CANARY, timeoutMs=900)
    world.store.annotate(canary, {f"beamline.io/{annotation}": "true"})
    await world.settle()
    assert world.verdict(canary, "Canary")[1] == "CanaryProgressing"


async def test_one_canary_of_a_base_at_a_time(world: Any, canary: ObjectKey) -> None:
    world.clock.advance(5)
    second = world.extension("guard-v3", version="v3", versionOf="guard", canary=CANARY)
    await world.settle()
    assert world.verdict(second, "Canary") == ("Unknown", "CanaryWaiting")
    assert "guard-v2" in world.message(second, "Canary")
    world.store.annotate(canary, {"beamline.io/abort": "x"})
    await world.settle()
    assert world.verdict(second, "Canary") == ("Unknown", "CanaryProgressing")
    assert await weights(world) == {"guard": 9, "guard_v2": 0, "guard_v3": 1}


async def test_the_base_gets_everything_back_when_the_version_goes(world: Any, canary: ObjectKey) -> None:
    world.store.annotate(canary, {"beamline.io/promote": "x"})
    await world.settle()
    assert (await weights(world))["guard"] == 0
    world.store.delete(canary)
    await world.settle()
    assert await weights(world) == {"guard": 100}


async def test_it_waits_for_its_workload_and_is_turned_back_with_it(world: Any) -> None:
    world.extension()
    world.deployments.phase["guard-v2"] = (Phase.PROGRESSING, "")
    workload = {"image": "x:1"}
    key = world.extension("guard-v2", version="v2", versionOf="guard", canary=CANARY, workload=workload)
    await world.settle()
    assert world.verdict(key, "Canary") == ("Unknown", "CanaryWaiting")
    assert (await weights(world))["guard_v2"] == 0
    world.deployments.phase["guard-v2"] = (Phase.READY, "")
    await world.advance(10)
    assert (await weights(world))["guard_v2"] == 1
    world.deployments.phase["guard-v2"] = (Phase.FAILED, "The container exits again and again.")
    await world.advance(10)
    assert world.verdict(key, "Canary") == ("False", "CanaryRolledBack")
    assert await weights(world) == {"guard": 100, "guard_v2": 0}


async def test_a_step_whose_weights_no_registry_holds_is_not_passed(world: Any, canary: ObjectKey) -> None:
    world.registry.outage = RegistryUnavailableError("gone")
    for _ in range(5):
        call(world, success=20)
        await world.advance(40)
    assert world.verdict(canary, "Canary") == ("Unknown", "CanaryPaused")
    assert "the registry does not hold" in world.message(canary, "Canary")
    world.registry.outage = None
    await world.advance(120)
    assert world.verdict(canary, "Canary") == ("True", "CanaryPromoted")
    assert await weights(world) == {"guard": 0, "guard_v2": 100}


async def test_a_suspended_canary_stands_still(world: Any, canary: ObjectKey) -> None:
    world.extension("guard-v2", version="v2", versionOf="guard", canary=CANARY, suspend=True)
    await world.settle()
    call(world, failure=50)
    await world.advance(100)
    assert world.store.get(canary).status["canary"]["step"] == 1
    assert await weights(world) == {"guard": 9, "guard_v2": 1}


async def test_versions_without_a_canary_keep_their_weights(world: Any) -> None:
    world.extension(weight=30)
    world.extension("guard-v2", version="v2", versionOf="guard", weight=70)
    await world.settle()
    assert await weights(world) == {"guard": 30, "guard_v2": 70}


async def test_a_version_that_is_not_accepted_takes_nothing_whoever_promotes_it(world: Any) -> None:
    world.extension()
    world.extension("other", subject="beamline.provider.guard_v2.v2")
    await world.settle()
    world.clock.advance(1)
    key = world.extension("guard-v2", version="v2", versionOf="guard", canary=CANARY)
    await world.settle()
    assert world.verdict(key, "Accepted") == ("False", "Conflicted")
    assert world.verdict(key, "Canary") == ("Unknown", "CanaryWaiting")
    assert "see the conditions Accepted and ResolvedRefs" in world.message(key, "Canary")
    world.store.annotate(key, {PROMOTE: "now"})
    await world.advance(10)
    assert await weights(world) == {"guard": 100, "other": 100}, "the base keeps all of its own"
    world.store.delete(ObjectKey("Extension", "default", "other"))
    await world.advance(10)
    assert await weights(world) == {"guard": 0, "guard_v2": 100}, "the annotation waited"


async def test_a_version_of_the_wrong_type_takes_nothing(world: Any) -> None:
    world.extension()
    await world.settle()
    world.clock.advance(1)
    key = world.extension("guard-v2", type="pre", version="v2", versionOf="guard", canary=CANARY)
    await world.advance(10)
    assert world.verdict(key, "Canary") == ("Unknown", "CanaryWaiting")
    assert await weights(world) == {"guard": 100}


@pytest.mark.parametrize("promoted", [True, False])
async def test_what_is_served_keeps_its_share_while_a_newer_spec_is_not_accepted(
    world: Any, canary: ObjectKey, promoted: bool
) -> None:
    if promoted:
        world.store.annotate(canary, {PROMOTE: "now"})
        await world.advance(10)
    before = await weights(world)
    assert before == ({"guard": 0, "guard_v2": 100} if promoted else {"guard": 9, "guard_v2": 1})
    broken = {"version": "v2", "versionOf": "guard", "canary": CANARY}
    contradiction = {"config": {"a": 1}, "configSchema": {"properties": {"a": {"type": "string"}}}}
    world.extension("guard-v2", **broken, **contradiction)
    await world.advance(100)
    assert world.verdict(canary, "Accepted") == ("False", "Invalid")
    assert await weights(world) == before, "the last good generation keeps serving, with its share"
    assert world.verdict(canary, "Canary")[1] == ("CanaryPromoted" if promoted else "CanaryPaused")
    world.restart()
    await world.advance(10)
    assert await weights(world) == before
    world.extension("guard-v2", **broken, config={"a": 1})
    await world.advance(10)
    assert await weights(world) == {"guard": 9, "guard_v2": 1}, "another spec is another try"


async def test_a_promotion_waits_for_a_base_that_is_suspended(world: Any, canary: ObjectKey) -> None:
    world.extension(suspend=True)
    await world.settle()
    before = await weights(world)
    world.store.annotate(canary, {PROMOTE: "now"})
    await world.advance(40)
    assert await weights(world) == before
    assert world.verdict(canary, "Canary") == ("Unknown", "CanaryPaused")
    assert "of Extension guard spec.suspend is true" in world.message(canary, "Canary")
    world.extension()
    await world.advance(10)
    assert await weights(world) == {"guard": 0, "guard_v2": 100}
    assert world.verdict(canary, "Canary") == ("True", "CanaryPromoted")
