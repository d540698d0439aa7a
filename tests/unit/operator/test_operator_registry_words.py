"""What the status says of a registry that does not take a write: whether it is away, or refuses. On fakes."""

from __future__ import annotations

from typing import Any

import pytest

from beamline_registry.port import (
    RegistryDeniedError,
    RegistryError,
    RegistryUnavailableError,
    SchemaError,
)

REFUSALS = {
    "a right is missing": RegistryDeniedError("the database refuses the operation: no INSERT"),
    "another schema": SchemaError("the schema does not fit (run `beamline migrate`)"),
    "a row that a constraint refuses": RegistryError("the database refuses: violates check"),
}


@pytest.mark.parametrize("fault", REFUSALS.values(), ids=REFUSALS)
async def test_a_refusal_is_quoted_and_tried_again(world: Any, fault: RegistryError) -> None:
    world.registry.outage = fault
    key = world.extension()
    await world.settle()
    assert world.verdict(key, "Synced") == ("False", "RegistryUnavailable")
    assert f"PostgreSQL refuses the write: {fault}." in world.message(key, "Synced")
    assert "does not answer" not in world.message(key, "Synced")
    world.registry.outage = None
    await world.advance(3)
    assert world.verdict(key, "Synced") == ("True", "Synced")


async def test_one_that_is_away_is_said_in_the_same_words_whatever_the_socket_said(world: Any) -> None:
    world.registry.outage = RegistryUnavailableError("connection refused")
    key = world.extension()
    await world.settle()
    written = world.store.writes
    assert "does not answer" in world.message(key, "Synced")
    world.registry.outage = RegistryUnavailableError("connection reset")
    await world.advance(3)
    assert world.store.writes == written
