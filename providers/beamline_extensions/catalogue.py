"""Which extensions ship with Beamline, by name. Each is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final

from beamline_sdk import Extension
from beamline_sdk import run as serve_until_stopped

Factory = Callable[[], Extension[Any, Any]]


class UnknownExtensionError(KeyError):
    """No extension of that name ships with Beamline; the message lists those that do."""

    def __str__(self) -> str:
        return str(self.args[0])


def _lazy(name: str, class_name: str) -> Factory:
    def make() -> Extension[Any, Any]:
        module = import_module(f"beamline_extensions.{name}.extension")
        made: Extension[Any, Any] = getattr(module, class_name)()
        return made

    return make


CATALOGUE: Final[Mapping[str, Factory]] = {
    "anthropic": _lazy("anthropic", "AnthropicProvider"),
    "json_schema_validator": _lazy("json_schema_validator", "JsonSchemaValidator"),
    "mask_sensitive_data": _lazy("mask_sensitive_data", "MaskSensitiveData"),
    "mock_provider": _lazy("mock_provider", "MockProvider"),
    "normalize_text": _lazy("normalize_text", "NormalizeText"),
    "openai": _lazy("openai", "OpenAIProvider"),
    "openai_compatible": _lazy("openai_compatible", "OpenAICompatibleProvider"),
    "pii_guard": _lazy("pii_guard", "PiiGuard"),
    "prompt_guard": _lazy("prompt_guard", "PromptGuard"),
    "response_cache": _lazy("response_cache", "ResponseCache"),
}


def names() -> tuple[str, ...]:
    """Names of the extensions that ship with Beamline, sorted."""
    return tuple(sorted(CATALOGUE))


def create(name: str) -> Extension[Any, Any]:
    """A new instance; ``-`` and ``_`` are the same. Raises :class:`UnknownExtensionError`."""
    factory = CATALOGUE.get(name.replace("-", "_"))
    if factory is None:
        raise UnknownExtensionError(f"no extension is called {name!r}: there are {', '.join(names())}")
    return factory()


def run(name: str) -> None:
    """Serves one extension until SIGTERM or SIGINT. Raises :class:`UnknownExtensionError`."""
    serve_until_stopped(create(name))
