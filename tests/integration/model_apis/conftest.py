"""The providers of OpenAI and Anthropic against the fake of their API, in this process."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from beamline_extensions.anthropic.extension import AnthropicProvider
from beamline_extensions.openai.extension import OpenAIProvider
from beamline_sdk import ExtensionRequest, ProviderReply, Setup
from harness.model_api import FakeApi, fake_api

KEY = "sk-canary-0123456789abcdef"
APIS: dict[str, tuple[type[Any], str, str]] = {
    "openai": (OpenAIProvider, "/v1", "gpt-4"),
    "anthropic": (AnthropicProvider, "", "claude-3-opus-20240229"),
}


@dataclass
class Opened:
    """One provider that is ready, and what it counted."""

    provider: Any
    name: str
    model: str
    registry: CollectorRegistry

    def config(self, **settings: Any) -> Any:
        return self.provider.config_model.model_validate({"model": self.model, **settings})

    async def ask(self, prompt: str = "Hi", *, seconds: float = 20, **given: Any) -> ProviderReply:
        config = self.config(**given.pop("config", {}))
        reply: ProviderReply = await self.provider.handle(request(prompt, seconds=seconds, **given), config)
        return reply

    async def stream(self, prompt: str = "Hi", *, seconds: float = 20, **given: Any) -> list[Any]:
        config = self.config(**given.pop("config", {}))
        return [
            part async for part in self.provider.stream(request(prompt, seconds=seconds, **given), config)
        ]

    def count(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name.replace("API", self.name), labels) or 0.0


def request(prompt: str = "Hi", *, seconds: float = 20, **given: Any) -> ExtensionRequest:
    """A request with a deadline. With ``messages`` there is no prompt."""
    text = None if "messages" in given else prompt
    return ExtensionRequest(
        trace_id="t-1", tenant_id="acme", prompt=text, deadline=time.monotonic() + seconds, **given
    )


@asynccontextmanager
async def opened(name: str, api: FakeApi, **environment: str) -> AsyncIterator[Opened]:
    kind, path, model = APIS[name]
    variable = name.upper()
    registry = CollectorRegistry()
    provider = kind(
        {f"{variable}_API_KEY": KEY, f"{variable}_BASE_URL": f"{api.url}{path}", **environment},
    )
    await provider.initialize(Setup(f"{name}_x", {}, registry))
    try:
        yield Opened(provider, name, model, registry)
    finally:
        await provider.stop()


Open = Callable[..., AbstractAsyncContextManager[Opened]]


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    """The fake, running."""
    async with fake_api() as running:
        yield running


@pytest.fixture
def open_provider() -> Open:
    """``opened``, for files that can't import this one."""
    return opened


@pytest.fixture
def make_request() -> Callable[..., ExtensionRequest]:
    """``request``, likewise."""
    return request


@pytest.fixture(params=sorted(APIS))
async def asked(request: pytest.FixtureRequest, api: FakeApi) -> AsyncIterator[Opened]:
    """Each provider in turn."""
    async with opened(request.param, api) as provider:
        yield provider
