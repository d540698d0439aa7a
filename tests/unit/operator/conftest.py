"""A whole operator core on fakes: store, workloads, routers and registry in memory, time by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from beamline_contract.objects import ObjectKey
from beamline_operator.core.controller import Controller
from beamline_operator.core.reconciler import Reconciler
from beamline_operator.core.settings import ReconcileSettings
from beamline_operator.fakes import ManualClock, MemoryDeployments, MemoryHints, MemoryStore
from beamline_registry.memory import MemoryRegistry
from beamline_registry.port import AuditQuery


class World:
    """Everything a reconcile touches. ``settle`` works off what is due; nothing happens behind its back."""

    def __init__(self, **settings: Any) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore(self.clock.now)
        self.deployments = MemoryDeployments()
        self.hints = MemoryHints()
        self.registry = MemoryRegistry(clock=self.clock.now)
        self.epoch = 0
        self.fenced = 0
        self.settings = ReconcileSettings(**settings)

    async def start(self) -> World:
        self.epoch = await self.registry.acquire_epoch("test")
        self.restart()
        return self

    def restart(self) -> None:
        """A new process on the same world: nothing is remembered."""
        self.reconciler = Reconciler(
            self.store,
            self.deployments,
            self.registry,
            self.hints,
            epoch=lambda: self.epoch,
            settings=self.settings,
            now=self.clock.now,
            clock=self.clock.time,
        )
        self.controller = Controller(
            self.reconciler,
            self.store,
            self.hints,
            self.registry,
            on_fenced=self._on_fenced,
            clock=self.clock,
            jitter=lambda: 0.0,
        )
        self.store.on_change = self.controller.enqueue
        for key in self.reconciler.learn():
            self.controller.enqueue(key)

    async def settle(self) -> None:
        """Reconciles everything that is due, one after the other."""
        for _ in range(500):
            if not len(self.controller.queue):
                return
            key = await self.controller.queue.get()
            await self.controller.work_on(key)
        raise AssertionError("the queue never comes to rest")

    async def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await self.settle()

    def extension(self, name: str = "guard", namespace: str = "default", **spec: Any) -> ObjectKey:
        return self.store.apply("Extension", name, {"type": "provider", **spec}, namespace=namespace)

    def policy(
        self, *providers: str, name: str = "default", namespace: str = "default", **spec: Any
    ) -> ObjectKey:
        choices = [{"extensionRef": {"name": provider}} for provider in providers]
        steps = [{"action": "select_provider", "providers": choices}]
        return self.store.apply("RoutingPolicy", name, {"steps": steps, **spec}, namespace=namespace)

    def report(self, instance: str = "r1", revision: int | None = None, **fields: Any) -> None:
        """A router reports; without a revision it serves the newest."""
        newest = max(self.hints.announced, default=0)
        status = self.hints.report(instance, newest if revision is None else revision, **fields)
        if status.leaving:
            self.hints.alive.pop(instance)
        self.controller.on_router_report(status)

    def verdict(self, key: ObjectKey, kind: str) -> tuple[str, str]:
        """(status, reason) of a condition."""
        condition = self.store.condition(key, kind)
        return condition.get("status", ""), condition.get("reason", "")

    def message(self, key: ObjectKey, kind: str) -> str:
        return self.store.condition(key, kind).get("message", "")

    async def rows(self) -> dict[str, Any]:
        """Rows by id."""
        delta = await self.registry.read(0)
        return {row.id: row for row in (*delta.extensions, *delta.policies)}

    async def audit(self) -> list[tuple[str, str]]:
        """(id, action), oldest first."""
        return [(row.object_id, row.action) for row in reversed(await self.registry.audit(AuditQuery()))]

    def _on_fenced(self) -> None:
        self.fenced += 1


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = await World().start()
    yield made
    made.controller.queue.close()
    await asyncio.sleep(0)


@pytest.fixture
async def worlds() -> AsyncIterator[Callable[[], World]]:
    """Makes as many worlds as a test wants; each has to be started."""
    made: list[World] = []

    def make() -> World:
        made.append(World())
        return made[-1]

    yield make
    for world in made:
        world.controller.queue.close()
    await asyncio.sleep(0)
