"""Makes providers from configurations. A factory is an object: two of them in one process know nothing of
each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from ..config import faults_of
from .configuration import ConfigurationError
from .deployment import KubernetesDeploymentProvider, ProcessDeploymentProvider
from .provider import KINDS, BaseProvider, ProviderConfig, ProviderKind

Maker = Callable[[Any], BaseProvider[Any]]


class UnknownProviderError(LookupError):
    """No provider of that kind and type; the message lists those that there are."""


@dataclass(frozen=True, slots=True)
class _Entry:
    make: Maker
    config_model: type[ProviderConfig]


class ProviderFactory:
    """Makes providers by kind and type. A new one knows the built-in deployments, ``kubernetes`` and
    ``process``, unless ``built_in`` is false.
    """

    def __init__(self, *, built_in: bool = True) -> None:
        self._entries: dict[ProviderKind, dict[str, _Entry]] = {kind: {} for kind in KINDS}
        if built_in:
            self.add(KubernetesDeploymentProvider)
            self.add(ProcessDeploymentProvider)

    def add(self, provider: type[BaseProvider[Any]], provider_type: str | None = None) -> None:
        """Makes a class known under its kind and ``provider_type`` (default: the class's own)."""
        self.add_maker(
            provider.kind,
            provider_type or provider.provider_type or provider.__name__,
            provider,
            provider.config_model,
        )

    def add_maker(
        self, kind: ProviderKind, provider_type: str, make: Maker, config_model: type[ProviderConfig]
    ) -> None:
        """Makes known what ``make`` builds from a ``config_model``; the later one of a type wins."""
        _known(kind)
        self._entries[kind][provider_type] = _Entry(make, config_model)

    def remove(self, kind: ProviderKind, provider_type: str) -> None:
        """Forgets a type; unknown is fine."""
        self._entries[_known(kind)].pop(provider_type, None)

    def get_available_providers(self) -> dict[ProviderKind, tuple[str, ...]]:
        """The types of each kind, sorted."""
        return {kind: tuple(sorted(entries)) for kind, entries in self._entries.items()}

    def config_model(self, kind: str, provider_type: str) -> type[ProviderConfig]:
        """The model that configures such a provider. Raises :class:`UnknownProviderError`."""
        return self._find(kind, provider_type).config_model

    def create(
        self, kind: str, provider_type: str, config: ProviderConfig | Mapping[str, Any]
    ) -> BaseProvider[Any]:
        """A new provider, not initialized. Raises :class:`UnknownProviderError` and
        :class:`ConfigurationError`.
        """
        return self._find(kind, provider_type).make(self.validate(kind, provider_type, config))

    def validate(
        self, kind: str, provider_type: str, config: ProviderConfig | Mapping[str, Any]
    ) -> ProviderConfig:
        """The configuration in the type's own model. Raises as :meth:`create`."""
        model = self._find(kind, provider_type).config_model
        if isinstance(config, model):
            return config
        raw = dict(config) if isinstance(config, Mapping) else config.model_dump()
        try:
            return model.model_validate(raw)
        except ValidationError as error:
            raise ConfigurationError(faults_of(error)) from None

    def _find(self, kind: str, provider_type: str) -> _Entry:
        entries = self._entries[_known(kind)]
        if provider_type not in entries:
            there_are = ", ".join(sorted(entries)) or "none"
            raise UnknownProviderError(
                f"no {kind} provider is of type {provider_type!r}: there are {there_are}"
            )
        return entries[provider_type]


def _known(kind: str) -> ProviderKind:
    for known in KINDS:
        if kind == known:
            return known
    raise UnknownProviderError(f"no kind of provider is called {kind!r}: there are {', '.join(KINDS)}")
