"""What an extension author writes: a function with a decorator, or a class with a lifecycle.

The short form, for what has no state::

    @pre
    async def shout(request: ExtensionRequest, config: Shout) -> Patch: ...

The long form, for what opens connections or keeps something: a class of one of the four kinds. Its life is

    initialize -> start -> handle, as often as asked -> stop -> dispose

``initialize`` may refuse with :class:`NotReadyError` and is then called again later; ``start`` is called
once, right before the first request; ``health_check`` runs on a timer beside the requests; ``stop`` runs
after the last answer has been sent; ``dispose`` gives back what ``initialize`` took, also after one that
failed. Both are bounded and can't fail: what they raise is logged and forgotten.

After ``dispose`` the life may begin again with ``initialize``. A restart (SIGHUP to the process) is that: no
request is lost, those that come meanwhile wait.

``handle`` is called concurrently, as often as the runtime's limit allows, always on the one event loop: it
must not block. Work that is too slow for that belongs in ``asyncio.to_thread``.
"""

from __future__ import annotations

import inspect
import typing
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Generic, TypeVar, cast, overload

from prometheus_client import CollectorRegistry
from pydantic import BaseModel, ConfigDict

from beamline_contract.names import ExtensionType

from .config import ConfigT
from .deltas import as_whole, merged
from .request import ExtensionRequest
from .results import Delta, Patch, ProviderReply, Result, StreamPart, Verdict

ResultT = TypeVar("ResultT", bound=Result)


class AnyConfig(BaseModel):
    """The configuration of an extension that declares none: whatever is sent, as attributes."""

    model_config = ConfigDict(extra="allow", frozen=True)


@dataclass(frozen=True)
class Setup:
    """What the runtime hands to ``initialize``: the id it serves, its start configuration (raw), and where
    its own
    metrics are registered."""

    extension_id: str
    config: Mapping[str, Any] = field(default_factory=dict)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)


class Extension(ABC, Generic[ConfigT, ResultT]):
    """Base of the four kinds. Author of a class: derive from :class:`Pre`, :class:`Validator`,
    :class:`Provider` or
    :class:`Post`, set ``name`` and ``config_model``, and write ``handle``."""

    kind: ClassVar[ExtensionType]
    name: str = ""
    version: str = "0.1.0"
    """Semantic version of the code, published over ``$SRV.INFO``."""
    description: str = ""
    config_model: type[ConfigT]

    @abstractmethod
    async def handle(self, request: ExtensionRequest, config: ConfigT) -> ResultT:
        """Answers one request, or raises :class:`~beamline_sdk.results.ExtensionError`."""

    async def initialize(self, setup: Setup) -> None:
        """Opens what is needed. Raises :class:`~beamline_sdk.results.NotReadyError` where something is
        missing.
        """

    async def start(self) -> None:
        """Called once, when the first request may come."""

    async def health_check(self) -> str | None:
        """None when well, else the reason, in one sentence; shown on ``/readyz``."""
        return None

    async def stop(self) -> None:
        """Ends the work, and closes what was opened. Called even when ``initialize`` failed."""

    async def dispose(self) -> None:
        """Gives back what ``initialize`` took; :meth:`initialize` may follow. More than once is fine."""

    async def restart(self, setup: Setup) -> None:
        """Begins the life again, for whoever runs an extension without the runtime. The runtime's own restart
        goes through the registry, which bounds each phase.
        """
        await self.stop()
        await self.dispose()
        await self.initialize(setup)
        await self.start()

    def config_schema(self) -> dict[str, Any]:
        """JSON Schema of the configuration, published over ``$SRV.INFO``."""
        return self.config_model.model_json_schema()


class Pre(Extension[ConfigT, Patch | None]):
    """Changes a request before it is validated and sent to a provider."""

    kind = "pre"


class Validator(Extension[ConfigT, Verdict]):
    """Lets a request pass, or ends it."""

    kind = "validator"


class Provider(Extension[ConfigT, ProviderReply]):
    """Answers a request: usually by asking a model."""

    kind = "provider"

    def stream(self, request: ExtensionRequest, config: ConfigT) -> AsyncGenerator[StreamPart, None] | None:
        """The answer in parts, for a caller that asked for a stream; None where it comes in one piece.

        Usually an async generator of text (or :class:`~beamline_sdk.results.Delta`), with a
        :class:`~beamline_sdk.results.ProviderReply` at its end for usage and finish reason. Each ``yield``
        waits until the reader has room. When the caller leaves, the generator is closed where it stands.
        """
        return None


class Post(Extension[ConfigT, Patch | None]):
    """Changes an answer before it is returned.

    ``request.part`` says what it is shown. None: the text of a whole answer. ``window``: a piece of a
    streamed one; ``Patch(hold=True)`` is the answer of whoever can only judge the whole. ``end``: what is
    left of a streamed one, which is all of it after a ``hold``. ``message``: tool calls and other parts
    beside the text, their texts one a line.
    """

    kind = "post"
    max_match_length: int | None = None
    """The longest piece of text that it treats as one, with what it must see on either side, in characters.

    A stream is shown to it in windows that hold back as much. None: it must see the whole answer at once, and
    a stream waits for it.
    """

    def match_length(self, config: ConfigT) -> int | None:
        """``max_match_length`` for this configuration, for whoever's depends on it."""
        return self.max_match_length


