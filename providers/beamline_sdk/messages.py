"""The text inside chat messages, in the two shapes that clients send.

``content`` is a string, or a list of parts of which ``{"type": "text", "text": "..."}`` holds text and others
(images, audio) do not. Arguments of tool calls are JSON in a string, and text as well to whoever looks for
something in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

Message = dict[str, Any]


def texts(messages: Sequence[Message]) -> Iterator[str]:
    """Every text of every message, tool-call arguments included, in order."""
    for message in messages:
        yield from _texts_of(message.get("content"))
        calls = message.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            function = call.get("function") if isinstance(call, dict) else None
            arguments = function.get("arguments") if isinstance(function, dict) else None
            if isinstance(arguments, str):
                yield arguments


def last_user_text(messages: Sequence[Message]) -> str:
    """The text of the last message of role ``user``, its parts joined by line breaks; empty where there is
    none.
    """
    for message in reversed(messages):
        if message.get("role") == "user":
            return "\n".join(_texts_of(message.get("content")))
    return ""


def map_texts(messages: Sequence[Message], change: Callable[[str], str]) -> list[Message]:
    """Copies of ``messages`` with ``change`` applied to the text of each content; tool calls stay as they
    are.
    """
    return [_changed(message, change) for message in messages]


def _texts_of(content: object) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            if isinstance(part, dict) and isinstance(text := part.get("text"), str):
                yield text


def _changed(message: Message, change: Callable[[str], str]) -> Message:
    content = message.get("content")
    if isinstance(content, str):
        return {**message, "content": change(content)}
    if isinstance(content, list):
        parts = [
            {**part, "text": change(part["text"])}
            if isinstance(part, dict) and isinstance(part.get("text"), str)
            else part
            for part in content
        ]
        return {**message, "content": parts}
    return message
