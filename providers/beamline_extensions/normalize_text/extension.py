"""A pre step that tidies the prompt, or the text of each message."""

from __future__ import annotations

from beamline_sdk import ExtensionRequest, Patch, Pre
from beamline_sdk.messages import map_texts

from .config import NormalizeConfig
from .text import normalized


class NormalizeText(Pre[NormalizeConfig]):
    """Unicode form, white space, control characters, case and length of what goes to the provider."""

    name = "normalize_text"
    version = "1.1.0"
    description = "Tidies prompts: Unicode form, white space, control characters, case, length."
    config_model = NormalizeConfig

    async def handle(self, request: ExtensionRequest, config: NormalizeConfig) -> Patch:
        patch = Patch()
        if request.prompt is not None:
            prompt = normalized(request.prompt, config)
            if prompt != request.prompt:
                patch.prompt = prompt
        if request.messages is not None:
            messages = map_texts(request.messages, lambda text: normalized(text, config))
            if messages != request.messages:
                patch.messages = messages
        return patch
