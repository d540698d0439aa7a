"""What the registry knows of a provider, and the one error it raises."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, Protocol, runtime_checkable

from ..breaker import Breaker
from ..framework.provider import ProviderConfig, ProviderHealth

ProviderStatus = Literal["initializing", "ready", "error", "disposed"]
Source = Literal["config", "plugin", "api"]
"""Who registered it: a file or the environment, an entry point, or a program."""


class RegistryErrorCode(StrEnum):
    """Why the registry refused. Declared once."""

    INVALID_NAME = "INVALID_NAME"
    """The name is not one."""
    ALREADY_EXISTS = "ALREADY_EXISTS"
    """The name is taken, or is being registered right now."""
    REGISTRATION_FAILED = "REGISTRATION_FAILED"
    """It could not be made, initialized, or brought to another phase of its life; ``context`` says which."""
    NOT_FOUND = "NOT_FOUND"
    """Nothing goes by that name."""


class RegistryError(Exception):
    """What the registry raises. ``context`` holds facts for machines: no payload and no key."""

    def __init__(
        self,
        code: RegistryErrorCode | str,
        message: str,
        *,
        provider_name: str | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = RegistryErrorCode(code)
        self.message = message
        self.provider_name = provider_name
        self.context = dict(context or {})


class CircuitOpenError(Exception):
    """The provider's breaker is open; ``retry_after_s`` is when it lets the next call through, seconds."""

    def __init__(self, provider_name: str, retry_after_s: float) -> None:
        super().__init__(f"the circuit breaker of {provider_name} is open")
        self.provider_name = provider_name
        self.retry_after_s = retry_after_s


@runtime_checkable
class RegistryProvider(Protocol):
    """What the registry needs of a provider: :class:`~beamline_sdk.framework.BaseProvider` has it."""

    config: Any

    async def initialize(self) -> None:
        """Opens it. Raises what it likes."""

    async def start(self) -> None:
        """Begins its work."""

    async def health_check(self) -> ProviderHealth:
        """How it is."""
        ...

    async def stop(self) -> None:
        """Ends its work."""

    async def cleanup(self) -> None:
        """Gives back what it took."""

    def get_capabilities(self) -> tuple[str, ...]:
        """What it can do."""
        ...


@dataclass(frozen=True, slots=True)
class RegisteredProvider:
    """One provider at one moment. ``metadata`` has ``source`` and ``version``, and what the provider says.

    ``last_health_check`` and ``health`` are None before the first check.
    """

    name: str
    provider: RegistryProvider
    config: ProviderConfig
    status: ProviderStatus
    registered_at: datetime
    capabilities: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    last_health_check: datetime | None = None
    health: ProviderHealth | None = None
    started: bool = False

    @property
    def source(self) -> Source:
        """Who registered it."""
        source: Source = self.metadata["source"]
        return source


@dataclass(slots=True, eq=False)
class Entry:
    """A place in the table. ``lock`` orders the phases of one provider's life; ``record`` is replaced, never
    changed. An entry that is ``gone`` has left the table, and nothing that ends late speaks for it.
    """

    record: RegisteredProvider
    breaker: Breaker
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    gone: bool = False
