"""Extensions as providers: the registry keeps, checks, restarts and disposes of them like any other.

:class:`HostedExtension` is what the runtime registers: the extension's own life, without its requests, which
go the short way (:mod:`beamline_sdk.calls`). :class:`ExtensionProvider` makes an SDK provider of an extension
of kind ``provider``: the same code that answers a router answers ``make_request`` in a program without one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, ClassVar

import orjson
from pydantic import Field, SecretStr, field_validator

from beamline_contract.errors import ErrorCode

from ..config import ConfigCache, InvalidConfigError
from ..extension import Extension, Provider, Setup
from ..request import MalformedRequestError, decode
from ..results import ExtensionError, ProviderReply
from .provider import BaseProvider, ProviderConfig, ProviderKind
from .sdk import SDKConfig, SDKProvider


class HostedConfig(ProviderConfig):
    """The configuration of an extension that a registry keeps; ``settings`` is the extension's own, raw."""

    settings: dict[str, Any] = Field(default_factory=dict)


class HostedExtension(BaseProvider[HostedConfig]):
    """The life of an extension as a provider's."""

    kind: ClassVar[ProviderKind] = "sdk"
    provider_type: ClassVar[str] = "extension"
    config_model: ClassVar[type[ProviderConfig]] = HostedConfig

    def __init__(
        self,
        extension: Extension[Any, Any],
        config: HostedConfig | None = None,
        *,
        setup: Setup | None = None,
    ) -> None:
        super().__init__(config or HostedConfig(name=extension.name, version=extension.version))
        self.extension = extension
        self._setup = setup or Setup(self.config.name, self.config.settings)

    async def open(self) -> None:
        """The extension's ``initialize``."""
        await self.extension.initialize(self._setup)

    async def start(self) -> None:
        """The extension's ``start``."""
        await self.extension.start()

    async def check(self) -> str | None:
        """The extension's ``health_check``."""
        return await self.extension.health_check()

    async def stop(self) -> None:
        """The extension's ``stop``."""
        await self.extension.stop()

    async def close(self) -> None:
        """The extension's ``dispose``."""
        await self.extension.dispose()

    def get_capabilities(self) -> tuple[str, ...]:
        """Its kind, and ``stream`` where it streams."""
        return capabilities_of(self.extension)

    def metadata(self) -> Mapping[str, Any]:
        """What it is."""
        return {"type": self.extension.kind, "description": self.extension.description}


class ExtensionProviderConfig(SDKConfig):
    """As :class:`SDKConfig`, for an extension that may need no API; ``parameters`` is its configuration.

    An extension reads its key itself, from its environment or a mounted file.
    """

    api_endpoint: str = Field(default="", pattern=r"^(https?://[^\s@]+)?$", max_length=2048)
    api_key: SecretStr = SecretStr("")

    @field_validator("api_key")
    @classmethod
    def _not_empty(cls, value: SecretStr) -> SecretStr:
        return value


class ExtensionProvider(SDKProvider[ExtensionProviderConfig]):
    """An extension of kind ``provider`` behind ``make_request("chat", {"prompt": ...})``."""

    config_model: ClassVar[type[ProviderConfig]] = ExtensionProviderConfig

    def __init__(self, extension: Extension[Any, Any], config: ExtensionProviderConfig) -> None:
        super().__init__(config)
        if extension.kind != "provider":
            raise TypeError(f"{extension.name} is a {extension.kind}, not a provider")
        self._extension = extension
        self._configs: ConfigCache[Any] = ConfigCache(extension.config_model)

    async def open(self) -> None:
        """Initializes and starts the extension. Raises what it raises, such as NotReadyError."""
        self._configs.get(self.config.parameters)
        await self._extension.initialize(Setup(self.name, self.config.parameters))
        await self._extension.start()

    async def close(self) -> None:
        """Stops and disposes of the extension."""
        try:
            await self._extension.stop()
        finally:
            await self._extension.dispose()

    async def check(self) -> str | None:
        """The extension's ``health_check``."""
        return await self._extension.health_check()

    async def authenticate(self) -> bool:
        """Whether the extension is well: one that lacks its key, or whose key is refused, is not."""
        return (await self.health_check()).well

    async def send(self, operation: str, payload: Mapping[str, Any], request_id: str) -> dict[str, Any]:
        """Answers one request of the wire contract; returns the provider reply."""
        if operation != "chat":
            raise ExtensionError(ErrorCode.NOT_FOUND, f"{self.name} has no operation {operation!r}: use chat")
        began = time.monotonic()
        try:
            request = decode(orjson.dumps({"request_id": request_id, **payload}), "provider")
            config = self._configs.get(self.config.parameters if request.config is None else request.config)
        except (MalformedRequestError, InvalidConfigError, TypeError) as error:
            raise ExtensionError(ErrorCode.INVALID_ARGUMENT, str(error)) from None
        request.deadline = began + self.config.timeout_ms / 1000
        reply = await self._extension.handle(request, config)
        if not isinstance(reply, ProviderReply):
            raise ExtensionError(
                ErrorCode.INTERNAL, f"{self.name} returned no provider reply", retryable=False
            )
        return reply.to_wire(self.name, request.trace_id, (time.monotonic() - began) * 1000)

    def get_capabilities(self) -> tuple[str, ...]:
        """``chat``, and ``stream`` where it streams."""
        return ("chat", *capabilities_of(self._extension)[1:])


def capabilities_of(extension: Extension[Any, Any]) -> tuple[str, ...]:
    """What an extension can do: its kind, and ``stream``."""
    streams = isinstance(extension, Provider) and type(extension).stream is not Provider.stream
    return (extension.kind, "stream") if streams else (extension.kind,)
