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
        pytest.param({"after": 0}, ["guard", "mock", "guard"], id="from the oldest on"),
        pytest.param({"after": 1, "limit": 1}, ["mock"], id="what follows a number, the oldest of it first"),
        pytest.param({"after": 1, "before": 3}, ["mock"], id="what is between two numbers"),
        pytest.param({"only": ["uid-mock", "x'; --"]}, ["mock"], id="what may be seen"),
        pytest.param({"only": []}, [], id="nothing that may be seen"),
        pytest.param({"only": {"uid-guard"}, "limit": 1}, ["guard"], id="a page of what is seen"),
    ],
)
async def test_the_log_is_searched_by(world: World, query: dict[str, Any], found: list[str]) -> None:
    await world.put(extension("guard"), extension("mock"))
    await world.put(extension("guard", generation=2, timeout_ms=7))
    rows = await world.registry.audit(AuditQuery(**query))
    assert [row.object_id for row in rows] == found
