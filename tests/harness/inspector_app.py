"""The admin application alone, on a port of its own in this process: for what no real world shows at will,
such as 5,000 policies, a database that is away, or names that nobody may give.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from beamline_admin.app import application
from beamline_admin.catalogue import Catalogue
from beamline_admin.live.watcher import Watcher
from beamline_admin.objects.memory import MemoryObjects
from beamline_admin.routers import Enough, RoutersError
from beamline_admin.server import HttpServer
from beamline_contract.acts import ActNoted, RouterAct
from beamline_contract.projection import ExtensionRecord, PolicyRecord
from beamline_registry.memory import MemoryRegistry
from beamline_registry.port import RegistryUnavailableError, Upsert

TOKEN = "the-token-of-these-tests"


class SomeRouters:
    """Routers that a test states; ``away`` True: NATS does not answer."""

    def __init__(self, statuses: Mapping[str, Mapping[str, Any]], traffic: Mapping[str, Any]) -> None:
        self.statuses = statuses
        self.told = traffic
        self.away = False

    async def ask(
        self, verb: str, request: Mapping[str, Any], enough: Enough | None = None
    ) -> list[dict[str, Any]]:
        if self.away:
            raise RoutersError("NATS does not answer (NoServersError)")
        if verb == "traffic":
            return [{"instance": name, "result": dict(self.told)} for name in self.statuses]
        return [{"instance": name, "result": dict(status)} for name, status in self.statuses.items()]

    async def note(self, act: RouterAct) -> ActNoted:
        return ActNoted()

    async def invoke(
        self, request: Mapping[str, Any], headers: Mapping[str, str], seconds: float
    ) -> dict[str, Any]:
        raise RoutersError("no router answers requests here")

    async def stream(
        self, request: Mapping[str, Any], headers: Mapping[str, str], seconds: float
    ) -> AsyncGenerator[dict[str, Any], None]:
        raise RoutersError("no router answers requests here")
        yield {}

    async def follow(self, subject: str, heard: Callable[[bytes], None]) -> None:
        """Nobody publishes here."""


class SomeRegistry(MemoryRegistry):
    """A registry that can be away."""

    away = False

    async def read(self, since: int) -> Any:
        self._there()
        return await super().read(since)

    async def healths(self) -> Any:
        self._there()
        return await super().healths()

    async def audit(self, query: Any) -> Any:
        self._there()
        return await super().audit(query)

    def _there(self) -> None:
        if self.away:
            raise RegistryUnavailableError("the database does not answer")


class InspectorApp:
    """A running application, and what is behind it."""

    def __init__(self, url: str, registry: SomeRegistry, epoch: int, routers: SomeRouters) -> None:
        self.url = url
        self.registry = registry
        self.epoch = epoch
        self.routers = routers

    async def write(self, *records: ExtensionRecord | PolicyRecord, by: str = "ada") -> None:
        """Puts records into the registry."""
        await self.registry.write([Upsert(record, by) for record in records], epoch=self.epoch)


@asynccontextmanager
async def inspector_app(
    *,
    statuses: Mapping[str, Mapping[str, Any]] | None = None,
    traffic: Mapping[str, Any] | None = None,
    documents: Sequence[Mapping[str, Any]] = (),
) -> AsyncIterator[InspectorApp]:
    """Serves it until the end of the block."""
    registry = SomeRegistry()
    epoch = await registry.acquire_epoch("tests")
    routers = SomeRouters(statuses or {}, traffic or {})
    objects = MemoryObjects(documents)
    watcher = Watcher(Catalogue(registry), registry, routers=routers, objects=objects)
    app = application(registry, registry, TOKEN, objects=objects, routers=routers, watcher=watcher)
    server = HttpServer(app, "127.0.0.1", 0)
    server.start()
    try:
        yield InspectorApp(f"http://127.0.0.1:{server.port}", registry, epoch, routers)
    finally:
        watcher.close()
        async with asyncio.timeout(15):
            await server.stop()


def extension(name: str, kind: str = "pre", **fields: Any) -> ExtensionRecord:
    """The record of an extension."""
    subject = fields.pop("subject", f"beamline.ext.{kind}.{name}.v1")
    return ExtensionRecord(name, kind, subject, "default", name, f"uid-{name}", 1, **fields)


def policy(name: str, *steps: Mapping[str, Any], **fields: Any) -> PolicyRecord:
    """The record of a policy."""
    document = {"match": {}, "priority": 0, "deadline_ms": 60_000, "steps": list(steps), "fallback": []}
    return PolicyRecord(name, "default", name, f"uid-policy-{name}", 1, {**document, **fields})
