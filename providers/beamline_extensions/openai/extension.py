"""The provider `openai`."""

from __future__ import annotations

from typing import Final

from ..model_api.provider import ModelApiProvider
from ..model_api.sdk import Sdk, Words
from .config import OpenAIConfig
from .sdk import SDK
from .words import ChatCompletions

_WORDS: Final = ChatCompletions()


class OpenAIProvider(ModelApiProvider[OpenAIConfig]):
    """Asks OpenAI's chat completions."""

    name = "openai"
    version = "1.0.0"
    description = "Answers with OpenAI's chat completions."
    config_model = OpenAIConfig
    api = "openai"
    key_name = "OPENAI_API_KEY"
    base_url_name = "OPENAI_BASE_URL"
    usual_base_url = "https://api.openai.com/v1"

    @property
    def sdk(self) -> Sdk:
        return SDK

    @property
    def words(self) -> Words:
        return _WORDS
