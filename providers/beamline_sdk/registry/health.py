"""Health of registered providers: asked on a timer, all at the same time, each within its time.

A check that fails is repeated at once, ``retries`` times. Each attempt feeds the provider's breaker, as long
as that gives permits: an open breaker is left alone until its time is over, and then the next check is its
probe. Status changes are events; the same status again is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

import structlog

from ..framework.provider import ProviderHealth
from .bounded import within
from .events import Events
from .records import Entry
from .settings import HealthSettings

log = structlog.get_logger()


class HealthMonitor:
    """Asks providers how they are. ``clock`` is monotonic seconds."""

    def __init__(self, settings: HealthSettings, events: Events, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._events = events
        self._clock = clock

    async def run(self, entries: Mapping[str, Entry]) -> None:
        """Checks all, now and then after each interval, until cancelled."""
        while True:
            await self.check_all(entries)
            await asyncio.sleep(self._settings.check_interval)

    async def check_all(self, entries: Mapping[str, Entry]) -> dict[str, ProviderHealth]:
        """Checks every provider that is not disposed of."""
        asked = {name: entry for name, entry in entries.items() if entry.record.status != "disposed"}
        found = await asyncio.gather(*map(self.check, asked.values()))
        return dict(zip(asked, found, strict=True))

    async def check(self, entry: Entry) -> ProviderHealth:
        """Checks one. Never raises."""
        health = await self._attempt(entry)
        for _ in range(self._settings.retries):
            if health.status == "healthy" or entry.gone:
                break
            health = await self._attempt(entry)
        if entry.gone:
            return health
        before = entry.record.health
        entry.record = replace(entry.record, health=health, last_health_check=datetime.now(UTC))
        old = "healthy" if before is None else before.status
        if old != health.status or (before is not None and before.message != health.message):
            said = log.info if health.well else log.warning
            said(
                "provider.health",
                provider=entry.record.name,
                status=health.status,
                error=health.message or None,
            )
        if old != health.status:
            details = {
                "from": None if before is None else old,
                "to": health.status,
                "message": health.message,
            }
            self._events.emit("health-status-changed", entry.record.name, **details)
        return health

    async def _attempt(self, entry: Entry) -> ProviderHealth:
        breaker, name = entry.breaker, entry.record.name
        permit = breaker.acquire(self._clock())
        try:
            check = entry.record.provider.health_check()
            health = await within(self._settings.timeout, check, f"{name}: health check")
        except TimeoutError:
            health = ProviderHealth("unhealthy", "the health check did not answer in time")
        except Exception as error:  # noqa: BLE001 -- a foreign class may raise anything
            health = ProviderHealth("error", f"the health check failed: {type(error).__name__}")
        except BaseException:
            if permit is not None:
                breaker.release(permit)
            raise
        if permit is not None:
            if health.status == "healthy":
                breaker.success(permit, self._clock())
            else:
                breaker.failure(permit, self._clock())
        return health
