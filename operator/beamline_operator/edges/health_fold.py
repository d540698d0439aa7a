"""Routers' health reports on their way into the registry: collected, summed up by the registry, every few
seconds.

What could not be written is kept for the next time, up to a bound: health is an observation, and losing some
of it when PostgreSQL is away for long is better than losing memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from beamline_contract.reports import HEALTH_INTERVAL_S, HealthDelta, RouterHealth
from beamline_registry.port import FencedError, RegistryError, RegistryWriter

MAX_KEPT: Final = 50_000

_log = structlog.get_logger()


class HealthFold:
    """Collects deltas; only a leader's :meth:`run` writes them."""

    def __init__(
        self, registry: RegistryWriter, epoch: Callable[[], int], *, interval_s: float = HEALTH_INTERVAL_S
    ) -> None:
        self._registry = registry
        self._epoch = epoch
        self._interval_s = interval_s
        self._kept: list[HealthDelta] = []

    def add(self, report: RouterHealth) -> None:
        """One router's report."""
        self._kept.extend(report.deltas)
        del self._kept[:-MAX_KEPT]

    async def flush(self) -> None:
        """Writes what was collected; keeps it where the registry does not answer."""
        deltas, self._kept = self._kept, []
        if not deltas:
            return
        try:
            await self._registry.fold_health(deltas, epoch=self._epoch())
        except FencedError:
            _log.info("health.fenced")
        except RegistryError as error:
            self._kept = (deltas + self._kept)[-MAX_KEPT:]
            _log.warning("health.kept", deltas=len(self._kept), error=str(error))

    async def run(self) -> None:
        """Flushes for ever."""
        while True:
            await asyncio.sleep(self._interval_s)
            await self.flush()
