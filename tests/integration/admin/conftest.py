"""A migrated database, its registry, and the admin application in front of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from beamline_admin.app import application
from beamline_contract.projection import ExtensionRecord, PolicyRecord
from beamline_registry.memory import MemoryRegistry
from beamline_registry.migrate import migrate
from beamline_registry.port import Upsert
from beamline_registry.postgres import PostgresRegistry

TOKEN = "the-token-of-these-tests"


@dataclass(frozen=True)
class Admin:
    """The application and the registry behind it."""

    registry: PostgresRegistry | MemoryRegistry
    epoch: int
    app: Any
    token: str = TOKEN

    def client(
        self, *, host: str = "127.0.0.1", token: str | None = TOKEN, **fields: Any
    ) -> httpx2.AsyncClient:
        """A client whose connection comes from ``host``, with ``token`` as its bearer token."""
        transport = httpx2.ASGITransport(self.app, client=(host, 40_000))
        headers = {"authorization": f"Bearer {token}"} if token is not None else {}
        return httpx2.AsyncClient(
            transport=transport, base_url="http://127.0.0.1:8081", headers=headers, **fields
        )

    async def write(self, *records: ExtensionRecord | PolicyRecord, by: str = "ada") -> None:
        """Puts records into the registry."""
        await self.registry.write([Upsert(record, by) for record in records], epoch=self.epoch)


@pytest.fixture
async def admin(database_url: str) -> AsyncIterator[Admin]:
    await migrate(database_url)
    registry = await PostgresRegistry.connect(database_url, application="admin tests")
    yield Admin(registry, await registry.acquire_epoch("tests"), application(registry, registry, TOKEN))
    await registry.close()


@pytest.fixture
def extension() -> Callable[..., ExtensionRecord]:
    """Makes an extension's record."""

    def make(name: str, kind: str = "pre", generation: int = 1, **fields: Any) -> ExtensionRecord:
        subject = fields.pop("subject", f"beamline.ext.{kind}.{name}.v1")
        return ExtensionRecord(name, kind, subject, "default", name, f"uid-{name}", generation, **fields)

    return make


@pytest.fixture
def policy() -> Callable[..., PolicyRecord]:
    """Makes the record of a policy that asks ``provider`` after the validators ``checks``."""

    def make(name: str, provider: str = "mock", checks: tuple[str, ...] = (), **fields: Any) -> PolicyRecord:
        steps = [{"action": "extension_validator", "extension_id": check} for check in checks]
        steps.append(
            {"action": "select_provider", "provider_id": provider, "fallback": fields.pop("fallback", [])}
        )
        document = {
            "match": {},
            "priority": 0,
            "deadline_ms": 60_000,
            "steps": steps,
            "fallback": [],
            **fields,
        }
        return PolicyRecord(name, "default", name, f"uid-policy-{name}", 1, document)

    return make


@pytest.fixture
async def seeded(extension: Callable[..., ExtensionRecord], policy: Callable[..., PolicyRecord]) -> Admin:
    """An extension and a policy, both called ``here``, in memory: for what happens before the registry."""
    registry = MemoryRegistry()
    admin = Admin(registry, await registry.acquire_epoch("tests"), application(registry, registry, TOKEN))
    await admin.write(extension("here"), policy("here"))
    return admin
