"""Configuration of the provider `openai_compatible`."""

from __future__ import annotations

from typing import Literal

from ..model_api.config import ModelApiConfig


class OpenAICompatibleConfig(ModelApiConfig):
    """Settings of the provider `openai_compatible`."""

    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """The name under which the endpoint gets `max_tokens`."""
    stream_usage: bool = True
    """Whether the endpoint knows `stream_options.include_usage`; without it streams count no tokens."""
