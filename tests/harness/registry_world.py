"""A registry, the fake or PostgreSQL, with records made from a few words, and time that passes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from beamline_contract.projection import ExtensionRecord, PolicyRecord
from beamline_contract.reports import HealthDelta
from beamline_registry.memory import MemoryRegistry
from beamline_registry.migrate import migrate
from beamline_registry.port import AuditQuery, Delta, Remove, Upsert
from beamline_registry.postgres import PostgresRegistry


@dataclass
class World:
    """A registry, its newest epoch, and a way to let time pass for it."""

    registry: MemoryRegistry | PostgresRegistry
    database_url: str | None = None
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    epoch: int = 0

    async def write(self, *writes: Upsert | Remove) -> list[Any]:
        return await self.registry.write(writes, epoch=self.epoch)

    async def put(self, *records: ExtensionRecord | PolicyRecord) -> list[Any]:
        return await self.write(*(Upsert(record, "anna") for record in records))

    async def fold(self, *deltas: HealthDelta) -> None:
        await self.registry.fold_health(deltas, epoch=self.epoch)

    async def pass_minutes(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)
        if self.database_url is not None:
            connection = await asyncpg.connect(self.database_url)
            await connection.execute("UPDATE extension_health_minutes SET minute = minute - $1", minutes)
            await connection.close()

    async def actions(self, object_id: str | None = None) -> list[str]:
        rows = await self.registry.audit(AuditQuery(object_id=object_id))
        return [row.action for row in reversed(rows)]


@asynccontextmanager
async def open_world(url: str | None) -> AsyncIterator[World]:
    """PostgreSQL in the empty database at ``url``, or the fake; with the first epoch taken."""
    if url is None:
        fake = World(MemoryRegistry())
        fake.registry = MemoryRegistry(clock=lambda: fake.now)
        fake.epoch = await fake.registry.acquire_epoch("anna")
        yield fake
        return
    await migrate(url)
    registry = await PostgresRegistry.connect(url)
    try:
        yield World(registry, url, epoch=await registry.acquire_epoch("anna"))
    finally:
        await registry.close()


def extension(name: str = "mock", **fields: Any) -> ExtensionRecord:
    given: dict[str, Any] = {
        "id": name,
        "type": "provider",
        "subject": f"beamline.provider.{name}.v1",
        "namespace": "default",
        "name": name,
        "uid": f"uid-{name}",
        "generation": 1,
        "config": {"mode": "echo"},
        "spec": {"concurrency": 64},
        "created_at": "2026-01-01T00:00:00Z",
    }
    return ExtensionRecord(**{**given, **fields})


def policy(name: str = "default", **fields: Any) -> PolicyRecord:
    given: dict[str, Any] = {
        "id": name,
        "namespace": "default",
        "name": name,
        "uid": f"uid-policy-{name}",
        "generation": 1,
        "policy": {"steps": [{"action": "select_provider", "provider_id": "mock"}], "fallback": []},
        "created_at": "2026-01-01T00:00:00Z",
    }
    return PolicyRecord(**{**given, **fields})


def remove(record: ExtensionRecord | PolicyRecord, **fields: Any) -> Remove:
    kind = "Extension" if isinstance(record, ExtensionRecord) else "RoutingPolicy"
    return replace(Remove(kind, record.id, record.uid, record.generation, "anna"), **fields)


def applied(table: dict[tuple[str, str], Any], delta: Delta) -> dict[tuple[str, str], Any]:
    """What a router's table is after a delta."""
    table = {} if delta.full else dict(table)
    for gone in delta.removed:
        table.pop((gone.kind, gone.id), None)
    for row in delta.extensions:
        table["Extension", row.id] = row
    for row in delta.policies:
        table["RoutingPolicy", row.id] = row
    return table
