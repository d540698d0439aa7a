"""Where providers are found: entry points, a file, the environment. What each says is merged by name.

    plug-in  <  file  <  environment  <  whoever registers by the API

The later source wins field by field: a file may give ``openai`` its timeout while the environment gives it
the key. A plug-in is an entry point of the group ``beamline.providers`` that is on the allow-list; nothing
else is ever imported, because loading an entry point runs its code. It names a subclass of BaseProvider, or
an extension.

A source that can't be read is one fault, and says nothing about the others.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, distributions, entry_points
from pathlib import Path
from typing import Any, Final, Literal

from ..extension import Extension
from ..framework.configuration import ConfigurationError, merged, read_file
from ..framework.factory import ProviderFactory, UnknownProviderError
from ..framework.hosted import HostedConfig, HostedExtension
from ..framework.provider import BaseProvider, ProviderConfig
from .records import Source
from .settings import DiscoverySettings

GROUP: Final = "beamline.providers"
Origin = Literal["plugin", "file", "environment"]


_KEY_PLACES: Final = frozenset({"api_key_env", "api_key_file"})
KEY_IN_FILE: Final = (
    "config.api_key: a key does not belong into a file: write `api_key_env: NAME_OF_A_VARIABLE` or "
    "`api_key_file: /path/of/a/mounted/secret` in its place"
)


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A variable that means: there is such a provider."""

    variable: str
    name: str
    endpoint_variable: str
    endpoint: str


KNOWN_KEYS: Final = (
    KnownKey("OPENAI_API_KEY", "openai", "OPENAI_BASE_URL", "https://api.openai.com/v1"),
    KnownKey("ANTHROPIC_API_KEY", "anthropic", "ANTHROPIC_BASE_URL", "https://api.anthropic.com"),
)


@dataclass(frozen=True, slots=True)
class Discovered:
    """A provider that was found. ``config`` is valid where ``fault`` is None."""

    name: str
    kind: str
    provider_type: str
    origin: Origin
    config: ProviderConfig | None = None
    enabled: bool = True
    fault: str | None = None

    @property
    def source(self) -> Source:
        """The word of the record's metadata."""
        return "plugin" if self.origin == "plugin" else "config"


@dataclass(slots=True)
class Found:
    """What all sources say. ``unreadable`` are the origins that could not be read at all, with why."""

    providers: list[Discovered] = field(default_factory=list)
    unreadable: dict[Origin, str] = field(default_factory=dict)


def discover(settings: DiscoverySettings, factory: ProviderFactory, environ: Mapping[str, str]) -> Found:
    """Reads all sources. Plug-ins become known to ``factory``. Never raises for what it finds."""
    found = Found()
    merged_by_name: dict[str, tuple[Origin, dict[str, Any]]] = {}
    refused: set[str] = set()
    for point in _points(settings):
        try:
            _add(merged_by_name, "plugin", _load(point, factory))
        except Exception as error:  # noqa: BLE001 -- a plug-in's module may raise anything
            found.providers.append(
                Discovered(point.name, "sdk", point.name, "plugin", fault=f"plug-in: {_plainly(error)}")
            )
    if settings.config_path is not None:
        try:
            for entry in read_file(settings.config_path):
                if "api_key" in entry:
                    refused.add(str(entry.get("name", "")))
                _add(merged_by_name, "file", entry)
        except ConfigurationError as error:
            found.unreadable["file"] = str(error)
    if settings.enable_environment_discovery:
        for known in KNOWN_KEYS:
            if environ.get(known.variable):
                _add(merged_by_name, "environment", _from_key(known, environ))
    for name, (origin, raw) in merged_by_name.items():
        if name in refused:
            kind, provider_type = str(raw.get("kind", "sdk")), str(raw.get("type", name))
            found.providers.append(Discovered(name, kind, provider_type, "file", fault=KEY_IN_FILE))
        else:
            found.providers.append(_checked(name, origin, raw, factory, environ))
    return found


def _add(by_name: dict[str, tuple[Origin, dict[str, Any]]], origin: Origin, entry: Mapping[str, Any]) -> None:
    name = entry.get("name")
    name = name if isinstance(name, str) else ""  # YAML makes of `off` a truth value
    _, before = by_name.get(name, (origin, {}))
    if "api_key" in entry:  # the later source's key wins over where an earlier one says that it is
        before = {field: value for field, value in before.items() if field not in _KEY_PLACES}
    by_name[name] = (origin, {**before, **entry})


def _from_key(known: KnownKey, environ: Mapping[str, str]) -> dict[str, Any]:
    return {
        "name": known.name,
        "kind": "sdk",
        "api_endpoint": environ.get(known.endpoint_variable) or known.endpoint,
        "api_key": environ[known.variable],
    }


def _checked(
    name: str, origin: Origin, raw: dict[str, Any], factory: ProviderFactory, environ: Mapping[str, str]
) -> Discovered:
    fields = {key: value for key, value in raw.items() if key not in {"name", "kind", "type"}}
    kind, provider_type = str(raw.get("kind", "sdk")), str(raw.get("type", name))
    if not name:
        return Discovered(
            "", kind, "", origin, fault=f"an entry of the {origin} has no name, or one that is no string"
        )
    try:
        model = factory.config_model(kind, provider_type)
        values = merged(model, name, file=fields, environ=environ)
        if values.get("enabled", True) in {False, "false", "0"}:
            return Discovered(name, kind, provider_type, origin, enabled=False)
        config = factory.validate(kind, provider_type, values)
    except (ConfigurationError, UnknownProviderError) as error:
        return Discovered(name, kind, provider_type, origin, fault=str(error))
    return Discovered(name, kind, provider_type, origin, config)


def _points(settings: DiscoverySettings) -> list[EntryPoint]:
    """The allowed entry points, one of each name; those of ``plugin_path`` win."""
    if not settings.plugins:
        return []
    points = list(entry_points(group=GROUP))
    if settings.plugin_path is not None:
        for distribution in distributions(path=[str(settings.plugin_path)]):
            points.extend(distribution.entry_points.select(group=GROUP))
        _importable(settings.plugin_path)
    by_name = {point.name: point for point in points if point.name in settings.plugins}
    return [by_name[name] for name in settings.plugins if name in by_name]


def _importable(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _load(point: EntryPoint, factory: ProviderFactory) -> dict[str, Any]:
    """Imports a plug-in, makes it known to the factory, and returns its entry."""
    loaded = point.load()
    version = point.dist.version if point.dist is not None else "1.0.0"
    if isinstance(loaded, type) and issubclass(loaded, Extension):
        loaded = loaded()
    if isinstance(loaded, Extension):
        extension = loaded

        def make(config: HostedConfig) -> HostedExtension:
            return HostedExtension(extension, config)

        factory.add_maker("sdk", point.name, make, HostedConfig)
        return {"name": point.name, "kind": "sdk", "type": point.name, "version": version}
    if isinstance(loaded, type) and issubclass(loaded, BaseProvider):
        factory.add(loaded, point.name)
        return {"name": point.name, "kind": loaded.kind, "type": point.name, "version": version}
    raise TypeError(f"{point.value} is neither a provider nor an extension")


def _plainly(error: Exception) -> str:
    return str(error) if isinstance(error, TypeError | ImportError | AttributeError) else type(error).__name__
