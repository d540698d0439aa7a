"""What every provider has: a typed configuration and a life.

    initialize -> start -> (health_check, as often as asked) -> stop -> cleanup

``initialize`` opens what is needed and may raise; ``start`` and ``stop`` bracket the work; ``cleanup`` gives
back what ``initialize`` took, and after it ``initialize`` may come again: a restart is stop, cleanup,
initialize, start.

Authors write ``open``, ``check`` and ``close``. The three public methods around them keep the promises that
nobody should have to remember: ``initialize`` reports what was missing by raising, ``health_check`` always
answers within its time, and ``cleanup`` never raises.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Generic, Literal, TypeVar, final, get_args

import structlog
from pydantic import BaseModel, ConfigDict, Field

from ..logs import place_of

log = structlog.get_logger()

ProviderKind = Literal["deployment", "sdk", "monitoring", "storage"]
KINDS: Final[tuple[ProviderKind, ...]] = get_args(ProviderKind)
HealthStatus = Literal["healthy", "unhealthy", "error"]
"""``unhealthy``: the provider says so, or does not answer in time; ``error``: the check itself failed."""
NAME_PATTERN: Final = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,252}$"
HEALTH_SECONDS: Final = 5.0
"""Time that one health check has."""


class ProviderConfig(BaseModel):
    """What every provider is configured by. Unknown fields are refused, with their path."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, hide_input_in_errors=True
    )

    name: str = Field(pattern=NAME_PATTERN)
    """Unique in a registry."""
    version: str = Field(min_length=1, max_length=64)
    """Of the provider, such as 1.0.0."""
    enabled: bool = True
    """A provider that is not enabled is never discovered into a registry."""
    timeout_ms: int = Field(default=5000, ge=1, le=600_000)
    """For one call, milliseconds."""
    retry_attempts: int = Field(default=0, ge=0, le=5)
    """Extra attempts after a retryable failure. 0, because the router retries: attempts in two layers
    multiply, and a call to a model that timed out may have been paid for."""


ConfigT = TypeVar("ConfigT", bound=ProviderConfig)


@dataclass(frozen=True, slots=True)
class ProviderHealth:
    """How a provider is. ``message`` is a sentence for people, empty when healthy; it holds no payload."""

    status: HealthStatus
    message: str = ""
    latency_ms: float = 0.0

    @property
    def well(self) -> bool:
        """Whether the status is ``healthy``."""
        return self.status == "healthy"


class BaseProvider(ABC, Generic[ConfigT]):
    """Base of all providers. Set ``kind``, ``provider_type`` and ``config_model``; write what differs."""

    kind: ClassVar[ProviderKind]
    provider_type: ClassVar[str] = ""
    """What a factory calls it, such as ``kubernetes``."""
    config_model: ClassVar[type[ProviderConfig]] = ProviderConfig
    health_seconds: float = HEALTH_SECONDS

    def __init__(self, config: ConfigT) -> None:
        self.config: ConfigT = config
        self._opened = False

    @property
    def name(self) -> str:
        """The configured name."""
        return self.config.name

    async def open(self) -> None:
        """Opens what is needed. Raises what it likes; ``close`` is called then too."""

    async def check(self) -> str | None:
        """None when well, else the reason in one sentence."""
        return None

    async def close(self) -> None:
        """Closes what ``open`` opened, also after one that failed halfway. What it raises is logged."""

    async def start(self) -> None:
        """Begins the work."""

    async def stop(self) -> None:
        """Ends the work; ``start`` may follow."""

    def get_capabilities(self) -> tuple[str, ...]:
        """What it can do, as words that a machine may compare."""
        return ()

    def metadata(self) -> Mapping[str, Any]:
        """Facts for whoever chooses between providers, such as quality and cost hints."""
        return {}

    @final
    async def initialize(self) -> None:
        """Opens the provider; a second call on an open one does nothing. Raises what ``open`` raises."""
        if self._opened:
            return
        await self.open()
        self._opened = True

    @final
    async def health_check(self) -> ProviderHealth:
        """How it is. Never raises, and answers within :attr:`health_seconds`."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(self.health_seconds):
                reason = await self.check()
        except TimeoutError:
            return ProviderHealth("unhealthy", "the health check did not answer in time", _ms_since(began))
        except Exception as error:  # noqa: BLE001 -- an author's code may raise anything
            return ProviderHealth(
                "error", f"the health check failed: {type(error).__name__}", _ms_since(began)
            )
        return ProviderHealth("healthy" if reason is None else "unhealthy", reason or "", _ms_since(began))

    @final
    async def cleanup(self) -> None:
        """Gives back what was taken. Never raises; more than once is fine."""
        self._opened = False
        try:
            await self.close()
        except Exception as error:  # noqa: BLE001 -- nobody can do anything about it any more
            log.warning(
                "provider.cleanup_failed", provider=self.name, error=type(error).__name__, at=place_of(error)
            )


def _ms_since(began: float) -> float:
    return round((time.monotonic() - began) * 1000, 3)
