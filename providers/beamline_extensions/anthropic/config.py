"""Configuration of the provider `anthropic`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ..model_api.config import ModelApiConfig


class AnthropicConfig(ModelApiConfig):
    """Settings of the provider `anthropic`."""

    models: Annotated[tuple[str, ...], Field(max_length=64)] = ("claude-*",)
    """Patterns (`claude-3*`) of models that a request may choose by its parameter `model`; another wish is
    ignored, so that a fallback to this provider asks a model it has.
    """
    max_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = 4096
    """Most tokens of an answer, where the request does not say; the API wants a number."""
    sampling_parameters: Literal["send", "ignore"] = "send"
    """`temperature`, `top_p` and `top_k`: sent under API version 2023-06-01, the last that takes them, or
    left out and named in the reply's `ignored_parameters`, for models that refuse them.
    """
