"""A validator that refuses prompts by their size and by a deny list; it names the rule, never the text."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final

from beamline_sdk import ExtensionRequest, Validator, Verdict
from beamline_sdk.messages import texts

from .config import PromptGuardConfig

LONG_TEXT: Final = 16_384
"""Characters from which looking takes longer than an event loop should wait (a few milliseconds)."""


class PromptGuard(Validator[PromptGuardConfig]):
    """Limits of size first, which cost nothing; then the deny list on every text."""

    name = "prompt_guard"
    version = "1.0.0"
    description = "Refuses prompts that are too large or that hold what a deny list forbids."
    config_model = PromptGuardConfig

    async def handle(self, request: ExtensionRequest, config: PromptGuardConfig) -> Verdict:
        size = too_large(request, config)
        if size is not None:
            rule, limit, found = size
            words = f"the prompt is too large: {rule} is {limit}, found {found}"
            return _verdict(config, words, {"rule": rule, "limit": limit, "found": found})
        for text in looked_at(request, config):
            if len(text) > LONG_TEXT:
                broken = await asyncio.to_thread(config.rules.broken_by, text)
            else:
                broken = config.rules.broken_by(text)
            if broken is not None:
                return _verdict(config, f"the prompt breaks the rule {broken}", {"rule": broken})
        return Verdict.ok()


def too_large(request: ExtensionRequest, config: PromptGuardConfig) -> tuple[str, int, int] | None:
    """The first limit that the request exceeds: its name, the limit, what was found."""
    messages = request.messages or []
    if len(messages) > config.max_messages:
        return "max_messages", config.max_messages, len(messages)
    all_texts = list(request.texts())
    characters = sum(map(len, all_texts))
    if characters > config.max_characters:
        return "max_characters", config.max_characters, characters
    tokens = sum(len(text.encode()) for text in all_texts) // 4
    if tokens > config.max_tokens:
        return "max_tokens", config.max_tokens, tokens
    largest = max(
        (sum(map(len, texts([message]))) for message in messages), default=len(request.prompt or "")
    )
    if largest > config.max_message_characters:
        return "max_message_characters", config.max_message_characters, largest
    return None


def looked_at(request: ExtensionRequest, config: PromptGuardConfig) -> Iterator[str]:
    """The texts that the deny list is applied to."""
    if request.prompt is not None:
        yield request.prompt
    wanted = [
        message
        for message in request.messages or ()
        if not config.roles or message.get("role") in config.roles
    ]
    yield from texts(wanted)


def _verdict(config: PromptGuardConfig, reason: str, details: dict[str, object]) -> Verdict:
    return Verdict.reject(reason, details) if config.block_on_match else Verdict.ok(details)
