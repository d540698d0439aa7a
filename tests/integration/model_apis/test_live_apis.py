"""One real call of each vendor, where a key is at hand. It costs a fraction of a cent."""

from __future__ import annotations

import os
import time

import pytest

from beamline_extensions.anthropic.extension import AnthropicProvider
from beamline_extensions.openai.extension import OpenAIProvider
from beamline_sdk import ExtensionRequest, ProviderReply, Setup

MODELS = {"openai": "gpt-4o-mini", "anthropic": "claude-haiku-4-5"}


@pytest.mark.parametrize("kind", [OpenAIProvider, AnthropicProvider], ids=["openai", "anthropic"])
async def test_a_real_model_answers_whole_and_streamed(
    kind: type[OpenAIProvider] | type[AnthropicProvider],
) -> None:
    if os.environ.get("BEAMLINE_LIVE_TESTS") != "1" or not os.environ.get(kind.key_name):
        pytest.skip(
            f"set BEAMLINE_LIVE_TESTS=1 and {kind.key_name} to make one paid call of the {kind.name} API"
        )
    provider = kind()
    await provider.initialize(Setup(kind.name))
    model = os.environ.get(f"BEAMLINE_LIVE_{kind.name.upper()}_MODEL", MODELS[kind.name])
    config = kind.config_model.model_validate({"model": model, "max_tokens": 20})
    request = ExtensionRequest(prompt="Say the word yes.", deadline=time.monotonic() + 60)
    try:
        reply = await provider.handle(request, config)  # type: ignore[arg-type]
        *parts, last = [part async for part in provider.stream(request, config)]  # type: ignore[arg-type]
    finally:
        await provider.stop()
    assert "yes" in reply.output.lower()
    assert reply.prompt_tokens > 0
    assert "yes" in "".join(part for part in parts if isinstance(part, str)).lower()
    assert isinstance(last, ProviderReply)
    assert last.completion_tokens > 0
