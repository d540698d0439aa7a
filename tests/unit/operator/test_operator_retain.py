"""What deletionPolicy Retain leaves behind: what is there, whatever the spec said last. On fakes."""

from __future__ import annotations

from typing import Any

import pytest

from beamline_operator.core.settings import ReconcileSettings
from beamline_sdk.deployment.port import DeploymentError

WORKLOAD = {"image": "x:1"}


async def test_retain_leaves_what_runs_and_not_what_was_refused(world: Any) -> None:
    world.settings = ReconcileSettings(allowed_images=("x:1",))
    world.restart()
    key = world.extension(workload=WORKLOAD, deletionPolicy="Retain")
    await world.settle()
    world.extension(workload={"image": "evil.example/x:1"}, deletionPolicy="Retain")
    await world.settle()
    assert world.verdict(key, "Accepted") == ("False", "Invalid")
    world.store.delete(key)
    await world.settle()
    left = world.deployments.running["default", "guard"]
    assert (left.workload.image, left.owner_uid) == ("x:1", "")


@pytest.mark.parametrize("suspend", [False, True], ids=["with the last edit", "while suspended"])
async def test_a_row_that_is_to_stay_stays_also_where_that_was_said_late(world: Any, suspend: bool) -> None:
    key = world.extension(workload=WORKLOAD, timeoutMs=100)
    await world.settle()
    world.extension(
        workload={"image": "x:2"} if suspend else WORKLOAD,
        timeoutMs=100,
        deletionPolicy="Retain",
        suspend=suspend,
    )
    if suspend:
        await world.settle()
    world.store.delete(key)
    await world.settle()
    assert world.store.get(key) is None
    await world.controller.compare()
    await world.settle()
    assert (await world.rows())["guard"].timeout_ms == 100
    left = world.deployments.running["default", "guard"]
    assert (left.workload.image, left.owner_uid) == ("x:1", "")


async def test_what_somebody_else_made_does_not_hang_the_end_of_a_retained_object(world: Any) -> None:
    key = world.extension(workload=WORKLOAD, deletionPolicy="Retain")
    await world.settle()
    world.deployments.deploy = refused  # a Service of that name, say: nothing can be applied any more
    world.store.delete(key)
    await world.settle()
    assert world.store.get(key) is None


async def refused(_: Any) -> None:
    raise DeploymentError("Service default/guard exists", retryable=False, conflict=True)