_CLASS_OF_KIND: Mapping[ExtensionType, Any] = {
    "pre": Pre,
    "validator": Validator,
    "provider": Provider,
    "post": Post,
}

Handler = Callable[[ExtensionRequest, Any], Awaitable[Any]]
Decorator = Callable[[Handler], Extension[Any, Any]]


@overload
def pre(function: Handler) -> Extension[Any, Any]: ...
@overload
def pre(*, name: str | None = None, version: str = "0.1.0") -> Decorator: ...
def pre(function: Handler | None = None, *, name: str | None = None, version: str = "0.1.0") -> Any:
    """Makes an async function ``(request, config)`` a pre step; it returns a Patch, or None."""
    return _decorated("pre", function, name, version)


@overload
def validator(function: Handler) -> Extension[Any, Any]: ...
@overload
def validator(*, name: str | None = None, version: str = "0.1.0") -> Decorator: ...
def validator(function: Handler | None = None, *, name: str | None = None, version: str = "0.1.0") -> Any:
    """Makes an async function ``(request, config)`` a validator; it returns a Verdict."""
    return _decorated("validator", function, name, version)


@overload
def provider(function: Handler) -> Extension[Any, Any]: ...
@overload
def provider(*, name: str | None = None, version: str = "0.1.0") -> Decorator: ...
def provider(function: Handler | None = None, *, name: str | None = None, version: str = "0.1.0") -> Any:
    """Makes an async function ``(request, config)`` a provider; it returns a ProviderReply."""
    return _decorated("provider", function, name, version)


@overload
def post(function: Handler) -> Extension[Any, Any]: ...
@overload
def post(
    *, name: str | None = None, version: str = "0.1.0", max_match_length: int | None = None
) -> Decorator: ...
def post(
    function: Handler | None = None,
    *,
    name: str | None = None,
    version: str = "0.1.0",
    max_match_length: int | None = None,
) -> Any:
    """Makes an async function ``(request, config)`` a post step; it returns a Patch, or None.

    ``max_match_length``: see :class:`Post`.
    """
    return _decorated("post", function, name, version, max_match_length=max_match_length)


def _decorated(
    kind: ExtensionType, function: Handler | None, name: str | None, version: str, **attributes: Any
) -> Any:
    def decorate(handler: Handler) -> Extension[Any, Any]:
        made = from_function(kind, handler, name=name, version=version)
        for attribute, value in attributes.items():
            setattr(made, attribute, value)
        return made

    return decorate if function is None else decorate(function)


def from_function(
    kind: ExtensionType, function: Handler, *, name: str | None = None, version: str = "0.1.0"
) -> Extension[Any, Any]:
    """An extension around ``function``: what the decorators do.

    Its name is the function's, its description the first line of the docstring, and its configuration the
    type that the second parameter is annotated with, where that is a pydantic model. Raises
    :class:`TypeError` where the function can't be one.
    """
    shown = getattr(function, "__name__", repr(function))
    streams = kind == "provider" and inspect.isasyncgenfunction(function)
    if not streams and not inspect.iscoroutinefunction(function):
        raise TypeError(f"{shown} must be an async function: `async def {shown}(request, config)`")
    parameters = list(inspect.signature(function).parameters.values())
    if len(parameters) != 2 or any(
        p.kind not in {p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD} for p in parameters
    ):
        raise TypeError(f"{shown} must take two arguments: the request and the configuration")
    namespace = {
        "name": name or shown,
        "version": version,
        "description": (inspect.getdoc(function) or "").partition("\n")[0],
        "config_model": _config_model(function, parameters[1]),
        "handle": staticmethod(_collecting(function) if streams else function),
        "__doc__": function.__doc__,
        "__module__": function.__module__,
    }
    if streams:
        namespace["stream"] = staticmethod(function)
    made = type(shown, (_CLASS_OF_KIND[kind],), namespace)
    return cast("Extension[Any, Any]", made())


def _collecting(function: Handler) -> Handler:
    """The whole answer of a generator, for a caller that wants it in one piece."""

    async def handle(request: ExtensionRequest, config: Any) -> ProviderReply:
        parts: list[str] = []
        message: dict[str, Any] = {}
        reply = ProviderReply(output="")
        generator = cast("AsyncGenerator[StreamPart, None]", function(request, config))
        async with aclosing(generator):
            async for part in generator:
                if isinstance(part, ProviderReply):
                    reply = part
                elif isinstance(part, Delta):
                    parts.append(part.text)
                    message = merged(message, part.message or {})
                else:
                    parts.append(part)
        metadata = {**reply.metadata, "message": as_whole(message)} if message else reply.metadata
        return replace(reply, output="".join(parts) + reply.output, metadata=metadata)

    return handle


def _config_model(function: Handler, parameter: inspect.Parameter) -> type[BaseModel]:
    annotation = parameter.annotation
    if isinstance(annotation, str):
        annotation = typing.get_type_hints(function).get(parameter.name)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return AnyConfig
