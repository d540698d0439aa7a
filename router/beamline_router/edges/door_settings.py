"""What the doors read from files: the keys of callers and the limits of tenants, kept current in the gate."""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from ..core.api_keys import KeyRing, read_keys, ring_of
from ..core.tenant_limits import Limits, TenantLimits, read_tenant_limits
from .gate import Gate
from .key_files import Watched

log = structlog.get_logger()


class DoorSettings:
    """Keeps ``gate`` current. Raises ``SourceError`` for a fault at the start."""

    def __init__(self, gate: Gate, *, keys: Path | None, limits: Path | None, default: Limits) -> None:
        self._gate = gate
        self._keys = None if keys is None else Watched("API keys", keys, _ring)

        def tenants(documents: list[tuple[str, object]]) -> TenantLimits:
            name, document = documents[0] if documents else (str(limits), None)
            return read_tenant_limits(document, name, default)

        self._limits = None if limits is None else Watched("limits", limits, tenants)
        gate.limits = TenantLimits(default)
        self._adopt()
        if self._keys is not None:
            log.info("router.keys", count=len(gate.ring), path=str(keys))

    def read_anew(self) -> None:
        """Reads both sources now, changed or not."""
        for source in (self._keys, self._limits):
            if source is not None:
                source.look(anew=True)
        self._adopt()

    async def run(self) -> None:
        """Follows changes until cancelled."""
        async with asyncio.TaskGroup() as group:
            for source in (self._keys, self._limits):
                if source is not None:
                    group.create_task(source.run(self._adopt))
            group.create_task(asyncio.Event().wait())  # also where there is nothing to follow

    def _adopt(self) -> None:
        if self._keys is not None:
            self._gate.adopt(self._keys.value)
        if self._limits is not None:
            self._gate.limits = self._limits.value


def _ring(documents: list[tuple[str, object]]) -> KeyRing:
    return ring_of(key for name, document in documents for key in read_keys(document, name))
