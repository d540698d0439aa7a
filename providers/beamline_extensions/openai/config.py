"""Configuration of the provider `openai`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ..model_api.config import ModelApiConfig

FAMILIES = ("gpt-*", "chatgpt-*", "o1*", "o3*", "o4*", "ft:*")


class OpenAIConfig(ModelApiConfig):
    """Settings of the provider `openai`."""

    models: Annotated[tuple[str, ...], Field(max_length=64)] = FAMILIES
    """Patterns (`gpt-4*`) of models that a request may choose by its parameter `model`; another wish is
    ignored, so that a fallback to this provider asks a model it has.
    """
    max_tokens_field: Literal["auto", "max_tokens", "max_completion_tokens"] = "auto"
    """The name under which the API gets `max_tokens`; `auto` takes the newer one for reasoning models."""
