"""Chat messages in OpenAI's shape, as Anthropic's API takes them.

System and developer messages become the one system prompt, wherever they stood; tool results become blocks
of a user message, several in a row of one; texts that are empty are left out, because the API refuses them.
Blocks that are Anthropic's own already (``image`` with ``source``, ``document``, ``tool_result``, ...) pass.
What has no counterpart is refused with the place where it stands.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from beamline_contract.errors import ErrorCode
from beamline_sdk import ExtensionError

Block = dict[str, Any]
_NATIVE: Final = frozenset(
    {"image", "document", "tool_use", "tool_result", "thinking", "redacted_thinking", "search_result"}
)
_DATA_URL: Final = re.compile(r"data:([a-z]+/[a-z0-9.+-]+);base64,", re.IGNORECASE)
_TOOL_ID: Final = re.compile(r"[^A-Za-z0-9_-]")


def converted(messages: Sequence[Mapping[str, Any]]) -> tuple[list[Block], list[dict[str, Any]]]:
    """The blocks of the system prompt, and the messages. Raises INVALID_ARGUMENT with the field's path."""
    system: list[Block] = []
    turns: list[dict[str, Any]] = []
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        match message.get("role"):
            case "system" | "developer":
                system += _blocks(message.get("content"), where)
            case "user":
                _add(turns, "user", _blocks(message.get("content"), where))
            case "assistant":
                _add(turns, "assistant", _blocks(message.get("content"), where) + _calls(message, where))
            case "tool" | "function":
                _add(turns, "user", [_result(message, where)])
            case _:
                raise _invalid(
                    f"{where}.role must be system, developer, user, assistant or tool", f"{where}.role"
                )
    return system, turns


def _add(turns: list[dict[str, Any]], role: str, blocks: list[Block]) -> None:
    """Appends to the last turn where it is the same speaker's: the API wants results of tools together."""
    if not blocks:
        return
    if turns and turns[-1]["role"] == role:
        turns[-1]["content"] += blocks
    else:
        turns.append({"role": role, "content": blocks})


def _blocks(content: object, where: str) -> list[Block]:
    if content is None:
        return []
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content.strip() else []
    if not isinstance(content, list):
        raise _invalid(f"{where}.content must be text or a list of parts", f"{where}.content")
    blocks = (_block(part, f"{where}.content[{number}]") for number, part in enumerate(content))
    return [block for block in blocks if block is not None]


def _block(part: object, where: str) -> Block | None:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(part, dict) or not isinstance(kind, str):
        raise _invalid(f"{where} must be an object with a type", where)
    if kind in {"text", "input_text", "output_text", "refusal"}:
        text = part.get("text", part.get("refusal"))
        if not isinstance(text, str):
            raise _invalid(f"{where}.text must be text", f"{where}.text")
        block = {"type": "text", "text": text}
        if isinstance(part.get("cache_control"), dict):
            block["cache_control"] = part["cache_control"]
        return block if text.strip() else None
    if kind == "image_url":
        image = part.get("image_url")
        url = image.get("url") if isinstance(image, dict) else image
        return {"type": "image", "source": _source(url, f"{where}.image_url.url")}
    if kind == "file":
        file = part.get("file")
        data = file.get("file_data") if isinstance(file, dict) else None
        return {"type": "document", "source": _source(data, f"{where}.file.file_data")}
    if kind in _NATIVE:
        return part
    raise _invalid(f"{where}.type is nothing that this provider can send", f"{where}.type")


def _source(url: object, where: str) -> dict[str, Any]:
    if isinstance(url, str):
        data = _DATA_URL.match(url)
        if data is not None:
            return {"type": "base64", "media_type": data[1].lower(), "data": url[data.end() :]}
        if url.startswith("https://"):
            return {"type": "url", "url": url}
    raise _invalid(f"{where} must be an https:// URL or a data: URL in base64", where)


def _calls(message: Mapping[str, Any], where: str) -> list[Block]:
    calls = message.get("tool_calls")
    if calls is None:
        return []
    if not isinstance(calls, list):
        raise _invalid(f"{where}.tool_calls must be a list", f"{where}.tool_calls")
    return [_call(call, f"{where}.tool_calls[{number}]") for number, call in enumerate(calls)]


def _call(call: object, where: str) -> Block:
    function = call.get("function") if isinstance(call, dict) else None
    if (
        not isinstance(call, dict)
        or not isinstance(function, dict)
        or not isinstance(function.get("name"), str)
    ):
        raise _invalid(f"{where}.function must have a name", f"{where}.function")
    raw = function.get("arguments") or "{}"
    try:
        arguments = orjson.loads(raw) if isinstance(raw, str) else raw
    except orjson.JSONDecodeError:
        arguments = None
    if not isinstance(arguments, dict):
        raise _invalid(f"{where}.function.arguments must be a JSON object", f"{where}.function.arguments")
    return {
        "type": "tool_use",
        "id": _tool_id(call.get("id"), f"{where}.id"),
        "name": function["name"],
        "input": arguments,
    }


def _result(message: Mapping[str, Any], where: str) -> Block:
    block: Block = {
        "type": "tool_result",
        "tool_use_id": _tool_id(message.get("tool_call_id"), f"{where}.tool_call_id"),
    }
    content = message.get("content")
    if isinstance(content, str):
        block["content"] = content
    elif content is not None:
        block["content"] = _blocks(content, where)
    return block


def _tool_id(value: object, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise _invalid(f"{where} is missing", where)
    return _TOOL_ID.sub("_", value)


def _invalid(message: str, field: str) -> ExtensionError:
    return ExtensionError(ErrorCode.INVALID_ARGUMENT, message, details={"field": field})
