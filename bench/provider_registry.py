"""Row "provider_registry": what the SDK's provider registry costs, beside the same providers without it.

1,000 providers whose initialize, health check and cleanup do nothing, so that what is measured is the
registry: registered one after the other and all at once, checked, and held in memory. The baseline of each
figure is the same loop over the bare providers. The goal for one registration is absolute (100 ms, the
slowest of all); the others are informative.
"""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import structlog

from beamline_sdk.framework import BaseProvider, ProviderConfig
from beamline_sdk.registry import ProviderRegistry, RegistryConfig
from bench.parts import Row

PROVIDERS = 1_000
GOAL_MS = 100.0
QUIET = RegistryConfig.model_validate(
    {"discovery": {"enable_environment_discovery": False, "auto_refresh_interval": None}}
)


class Idle(BaseProvider[ProviderConfig]):
    """Does nothing."""

    kind = "storage"


@dataclass(frozen=True)
class Round:
    """One round; microseconds per provider unless the name says otherwise."""

    bare_us: float
    one_by_one_us: float
    slowest_ms: float
    all_at_once_us: float
    bare_check_us: float
    check_us: float
    shutdown_us: float
    bytes_bare: float
    bytes_registered: float


def run(*, rounds: int, seconds: float) -> tuple[list[Row], dict[str, Any]]:
    """All rounds; returns the lines of the table and the raw figures. ``seconds`` is not needed."""
    del seconds
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    try:
        measured = [asyncio.run(_round()) for _ in range(max(rounds, 3))]
    finally:
        structlog.reset_defaults()
    return _rows(measured), {"providers": PROVIDERS, "rounds": [asdict(one) for one in measured]}


def _providers() -> list[Idle]:
    return [Idle(ProviderConfig(name=f"p{number}", version="1.0.0")) for number in range(PROVIDERS)]


async def _round() -> Round:
    bare = _providers()
    bare_us = await _per_provider(lambda: _each(bare, lambda one: one.initialize()))
    bare_check_us = await _per_provider(lambda: _each(bare, lambda one: one.health_check()))

    slowest = 0.0

    async def timed(provider: Idle) -> None:
        nonlocal slowest
        began = time.perf_counter()
        await registry.register(provider)
        slowest = max(slowest, time.perf_counter() - began)

    registry, parts = ProviderRegistry(QUIET), _providers()
    one_by_one_us = await _per_provider(lambda: _each(parts, timed))
    check_us = await _per_provider(registry.check_all)
    shutdown_us = await _per_provider(registry.shutdown)

    registry, together = ProviderRegistry(QUIET), _providers()
    all_at_once_us = await _per_provider(lambda: asyncio.gather(*map(registry.register, together)))
    await registry.shutdown()
    bytes_bare, bytes_registered = await _memory()
    return Round(
        bare_us, one_by_one_us, slowest * 1000, all_at_once_us, bare_check_us, check_us, shutdown_us,
        bytes_bare, bytes_registered,
    )  # fmt: skip


async def _each(providers: list[Idle], work: Callable[[Idle], Awaitable[object]]) -> None:
    for provider in providers:
        await work(provider)


async def _per_provider(work: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await work()
    return (time.perf_counter() - began) / PROVIDERS * 1e6


async def _memory() -> tuple[float, float]:
    """Bytes per provider, bare and registered."""
    gc.collect()
    tracemalloc.start()
    try:
        providers = _providers()
        bare = tracemalloc.get_traced_memory()[0]
        registry = ProviderRegistry(QUIET)
        await asyncio.gather(*map(registry.register, providers))
        await registry.check_all()
        gc.collect()
        whole = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    await registry.shutdown()
    return bare / PROVIDERS, whole / PROVIDERS


def _rows(measured: list[Round]) -> list[Row]:
    def spread(name: str, form: str = ".1f") -> str:
        values = sorted(getattr(one, name) for one in measured)
        return f"{values[0]:{form}} / {median(values):{form}} / {values[-1]:{form}}"

    slowest = max(one.slowest_ms for one in measured)
    overhead = [one.check_us - one.bare_check_us for one in measured]
    return [
        Row(f"initialize {PROVIDERS} bare providers, us each", "", spread("bare_us"), None),
        Row(f"register {PROVIDERS}, one by one, us each", "", spread("one_by_one_us"), None),
        Row(
            "the slowest registration, ms", f"< {GOAL_MS:.0f}", spread("slowest_ms", ".2f"), slowest < GOAL_MS
        ),
        Row(f"register {PROVIDERS} at the same time, us each", "", spread("all_at_once_us"), None),
        Row("health check of a bare provider, us", "", spread("bare_check_us"), None),
        Row("health check by the registry, us each", "", spread("check_us"), None),
        Row("of that the registry's own, us (median)", "", f"{median(overhead):.1f}", None),
        Row(f"shut {PROVIDERS} down, us each", "", spread("shutdown_us"), None),
        Row("memory of a bare provider, bytes", "", spread("bytes_bare", ".0f"), None),
        Row("memory of a registered one, bytes", "", spread("bytes_registered", ".0f"), None),
    ]
