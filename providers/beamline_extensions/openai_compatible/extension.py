"""The provider `openai_compatible`: the one of OpenAI, for other endpoints."""

from __future__ import annotations

from typing import Final

from ..model_api.provider import ModelApiProvider
from ..model_api.sdk import Sdk, Words
from ..openai.sdk import FOREIGN
from ..openai.words import ChatCompletions
from .config import OpenAICompatibleConfig

_WORDS: Final = ChatCompletions()


class OpenAICompatibleProvider(ModelApiProvider[OpenAICompatibleConfig]):
    """Asks any endpoint that speaks OpenAI's chat completions."""

    name = "openai_compatible"
    version = "1.0.0"
    description = "Answers with any endpoint that speaks OpenAI's chat completions."
    config_model = OpenAICompatibleConfig
    api = "openai_compatible"
    key_name = "OPENAI_COMPATIBLE_API_KEY"
    needs_key = False
    base_url_name = "OPENAI_COMPATIBLE_BASE_URL"
    usual_base_url = None

    @property
    def sdk(self) -> Sdk:
        return FOREIGN

    @property
    def words(self) -> Words:
        return _WORDS
