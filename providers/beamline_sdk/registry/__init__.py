"""The provider registry: one table of providers with their life, health, breakers and events."""

from .discovery import Discovery, RefreshResult, ValidationResult
from .events import EVENTS, EventName, Events, RegistryEvent
from .records import CircuitOpenError, RegisteredProvider, RegistryError, RegistryErrorCode, RegistryProvider
from .registry import ProviderRegistry
from .settings import RegistryConfig

__all__ = [
    "EVENTS",
    "CircuitOpenError",
    "Discovery",
    "EventName",
    "Events",
    "ProviderRegistry",
    "RefreshResult",
    "RegisteredProvider",
    "RegistryConfig",
    "RegistryError",
    "RegistryErrorCode",
    "RegistryEvent",
    "RegistryProvider",
    "ValidationResult",
]
