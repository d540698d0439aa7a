"""OpenAI's parameters as Anthropic's, and what has no counterpart.

Anthropic's own names pass through. A parameter that only OpenAI knows (``seed``, ``logit_bias``, ...) is left
out rather than refused, because the same request may fall back from one API to the other; the reply names it
in ``ignored_parameters``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from beamline_contract.errors import ErrorCode
from beamline_sdk import ExtensionError

NATIVE: Final = frozenset(
    {
        "cache_control", "container", "inference_geo", "metadata", "output_config", "service_tier", "speed",
        "stop_sequences", "temperature", "thinking", "top_k", "top_p",
    }
)  # fmt: skip
"""Names that mean the same in both, or are Anthropic's own."""
TAKEN: Final = frozenset(
    {
        "model", "stream", "stream_options", "n", "messages", "max_tokens", "max_completion_tokens", "stop",
        "tools", "tool_choice", "parallel_tool_calls", "response_format", "user", "reasoning_effort",
        "latency_ms", "system",
    }
)  # fmt: skip
JSON_ONLY: Final = "Answer with one JSON object and nothing else."
_CHOICES: Final = {"auto": "auto", "required": "any", "none": "none"}


def convert(
    parameters: Mapping[str, Any], body: dict[str, Any], system: list[dict[str, Any]]
) -> tuple[str, ...]:
    """Writes ``parameters`` into ``body``; may add to the system prompt. Returns what was left out.

    Raises INVALID_ARGUMENT with the field's name.
    """
    given = {name: value for name, value in parameters.items() if value is not None}
    for name in NATIVE & given.keys():
        body[name] = given[name]
    temperature = body.get("temperature")
    if isinstance(temperature, int | float) and temperature > 1:
        body["temperature"] = 1.0  # OpenAI's scale ends at 2, Anthropic's at 1
    most = given.get("max_completion_tokens", given.get("max_tokens"))
    if most is not None:
        body["max_tokens"] = most
    if "stop" in given:
        stop = given["stop"]
        body["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    if isinstance(given.get("user"), str) and "metadata" not in body:
        body["metadata"] = {"user_id": given["user"]}
    if "tools" in given:
        body["tools"] = _tools(given["tools"])
    choice = _choice(given, "tools" in body)
    if choice is not None:
        body["tool_choice"] = choice
    _format(given.get("response_format"), body, system)
    if given.get("reasoning_effort") in {"low", "medium", "high"}:
        body["output_config"] = {"effort": given["reasoning_effort"], **body.get("output_config", {})}
    return tuple(sorted(given.keys() - NATIVE - TAKEN))


def _tools(tools: object) -> list[dict[str, Any]]:
    if not isinstance(tools, list):
        raise _invalid("tools must be a list", "tools")
    return [_tool(tool, f"tools[{number}]") for number, tool in enumerate(tools)]


def _tool(tool: object, where: str) -> dict[str, Any]:
    if not isinstance(tool, dict):
        raise _invalid(f"{where} must be an object", where)
    if tool.get("type") != "function":
        if isinstance(tool.get("name"), str):
            return tool  # Anthropic's own shape
        raise _invalid(f"{where}.type must be function", f"{where}.type")
    function = tool.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise _invalid(f"{where}.function must have a name", f"{where}.function")
    made: dict[str, Any] = {
        "name": function["name"],
        "input_schema": function.get("parameters") or {"type": "object", "properties": {}},
    }
    for name, kind in (("description", str), ("strict", bool)):
        if isinstance(function.get(name), kind):
            made[name] = function[name]
    return made


def _choice(given: Mapping[str, Any], has_tools: bool) -> dict[str, Any] | None:
    wanted = given.get("tool_choice")
    choice: dict[str, Any] | None = None
    if isinstance(wanted, str):
        if wanted not in _CHOICES:
            raise _invalid("tool_choice must be auto, none, required or a function", "tool_choice")
        choice = {"type": _CHOICES[wanted]} if has_tools else None
    elif isinstance(wanted, dict):
        function = wanted.get("function")
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            choice = {"type": "tool", "name": function["name"]}
        elif isinstance(wanted.get("type"), str):
            choice = dict(wanted)
        else:
            raise _invalid("tool_choice must be auto, none, required or a function", "tool_choice")
    if given.get("parallel_tool_calls") is False and has_tools:
        choice = choice or {"type": "auto"}
        if choice["type"] != "none":
            choice["disable_parallel_tool_use"] = True
    return choice


def _format(wanted: object, body: dict[str, Any], system: list[dict[str, Any]]) -> None:
    if wanted is None:
        return
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "json_object":
        system.append({"type": "text", "text": JSON_ONLY})
    elif kind == "json_schema":
        stated = wanted.get("json_schema") if isinstance(wanted, dict) else None
        schema = stated.get("schema") if isinstance(stated, dict) else None
        if not isinstance(schema, dict):
            raise _invalid("response_format.json_schema.schema must be an object", "response_format")
        made = {"type": "json_schema", "schema": schema}
        body["output_config"] = {**body.get("output_config", {}), "format": made}
    elif kind != "text":
        raise _invalid("response_format.type must be text, json_object or json_schema", "response_format")


def _invalid(message: str, field: str) -> ExtensionError:
    return ExtensionError(ErrorCode.INVALID_ARGUMENT, f"parameters.{message}", details={"field": field})
