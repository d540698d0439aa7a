"""The provider `anthropic`."""

from __future__ import annotations

from typing import Final

from ..model_api.provider import ModelApiProvider
from ..model_api.sdk import Sdk, Words
from .config import AnthropicConfig
from .sdk import SDK
from .words import Messages

_WORDS: Final = Messages()


class AnthropicProvider(ModelApiProvider[AnthropicConfig]):
    """Asks Anthropic's messages."""

    name = "anthropic"
    version = "1.0.0"
    description = "Answers with Anthropic's messages."
    config_model = AnthropicConfig
    api = "anthropic"
    key_name = "ANTHROPIC_API_KEY"
    base_url_name = "ANTHROPIC_BASE_URL"
    usual_base_url = "https://api.anthropic.com"

    @property
    def sdk(self) -> Sdk:
        return SDK

    @property
    def words(self) -> Words:
        return _WORDS
