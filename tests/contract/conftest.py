"""Registries for the contract suites: fake and PostgreSQL side by side, or PostgreSQL with a look inside."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from beamline_registry.migrate import migrate
from beamline_registry.postgres import PostgresRegistry
from harness.registry_world import World, open_world


@pytest.fixture(params=["memory", "postgres"])
def registry_url(request: pytest.FixtureRequest) -> str | None:
    """A database for the half that needs one; the fake starts no server."""
    return request.getfixturevalue("database_url") if request.param == "postgres" else None


@pytest.fixture
async def world(registry_url: str | None) -> AsyncIterator[World]:
    async with open_world(registry_url) as world:
        yield world


@pytest.fixture
async def registry(database_url: str) -> AsyncIterator[PostgresRegistry]:
    """PostgreSQL itself, migrated."""
    await migrate(database_url)
    registry = await PostgresRegistry.connect(database_url)
    yield registry
    await registry.close()


@pytest.fixture
async def sql(database_url: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A superuser's connection beside the registry's own."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()
