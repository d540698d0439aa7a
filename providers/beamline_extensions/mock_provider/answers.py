"""What the mock says, without waiting or drawing: pure functions of a request and a configuration."""

from __future__ import annotations

import unicodedata
from typing import Any, Final

from beamline_sdk import ExtensionRequest

from .config import MockConfig, ToolCall

ECHO_CHARACTERS: Final = 100
_ZERO_WIDTH_JOINER: Final = "\u200d"


def echo(text: str, provider_id: str, *, full: bool) -> str:
    """``Mock response to: <first 100 characters> [provider=ID]``; with ``full``, the text as it is."""
    if full:
        return text
    return f"Mock response to: {first_characters(text, ECHO_CHARACTERS)} [provider={provider_id}]"


def first_characters(text: str, limit: int) -> str:
    """The beginning of ``text``, at most ``limit`` code points, never ending inside what a reader sees as one
    character.

    A cut before a combining mark, after a joiner, or between the two halves of a flag moves back to the last
    character's beginning; one that is longer than ``limit`` by itself is cut anyway.
    """
    if len(text) <= limit:
        return text
    cut = limit
    while cut > 0 and _inside_a_character(text, cut):
        cut -= 1
    return text[: cut or limit]


def _inside_a_character(text: str, cut: int) -> bool:
    following = text[cut]
    if text[cut - 1] == _ZERO_WIDTH_JOINER or following == _ZERO_WIDTH_JOINER:
        return True
    if text[cut - 1] == "\r" and following == "\n":
        return True
    if "\U0001f3fb" <= following <= "\U0001f3ff" or "\U000e0020" <= following <= "\U000e007f":
        return True  # skin tones and tags belong to the emoji before them
    if _is_flag_half(following):
        halves = 0
        while halves < cut and _is_flag_half(text[cut - 1 - halves]):
            halves += 1
        return halves % 2 == 1
    return unicodedata.category(following) in {"Mn", "Me", "Mc"}


def _is_flag_half(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def filled(template: str, request: ExtensionRequest, provider_id: str, model: str) -> str:
    """``template`` with its names filled in; text that came in through the prompt is not looked at again."""
    values = {
        "prompt": request.last_user_text(),
        "model": model,
        "tenant_id": request.tenant_id,
        "request_id": request.request_id,
        "provider_id": provider_id,
    }
    parts = template.split("{")
    result = [parts[0]]
    for part in parts[1:]:
        name, closed, rest = part.partition("}")
        result.append(values[name] + rest if closed and name in values else "{" + part)
    return "".join(result)


def answer(request: ExtensionRequest, config: MockConfig, provider_id: str) -> str:
    """The answer of the modes echo, fixed and template; a script falls back on the echo."""
    match config.mode:
        case "fixed":
            return config.answer
        case "template":
            return filled(config.template, request, provider_id, config.model)
        case _:
            return echo(request.last_user_text(), provider_id, full=config.full_echo)


def tokens(*texts: str) -> int:
    """How many tokens the mock counts for ``texts``: their UTF-8 bytes divided by 4, rounded down."""
    return sum(len(text) if text.isascii() else len(text.encode()) for text in texts) // 4


def as_message(calls: tuple[ToolCall, ...]) -> list[dict[str, Any]]:
    """Calls of tools as a chat message holds them; the n-th has the id ``call_n``."""
    return [
        {
            "id": f"call_{number}",
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for number, call in enumerate(calls, 1)
    ]
