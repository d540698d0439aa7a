"""From what somebody wants to register to an entry that is ready for the table, or to nothing at all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import structlog

from ..breaker import Breaker, BreakerState
from ..framework.factory import ProviderFactory
from ..framework.provider import ProviderConfig
from ..logs import place_of
from .bounded import within
from .events import Events
from .records import (
    Entry,
    RegisteredProvider,
    RegistryError,
    RegistryErrorCode,
    RegistryProvider,
    Source,
)
from .settings import RegistryConfig

log = structlog.get_logger()

Registrable = RegistryProvider | ProviderConfig | Mapping[str, Any]
_SAFE_TO_SHOW = (TimeoutError, ValueError, LookupError)
"""Errors whose text is ours, or a sentence about a configuration without its values."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One registration: an instance, or what the factory shall make."""

    name: str
    what: Registrable
    kind: str | None = None
    provider_type: str | None = None
    source: Source = "api"
    metadata: Mapping[str, Any] = field(default_factory=dict)


class Making:
    """Makes entries for one registry. ``closed`` says whether that has been shut down meanwhile."""

    def __init__(
        self,
        config: RegistryConfig,
        factory: ProviderFactory,
        events: Events,
        *,
        clock: Callable[[], float],
        draw: Callable[[], float],
        closed: Callable[[], bool],
    ) -> None:
        self._config = config
        self._factory = factory
        self._events = events
        self._clock = clock
        self._draw = draw
        self._closed = closed

    async def made(self, wanted: Wanted) -> Entry:
        """A ready entry that is in no table yet. Raises :class:`RegistryError`, with nothing left behind."""
        began = self._clock()
        name = wanted.name
        provider: RegistryProvider | None = None
        try:
            provider = self._created(wanted)
            await within(self._config.lifecycle.init_timeout, provider.initialize(), f"{name}: initialize")
            capabilities = tuple(provider.get_capabilities())
            facts = _facts(provider)
            self._still_open()
        except BaseException as error:
            if provider is not None:
                await asyncio.shield(self._cleaned(name, provider))
            if not isinstance(error, Exception):
                raise
            raise self._failed(name, error, "create" if provider is None else "initialize") from error
        metadata = {
            **facts,
            **wanted.metadata,
            "source": wanted.source,
            "version": provider.config.version,
            "registration_ms": round((self._clock() - began) * 1000, 3),
        }
        record = RegisteredProvider(
            name=name,
            provider=provider,
            config=provider.config,
            status="ready",
            registered_at=datetime.now(UTC),
            capabilities=capabilities,
            metadata=metadata,
        )
        breaker = Breaker(
            self._config.circuit_breaker.breaker(),
            random=self._draw,
            on_change=lambda state: self._breaker_changed(name, state),
        )
        return Entry(record, breaker)

    def _created(self, wanted: Wanted) -> RegistryProvider:
        what = wanted.what
        if isinstance(what, ProviderConfig):
            return self._factory.create(wanted.kind or "sdk", wanted.provider_type or wanted.name, what)
        if isinstance(what, Mapping):
            raw = {"version": "1.0.0", **what}
            kind, provider_type = raw.pop("kind", None), raw.pop("type", None)
            return self._factory.create(
                wanted.kind or kind or "sdk", wanted.provider_type or provider_type or wanted.name, raw
            )
        if not isinstance(what, RegistryProvider):
            raise TypeError(f"{type(what).__name__} is no provider")
        return what

    def _still_open(self) -> None:
        if self._closed():
            raise ValueError("the registry has been shut down meanwhile")

    def _failed(self, name: str, error: Exception, phase: str) -> RegistryError:
        context = {"phase": phase, "error": type(error).__name__}
        code = RegistryErrorCode.REGISTRATION_FAILED
        self._events.emit("provider-error", name, code=code.value, **context)
        why = str(error) if isinstance(error, _SAFE_TO_SHOW) else type(error).__name__
        return RegistryError(code, f"{name} can't be registered: {why}", provider_name=name, context=context)

    async def _cleaned(self, name: str, provider: RegistryProvider) -> None:
        try:
            await within(self._config.lifecycle.dispose_timeout, provider.cleanup(), f"{name}: cleanup")
        except Exception as error:  # noqa: BLE001 -- a foreign class may not keep the promise of `cleanup`
            log.warning(
                "provider.cleanup_failed", provider=name, error=type(error).__name__, at=place_of(error)
            )

    def _breaker_changed(self, name: str, state: BreakerState) -> None:
        said = log.warning if state == "open" else log.info
        said("provider.breaker", provider=name, state=state)
        if state == "open":
            self._events.emit("circuit-breaker-opened", name)
        elif state == "closed":
            self._events.emit("circuit-breaker-closed", name)


def _facts(provider: RegistryProvider) -> Mapping[str, Any]:
    said = getattr(provider, "metadata", None)
    facts = said() if callable(said) else {}
    return facts if isinstance(facts, Mapping) else {}
