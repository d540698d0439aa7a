"""The audit log is searched by text and action; the fake and PostgreSQL find the same rows."""

from __future__ import annotations

from typing import Any

import pytest

from beamline_registry.port import AuditQuery
from harness.registry_world import World, extension


@pytest.mark.parametrize(
    ("query", "found"),
    [
        pytest.param({"text": "GUARD"}, ["guard", "guard"], id="a part of an object's id, whatever the case"),
        pytest.param({"text": "ann"}, ["guard", "mock", "guard"], id="who did it"),
        pytest.param({"text": "updat"}, ["guard"], id="what was done"),
        pytest.param({"text": "%"}, [], id="a per cent sign, which is nothing special"),
        pytest.param({"text": "anna", "action": "created"}, ["mock", "guard"], id="text and action at once"),
        pytest.param({"text": "guard", "limit": 1}, ["guard"], id="text, no more than asked for"),
    ],
)
async def test_the_log_is_searched_by(world: World, query: dict[str, Any], found: list[str]) -> None:
    await world.put(extension("guard"), extension("mock"))
    await world.put(extension("guard", generation=2, timeout_ms=7))
    rows = await world.registry.audit(AuditQuery(**query))
    assert [row.object_id for row in rows] == found
