"""``rollback: auto``: the last revision that was ready comes back, once, until the spec changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from beamline_contract.objects import ObjectKey
from beamline_operator.core.settings import ReconcileSettings
from beamline_operator.core.workload import desired_workload, workload_hash
from beamline_operator.fakes import MemoryStore
from beamline_sdk.deployment.port import Phase

GONE = "The image x:2 can't be pulled: check its name and imagePullSecrets."


def workload(image: str, **more: Any) -> dict[str, Any]:
    return {"image": image, "rollback": "auto", **more}


@pytest.fixture
async def guard(world: Any) -> ObjectKey:
    """An Extension whose first revision was ready."""
    key: ObjectKey = world.extension(workload=workload("x:1"))
    await world.settle()
    return key


async def break_it(world: Any, image: str = "x:2", **more: Any) -> None:
    """A change whose rollout fails, whatever else runs."""
    world.deployments.phase["guard"] = (Phase.FAILED, GONE)
    world.extension(workload=workload(image, **more))
    await world.settle()


def images(world: Any) -> list[str]:
    return [request.workload.image for request in world.deployments.deployed]


async def test_the_last_good_revision_is_named(world: Any, guard: ObjectKey) -> None:
    good = world.store.get(guard).status["lastGood"]
    assert (good["generation"], good["image"], good["workload"]["image"]) == (1, "x:1", "x:1")


async def test_a_failed_rollout_returns_to_it(world: Any, guard: ObjectKey) -> None:
    await break_it(world)
    world.deployments.phase["guard"] = (Phase.READY, "")
    await world.advance(10)
    assert images(world) == ["x:1", "x:2", "x:1"]
    assert world.verdict(guard, "WorkloadReady") == ("False", "WorkloadRolledBack")
    assert GONE in world.message(guard, "Ready")
    assert "Generation 1 (x:1) runs again" in world.message(guard, "Ready")
    status = world.store.get(guard).status
    assert (status["rolledBack"]["generation"], status["lastGood"]["generation"]) == (2, 1)
    told = [event.reason.value for _, event in world.store.events]
    assert told.count("WorkloadRolledBack") == 1


async def test_it_never_flaps(world: Any, guard: ObjectKey) -> None:
    await break_it(world)
    world.deployments.phase["guard"] = (Phase.READY, "")
    for _ in range(10):
        await world.advance(60)
        world.restart()
        await world.settle()
    assert images(world) == ["x:1", "x:2", "x:1"]


async def test_even_a_last_good_one_that_fails_too_stays(world: Any, guard: ObjectKey) -> None:
    await break_it(world)
    for _ in range(10):
        await world.advance(60)
    assert images(world) == ["x:1", "x:2", "x:1"]


async def test_another_number_of_replicas_is_no_new_try(world: Any, guard: ObjectKey) -> None:
    await break_it(world)
    world.deployments.phase["guard"] = (Phase.READY, "")
    world.extension(workload=workload("x:2", replicas=3))
    await world.settle()
    assert images(world) == ["x:1", "x:2", "x:1", "x:1"]
    assert world.deployments.deployed[-1].replicas == 3


async def test_another_spec_is_a_new_try(world: Any, guard: ObjectKey) -> None:
    await break_it(world)
    world.deployments.phase["guard"] = (Phase.READY, "")
    world.extension(workload=workload("x:3"))
    await world.settle()
    status = world.store.get(guard).status
    assert images(world)[-1] == "x:3"
    assert "rolledBack" not in status
    assert status["lastGood"]["generation"] == 3
    assert world.verdict(guard, "WorkloadReady") == ("True", "WorkloadReady")


async def test_manual_stays_with_what_was_asked_for(world: Any) -> None:
    world.extension(workload=workload("x:1", rollback="manual"))
    await world.settle()
    await break_it(world, rollback="manual")
    await world.advance(60)
    assert images(world) == ["x:1", "x:2"]


async def test_without_an_earlier_revision_there_is_nothing_to_return_to(world: Any) -> None:
    world.deployments.phase["guard"] = (Phase.FAILED, GONE)
    key = world.extension(workload=workload("x:1"))
    await world.settle()
    await world.advance(60)
    assert images(world) == ["x:1"]
    assert world.verdict(key, "WorkloadReady") == ("False", "WorkloadFailed")


async def test_it_is_written_down_before_it_is_made(
    world: Any, guard: ObjectKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    remembered: list[bool] = []
    deploy = world.deployments.deploy

    async def watched(request: Any) -> None:
        store: MemoryStore = world.store
        stored = store.get(guard)
        assert stored is not None
        remembered.append("rolledBack" in stored.status)
        await deploy(request)

    monkeypatch.setattr(world.deployments, "deploy", watched)
    await break_it(world)
    assert remembered == [False, True]


async def test_what_was_ready_for_a_moment_and_fails_gives_its_place_back(
    world: Any, guard: ObjectKey
) -> None:
    """A container without probes is ready until it exits."""
    await world.advance(600)
    world.extension(workload=workload("x:2"))
    await world.settle()
    status = world.store.get(guard).status
    assert (status["lastGood"]["image"], status["lastGood"]["before"]["image"]) == ("x:2", "x:1")
    await world.advance(30)
    world.deployments.phase["guard"] = (Phase.FAILED, GONE)
    world.controller.enqueue(guard)
    await world.settle()
    assert images(world) == ["x:1", "x:2", "x:1"]
    status = world.store.get(guard).status
    assert (status["lastGood"]["image"], status["rolledBack"]["generation"]) == ("x:1", 2)
    assert "before" not in status["lastGood"]
    world.restart()
    await world.advance(600)
    assert images(world) == ["x:1", "x:2", "x:1"]


async def test_what_ran_well_for_its_deadline_stays_whatever_happens_later(
    world: Any, guard: ObjectKey
) -> None:
    world.extension(workload=workload("x:2", progressDeadlineSeconds=60))
    await world.settle()
    await world.advance(61)
    world.deployments.phase["guard"] = (Phase.FAILED, GONE)
    world.controller.enqueue(guard)
    await world.settle()
    assert images(world) == ["x:1", "x:2"]
    assert world.verdict(guard, "WorkloadReady") == ("False", "WorkloadFailed")
    assert "before" not in world.store.get(guard).status["lastGood"]


async def test_a_failure_for_which_no_other_workload_would_help_is_no_roll_back(
    world: Any, guard: ObjectKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Secret that was rotated to a bad value makes another revision of the same workload."""
    monkeypatch.setattr("beamline_operator.core.gather.desired_workload", _with_rotated_inputs())
    world.deployments.phase["guard"] = (Phase.FAILED, GONE)
    world.controller.enqueue(guard)
    await world.settle()
    await world.advance(60)
    assert images(world) == ["x:1", "x:1"]
    assert world.verdict(guard, "WorkloadReady") == ("False", "WorkloadFailed")
    assert "rolledBack" not in world.store.get(guard).status


