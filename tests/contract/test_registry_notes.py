"""What somebody did to an object beside its fields is noted in the audit log; fake and PostgreSQL alike."""

from __future__ import annotations

import pytest

from beamline_registry.port import AuditQuery, InvalidRecordError, Note, Outcome, WriteResult
from harness.registry_world import World, extension

ISOLATED = {"breaker": {"from": "closed", "to": "isolated"}}
NOTE = Note("Extension", "mock", ISOLATED, "ada (beamline-admin)", "request-1")


async def test_a_note_is_a_row_of_the_chain_and_no_revision(world: World) -> None:
    await world.put(extension(generation=3))
    assert await world.write(NOTE) == [WriteResult(Outcome.NOTED, 1)]
    assert (await world.registry.read(0)).revision == 1
    row = (await world.registry.audit(AuditQuery()))[0]
    assert (row.kind, row.object_id, row.uid, row.generation) == ("Extension", "mock", extension().uid, 3)
    assert (row.action, row.changes, row.changed_by) == ("updated", ISOLATED, "ada (beamline-admin)")
    assert row.request_id == "request-1"
    assert await world.registry.verify_audit() == 2
    await world.put(extension(generation=4, timeout_ms=7))
    assert await world.registry.verify_audit() == 3


async def test_the_same_act_of_another_request_is_another_act_and_of_the_same_request_is_not(
    world: World,
) -> None:
    await world.put(extension())
    await world.write(NOTE)
    await world.write(NOTE)
    await world.write(Note("Extension", "mock", ISOLATED, "ada (beamline-admin)", "request-2"))
    assert [row.request_id for row in await world.registry.audit(AuditQuery())] == [
        "request-2",
        "request-1",
        "",
    ]


async def test_nothing_is_noted_of_an_extension_that_is_not_there(world: World) -> None:
    assert await world.write(NOTE) == [WriteResult(Outcome.UNCHANGED, 0)]
    assert await world.registry.audit(AuditQuery()) == []


async def test_a_note_that_no_database_can_hold_is_refused(world: World) -> None:
    await world.put(extension())
    with pytest.raises(InvalidRecordError, match="U\\+0000"):
        await world.write(Note("Extension", "mock", {"breaker": {"from": "\0", "to": "x"}}, "ada", "r"))
