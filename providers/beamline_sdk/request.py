"""What an extension is asked, and how the bytes of a message become it.

Requests are read on the hot path, thousands a second, so this is plain code over dictionaries: one pass that
checks the types an author relies on, and nothing else. What does not hold is :class:`MalformedRequestError`,
which the runtime answers with INVALID_ARGUMENT; its text names the field and never its value.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from beamline_contract.names import ExtensionType
from beamline_contract.wire import MAX_JSON_DEPTH

from . import messages as chat


class MalformedRequestError(ValueError):
    """The message is not a request of the contract. The text is safe to send back."""


@dataclass(slots=True)
class ExtensionRequest:
    """One call. Exactly what the router sent, with types an author can rely on.

    ``prompt`` or ``messages`` is set for pre, validator and provider; ``output`` and ``metadata`` for post,
    where ``part`` is None for a whole answer's text, ``window`` for a piece of a streamed one, ``end`` for
    what is left of it, and ``message`` for what stands beside the text (tool calls).
    Pre and post steps are told the ``policy`` and the ``model`` that the request asked the router for.
    ``config`` is the
    raw object: the typed one is the handler's second argument. ``deadline`` is on the clock of
    :func:`time.monotonic`.
    """

    trace_id: str = ""
    request_id: str = ""
    tenant_id: str = ""
    extension_id: str = ""
    provider_id: str = ""
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    output: str | None = None
    part: str | None = None
    usage: dict[str, Any] | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    policy: str = ""
    model: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] | None = None
    context: dict[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    attempt: int = 1
    deadline: float | None = None

    def remaining_ms(self) -> float | None:
        """Milliseconds until the deadline, 0 when it has passed, None when the caller set none."""
        if self.deadline is None:
            return None
        return max(0.0, (self.deadline - time.monotonic()) * 1000)

    def texts(self) -> Iterator[str]:
        """Every text of the input: the prompt, and what the messages say."""
        if self.prompt is not None:
            yield self.prompt
        if self.messages is not None:
            yield from chat.texts(self.messages)

    def last_user_text(self) -> str:
        """The prompt, or what the last user message says."""
        if self.prompt is not None:
            return self.prompt
        return chat.last_user_text(self.messages or ())


_FIELDS: Final[tuple[tuple[type, tuple[str, ...], str], ...]] = (
    (
        str,
        (
            "trace_id",
            "request_id",
            "tenant_id",
            "extension_id",
            "provider_id",
            "prompt",
            "output",
            "part",
            "policy",
            "model",
        ),
        "a string",
    ),
    (dict, ("parameters", "context", "config", "usage", "metadata"), "an object"),
    (list, ("messages",), "a list of objects"),
)


def decode(data: bytes, ext_type: ExtensionType) -> ExtensionRequest:
    """Reads one message. Raises :class:`MalformedRequestError`. Unknown fields are ignored."""
    try:
        raw = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise MalformedRequestError("the request is not JSON") from None
    if not isinstance(raw, dict):
        raise MalformedRequestError("the request must be a JSON object")
    # Depth is at most the number of opening brackets: most requests have too few to be worth a walk.
    if data.count(b"{") + data.count(b"[") > MAX_JSON_DEPTH and _deeper_than(raw, MAX_JSON_DEPTH):
        raise MalformedRequestError(f"the request is nested deeper than {MAX_JSON_DEPTH} levels")
    values = _checked(raw)
    if ext_type == "post":
        if "output" not in values:
            raise MalformedRequestError("output is missing: a post step needs the provider's answer")
    elif "prompt" not in values and "messages" not in values:
        raise MalformedRequestError("prompt or messages is missing")
    return ExtensionRequest(**values)


def _checked(raw: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for kind, names, words in _FIELDS:
        for name in names:
            value = raw.get(name)
            if value is not None:
                if not isinstance(value, kind):
                    raise MalformedRequestError(f"{name} must be {words}")
                values[name] = value
    messages = values.get("messages")
    if messages is not None and not all(isinstance(message, dict) for message in messages):
        raise MalformedRequestError("messages must be a list of objects")
    return values


def _deeper_than(value: object, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
        ]
        if not level:
            return False
    return any(isinstance(node, dict | list) for node in level)