def _with_rotated_inputs() -> Any:
    def wanted(*arguments: Any) -> Any:
        request = desired_workload(*arguments)
        assert request is not None
        rotated = replace(request, inputs="another version")
        return replace(rotated, hash=workload_hash(rotated))

    return wanted


async def test_without_auto_the_message_names_the_last_good_revision_and_what_to_do(world: Any) -> None:
    key = world.extension(workload=workload("x:1", rollback="manual"))
    await world.settle()
    await break_it(world, rollback="manual")
    said = world.message(key, "WorkloadReady")
    assert GONE in said
    assert "The last good revision is that of generation 1 (x:1)" in said
    assert "spec.workload.rollback" in said


async def test_a_disabled_one_is_at_zero_and_no_failure(world: Any, guard: ObjectKey) -> None:
    await break_it(world)
    world.deployments.phase["guard"] = (Phase.READY, "")
    world.extension(workload=workload("x:2"), enabled=False)
    await world.settle()
    assert world.verdict(guard, "WorkloadReady") == ("True", "WorkloadScaledToZero")
    applied = len(images(world))
    await world.advance(120)
    assert len(images(world)) == applied


async def test_the_end_of_a_failure_is_told_once(world: Any, guard: ObjectKey) -> None:
    await break_it(world)
    world.deployments.phase["guard"] = (Phase.READY, "")
    world.extension(workload=workload("x:3"))
    await world.settle()
    await world.advance(60)
    told = [event.reason.value for _, event in world.store.events]
    assert told.count("WorkloadReady") == 1


async def test_an_image_that_is_no_longer_allowed_does_not_come_back(world: Any) -> None:
    world.settings = ReconcileSettings(allowed_images=("old.example", "new.example"))
    world.restart()
    key = world.extension(workload=workload("old.example/x:1"))
    await world.advance(1000)
    world.settings = ReconcileSettings(allowed_images=("new.example",))
    world.restart()
    await world.settle()
    await break_it(world, "new.example/x:2")
    await world.advance(10)
    assert images(world) == ["old.example/x:1", "new.example/x:2"]
    assert world.verdict(key, "WorkloadReady") == ("False", "WorkloadFailed")
