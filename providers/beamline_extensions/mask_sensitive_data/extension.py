"""A post step that masks personal data in the provider's answer."""

from __future__ import annotations

from beamline_extensions.detectors import MAX_LENGTH, find_beside
from beamline_sdk import ExtensionRequest, Patch, Post

from .config import MaskConfig
from .masks import masked


class MaskSensitiveData(Post[MaskConfig]):
    """Replaces what the detectors find in the output."""

    name = "mask_sensitive_data"
    version = "1.0.0"
    description = "Masks e-mail addresses, phone numbers and other personal data in answers."
    config_model = MaskConfig
    max_match_length = MAX_LENGTH

    async def handle(self, request: ExtensionRequest, config: MaskConfig) -> Patch:
        output = request.output or ""
        findings = await find_beside(output, config.mask_patterns)
        if not findings:
            return Patch()
        return Patch(output=masked(output, findings, config.style))
