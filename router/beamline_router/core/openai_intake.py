"""A body of ``POST /v1/chat/completions`` as a body of ``POST /v1/route``.

What decides the route is taken out: model, messages, stream. All the rest goes to the provider in
``parameters`` under its own name (tools, tool_choice, response_format, seed, user, and whatever comes after
them), so that a new parameter of the API needs no new router. The model goes there too, because a policy for
``gpt-4*`` leaves the choice to the caller. Only what the router could not honour is refused: more than one
choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from beamline_contract.errors import ErrorCode, WireError

HEADER_TENANT: Final = "x-beamline-tenant"
HEADER_ENVIRONMENT: Final = "x-beamline-environment"
_TAKEN: Final = frozenset({"messages", "stream", "stream_options"})


def chat_shape(data: object, headers: Mapping[str, str]) -> object:
    """The body for the route, or a :class:`WireError`. ``headers`` have lower-case names."""
    if not isinstance(data, dict):
        return data  # the common gate says what is wrong with it
    if not isinstance(data.get("model"), str):
        return _invalid("model must name a model", "model")
    if not isinstance(data.get("messages"), list):
        return _invalid("messages must be a list", "messages")
    choices = data.get("n")
    if choices is not None and (type(choices) is not int or choices != 1):
        return _invalid("n must be 1: there is one choice to a request", "n")
    options = data.get("stream_options")
    if not isinstance(options, dict | None):
        return _invalid("stream_options must be an object", "stream_options")
    parameters = {name: value for name, value in data.items() if name not in _TAKEN and value is not None}
    if "max_completion_tokens" in parameters:
        parameters.setdefault("max_tokens", parameters["max_completion_tokens"])
    shaped: dict[str, Any] = {
        "model": data["model"],
        "messages": data["messages"],
        "parameters": parameters,
        "stream": data.get("stream"),
        "stream_usage": (options or {}).get("include_usage") is True,
    }
    for field, header in (("tenant_id", HEADER_TENANT), ("environment", HEADER_ENVIRONMENT)):
        if header in headers:
            shaped[field] = headers[header]
    return shaped


def _invalid(message: str, field: str) -> WireError:
    return WireError.of(ErrorCode.INVALID_ARGUMENT, message, details={"field": field})
