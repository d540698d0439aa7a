"""A validator that refuses prompts with personal data: it names the kinds it found, never the values."""

from __future__ import annotations

from typing import Final

from beamline_extensions.detectors import KINDS, find_beside
from beamline_sdk import ExtensionRequest, Validator, Verdict

from .config import GuardConfig

COUNTED: Final = 1_000
"""Finds of one kind in one text after which nobody needs to know how many more there are."""


class PiiGuard(Validator[GuardConfig]):
    """Looks for personal data in the prompt, or in every text of the messages and their tool calls."""

    name = "pii_guard"
    version = "1.1.0"
    description = "Refuses prompts that hold card numbers, social security numbers and other personal data."
    config_model = GuardConfig

    async def handle(self, request: ExtensionRequest, config: GuardConfig) -> Verdict:
        found = [
            finding.kind
            for text in request.texts()
            for finding in await find_beside(text, config.patterns, at_most=COUNTED)
        ]
        if not found:
            return Verdict.ok()
        kinds = sorted(set(found), key=KINDS.index)
        details = {"kinds": kinds, "count": len(found)}
        if not config.block_on_match:
            return Verdict.ok(details)
        return Verdict.reject(f"the prompt contains personal data: {', '.join(kinds)}", details)
