"""The extensions that ship with Beamline, as providers of the framework.

Which of them are providers is read from their manifests: nothing is imported before one is made.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import yaml

from beamline_sdk.framework import ExtensionProvider, ProviderFactory
from beamline_sdk.framework.hosted import ExtensionProviderConfig

from .catalogue import create, names


def provider_names() -> tuple[str, ...]:
    """Names of the shipped extensions of type ``provider``, sorted."""
    return tuple(name for name in names() if _type_of(name) == "provider")


def provider_factory() -> ProviderFactory:
    """A new factory that knows the built-in deployments and, as kind ``sdk``, every shipped provider.

    So discovery from OPENAI_API_KEY finds the ``openai`` that a router would ask. Where nothing sets
    ``parameters``, they are the configuration of the manifest that ships with it: a key alone is enough.
    """
    factory = ProviderFactory()
    for name in provider_names():
        factory.add_maker("sdk", name, _maker(name), ExtensionProviderConfig)
    return factory


def _maker(name: str) -> Any:
    def make(config: ExtensionProviderConfig) -> ExtensionProvider:
        if not config.parameters:
            config = config.model_copy(update={"parameters": _manifest(name).get("config", {})})
        return ExtensionProvider(create(name), config)

    return make


def _type_of(name: str) -> str:
    return str(_manifest(name).get("type", ""))


def _manifest(name: str) -> dict[str, Any]:
    """``spec`` of the Extension in its manifest; empty where there is none."""
    manifest = files("beamline_extensions").joinpath(name, "manifest.yaml")
    if not manifest.is_file():
        return {}
    documents = yaml.safe_load_all(manifest.read_text())
    return next((one["spec"] for one in documents if one and one.get("kind") == "Extension"), {})
