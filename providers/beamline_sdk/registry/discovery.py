"""Keeps the registry in step with what is found: registers, updates, removes.

A refresh looks at everything anew and changes only what differs. What a program registered is never touched.
A provider whose entry has become invalid, or whose whole source can't be read, keeps running as it was: a
typing mistake in a file takes nothing down. The same fault is said once, not at every refresh.

Refreshes are one at a time.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from .records import RegistryError, Source
from .settings import DiscoverySettings
from .sources import Discovered, Found, discover

if TYPE_CHECKING:
    from .registry import ProviderRegistry

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ValidationResult:
    """Whether one provider that was found could be registered, as far as can be told without a call to it."""

    name: str
    source: Source
    valid: bool
    error: str | None = None


@dataclass(slots=True)
class RefreshResult:
    """Names, by what a refresh did; ``failed`` with the reason."""

    added: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


class Discovery:
    """Finds providers for one registry. ``environ`` defaults to the process's, read at each refresh."""

    def __init__(
        self, registry: ProviderRegistry, settings: DiscoverySettings, environ: Mapping[str, str] | None
    ) -> None:
        self._registry = registry
        self._settings = settings
        self._environ = environ
        self._lock = asyncio.Lock()
        self._origins: dict[str, str] = {}
        self._said: dict[str, str] = {}

    async def run(self) -> None:
        """Refreshes after each interval, until cancelled."""
        interval = self._settings.auto_refresh_interval
        assert interval is not None
        while True:
            await asyncio.sleep(interval)
            await self.refresh()

    async def validate_discovered_providers(self) -> list[ValidationResult]:
        """One result for each provider that is found now. Registers nothing."""
        found = await self._look()
        results = [
            ValidationResult(one.name, one.source, one.fault is None, one.fault) for one in found.providers
        ]
        return results + [
            ValidationResult(origin, "config", False, why) for origin, why in found.unreadable.items()
        ]

    async def refresh(self) -> RefreshResult:
        """Brings the registry in step. Never raises for a bad provider."""
        async with self._lock:
            found = await self._look()
            result = RefreshResult()
            result.failed.update({str(origin): why for origin, why in found.unreadable.items()})
            wanted = {one.name: one for one in found.providers if one.enabled}
            await asyncio.gather(*(self._bring(one, result) for one in wanted.values()))
            gone = [
                name
                for name, origin in self._origins.items()
                if name not in wanted and origin not in found.unreadable
            ]
            for name in gone:
                await self._remove(name, result)
            self._say(result.failed)
        if result.added or result.updated or result.removed:
            log.info(
                "registry.refreshed",
                added=sorted(result.added),
                updated=sorted(result.updated),
                removed=sorted(result.removed),
            )
        return result

    async def _look(self) -> Found:
        environ = os.environ if self._environ is None else self._environ
        return await asyncio.to_thread(discover, self._settings, self._registry.factory, dict(environ))

    async def _bring(self, one: Discovered, result: RefreshResult) -> None:
        registry = self._registry
        known = registry.record(one.name) if registry.has(one.name) else None
        if known is not None and known.source == "api":
            self._origins.pop(one.name, None)
            return
        if one.fault is not None or one.config is None:
            result.failed[one.name] = one.fault or "no configuration"
            return
        facts = {"origin": one.origin, "kind": one.kind, "provider_type": one.provider_type}
        if known is not None and known.config == one.config and facts.items() <= known.metadata.items():
            self._origins[one.name] = one.origin
            return
        place = registry.register if known is None else registry.replace
        try:
            await place(
                one.config,
                kind=one.kind,
                provider_type=one.provider_type,
                source=one.source,
                metadata=facts,
            )
        except RegistryError as error:
            result.failed[one.name] = error.message
            return
        self._origins[one.name] = one.origin
        (result.added if known is None else result.updated).append(one.name)

    async def _remove(self, name: str, result: RefreshResult) -> None:
        del self._origins[name]
        if not self._registry.has(name) or self._registry.record(name).source == "api":
            return
        try:
            await self._registry.unregister(name)
        except RegistryError as error:
            result.failed[name] = error.message
            return
        result.removed.append(name)

    def _say(self, failed: Mapping[str, str]) -> None:
        for name, why in failed.items():
            if self._said.get(name) != why:
                log.warning("registry.provider_refused", provider=name, error=why)
        self._said = dict(failed)
