"""Anthropic's messages: requests out of OpenAI's shape, answers and events into it.

Token counts: what the API read from or wrote to its cache is input too, so ``prompt_tokens`` is the sum that
it documents. Thinking blocks are not part of the answer and are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from beamline_contract.errors import ErrorCode
from beamline_sdk import Delta, ExtensionError, ExtensionRequest, ProviderReply
from beamline_sdk.results import StreamPart

from ..model_api.config import ModelApiConfig
from ..model_api.failures import interrupted, undecodable
from ..model_api.sdk import Asked
from .messages import converted
from .parameters import convert

FINISH: Final[Mapping[str, str]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
"""The API's stop reasons in the one vocabulary; an unknown one is ``stop``."""
SAMPLING: Final = frozenset({"temperature", "top_p", "top_k"})
OLDER_VERSION: Final = {"anthropic-version": "2023-06-01"}
"""The last API version that takes sampling parameters; the one that the SDK sends refuses them."""
_INPUT: Final = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
_MAX_COUNT: Final = 2**53


class Messages:
    """See ``sdk.Words``."""

    def asked(self, request: ExtensionRequest, config: ModelApiConfig, *, stream: bool) -> Asked:
        if request.parameters.get("n") not in {None, 1}:
            raise ExtensionError(
                ErrorCode.INVALID_ARGUMENT, "parameters.n must be 1: there is one choice to a request"
            )
        messages = request.messages
        if messages is None:
            messages = [{"role": "user", "content": request.prompt or ""}]
        system, turns = converted(messages)
        if config.system is not None:
            system.insert(0, {"type": "text", "text": config.system})
        if not turns:
            raise ExtensionError(
                ErrorCode.INVALID_ARGUMENT, "messages must hold at least one that is not empty"
            )
        body: dict[str, Any] = {
            "model": config.model_for(request.parameters.get("model")),
            "max_tokens": config.max_tokens,
            "messages": turns,
            **config.parameters,
        }
        for name in ("temperature", "top_p"):
            if (value := getattr(config, name)) is not None:
                body[name] = value
        ignored = convert(request.parameters, body, system)
        sampling = SAMPLING & body.keys()
        if sampling and getattr(config, "sampling_parameters", "send") == "ignore":
            ignored = tuple(sorted({*ignored, *sampling}))
            for name in sampling:
                del body[name]
            sampling = frozenset()
        if system:
            body["system"] = system
        if stream:
            body["stream"] = True
        return Asked(body, OLDER_VERSION if sampling else None, ignored)

    def reply(self, data: Mapping[str, Any]) -> ProviderReply:
        blocks = data.get("content")
        if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
            raise undecodable("content is not a list of blocks")
        texts = [block.get("text") for block in blocks if block.get("type") == "text"]
        if not all(isinstance(text, str) for text in texts):
            raise undecodable("a text block has no text")
        usage = Usage()
        usage.take(data.get("usage"))
        calls = [_whole_call(block) for block in blocks if block.get("type") == "tool_use"]
        metadata: dict[str, Any] = {"response_id": data["id"]} if isinstance(data.get("id"), str) else {}
        if calls:
            metadata["message"] = {"tool_calls": calls}
        return ProviderReply(
            output="".join(str(text) for text in texts),
            prompt_tokens=usage.prompt,
            completion_tokens=usage.completion,
            model=_text(data.get("model")),
            finish_reason=FINISH.get(_text(data.get("stop_reason")), "stop"),
            metadata=metadata,
        )

    def reader(self) -> EventReader:
        return EventReader()


class Usage:
    """Counts as they come: each event may say again what it knows, and the last word holds."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def take(self, usage: object) -> None:
        """Takes one ``usage``. Raises UpstreamError where it is none."""
        if usage is None:
            return
        if not isinstance(usage, dict):
            raise undecodable("usage is not an object")
        for name in (*_INPUT, "output_tokens"):
            count = usage.get(name)
            if count is None:
                continue
            if type(count) is not int or not 0 <= count <= _MAX_COUNT:
                raise undecodable("usage holds something other than counts")
            self._seen[name] = count

    @property
    def prompt(self) -> int:
        """All input tokens."""
        return sum(self._seen.get(name, 0) for name in _INPUT)

    @property
    def completion(self) -> int:
        """Output tokens."""
        return self._seen.get("output_tokens", 0)


class EventReader:
    """Reads the events of a message stream; tool calls get OpenAI's running index."""

    def __init__(self) -> None:
        self._model = ""
        self._id = ""
        self._stop: str | None = None
        self._ended = False
        self._usage = Usage()
        self._tools: dict[int, int] = {}

    def feed(self, event: object) -> list[StreamPart]:
        if not isinstance(event, dict):
            raise undecodable("an event is not an object")
        match event.get("type"):
            case "message_start":
                message = event.get("message")
                if not isinstance(message, dict):
                    raise undecodable("message_start has no message")
                self._model, self._id = _text(message.get("model")), _text(message.get("id"))
                self._usage.take(message.get("usage"))
            case "content_block_start":
                return self._start(event)
            case "content_block_delta":
                return self._delta(event)
            case "message_delta":
                delta = event.get("delta")
                if isinstance(delta, dict) and isinstance(delta.get("stop_reason"), str):
                    self._stop = delta["stop_reason"]
                self._usage.take(event.get("usage"))
            case "message_stop":
                self._ended = True
            case str():
                pass  # "new event types may be added", the API reference says
            case _:
                raise undecodable("an event has no type")
        return []

    def end(self) -> ProviderReply:
        if not self._ended:
            raise interrupted()
        return ProviderReply(
            output="",
            prompt_tokens=self._usage.prompt,
            completion_tokens=self._usage.completion,
            model=self._model,
            finish_reason=FINISH.get(self._stop or "", "stop"),
            metadata={"response_id": self._id} if self._id else {},
        )

    def _start(self, event: Mapping[str, Any]) -> list[StreamPart]:
        block, index = event.get("content_block"), event.get("index")
        if not isinstance(block, dict) or not isinstance(index, int):
            raise undecodable("content_block_start has no block")
        if block.get("type") == "tool_use":
            number = self._tools[index] = len(self._tools)
            call = _whole_call({**block, "input": {}})
            call["function"]["arguments"] = ""
            return [Delta(message={"tool_calls": [{"index": number, **call}]})]
        text = block.get("text")
        return [text] if block.get("type") == "text" and isinstance(text, str) and text else []

    def _delta(self, event: Mapping[str, Any]) -> list[StreamPart]:
        delta, index = event.get("delta"), event.get("index")
        if not isinstance(delta, dict) or not isinstance(index, int):
            raise undecodable("content_block_delta has no delta")
        if delta.get("type") == "text_delta":
            if not isinstance(delta.get("text"), str):
                raise undecodable("a text_delta has no text")
            return [delta["text"]] if delta["text"] else []
        if delta.get("type") == "input_json_delta" and index in self._tools:
            piece = delta.get("partial_json")
            if not isinstance(piece, str):
                raise undecodable("an input_json_delta has no JSON")
            call = {"index": self._tools[index], "function": {"arguments": piece}}
            return [Delta(message={"tool_calls": [call]})] if piece else []
        return []


def _whole_call(block: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(block.get("id"), str) or not isinstance(block.get("name"), str):
        raise undecodable("a tool_use block has no id or name")
    arguments = orjson.dumps(block.get("input") or {}).decode()
    return {
        "id": block["id"],
        "type": "function",
        "function": {"name": block["name"], "arguments": arguments},
    }


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
