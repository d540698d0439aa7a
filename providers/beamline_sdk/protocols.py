"""One Protocol per kind: the least that something must have to be an extension.

The classes :class:`~beamline_sdk.Pre`, ``Validator``, ``Provider`` and ``Post`` satisfy them, and so does any
object of an author who would rather not derive: ``kind``, ``name`` and an async ``handle`` are enough.
:func:`adopt` makes an extension of it, with what it has of the rest (``version``, ``description``,
``config_model``, ``initialize``, ``start``, ``health_check``, ``stop``, ``dispose``, and a provider's
``stream``).
"""

from __future__ import annotations

import inspect
from typing import Any, Final, Literal, Protocol, TypeVar, cast, runtime_checkable

from beamline_contract.names import EXTENSION_TYPES

from .extension import AnyConfig, Extension, Post, Pre, Provider, Validator
from .request import ExtensionRequest
from .results import Patch, ProviderReply, Verdict

ConfigT_contra = TypeVar("ConfigT_contra", contravariant=True)


@runtime_checkable
class PreProtocol(Protocol[ConfigT_contra]):
    """Changes a request before it is validated."""

    kind: Literal["pre"]
    name: str

    async def handle(self, request: ExtensionRequest, config: ConfigT_contra) -> Patch | None:
        """The change; None for none."""
        ...


@runtime_checkable
class ValidatorProtocol(Protocol[ConfigT_contra]):
    """Lets a request pass, or ends it."""

    kind: Literal["validator"]
    name: str

    async def handle(self, request: ExtensionRequest, config: ConfigT_contra) -> Verdict:
        """The verdict."""
        ...


@runtime_checkable
class ProviderProtocol(Protocol[ConfigT_contra]):
    """Answers a request."""

    kind: Literal["provider"]
    name: str

    async def handle(self, request: ExtensionRequest, config: ConfigT_contra) -> ProviderReply:
        """The answer."""
        ...


@runtime_checkable
class PostProtocol(Protocol[ConfigT_contra]):
    """Changes an answer before it is returned."""

    kind: Literal["post"]
    name: str

    async def handle(self, request: ExtensionRequest, config: ConfigT_contra) -> Patch | None:
        """The change; None for none."""
        ...


AnyExtension = (
    Extension[Any, Any]
    | PreProtocol[Any]
    | ValidatorProtocol[Any]
    | ProviderProtocol[Any]
    | PostProtocol[Any]
)
_BASES: Final[dict[str, Any]] = {"pre": Pre, "validator": Validator, "provider": Provider, "post": Post}
_FACTS: Final = ("name", "version", "description", "config_model")
_METHODS: Final = ("handle", "initialize", "start", "health_check", "stop", "dispose")


def adopt(thing: AnyExtension) -> Extension[Any, Any]:
    """``thing`` as an extension: itself where it is one. Raises TypeError that says what it lacks."""
    if isinstance(thing, Extension):
        return thing
    shown = type(thing).__name__
    kind = getattr(thing, "kind", None)
    if kind not in _BASES:
        raise TypeError(f"{shown}.kind must be one of {', '.join(EXTENSION_TYPES)}")
    if not isinstance(getattr(thing, "name", None), str) or not thing.name:
        raise TypeError(f"{shown}.name must be a string that is not empty")
    for method in _METHODS:
        given = getattr(thing, method, None)
        if (given is not None or method == "handle") and not inspect.iscoroutinefunction(given):
            raise TypeError(f"{shown}.{method} must be an async method")
    namespace: dict[str, Any] = {"config_model": AnyConfig, "__doc__": type(thing).__doc__}
    namespace |= {name: getattr(thing, name) for name in _FACTS if hasattr(thing, name)}
    methods = (*_METHODS, "stream") if kind == "provider" else _METHODS
    namespace |= {name: staticmethod(getattr(thing, name)) for name in methods if hasattr(thing, name)}
    return cast("Extension[Any, Any]", type(shown, (_BASES[kind],), namespace)())
