"""The full compare finds what somebody with all rights did to the registry's tables by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from beamline_contract.objects import ObjectKey
from beamline_registry.port import AuditQuery

Tamper = Callable[[Any, Any], Any]


async def settled(world: Any) -> tuple[ObjectKey, ObjectKey]:
    extension = world.extension(config={"level": 1})
    policy = world.policy("guard")
    await world.settle()
    return extension, policy


def fields(row: Any) -> Any:
    """A row without its revision, which a repair moves on."""
    return None if row is None else replace(row, revision=0)


EDITS = [
    pytest.param("Extension", "guard", lambda row: replace(row, config={"level": 2}), id="a configuration"),
    pytest.param("Extension", "guard", lambda row: replace(row, enabled=False), id="enabled"),
    pytest.param("Extension", "guard", lambda row: replace(row, weight=1), id="a weight"),
    pytest.param("Extension", "guard", lambda row: replace(row, spec={}), id="a spec"),
    pytest.param("Extension", "guard", lambda row: replace(row, uid="another"), id="whose it is"),
    pytest.param("Extension", "guard", lambda row: replace(row, generation=99), id="a generation ahead"),
    pytest.param("Extension", "guard", lambda row: replace(row, generation=0), id="a generation behind"),
    pytest.param("Extension", "guard", lambda row: None, id="an Extension's row is gone"),
    pytest.param("RoutingPolicy", "default", lambda row: replace(row, policy={}), id="a policy"),
    pytest.param("RoutingPolicy", "default", lambda row: replace(row, generation=99), id="a policy ahead"),
    pytest.param("RoutingPolicy", "default", lambda row: None, id="a policy's row is gone"),
]


@pytest.mark.parametrize(("kind", "identifier", "edit"), EDITS)
async def test_a_row_that_was_changed_by_hand_is_put_back_and_told_of_once(
    world: Any, kind: Any, identifier: str, edit: Callable[[Any], Any]
) -> None:
    await settled(world)
    before = await world.rows()
    world.store.events.clear()
    world.registry.tamper(kind, identifier, edit(before[identifier]))
    assert await world.controller.compare() == 1
    await world.advance(1)
    after = await world.rows()
    assert {name: fields(row) for name, row in after.items()} == {
        name: fields(row) for name, row in before.items()
    }
    assert after[identifier].revision > before[identifier].revision, "routers hear of it"
    assert world.controller.drift_repairs == 1
    told = [(key.name, event.reason.value) for key, event in world.store.events]
    assert told == [(identifier, "DriftRepaired")]
    newest = (await world.registry.audit(AuditQuery(limit=1)))[0]
    assert newest.changed_by == "beamline-operator (full compare)", "not whoever changed the object last"
    key = ObjectKey(kind, "default", identifier)
    assert world.verdict(key, "Synced") == ("True", "Synced")
    assert world.store.get(key).status["revision"] == after[identifier].revision
    assert await world.controller.compare() == 0, "once"


@pytest.mark.parametrize(
    ("kind", "copy_of", "identifier", "changes"),
    [
        ("Extension", "guard", "evil", {"name": "evil", "uid": "x", "subject": "beamline.provider.evil.v1"}),
        ("Extension", "guard", "evil", {"uid": "x", "subject": "beamline.provider.evil.v1"}),
        ("RoutingPolicy", "default", "evil", {"name": "evil", "uid": "x"}),
        ("RoutingPolicy", "default", "evil", {"name": "default"}),
    ],
    ids=["an Extension", "an Extension in another's name", "a policy", "a policy in another's name"],
)
async def test_a_row_that_was_added_by_hand_goes(
    world: Any, kind: Any, copy_of: str, identifier: str, changes: dict[str, Any]
) -> None:
    await settled(world)
    before = await world.rows()
    world.registry.tamper(kind, identifier, replace(before[copy_of], id=identifier, **changes))
    assert await world.controller.compare() == 1
    await world.advance(1)
    assert await world.rows() == before
    assert world.controller.drift_repairs == 1
    assert await world.controller.compare() == 0


async def test_the_last_good_row_of_an_object_that_is_broken_now_is_put_back_too(world: Any) -> None:
    await settled(world)
    before = (await world.rows())["guard"]
    world.extension(config={"level": 1}, timeoutMs=-1)
    await world.settle()
    world.registry.tamper("Extension", "guard", replace(before, config={"level": 2}))
    assert await world.controller.compare() == 1
    assert fields((await world.rows())["guard"]) == fields(before)


async def test_a_suspended_object_is_left_alone_drift_included(world: Any) -> None:
    await settled(world)
    world.extension(config={"level": 1}, suspend=True)
    await world.settle()
    edited = replace((await world.rows())["guard"], config={"level": 2})
    world.registry.tamper("Extension", "guard", edited)
    assert await world.controller.compare() == 0
    await world.advance(1)
    assert (await world.rows())["guard"] == edited


async def test_what_is_being_written_is_no_drift(world: Any) -> None:
    key, _ = await settled(world)
    row = (await world.rows())["guard"]
    world.controller.queue.add(key)
    assert await world.controller.queue.get() == key  # a worker has it in its hands
    world.registry.tamper("Extension", "guard", replace(row, config={"level": 2}))
    assert await world.controller.compare() == 0
    world.controller.queue.done(key)
    assert await world.controller.compare() == 1
