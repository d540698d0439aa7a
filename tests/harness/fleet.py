"""Routers and providers under load: two routers, two replicas of a main provider and one of a fallback, on a
real NATS and PostgreSQL, and a generator that sends at a rate whatever comes back.

Providers are mocks whose faults stand in their registry row, so a test makes one slow or sick by writing it
again, as an operator would. Rates and lengths are bounded for a shared machine; ``BEAMLINE_LOAD_SCALE``
multiplies both (1 by default).
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import httpx2

from beamline_contract.projection import ExtensionRecord
from beamline_registry.port import Upsert
from beamline_registry.postgres import PostgresRegistry

from .processes import Process, eventually
from .registry_world import extension, policy
from .world import World

SCALE: Final = float(os.environ.get("BEAMLINE_LOAD_SCALE", "1"))
BREAKER: Final = {"failureThreshold": 5, "monitoringPeriodMs": 10_000, "recoveryTimeoutMs": 1_000}
STEPS: Final = [{"action": "select_provider", "provider_id": "main", "fallback": ["spare"]}]


@dataclass
class Traffic:
    """What came of a stretch of load. ``seconds`` are latencies of answers, in the order they came."""

    statuses: Counter[int | str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    providers: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        return self.statuses.total()

    @property
    def availability(self) -> float:
        """Answered requests divided by all."""
        return self.statuses[200] / self.total if self.total else 0.0

    def percentile(self, share: float) -> float:
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0

    def __str__(self) -> str:
        told = ", ".join(f"{status}: {count}" for status, count in sorted(self.statuses.items(), key=str))
        served = ", ".join(f"{name} {count}" for name, count in sorted(self.providers.items()))
        return (
            f"{self.total} requests, {self.availability:.2%} answered ({told}; by {served}), "
            f"p50 {self.percentile(0.5) * 1000:.0f} ms, p99 {self.percentile(0.99) * 1000:.0f} ms"
        )


@dataclass
class Fleet:
    """The running parts, and the registry that tells routers what to do."""

    world: World
    registry: PostgresRegistry
    epoch: int
    routers: list[Process]
    mains: list[Process]
    _generations: Any = field(default_factory=lambda: itertools.count(2))

    async def main_provider(self, **config: Any) -> None:
        """Makes the main provider slow or sick, or well again without arguments."""
        await self._write(provider("main", generation=next(self._generations), config=config))

    async def send(self, stages: Sequence[tuple[float, float]], *, timeout_s: float = 15.0) -> Traffic:
        """Load in stages of (seconds, requests per second), open loop, over all routers in turn."""
        found = Traffic()
        limits = httpx2.Limits(max_connections=200)
        async with httpx2.AsyncClient(timeout=timeout_s, limits=limits) as http, asyncio.TaskGroup() as group:
            turns = itertools.cycle(self.routers)
            for seconds, rate in stages:
                ends = time.monotonic() + seconds * SCALE
                due = time.monotonic()
                while due < ends:
                    await asyncio.sleep(max(0.0, due - time.monotonic()))
                    group.create_task(_one(http, next(turns), found))
                    due += 1 / (rate * SCALE)
        return found

    async def serves(self, name: str) -> None:
        """Waits until the main route is answered by this provider, asked as often as it takes."""

        def answered() -> bool:
            answers = [self.world.route(router, {"prompt": "hello"}) for router in self.routers]
            return all(one.status_code == 200 and one.json()["provider_id"] == name for one in answers)

        await asyncio.to_thread(eventually, answered, f"{name} answers", 60.0)

    async def _write(self, *records: Any) -> None:
        await self.registry.write([Upsert(record, "test") for record in records], epoch=self.epoch)


def provider(name: str, *, generation: int = 1, config: dict[str, Any] | None = None) -> ExtensionRecord:
    """A mock provider with a breaker that recovers within a test."""
    return extension(
        name,
        generation=generation,
        timeout_ms=1_000,
        retry=1,
        config={"mode": "echo", **(config or {})},
        spec={"concurrency": 64, "circuitBreaker": BREAKER},
    )


@asynccontextmanager
async def fleet() -> AsyncIterator[Fleet]:
    """Everything started, and stopped whatever happened."""
    world = World()
    registry: PostgresRegistry | None = None
    try:
        await asyncio.to_thread(world.start_infrastructure)
        registry = await PostgresRegistry.connect(world.postgres.url())
        epoch = await registry.acquire_epoch("fleet")
        table = policy("default", policy={"steps": STEPS, "fallback": [], "deadline_ms": 5_000})
        routers = [world.router(f"router-{n}", BEAMLINE_POLL_SECONDS="0.5") for n in range(2)]
        mains = [_mock(world, "main", n) for n in range(2)]
        made = Fleet(world, registry, epoch, routers, mains)
        await made._write(provider("main"), provider("spare"), table)
        for process in (*routers, *mains, _mock(world, "spare", 0)):
            process.start(wait=False)
        for process in world.processes:
            await asyncio.to_thread(eventually, process.ready, f"{process.name} is ready", 60.0)
        await made.serves("main")
        yield made
    finally:
        if registry is not None:
            await registry.close()
        await asyncio.to_thread(world.close)


def _mock(world: World, name: str, number: int) -> Process:
    env = {
        "NATS_SUBJECT": f"beamline.provider.{name}.v1",
        "NATS_QUEUE_GROUP": name,
        "BEAMLINE_EXTENSION_ID": name,
    }
    return world.extension("mock_provider", env, f"{name}-{number}")


async def _one(http: httpx2.AsyncClient, router: Process, found: Traffic) -> None:
    began = time.monotonic()
    try:
        answer = await http.post(f"http://127.0.0.1:{router.port}/v1/route", json={"prompt": "hello"})
    except httpx2.HTTPError as error:
        found.statuses[type(error).__name__] += 1
        return
    found.seconds.append(time.monotonic() - began)
    found.statuses[answer.status_code] += 1
    if answer.status_code == 200:
        found.providers[answer.json()["provider_id"]] += 1
