"""How a registry behaves. All times are seconds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..breaker import BreakerSettings
from ..config import faults_of
from ..framework.configuration import ConfigurationError

PREFIX: Final = "BEAMLINE_REGISTRY_"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class DiscoverySettings(_Section):
    """Where providers are found without being registered by a program."""

    config_path: Path | None = None
    """A file of providers."""
    plugin_path: Path | None = None
    """A folder of installed distributions whose entry points count as well (``pip install --target``)."""
    plugins: tuple[str, ...] = ()
    """Names of entry points that may be loaded: others are never imported."""
    auto_refresh_interval: float | None = Field(default=60.0, gt=0, le=86_400)
    """None: only when asked."""
    enable_environment_discovery: bool = True
    """OPENAI_API_KEY and ANTHROPIC_API_KEY."""


class HealthSettings(_Section):
    """The monitor."""

    check_interval: float = Field(default=30.0, gt=0, le=86_400)
    timeout: float = Field(default=5.0, gt=0, le=600)
    """Of one attempt."""
    retries: int = Field(default=2, ge=0, le=10)
    """Further attempts before a provider counts as not healthy. Each feeds the breaker."""


class CircuitBreakerSettings(_Section):
    """Of each provider. Defaults: product.md's five failures within a minute, and the router's own."""

    failure_threshold: int = Field(default=5, ge=1, le=1000)
    monitoring_period: float = Field(default=60.0, gt=0, le=3600)
    min_failure_ratio: float = Field(default=0.5, ge=0, le=1)
    recovery_timeout: float = Field(default=30.0, gt=0, le=3600)
    half_open_successes: int = Field(default=3, ge=1, le=100)

    def breaker(self) -> BreakerSettings:
        """The same for :class:`~beamline_sdk.breaker.Breaker`."""
        return BreakerSettings(
            failure_threshold=self.failure_threshold,
            window_s=self.monitoring_period,
            min_failure_ratio=self.min_failure_ratio,
            open_s=self.recovery_timeout,
            max_open_s=max(300.0, self.recovery_timeout),
            half_open_successes=self.half_open_successes,
        )


class LifecycleSettings(_Section):
    """Bounds of the phases of a provider's life."""

    init_timeout: float = Field(default=10.0, gt=0, le=600)
    """Of initialize, and of start."""
    dispose_timeout: float = Field(default=5.0, gt=0, le=600)
    """Of stop, and of cleanup."""
    graceful_shutdown_timeout: float = Field(default=30.0, gt=0, le=600)
    """Of the end of all providers together."""


class RegistryConfig(_Section):
    """The whole. Sections that are left out have their defaults."""

    discovery: DiscoverySettings = DiscoverySettings()
    health: HealthSettings = HealthSettings()
    circuit_breaker: CircuitBreakerSettings = CircuitBreakerSettings()
    lifecycle: LifecycleSettings = LifecycleSettings()

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> RegistryConfig:
        """``BEAMLINE_REGISTRY_<SECTION>_<FIELD>``, such as BEAMLINE_REGISTRY_HEALTH_CHECK_INTERVAL=10; lists
        are separated by commas. Raises ConfigurationError that names each wrong field.
        """
        raw: dict[str, dict[str, Any]] = {}
        for section, info in cls.model_fields.items():
            model = info.annotation
            assert isinstance(model, type)
            assert issubclass(model, BaseModel)
            for field in model.model_fields:
                text = environ.get(f"{PREFIX}{section.upper()}_{field.upper()}", "")
                if text:
                    value: object = [part.strip() for part in text.split(",")] if field == "plugins" else text
                    raw.setdefault(section, {})[field] = value
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            raise ConfigurationError(faults_of(error)) from None
